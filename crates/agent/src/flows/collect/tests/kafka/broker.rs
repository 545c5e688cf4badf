//! What a broker reads, byte by byte, and what it says.

use std::{
    io::{BufReader, Read, Write},
    net::{TcpListener, TcpStream},
};

use super::*;

const PRODUCE: i16 = 0;
pub(super) const METADATA: i16 = 3;
const HANDSHAKE: i16 = 17;
const VERSIONS: i16 = 18;
const AUTHENTICATE: i16 = 36;

/// What is left of a message.
pub(super) struct Message(pub(super) Vec<u8>);

impl Message {
    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.0.split_off(length);
        std::mem::replace(&mut self.0, rest)
    }

    pub(super) fn number(&mut self, bytes: usize) -> i64 {
        let taken = self.take(bytes);
        let sign = if taken[0] & 0x80 == 0 { 0 } else { -1 };
        taken.iter().fold(sign, |number, byte| (number << 8) | i64::from(*byte))
    }

    fn varint(&mut self) -> i64 {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.take(1)[0];
            value |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
            }
        }
    }

    pub(super) fn text(&mut self) -> String {
        let length = self.number(2);
        String::from_utf8(self.take(usize::try_from(length).unwrap())).unwrap()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.number(4);
        self.take(usize::try_from(length).unwrap())
    }

    /// Bytes behind a number of variable length.
    fn field(&mut self) -> String {
        let length = self.varint();
        String::from_utf8(self.take(usize::try_from(length).unwrap())).unwrap()
    }
}

/// Bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// The items of a batch; all else in it has to be as it is.
fn items(batch: Vec<u8>) -> Vec<Numbered> {
    let mut batch = Message(batch);
    assert_eq!(batch.number(8), 0);
    assert_eq!(usize::try_from(batch.number(4)).unwrap(), batch.0.len());
    assert_eq!((batch.number(4), batch.number(1)), (-1, 2));
    let checksum = batch.number(4);
    assert_eq!(checksum & 0xFFFF_FFFF, i64::from(crc32c(&batch.0)));
    assert_eq!(batch.number(2), 0, "no compression");
    let last = batch.number(4);
    let (first, latest) = (batch.number(8), batch.number(8));
    assert_eq!((batch.number(8), batch.number(2), batch.number(4)), (-1, -1, -1), "no producer");
    assert_eq!(batch.number(4), last + 1);
    let mut items: Vec<Numbered> = Vec::new();
    for number in 0..=last {
        let length = usize::try_from(batch.varint()).unwrap();
        let mut record = Message(batch.take(length));
        assert_eq!(record.number(1), 0);
        let later = record.varint();
        assert_eq!(record.varint(), number);
        let (key, value) = (record.field(), record.field());
        let item: Numbered = serde_json::from_str(&value).unwrap();
        let (expected, kind) = match &item.item {
            Item::Flow(record) => (record.id.to_string(), "flow"),
            Item::Gap(_) | Item::Drops(_) => ("node1".to_owned(), item.item.kind()),
        };
        assert_eq!(key, expected);
        assert_eq!(first + later, item.item.at().as_millisecond());
        assert_eq!(record.varint(), 3);
        let headers = [(); 3].map(|()| record.field() + "=" + &record.field());
        assert_eq!(headers[..2], ["content-type=application/json".to_owned(), format!("record={}", item.record)]);
        assert_eq!((headers[2].as_str(), record.0.len()), (format!("type={kind}").as_str(), 0));
        items.push(item);
    }
    assert!(batch.0.is_empty());
    assert_eq!(latest, items.iter().map(|item| item.item.at().as_millisecond()).max().unwrap());
    items
}

/// A connection of the agent's to a broker.
pub(super) struct Connection<S: Read + Write> {
    stream: BufReader<S>,
    /// Of the request that was read last.
    number: Vec<u8>,
}

impl Connection<TcpStream> {
    /// The next one, which asks what there is first.
    pub(super) fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self::welcome(stream)
    }

    /// One that asks who leads a topic of that many partitions, and is told so.
    pub(super) fn metadata(listener: &TcpListener, brokers: &[&TcpListener], leaders: &[i32]) {
        let mut connection = Self::accept(listener);
        let mut request = connection.request(METADATA, 1);
        assert_eq!((request.number(4), request.text().as_str(), request.0.len()), (1, "flows", 0));
        connection.answer(&topic(brokers, leaders));
    }
}

impl<S: Read + Write> Connection<S> {
    pub(super) fn welcome(stream: S) -> Self {
        let mut connection = Self { stream: BufReader::new(stream), number: Vec::new() };
        assert!(connection.request(VERSIONS, 0).0.is_empty());
        let versions: Vec<u8> = [(PRODUCE, 3, 12), (METADATA, 0, 13), (HANDSHAKE, 0, 1), (AUTHENTICATE, 0, 2)]
            .iter()
            .flat_map(|(api, from, to)| [*api, *from, *to].map(i16::to_be_bytes).concat())
            .collect();
        connection.answer(&[&b"\0\0\0\0\0\x04"[..], &versions].concat());
        connection
    }

    /// What is asked, which has to be that.
    pub(super) fn request(&mut self, api: i16, version: i64) -> Message {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut message).unwrap();
        let mut message = Message(message);
        assert_eq!((message.number(2), message.number(2)), (i64::from(api), version));
        self.number = message.take(4);
        assert_eq!(message.text(), "podnet");
        message
    }

    pub(super) fn answer(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        self.stream.get_mut().write_all(&[&length[..], &self.number, body].concat()).unwrap();
    }

    /// The items that each partition is sent.
    pub(super) fn produced(&mut self) -> Vec<(i64, Vec<Numbered>)> {
        let mut request = self.request(PRODUCE, 3);
        assert_eq!((request.number(2), request.number(2)), (-1, -1), "no transaction, and all replicas");
        assert!(request.number(4) > 0);
        assert_eq!((request.number(4), request.text().as_str()), (1, "flows"));
        let partitions = request.number(4);
        let parts = (0..partitions).map(|_| (request.number(4), items(request.bytes()))).collect();
        assert!(request.0.is_empty());
        parts
    }

    /// What becomes of the batches of partitions.
    pub(super) fn became(&mut self, codes: &[(i32, i16)]) {
        let mut body = b"\0\0\0\x01\0\x05flows".to_vec();
        body.extend(u32::try_from(codes.len()).unwrap().to_be_bytes());
        for (partition, code) in codes {
            body.extend(partition.to_be_bytes());
            body.extend(code.to_be_bytes());
            body.extend([0; 16]);
        }
        body.extend([0; 4]);
        self.answer(&body);
    }

    /// The mechanism that is asked for is not known; these are.
    pub(super) fn knows(&mut self, asked: &str, known: &[&str]) {
        let mut request = self.request(HANDSHAKE, 1);
        assert_eq!((request.text().as_str(), request.0.len()), (asked, 0));
        let code: u8 = if known.contains(&asked) { 0 } else { 33 };
        let mut body = vec![0, code];
        body.extend(u32::try_from(known.len()).unwrap().to_be_bytes());
        for name in known {
            body.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            body.extend(name.as_bytes());
        }
        self.answer(&body);
    }

    /// A message of the mechanism.
    pub(super) fn told(&mut self) -> String {
        let mut request = self.request(AUTHENTICATE, 0);
        let message = request.bytes();
        assert!(request.0.is_empty());
        String::from_utf8(message).unwrap()
    }

    pub(super) fn say(&mut self, message: &str) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        self.answer(&[&b"\0\0\xff\xff"[..], &length, message.as_bytes()].concat());
    }

    /// That nothing comes any more.
    pub(super) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }
}

/// Brokers 1, 2, … at these ports, and which of them leads each partition; -1: none.
pub(super) fn topic(brokers: &[&TcpListener], leaders: &[i32]) -> Vec<u8> {
    let mut body = u32::try_from(brokers.len()).unwrap().to_be_bytes().to_vec();
    for (id, broker) in (1_i32..).zip(brokers) {
        body.extend(id.to_be_bytes());
        body.extend(b"\0\x09127.0.0.1");
        body.extend(i32::from(broker.local_addr().unwrap().port()).to_be_bytes());
        body.extend(b"\xff\xff");
    }
    body.extend(b"\0\0\0\x01\0\0\0\x01\0\0\0\x05flows\0");
    body.extend(u32::try_from(leaders.len()).unwrap().to_be_bytes());
    for (partition, leader) in (0_i32..).zip(leaders) {
        body.extend(if *leader < 0 { [0, 5] } else { [0, 0] });
        body.extend(partition.to_be_bytes());
        body.extend(leader.to_be_bytes());
        body.extend(b"\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01");
    }
    body
}
