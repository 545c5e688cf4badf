use proptest::prelude::*;

use super::*;

fn capture() -> Vec<Block> {
    let addrs = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let interface = Interface {
        name: "shop/web eth0".into(),
        description: "pod".into(),
        addrs: addrs.clone(),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        snap: 96,
        filter: Some("tcp port 80".into()),
    };
    let packet = |number: u8| Packet {
        interface: 0,
        at: 1_700_000_000_123_456_789,
        length: 1500,
        outbound: number % 2 == 1,
        bytes: vec![number; number.into()],
    };
    vec![
        Block::Section { program: "podnet".into(), comment: "a capture".into() },
        Block::Interface(interface),
        Block::Interface(Interface { snap: 96, ..Interface::default() }),
        Block::Names(addrs.into_iter().map(|addr| (addr, "web.shop".to_owned())).collect()),
        Block::Packet(packet(5)),
        Block::Packet(packet(8)),
        Block::Statistics(Statistics { interface: 1, at: u64::MAX, received: 1 << 40, dropped: 7 }),
    ]
}

fn written(blocks: &[Block]) -> Vec<u8> {
    let mut bytes = Vec::new();
    blocks.iter().for_each(|block| block.write(&mut bytes));
    bytes
}

#[test]
fn a_capture_is_read_as_it_was_written_whatever_pieces_it_comes_in() {
    let bytes = written(&capture());
    for piece in [1, 3, 64, bytes.len()] {
        let (mut reader, mut blocks) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.push(piece);
            while let Some(block) = reader.block().unwrap() {
                blocks.push(block);
            }
        }
        assert_eq!(blocks, capture());
        assert!(piece == bytes.len() || reader.bytes.len() < 200, "what was read is kept");
    }
}

#[test]
fn blocks_stand_as_the_format_has_them() {
    let bytes = written(&capture()[4..5]);
    assert_eq!(bytes.len() % 4, 0);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let length = u32::try_from(bytes.len()).unwrap();
    assert_eq!((word(0), word(4), word(bytes.len() - 4)), (6, length, length));
    // Interface, time, what is kept, what it was; 5 bytes, filled up to 8; the flags' option: outbound.
    let at = (u64::from(word(12)) << 32) | u64::from(word(16));
    assert_eq!((word(8), at, word(20), word(24)), (0, 1_700_000_000_123_456_789, 5, 1500));
    assert_eq!((&bytes[28..36], word(36), word(40), word(44)), (&[5, 5, 5, 5, 5, 0, 0, 0][..], 2 | 4 << 16, 2, 0));
}

#[test]
fn what_is_no_capture_is_refused_and_what_is_not_known_is_passed_over() {
    let next = |bytes: &[u8]| {
        let mut reader = Reader::default();
        reader.push(bytes);
        reader.block()
    };
    assert_eq!(next(&written(&capture()[1..2])), Err(Wrong::NotPcapng));
    let mut big_endian = written(&capture()[..1]);
    big_endian[8..12].reverse();
    assert_eq!(next(&big_endian), Err(Wrong::NotPcapng));
    assert_eq!(next(b"HTTP/1.1 200 OK\r\n"), Err(Wrong::Length { kind: 0x5054_5448, length: 0x312e_312f }));
    let mut reader = Reader::default();
    reader.push(&written(&capture()[..1]));
    framed(&mut reader.bytes, 10, |out| out.extend([1; 8]));
    let mut cut = Vec::new();
    framed(&mut cut, PACKET, |out| out.extend([0; 16]));
    reader.push(&written(&capture()[4..5]));
    reader.push(&cut);
    assert!(matches!(reader.block(), Ok(Some(Block::Section { .. }))));
    assert!(matches!(reader.block(), Ok(Some(Block::Packet(_)))));
    assert_eq!(reader.block(), Err(Wrong::Cut { kind: PACKET }));
}

proptest! {
    #[test]
    fn nothing_that_comes_ends_the_reader_otherwise_than_with_an_error(
        kind in prop_oneof![Just(1_u32), Just(4), Just(5), Just(6), Just(SECTION)],
        body in prop::collection::vec(any::<u8>(), 0..80)
    ) {
        let mut bytes = written(&capture()[..1]);
        let mut body = body;
        body.truncate(body.len() / 4 * 4);
        framed(&mut bytes, kind, |out| out.extend(&body));
        let mut reader = Reader::default();
        reader.push(&bytes);
        while let Ok(Some(_)) = reader.block() {}
    }
}
