//! A connection to one broker, on which one thing is asked after the other.

use futures::future::BoxFuture;
use podnet_flow::export::kafka::{self, Api, Code};
use uuid::Uuid;

use super::scram::{Hash, Scram};
use crate::flows::collect::{SendError, line::Line, target::Place};

/// The mechanism that says the password itself (RFC 4616).
const PLAIN: &str = "PLAIN";

/// Who we are.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
    /// Nobody between hears what is said.
    pub(super) is_secure: bool,
}

/// By what a broker believes who we are (KIP-84 has SCRAM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Scram(Hash),
    Plain,
}

impl Mechanism {
    /// The best first.
    const ALL: [(Self, &'static str); 3] = [
        (Self::Scram(Hash::Sha512), "SCRAM-SHA-512"),
        (Self::Scram(Hash::Sha256), "SCRAM-SHA-256"),
        (Self::Plain, PLAIN),
    ];

    /// The best that a broker knows. The password itself is said where nobody else hears it: whoever stands between could say that the broker knows
    /// nothing better.
    fn best(known: &[String], login: &Login) -> Option<(Self, &'static str)> {
        let may_be = |mechanism: &Self| login.is_secure || *mechanism != Self::Plain;
        Self::ALL.into_iter().find(|(mechanism, name)| may_be(mechanism) && known.iter().any(|known| known == name))
    }
}

pub(super) struct Session {
    line: Line,
    heard: Vec<u8>,
    /// The number of what is asked next.
    number: i32,
}

impl Session {
    /// A connection to a broker that knows what will be asked, and who we are.
    pub(super) async fn begin(place: &Place, login: Option<&Login>) -> Result<Self, SendError> {
        let mut session = Self::open(place, login.is_some()).await?;
        let Some(login) = login else { return Ok(session) };
        let [(mut mechanism, mut name), ..] = Mechanism::ALL;
        if let Some(known) = session.handshake(name).await? {
            // The broker ends the connection then.
            (mechanism, name) = Mechanism::best(&known, login).ok_or_else(|| {
                let remedy = "SCRAM-SHA-256 or SCRAM-SHA-512 is needed, or PLAIN over kafka+tls://";
                SendError::Away(format!("the broker knows {} alone: {remedy}", known.join(", ")))
            })?;
            session = Self::open(place, true).await?;
            if session.handshake(name).await?.is_some() {
                return Err(SendError::Away(format!("the broker does not know {name} any more")));
            }
        }
        session.authenticate(mechanism, login).await?;
        Ok(session)
    }

    async fn open(place: &Place, has_login: bool) -> Result<Self, SendError> {
        let mut session = Self { line: Line::usable(None, place).await?, heard: Vec::new(), number: 0 };
        let answer = session.ask(kafka::ask_versions).await?;
        let all = [Api::Produce, Api::Metadata, Api::SaslHandshake, Api::SaslAuthenticate];
        let needed = if has_login { &all[..] } else { &all[..2] };
        match kafka::lacking(&answer, needed)? {
            None => Ok(session),
            Some(api) => Err(SendError::Away(format!("the broker does not do {api}: Kafka 1.0 and later does"))),
        }
    }

    /// Whether the other side still has it.
    pub(super) fn is_usable(&self) -> bool {
        self.line.is_usable()
    }

    /// Asks for something, by a number. What is answered to that.
    pub(super) fn ask(&mut self, request: impl FnOnce(i32) -> Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SendError>> {
        self.number = self.number.wrapping_add(1);
        let bytes = request(self.number);
        Box::pin(async move {
            self.line.write(&bytes).await?;
            loop {
                if let Some(answer) = kafka::answer(&self.heard)? {
                    let (number, body, length) = (answer.number, answer.body.to_vec(), answer.length);
                    self.heard.drain(..length);
                    // One thing is asked after the other: there is no other answer.
                    let wrong = || SendError::Away("the broker answers what was not asked".to_owned());
                    return if number == self.number { Ok(body) } else { Err(wrong()) };
                }
                self.line.read(&mut self.heard).await?;
            }
        })
    }

    /// None where the broker knows the mechanism, else those that it knows.
    async fn handshake(&mut self, mechanism: &str) -> Result<Option<Vec<String>>, SendError> {
        let answer = self.ask(|number| kafka::ask_handshake(number, mechanism)).await?;
        match kafka::handshake(&answer)? {
            (Code::NONE, _) => Ok(None),
            (Code::UNSUPPORTED_SASL_MECHANISM, known) => Ok(Some(known)),
            (code, _) => Err(SendError::Away(format!("the broker does not ask who we are: {code}"))),
        }
    }

    async fn authenticate(&mut self, mechanism: Mechanism, login: &Login) -> Result<(), SendError> {
        let Login { user, password, .. } = login;
        let Mechanism::Scram(hash) = mechanism else {
            return self.tell(format!("\0{user}\0{password}").as_bytes()).await.map(drop);
        };
        let scram = Scram::new(hash, user, &Uuid::new_v4().simple().to_string());
        let challenge = self.tell(scram.first().as_bytes()).await?;
        let refused = |why: String| SendError::Away(format!("the broker cannot be believed: {why}"));
        let proof = scram.proof(password, &challenge).map_err(|error| refused(error.to_string()))?;
        let signature = self.tell(proof.message.as_bytes()).await?;
        if proof.is_signed(&signature) { Ok(()) } else { Err(refused("it does not know the password".to_owned())) }
    }

    /// A message of the mechanism, and the answer to it.
    async fn tell(&mut self, message: &[u8]) -> Result<Vec<u8>, SendError> {
        let answer = self.ask(|number| kafka::ask_authenticate(number, message)).await?;
        let said = kafka::authenticated(&answer)?;
        match said.code {
            Code::NONE => Ok(said.message),
            code => Err(SendError::Away(format!("the broker does not let this user in: {code} {}", said.why))),
        }
    }
}
