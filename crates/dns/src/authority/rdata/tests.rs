use super::{text::Word, *};

fn words(text: &str) -> Vec<Word<'_>> {
    let word = |text| Word { text: std::borrow::Cow::Borrowed(text), quoted: false, glued: false, at: 0, line: 1 };
    text.split(' ').filter(|word| !word.is_empty()).map(word).collect()
}

fn data(rtype: &str, text: &str) -> Result<Vec<u8>, BadData> {
    parse(type_named(rtype).unwrap(), Words::new(&words(text), b"\x07example\x00"))
}

#[test]
fn rfc1035_5_1_data_is_read_and_written_as_text() {
    let table = [
        ("A", "192.0.2.1", "192.0.2.1"),
        ("AAAA", "2001:DB8::1", "2001:db8::1"),
        ("NS", "Ns1", "Ns1.example."),
        ("MX", "10 @", "10 example."),
        ("SOA", "ns1 host\\.master 7 1h 15m 1w 5", "ns1.example. host\\.master.example. 7 3600 900 604800 5"),
        ("TXT", "a\\\"b c\\032d", "\"a\\\"b\" \"c d\""),
        ("SRV", "0 5 8080 web.other.", "0 5 8080 web.other."),
        ("CAA", "0 issue ca.example", "0 \"issue\" \"ca.example\""),
        (
            "DS",
            "60485 RSASHA1 1 2BB183AF5F22588179A53B0A 98631FAD1A292118",
            "60485 5 1 2bb183af5f22588179a53b0a98631fad1a292118",
        ),
        ("NSEC", "host MX A TYPE1234 RRSIG NSEC", "host.example. A MX RRSIG NSEC TYPE1234"),
        ("NSEC3PARAM", "1 0 0 -", "1 0 0 -"),
        (
            "NSEC3",
            "1 1 12 aabbccdd 2t7b4g4vsa5smi47k61mv5bv1a22bojr A",
            "1 1 12 aabbccdd 2t7b4g4vsa5smi47k61mv5bv1a22bojr A",
        ),
        ("EUI48", "00-00-5e-00-53-2a", "00-00-5e-00-53-2a"),
        ("NID", "10 0014:4fff:ff20:ee64", "10 14:4fff:ff20:ee64"),
        ("HTTPS", "1 . alpn=h2,h3 port=8443", "1 . alpn=h2,h3 port=8443"),
        ("HTTPS", "0 svc", "0 svc.example."),
        (
            "SVCB",
            "16 a. key65333=ex mandatory=port,alpn port=9 alpn=zz",
            "16 a. mandatory=alpn,port alpn=zz port=9 key65333=\"ex\"",
        ),
        (
            "SVCB",
            "1 . ipv6hint=::1,2001:db8::2 no-default-alpn alpn=h2 ipv4hint=192.0.2.1 ech=AAAA",
            "1 . alpn=h2 no-default-alpn ipv4hint=192.0.2.1 ech=AAAA ipv6hint=::1,2001:db8::2",
        ),
        ("SVCB", "1 . alpn=f\\\\\\\\oo\\\\,bar,h2", "1 . key1=\"\\008f\\\\oo,bar\\002h2\""),
        ("LOC", "42 21 54 N 71 06 18 W -24m 30m", "42 21 54.000 N 71 6 18.000 W -24.00m 30.00m 10000.00m 10.00m"),
        ("LOC", "52 N 4.5 E 10", ""),
        ("LOC", "90 S 180 00 0.5 E 1", ""),
        ("LOC", "0 N 0 1 0.5 E 1.23m 0 0.05m 90000000m", "0 0 0.000 N 0 1 0.500 E 1.23m 0.00m 0.05m 90000000.00m"),
        ("APL", "1:192.168.32.0/21 !1:192.168.38.0/28 2:ff00::/8", "1:192.168.32.0/21 !1:192.168.38.0/28 2:ff00::/8"),
        ("APL", "1:ff00::/8", ""),
        ("IPSECKEY", "10 1 2 192.0.2.38 AQNRU3mG", "10 1 2 192.0.2.38 AQNRU3mG"),
        ("IPSECKEY", "10 3 2 gw AQNRU3mG", "10 3 2 gw.example. AQNRU3mG"),
        ("IPSECKEY", "10 0 2 . AQNRU3mG", "10 0 2 . AQNRU3mG"),
        ("IPSECKEY", "10 2 2 192.0.2.1 AQNRU3mG", ""),
        ("URI", "10 1 http://a.example/", "10 1 \"http://a.example/\""),
    ];
    for (rtype, text, printed) in table {
        if printed.is_empty() {
            assert!(data(rtype, text).is_err(), "{rtype} {text}");
            continue;
        }
        let read = data(rtype, text).unwrap_or_else(|fault| panic!("{rtype} {text}: {fault:?}"));
        assert_eq!(print(type_named(rtype).unwrap(), &read), printed);
        // TXT's quotes are the lexer's matter.
        if !printed.contains('"') {
            assert_eq!(data(rtype, printed).unwrap(), read, "{rtype} {printed}");
        }
    }
}

#[test]
fn rfc3597_5_unknown_data_is_read_and_written_and_known_data_has_to_be_right() {
    assert_eq!(data("TYPE731", "\\# 6 abcd ef012345").unwrap(), [0xab, 0xcd, 0xef, 1, 0x23, 0x45]);
    assert_eq!(print(731, &[0xab, 0xcd]), "\\# 2 abcd");
    assert_eq!(data("TYPE62347", "\\# 0").unwrap(), b"");
    assert_eq!(print(62_347, &[]), "\\# 0");
    assert_eq!(data("A", "\\# 4 0A000001").unwrap(), [10, 0, 0, 1]);
    assert!(matches!(data("A", "\\# 3 0A0000"), Err(BadData::Value { .. })));
    assert!(matches!(data("TYPE731", "\\# 3 0A00"), Err(BadData::Value { .. })));
    assert!(matches!(data("TYPE731", "x"), Err(BadData::Value { word: 0, .. })));
    // Data that is no SOA is still written so that it can be read.
    assert_eq!(print(6, &[0]), "\\# 1 00");
}

#[test]
fn faults_say_which_word_is_wrong() {
    assert_eq!(data("MX", "70000 a"), Err(BadData::Value { word: 0, what: "a number", allowed: "0 to 65535" }));
    assert_eq!(data("MX", "7 a..b"), Err(BadData::Name { word: 1, reason: crate::name::BadName::EmptyLabel }));
    assert_eq!(data("MX", "7"), Err(BadData::Missing { what: "a name" }));
    assert_eq!(data("A", "192.0.2.1 x"), Err(BadData::Extra { word: 1 }));
    assert!(matches!(data("TXT", &"x".repeat(256)), Err(BadData::Value { word: 0, .. })));
    assert!(matches!(data("HTTPS", "1 . port=x"), Err(BadData::Value { .. })));
    assert!(matches!(data("A", "+1.2.3.4"), Err(BadData::Value { .. })));
    // RFC 9460 §D.3: failures.
    for params in [
        "key123=abc key123=def",
        "mandatory",
        "alpn",
        "port",
        "ipv4hint",
        "no-default-alpn=abc",
        "mandatory=key123",
        "mandatory=mandatory",
        "mandatory=port,port port=1",
    ] {
        assert!(data("SVCB", &format!("1 foo.example.com. {params}")).is_err(), "{params}");
    }
}

#[test]
fn periods_have_units_and_bounds() {
    for (text, seconds) in [("0", Some(0)), ("1h30m", Some(5400)), ("1W2D", Some(777_600)), ("90", Some(90))] {
        assert_eq!(period(text), seconds);
    }
    for text in ["", "h", "1x", "-1", "4294967296", "99999999999999999999", "1h-"] {
        assert_eq!(period(text), None, "{text}");
    }
}

#[test]
fn rfc4034_3_2_times_are_dates_or_seconds() {
    let rrsig = "A 5 3 86400 20030322173103 1046539863 2642 example.com. AAAA";
    let read = data("RRSIG", rrsig).unwrap();
    assert_eq!(u32::from_be_bytes(read[8..12].try_into().unwrap()), 1_048_354_263);
    assert_eq!(u32::from_be_bytes(read[12..16].try_into().unwrap()), 1_046_539_863);
}

#[test]
fn rfc3597_4_names_in_messages_are_spelled_out() {
    let mut message = b"............".to_vec();
    message.extend_from_slice(b"\x03Foo\x03com\x00");
    let start = message.len();
    message.extend_from_slice(b"\x00\x0a\x02mx\xc0\x0c");
    let end = message.len();
    assert_eq!(read(&message, start, end, 15).unwrap(), b"\x00\x0a\x02mx\x03Foo\x03com\x00");
    assert_eq!(canonical(15, b"\x00\x0a\x02mX\x03Foo\x00").as_ref(), b"\x00\x0a\x02mx\x03foo\x00");
    assert_eq!(targets(15, b"\x00\x0a\x02mX\x00"), Some(b"\x02mX\x00".as_slice()));
    // RFC 6840 §5.1: the next name of NSEC keeps its spelling.
    assert_eq!(canonical(47, b"\x01A\x00").as_ref(), b"\x01A\x00");
    // A name that runs past its data, and one that points at itself.
    assert_eq!(read(&message, start, end - 1, 15), None);
    let own = [message.as_slice(), &[0xc0, end as u8]].concat();
    assert_eq!(read(&own, end, end + 2, 2), None);
}

use proptest::strategy::Strategy as _;

proptest::proptest! {
    #[test]
    fn data_of_any_type_survives_writing_and_reading(rtype in (1_u16..300).prop_filter("types of data", |rtype| !crate::authority::record::kind::is_meta(*rtype)), bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
        if let Some(known) = read(&bytes, 0, bytes.len(), rtype).filter(|known| *known == bytes) {
            let printed = print(rtype, &known);
            let text = format!("@ 0 IN {} {printed}\n", mnemonic(rtype));
            let parsed = crate::authority::zonefile::records(&text, "example").unwrap();
            proptest::prop_assert_eq!(&parsed[0].rdata[..], &known[..], "{}", text);
        }
    }
}
