//! The records of DNSSEC, as they stand in files and in messages. The order of names (§6.1) is tested beside [`crate::authority`]'s.

use crate::{
    authority::{
        Record, rdata,
        sign::{Set, tag},
        zonefile,
    },
    message::rtype,
    name::Name,
};

/// The one record of a line of a zone file.
fn record(line: &str) -> Record {
    let records = zonefile::records(line, "example").unwrap();
    let [record] = &records[..] else { panic!("{line}") };
    record.clone()
}

/// Its data as text.
fn text(record: &Record) -> String {
    rdata::print(record.rtype, &record.rdata)
}

#[test]
fn section_2_and_appendix_b_the_example_key_and_its_tag() {
    let key = "AQOeiiR0GOMYkDshWoSKz9Xz fwJr1AYtsmx3TGkJaNXVbfi/ 2pHm822aJ5iI9BMzNXxeYCmZ DRD99WYwYqUSdjMmmAphXdvx \
               egXd/M5+X7OrzKBaMbCVdFLU Uh6DhweJBjEVv5f2wwjM9Xzc nOf+EPbtG9DMBmADjFDc2w/r ljwvFw==";
    let dnskey = record(&format!("dskey.example.com. 86400 IN DNSKEY 256 3 5 ( {key} )\n"));
    assert_eq!((dnskey.rtype, &dnskey.rdata[..4]), (48, &[1, 0, 3, 5][..]), "a zone's key, protocol 3, RSA with SHA-1");
    assert_eq!(tag(&dnskey.rdata), 60485);
    assert_eq!(text(&dnskey), format!("256 3 5 {}", key.replace(' ', "")));
}

#[test]
fn section_3_1_the_example_signature() {
    let line =
        "host.example.com. 86400 IN RRSIG A 5 3 86400 20030322173103 ( 20030220173103 2642 example.com. oJB1W6WN )\n";
    let rrsig = record(line);
    let mut expected = vec![0, 1, 5, 3];
    for number in [86_400_u32, 1_048_354_263, 1_045_762_263] {
        expected.extend_from_slice(&number.to_be_bytes());
    }
    expected.extend_from_slice(&2642_u16.to_be_bytes());
    expected.extend_from_slice(b"\x07example\x03com\0\xa0\x90\x75\x5b\xa5\x8d");
    assert_eq!((rrsig.rtype, &*rrsig.rdata), (46, &expected[..]));
    assert_eq!(text(&rrsig), "A 5 3 86400 1048354263 1045762263 2642 example.com. oJB1W6WN");
}

#[test]
fn section_4_1_2_types_stand_in_windows_without_those_that_are_empty() {
    let nsec = record("alfa.example.com. 86400 IN NSEC host.example.com. ( A MX RRSIG NSEC TYPE1234 )\n");
    let mut expected = b"\x04host\x07example\x03com\0\x00\x06\x40\x01\x00\x00\x00\x03\x04\x1b".to_vec();
    expected.extend_from_slice(&[0; 26]);
    expected.push(0x20);
    assert_eq!((nsec.rtype, &*nsec.rdata), (47, &expected[..]));
    assert_eq!(text(&nsec), "host.example.com. A MX RRSIG NSEC TYPE1234");
}

#[test]
fn section_5_the_example_digest() {
    let ds = record("dskey.example.com. 86400 IN DS 60485 5 1 ( 2BB183AF5F22588179A53B0A 98631FAD1A292118 )\n");
    assert_eq!((ds.rtype, &ds.rdata[..4], ds.rdata.len()), (43, &[0xec, 0x45, 5, 1][..], 24));
    assert_eq!(text(&ds), "60485 5 1 2bb183af5f22588179a53b0a98631fad1a292118");
}

#[test]
fn sections_6_2_and_6_3_what_is_signed_is_in_lower_case_in_order_and_each_once() {
    let owner = Name::parse("WWW.Example").unwrap();
    let data: [&[u8]; 4] = [b"\x00\x0a\x01B\x00", b"\x00\x05\x01c\x00", b"\x00\x0a\x01a\x00", b"\x00\x0a\x01b\x00"];
    let set = Set { owner: &owner, rtype: rtype::MX, ttl: 300, data: data.to_vec() };
    let one = |data: &[u8]| {
        let mut record = b"\x03www\x07example\0\x00\x0f\x00\x01\x00\x00\x01\x2c\x00\x05".to_vec();
        record.extend_from_slice(data);
        record
    };
    let expected = [one(b"\x00\x05\x01c\x00"), one(b"\x00\x0a\x01a\x00"), one(b"\x00\x0a\x01b\x00")].concat();
    assert_eq!(set.canonical(), expected);
}
