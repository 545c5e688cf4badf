//! A broker of a few lines, which says what RabbitMQ does.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
};

use super::{
    agent::{Agent, listener, wait},
    *,
};

/// Type, channel and payload of the next frame.
pub(super) fn frame(stream: &mut BufReader<TcpStream>) -> (u8, u16, Vec<u8>) {
    let mut head = [0; 7];
    stream.read_exact(&mut head).unwrap();
    let mut rest = vec![0; u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 1];
    stream.read_exact(&mut rest).unwrap();
    assert_eq!(rest.pop(), Some(0xCE));
    (head[0], u16::from_be_bytes([head[1], head[2]]), rest)
}

pub(super) fn say(stream: &mut BufReader<TcpStream>, channel: u8, class: u8, method: u8, arguments: &[u8]) {
    let size = u32::try_from(arguments.len() + 4).unwrap().to_be_bytes();
    let bytes = [&[1, 0, channel][..], &size, &[0, class, 0, method], arguments, &[0xCE]].concat();
    stream.get_mut().write_all(&bytes).unwrap();
}

/// What begins a connection, up to confirms.
fn welcome(stream: &mut BufReader<TcpStream>, credentials: &[u8]) {
    let mut header = [0; 8];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header, *b"AMQP\0\0\x09\x01");
    say(stream, 0, 10, 10, b"\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US");
    let (_, 0, start) = frame(stream) else { panic!() };
    assert!(
        start.starts_with(b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN") && start.ends_with(&[credentials, b"\x05en_US"].concat())
    );
    say(stream, 0, 10, 30, b"\x07\xff\0\0\x10\0\0\x3c");
    assert_eq!(frame(stream), (1, 0, b"\0\x0a\0\x1f\0\x01\0\0\x10\0\0\0".to_vec()));
    assert_eq!(frame(stream), (1, 0, b"\0\x0a\0\x28\x04logs\0\0".to_vec()));
    say(stream, 0, 10, 41, b"\0");
    assert_eq!(frame(stream), (1, 1, b"\0\x14\0\x0a\0".to_vec()));
    say(stream, 1, 20, 11, b"\0\0\0\0");
    assert_eq!(frame(stream), (1, 1, b"\0\x55\0\x0a\0".to_vec()));
    say(stream, 1, 85, 11, b"");
}

/// One message: the method, and the item.
fn message(stream: &mut BufReader<TcpStream>) -> (Vec<u8>, Numbered) {
    let [(1, 1, publish), (2, 1, _), (3, 1, body)] = [frame(stream), frame(stream), frame(stream)] else { panic!() };
    (publish, serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_message_has_come_when_the_broker_confirms_it_and_comes_again_when_it_does_not_or_has_no_queue_for_any() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials");
    fs::write(&credentials, "flows:secret\n").unwrap();
    let (listener, address) = listener();
    let agent = Agent::start(&format!("amqp://{address}/logs?exchange=flows&credentials={}", credentials.display()));
    let accept = || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut stream = BufReader::new(stream);
        welcome(&mut stream, b"\0\0\0\x0d\0flows\0secret");
        stream
    };
    agent.collectors.offer(&[flow(0), gap(1, 2), flow(2)]);
    let mut stream = accept();
    let [(flows, first), (gaps, second), (_, third)] = [(); 3].map(|()| message(&mut stream));
    assert_eq!([first, second, third], [flow(0), gap(1, 2), flow(2)]);
    assert_eq!(
        (&flows[..], &gaps[..]),
        (&b"\0\x3c\0\x28\0\0\x05flows\x04flow\x01"[..], &b"\0\x3c\0\x28\0\0\x05flows\x03gap\x01"[..])
    );
    say(&mut stream, 1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 2, 1]);
    // It could not keep the third one.
    say(&mut stream, 1, 60, 120, &[0, 0, 0, 0, 0, 0, 0, 3, 0]);
    let mut stream = accept();
    for item in [flow(0), gap(1, 2), flow(2)] {
        assert_eq!(message(&mut stream).1, item, "all of the batch come again");
    }
    for tag in [3, 1, 2] {
        assert_eq!(agent.metric("sent_records_total"), 0);
        say(&mut stream, 1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, tag, 0]);
    }
    wait("all have come", || agent.metric("sent_records_total") == 3);
    agent.collectors.offer(&[flow(3)]);
    assert_eq!(message(&mut stream).1, flow(3), "on the same connection");
    say(&mut stream, 1, 20, 40, b"\x01\x94\x09NOT_FOUND\0\x3c\0\x28");
    let mut stream = accept();
    assert_eq!(message(&mut stream).1, flow(3));
    say(&mut stream, 1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 1, 0]);
    wait("it has come", || agent.metric("sent_records_total") == 4);
    let unroutable = b"\x01\x38\x08NO_ROUTE\x05flows\x04flow";
    // There is no queue for the second one of these.
    agent.collectors.offer(&[flow(4), flow(5), flow(6)]);
    for item in [flow(4), flow(5), flow(6)] {
        assert_eq!(message(&mut stream).1, item);
    }
    say(&mut stream, 1, 60, 50, unroutable);
    say(&mut stream, 1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 4, 1]);
    let (_, missing) = message(&mut stream);
    assert_eq!(missing.record.to_string(), "node1/1/6/missing", "only what came back is missing");
    let Item::Gap(told) = missing.item else { panic!("no gap") };
    assert_eq!((told.flows, agent.metric("sent_records_total"), agent.metric("refused_records_total")), (1, 6, 1));
    // There is no queue for anything now.
    say(&mut stream, 1, 60, 50, unroutable);
    say(&mut stream, 1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 5, 0]);
    assert_eq!(message(&mut stream).1.record, missing.record, "it waits for one");
    say(&mut stream, 1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 6, 0]);
    wait("it has come", || agent.metric("sent_records_total") == 7);
    agent.end();
}
