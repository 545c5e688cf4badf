//! RabbitMQ, by AMQP 0-9-1: each item a message to an exchange, which has come when it is confirmed.

use std::collections::BTreeSet;

use futures::{FutureExt, future::BoxFuture};
use podnet_flow::{
    Numbered,
    export::{
        Taken,
        amqp::{self, Said},
    },
};

use super::{Collector, SendError, credentials, line::Line, target::Broker};

/// Who RabbitMQ lets in from its own machine where nobody says who they are.
const GUEST: (&str, &str) = ("guest", "guest");

pub(super) struct Amqp {
    broker: Broker,
    session: Option<Session>,
}

struct Session {
    line: Line,
    heard: Vec<u8>,
    /// The largest frame that the other side takes; 0: any.
    largest: u32,
    /// How many messages were published.
    published: u64,
}

impl Amqp {
    pub(super) const fn new(broker: Broker) -> Self {
        Self { broker, session: None }
    }

    /// What comes back as there is no queue for it is confirmed as well, behind that.
    async fn publish(&mut self, items: &[Numbered]) -> Result<Taken, SendError> {
        let mut session = match self.session.take() {
            Some(session) if session.line.is_usable() => session,
            _ => Session::begin(&self.broker).await?,
        };
        let exchange = &self.broker.exchange;
        let messages: Vec<_> = items.iter().map(|item| amqp::publish(item, exchange, session.largest)).collect();
        session.line.write(&messages.concat()).await?;
        let before = session.published;
        session.published += items.len() as u64;
        let mut unconfirmed: BTreeSet<u64> = (before + 1..=session.published).collect();
        let mut taken = Taken::default();
        while !unconfirmed.is_empty() {
            match session.next().await? {
                Said::Ack { tag, multiple: true } => unconfirmed = unconfirmed.split_off(&tag.saturating_add(1)),
                Said::Ack { tag, multiple: false } => {
                    unconfirmed.remove(&tag);
                }
                Said::Nack => return Err(SendError::Away("it could not keep a message".to_owned())),
                Said::Returned(why) => {
                    let what = "no queue has what is sent to the exchange: bind one for the keys flow and gap";
                    taken.refused += 1;
                    taken.why.get_or_insert_with(|| format!("{why}: {what} (exchange {exchange:?})"));
                }
                _ => {}
            }
        }
        self.session = Some(session);
        match taken.why {
            // Nothing is bound there yet.
            Some(why) if taken.refused >= items.len() as u64 => Err(SendError::Away(why)),
            why => Ok(Taken { why, ..taken }),
        }
    }
}

impl Session {
    async fn begin(broker: &Broker) -> Result<Self, SendError> {
        let (user, password) = user(broker)?;
        let line = Line::usable(None, &broker.place).await?;
        let mut session = Self { line, heard: Vec::new(), largest: 0, published: 0 };
        session.line.write(amqp::HEADER).await?;
        session.until(|said| *said == Said::Start).await?;
        session.line.write(&amqp::start_ok(&user, &password)).await?;
        let Said::Tune(largest) = session.until(|said| matches!(said, Said::Tune(_))).await? else {
            return Err(SendError::Away("it says no limits".to_owned()));
        };
        session.largest = largest;
        for question in [amqp::tune_ok(largest, &broker.host), amqp::open_channel(), amqp::select_confirms()] {
            session.line.write(&question).await?;
            session.until(|said| *said == Said::Done).await?;
        }
        Ok(session)
    }

    async fn until(&mut self, is_it: impl Fn(&Said) -> bool) -> Result<Said, SendError> {
        loop {
            let said = self.next().await?;
            if is_it(&said) {
                return Ok(said);
            }
        }
    }

    /// What the other side says next; an error where that is that it ends.
    async fn next(&mut self) -> Result<Said, SendError> {
        loop {
            let said = amqp::said(&self.heard).map_err(|error| SendError::Away(error.to_string()))?;
            match said {
                Some((Said::Closed(why), _)) => return Err(SendError::Away(format!("it ends the connection: {why}"))),
                Some((said, length)) => {
                    self.heard.drain(..length);
                    return Ok(said);
                }
                None => self.line.read(&mut self.heard).await?,
            }
        }
    }
}

fn user(broker: &Broker) -> Result<(String, String), SendError> {
    match &broker.credentials {
        Some(path) => credentials::user(path),
        None => Ok((GUEST.0.to_owned(), GUEST.1.to_owned())),
    }
}

impl Collector for Amqp {
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>> {
        self.publish(items).boxed()
    }
}
