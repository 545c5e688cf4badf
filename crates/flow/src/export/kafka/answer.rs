//! What brokers answer.

use std::collections::BTreeMap;

use super::{Api, Code, NotKafka};

/// The largest answer that is read: a topic's partitions have some ten bytes each, and as many for each replica.
const LARGEST: usize = 4 << 20;

/// A whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The number of what was asked.
    pub number: i32,
    /// What is said.
    pub body: &'a [u8],
    /// How many bytes it has, with what stands before it.
    pub length: usize,
}

/// The first answer of what was read. None where it is not whole yet.
///
/// # Errors
/// Where it is none.
pub fn answer(heard: &[u8]) -> Result<Option<Answer<'_>>, NotKafka> {
    let Some((length, rest)) = heard.split_first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| NotKafka)?;
    if !(4..=LARGEST).contains(&length) {
        return Err(NotKafka);
    }
    let Some(mut whole) = rest.get(..length).map(Reader) else { return Ok(None) };
    Ok(Some(Answer { number: whole.int()?, body: whole.0, length: length + 4 }))
}

/// What of that a broker does not do, of what it says it does.
///
/// # Errors
/// Where it is no such answer.
pub fn lacking(body: &[u8], needed: &[Api]) -> Result<Option<Api>, NotKafka> {
    let mut reader = Reader(body);
    if reader.code()? != Code::NONE {
        return Err(NotKafka);
    }
    let mut done = Vec::new();
    for _ in 0..reader.count()? {
        done.push((reader.short()?, reader.short()?..=reader.short()?));
    }
    let is_done = |api: &Api| done.iter().any(|(key, versions)| *key == api.key() && versions.contains(&api.version()));
    Ok(needed.iter().copied().find(|api| !is_done(api)))
}

/// Where a topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// What is wrong with it.
    pub code: Code,
    /// The brokers' hosts and ports, by their ids.
    pub brokers: BTreeMap<i32, (String, u16)>,
    /// Who leads each of its partitions, by their numbers from 0; None where nobody does at the moment.
    pub leaders: Vec<Option<i32>>,
}

/// Where the one topic is that was asked for.
///
/// # Errors
/// Where it is no such answer.
pub fn topic(body: &[u8]) -> Result<Topic, NotKafka> {
    let mut reader = Reader(body);
    let mut brokers = BTreeMap::new();
    for _ in 0..reader.count()? {
        let (id, host, port) = (reader.int()?, reader.text()?, reader.int()?);
        let _rack = reader.text()?;
        brokers.insert(id, (host, u16::try_from(port).map_err(|_| NotKafka)?));
    }
    let _controller = reader.int()?;
    if reader.count()? != 1 {
        return Err(NotKafka);
    }
    let code = reader.code()?;
    let _name = reader.text()?;
    let _is_internal = reader.byte()?;
    let mut found = BTreeMap::new();
    for _ in 0..reader.count()? {
        let (_code, partition, leader) = (reader.code()?, reader.int()?, reader.int()?);
        for _replicas in 0..2 {
            for _ in 0..reader.count()? {
                reader.int()?;
            }
        }
        found.insert(partition, Some(leader).filter(|leader| *leader >= 0));
    }
    if found.keys().zip(0..).any(|(partition, number)| *partition != number) {
        return Err(NotKafka);
    }
    Ok(Topic { code, brokers, leaders: found.into_values().collect() })
}

/// What became of the batch of each partition.
///
/// # Errors
/// Where it is no such answer.
pub fn produced(body: &[u8]) -> Result<Vec<(i32, Code)>, NotKafka> {
    let mut reader = Reader(body);
    let mut codes = Vec::new();
    for _ in 0..reader.count()? {
        let _topic = reader.text()?;
        for _ in 0..reader.count()? {
            codes.push((reader.int()?, reader.code()?));
            let (_offset, _appended) = (reader.long()?, reader.long()?);
        }
    }
    Ok(codes)
}

/// Whether a mechanism is known, and which are.
///
/// # Errors
/// Where it is no such answer.
pub fn handshake(body: &[u8]) -> Result<(Code, Vec<String>), NotKafka> {
    let mut reader = Reader(body);
    let code = reader.code()?;
    let mut mechanisms = Vec::new();
    for _ in 0..reader.count()? {
        mechanisms.push(reader.text()?);
    }
    Ok((code, mechanisms))
}

/// What the other side says to a message of a mechanism.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Whether anything is wrong.
    pub code: Code,
    /// In its words.
    pub why: String,
    /// The mechanism's own answer.
    pub message: Vec<u8>,
}

/// What the other side says to a message of a mechanism.
///
/// # Errors
/// Where it is no such answer.
pub fn authenticated(body: &[u8]) -> Result<Authenticated, NotKafka> {
    let mut reader = Reader(body);
    let (code, why) = (reader.code()?, reader.text()?);
    let length = reader.count()?;
    Ok(Authenticated { code, why, message: reader.take(length)?.to_vec() })
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], NotKafka> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(NotKafka)?;
        self.0 = rest;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], NotKafka> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(NotKafka)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, NotKafka> {
        self.bytes().map(u8::from_be_bytes)
    }

    fn short(&mut self) -> Result<i16, NotKafka> {
        self.bytes().map(i16::from_be_bytes)
    }

    fn int(&mut self) -> Result<i32, NotKafka> {
        self.bytes().map(i32::from_be_bytes)
    }

    fn long(&mut self) -> Result<i64, NotKafka> {
        self.bytes().map(i64::from_be_bytes)
    }

    fn code(&mut self) -> Result<Code, NotKafka> {
        self.short().map(Code)
    }

    /// How many of something follow; what is not there at all (-1) has none.
    fn count(&mut self) -> Result<usize, NotKafka> {
        match self.int()? {
            -1 => Ok(0),
            count => usize::try_from(count).map_err(|_| NotKafka),
        }
    }

    /// A text; one that is not there at all (-1) is empty.
    fn text(&mut self) -> Result<String, NotKafka> {
        let length = match self.short()? {
            -1 => 0,
            length => usize::try_from(length).map_err(|_| NotKafka)?,
        };
        self.take(length).map(|text| String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that begins like it and is cut off is none.
    fn whole<T>(body: &[u8], read: impl Fn(&[u8]) -> Result<T, NotKafka>) -> T {
        for cut in 0..body.len() {
            assert!(read(&body[..cut]).is_err(), "{cut}");
        }
        read(body).unwrap()
    }

    #[test]
    fn an_answer_is_waited_for_until_it_is_whole() {
        let heard = b"\0\0\0\x06\0\0\0\x07okmore";
        for cut in 0..10 {
            assert_eq!(answer(&heard[..cut]), Ok(None));
        }
        assert_eq!(answer(heard), Ok(Some(Answer { number: 7, body: b"ok", length: 10 })));
        for wrong in [&b"HTTP/1.1 400"[..], b"\xff\xff\xff\xff", b"\0\0\0\x03\0\0\0"] {
            assert_eq!(answer(wrong), Err(NotKafka));
        }
    }

    #[test]
    fn what_a_broker_is_too_old_or_too_new_for_is_named() {
        let body = b"\0\0\0\0\0\x02\0\0\0\x03\0\x0b\0\x03\0\x04\0\x0d";
        assert_eq!(whole(body, |body| lacking(body, &[Api::Produce])), None);
        assert_eq!(lacking(body, &[Api::Produce, Api::Metadata]), Ok(Some(Api::Metadata)));
        assert_eq!(lacking(body, &[Api::SaslHandshake]), Ok(Some(Api::SaslHandshake)));
        assert_eq!(lacking(b"\0\x23\0\0\0\0", &[]), Err(NotKafka));
    }

    #[test]
    fn who_leads_a_topics_partitions_is_read_in_their_order() {
        let brokers = b"\0\0\0\x02\0\0\0\x01\0\x01a\0\0\x23\x84\xff\xff\0\0\0\x07\0\x03::1\0\0\x23\x85\0\x01r";
        let head = b"\0\0\0\x01\0\0\0\x01\0\0\0\x05flows\0";
        let second = b"\0\x05\0\0\0\x01\xff\xff\xff\xff\0\0\0\0\0\0\0\0";
        let first = b"\0\0\0\0\0\0\0\0\0\x07\0\0\0\x02\0\0\0\x07\0\0\0\x01\0\0\0\x01\0\0\0\x07";
        let body = [&brokers[..], head, b"\0\0\0\x02", second, first].concat();
        let read = whole(&body, topic);
        assert_eq!(read.leaders, [Some(7), None]);
        assert_eq!(read.brokers, BTreeMap::from([(1, ("a".to_owned(), 9092)), (7, ("::1".to_owned(), 9093))]));
        assert_eq!(read.code, Code::NONE);
        // There is a second partition and no first one.
        assert_eq!(topic(&[&brokers[..], head, b"\0\0\0\x01", second].concat()), Err(NotKafka));
        // Of partitions that could never have come.
        assert_eq!(topic(&[&brokers[..], head, b"\x7f\xff\xff\xff", first].concat()), Err(NotKafka));
    }

    #[test]
    fn what_became_of_each_batch_is_read() {
        let one = |partition: u8, code: u8| [&[0, 0, 0, partition, 0, code][..], &[0; 16]].concat();
        let body = [b"\0\0\0\x01\0\x05flows\0\0\0\x02".to_vec(), one(3, 0), one(4, 6)].concat();
        assert_eq!(whole(&body, produced), [(3, Code::NONE), (4, Code(6))]);
        assert_eq!(
            produced(&[&body[..], b"\0\0\0\0"].concat()).unwrap().len(),
            2,
            "behind it stands the throttle's time"
        );
    }

    #[test]
    fn what_is_said_of_who_asks_is_read() {
        let known = whole(b"\0\x21\0\0\0\x02\0\x05PLAIN\0\x0dSCRAM-SHA-256", handshake);
        assert_eq!(known, (Code::UNSUPPORTED_SASL_MECHANISM, vec!["PLAIN".to_owned(), "SCRAM-SHA-256".to_owned()]));
        let refused = whole(b"\0\x3a\0\x02no\xff\xff\xff\xff", authenticated);
        assert_eq!((refused.code.to_string().as_str(), refused.why.as_str()), ("SASL_AUTHENTICATION_FAILED", "no"));
        assert_eq!(whole(b"\0\0\xff\xff\0\0\0\x02ok", authenticated).message, b"ok");
    }
}
