//! Kafka: each item a record in the partition that its flow has, which has come when all replicas in sync have it.
//!
//! - `session`: a connection to one broker
//! - `scram`: who we are to it, without saying the password

mod scram;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use podnet_flow::{
    Numbered, RecordId,
    export::{
        Taken,
        kafka::{self, Code, Gzip, NotKafka, Topic},
    },
};
use tokio::time::{Instant, timeout};

use self::session::{Login, Session};
use super::{
    Collector, SendError,
    courier::BATCH,
    credentials,
    target::{Brokers, Host, Place},
};

/// How long a broker may take for what it is asked, with the connection to it: two of them fit into an attempt.
const ANSWER: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 4 });
/// How long it is believed who leads which partition: as long as Kafka's own clients do (`metadata.max.age.ms`), for new partitions.
const BELIEVED: Duration = Duration::from_secs(300);
/// How often leaders are asked for anew in an attempt.
const ROUNDS: usize = 3;
/// Of how many records it is known at most that they came and others of their batch did not: further ones come again.
const KNOWN: usize = 4 * BATCH;

pub(super) struct Kafka {
    brokers: Brokers,
    /// Which of the hosts is asked next.
    next: usize,
    /// Who leads the partitions, and when that was so.
    topic: Option<(Topic, Instant)>,
    sessions: BTreeMap<i32, Session>,
    /// What came of batches that did not come as a whole.
    came: BTreeSet<RecordId>,
}

/// Why some records have not come, the worst last.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Somebody else may take them at once.
    Elsewhere(String),
    Away(String),
    Unfit(String),
}

impl From<Fault> for SendError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Elsewhere(why) | Fault::Away(why) => Self::Away(why),
            Fault::Unfit(why) => Self::Unfit(why),
        }
    }
}

impl From<NotKafka> for SendError {
    fn from(error: NotKafka) -> Self {
        Self::Away(error.to_string())
    }
}

/// What is sent to one partition.
type Part<'a> = (i32, Vec<&'a Numbered>);

impl Kafka {
    pub(super) const fn new(brokers: Brokers) -> Self {
        Self { brokers, next: 0, topic: None, sessions: BTreeMap::new(), came: BTreeSet::new() }
    }

    /// Sends what has not come yet, and again to others where leaders have moved.
    async fn produce(&mut self, items: &[Numbered]) -> Result<Taken, SendError> {
        // What is missing may be more this time, under the same id.
        self.came.retain(|id| !id.missing);
        while self.came.len() > KNOWN {
            self.came.pop_first();
        }
        let mut fault = Fault::Elsewhere(String::new());
        for _ in 0..ROUNDS {
            let left: Vec<&Numbered> = items.iter().filter(|item| !self.came.contains(&item.record)).collect();
            fault = match self.round(&left).await {
                Ok(()) => {
                    self.came.retain(|id| items.iter().all(|item| item.record != *id));
                    return Ok(Taken::default());
                }
                Err(fault) => fault,
            };
            self.topic = None;
            if !matches!(fault, Fault::Elsewhere(_)) {
                break;
            }
        }
        Err(fault.into())
    }

    /// Sends each partition its items at once.
    async fn round(&mut self, left: &[&Numbered]) -> Result<(), Fault> {
        if left.is_empty() {
            return Ok(());
        }
        let login = self.login().map_err(away)?;
        let topic = self.topic(login.as_ref()).await.map_err(away)?;
        let (shares, mut fault) = shares(&topic, left);
        let Self { brokers, sessions, came, .. } = self;
        let (brokers, login): (&Brokers, Option<&Login>) = (brokers, login.as_ref());
        let mut sends = Vec::new();
        for (leader, parts) in shares {
            let session = sessions.remove(&leader).filter(Session::is_usable);
            let place = topic.brokers.get(&leader).map(|(name, port)| Host { name: name.clone(), port: *port });
            let place = place.map(|host| brokers.place(host));
            sends.push(async move {
                let sending = send(session, place.as_ref(), login, brokers, &parts);
                let answer = timeout(ANSWER, sending).await.unwrap_or_else(|_| Err(silent()));
                (leader, parts, answer)
            });
        }
        for (leader, parts, answer) in join_all(sends).await {
            match answer {
                Ok((session, codes)) => {
                    sessions.insert(leader, session);
                    fault = fault.max(heed(&parts, &codes, came));
                }
                // A broker that is gone leads nothing any more.
                Err(SendError::Away(why)) => fault = fault.max(Some(Fault::Elsewhere(why))),
                Err(SendError::Unfit(why)) => fault = fault.max(Some(Fault::Unfit(why))),
            }
        }
        fault.map_or(Ok(()), Err)
    }

    fn login(&self) -> Result<Option<Login>, SendError> {
        let Some(path) = &self.brokers.credentials else { return Ok(None) };
        let (user, password) = credentials::user(path)?;
        Ok(Some(Login { user, password, is_secure: self.brokers.is_secure }))
    }

    /// Who leads which partition: asked of the hosts in turn, where it is not known.
    async fn topic(&mut self, login: Option<&Login>) -> Result<Topic, SendError> {
        if let Some((topic, since)) = self.topic.take().filter(|(_, since)| since.elapsed() < BELIEVED) {
            self.topic = Some((topic.clone(), since));
            return Ok(topic);
        }
        let mut failed = silent();
        for _ in 0..self.brokers.hosts.len() {
            let hosts = &self.brokers.hosts;
            let Some(host) = hosts.get(self.next % hosts.len()).cloned() else { break };
            // Also where nobody waits for the answer any more.
            self.next = self.next.wrapping_add(1);
            let asking = ask_topic(self.brokers.place(host), login, &self.brokers.topic);
            match timeout(ANSWER, asking).await.unwrap_or_else(|_| Err(silent())) {
                Ok(topic) => {
                    self.topic = Some((topic.clone(), Instant::now()));
                    return Ok(topic);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

fn away(error: SendError) -> Fault {
    match error {
        SendError::Away(why) => Fault::Away(why),
        SendError::Unfit(why) => Fault::Unfit(why),
    }
}

fn silent() -> SendError {
    SendError::Away("no broker answers in time".to_owned())
}

async fn ask_topic(place: Place, login: Option<&Login>, name: &str) -> Result<Topic, SendError> {
    let mut session = Session::begin(&place, login).await?;
    let answer = session.ask(|number| kafka::ask_topic(number, name)).await?;
    let topic = kafka::topic(&answer)?;
    if topic.code != Code::NONE {
        let remedy = "it has to be there, and to be written by this user";
        return Err(SendError::Away(format!("{} of the topic {name}: {remedy}", topic.code)));
    }
    Ok(topic)
}

/// Which broker is sent what, and whether there is none for some.
fn shares<'a>(topic: &Topic, left: &[&'a Numbered]) -> (BTreeMap<i32, Vec<Part<'a>>>, Option<Fault>) {
    let mut partitions: BTreeMap<usize, Vec<&Numbered>> = BTreeMap::new();
    for item in left.iter().copied() {
        partitions.entry(kafka::partition(item, topic.leaders.len())).or_default().push(item);
    }
    let (mut shares, mut fault) = (BTreeMap::<i32, Vec<Part<'_>>>::new(), None);
    for (partition, items) in partitions {
        match (topic.leaders.get(partition).copied().flatten(), i32::try_from(partition)) {
            (Some(leader), Ok(partition)) => shares.entry(leader).or_default().push((partition, items)),
            _ => fault = Some(Fault::Elsewhere(format!("nobody leads partition {partition}"))),
        }
    }
    (shares, fault)
}

/// Sends a broker its share, on a connection of before or another one.
async fn send(
    session: Option<Session>,
    place: Option<&Place>,
    login: Option<&Login>,
    brokers: &Brokers,
    parts: &[Part<'_>],
) -> Result<(Session, Vec<(i32, Code)>), SendError> {
    let place = place.ok_or_else(|| SendError::Away("a leader has no address".to_owned()))?;
    let mut session = match session {
        Some(session) => session,
        None => Session::begin(place, login).await?,
    };
    let (topic, gzip) = (&brokers.topic, brokers.is_compressed.then_some(compressed as Gzip));
    let batches: Vec<(i32, Vec<u8>)> =
        parts.iter().map(|(partition, items)| (*partition, kafka::batch(items, gzip))).collect();
    // The broker gives up before it is given up, and says so.
    let millis = i32::try_from(ANSWER.as_millis() / 2).unwrap_or(i32::MAX);
    let answer = session.ask(|number| kafka::produce(number, topic, &batches, millis)).await?;
    Ok((session, kafka::produced(&answer)?))
}

fn compressed(records: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Into memory nothing fails.
    let _ = encoder.write_all(records);
    encoder.finish().unwrap_or_default()
}

/// Notes what came. What is wrong with the rest, if there is any.
fn heed(parts: &[Part<'_>], codes: &[(i32, Code)], came: &mut BTreeSet<RecordId>) -> Option<Fault> {
    let mut fault = None;
    for (partition, items) in parts {
        let code = codes.iter().find(|(answered, _)| answered == partition).map(|(_, code)| *code);
        let more = match code {
            Some(Code::NONE) => {
                came.extend(items.iter().map(|item| item.record.clone()));
                continue;
            }
            Some(code) if code.is_elsewhere() => Fault::Elsewhere(format!("{code} of partition {partition}")),
            Some(code) if code.is_unfit() => Fault::Unfit(format!("{code} of partition {partition}")),
            Some(code) => Fault::Away(format!("{code} of partition {partition}")),
            None => Fault::Away(format!("nothing is said of partition {partition}")),
        };
        fault = fault.max(Some(more));
    }
    fault
}

impl Collector for Kafka {
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>> {
        self.produce(items).boxed()
    }
}
