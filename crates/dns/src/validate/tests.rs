use data_encoding::BASE32HEX_NOPAD;
use ring::digest;

use super::{
    fixture::{APEX, NOW, Tree, key, signed},
    *,
};
use crate::{
    answer::Section,
    authority::{
        Nsec3Hash, kind, nsec3_hash,
        rdata::type_bitmap,
        sign::{Set, SigningKey, Validity, rrsig},
    },
    message::{Expanded, rtype},
    name::Name,
};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A zone's keys, found as who validates finds them; an error without a reason: nobody vouches for them.
fn keys(tree: &Tree, zone: &Name, now: u32) -> Result<Vec<Key>, Option<Fault>> {
    let anchors = Anchors::read("anchors", &tree.anchors()).unwrap();
    let digests = match anchors.of(zone) {
        Some(digests) => digests.to_vec(),
        None => {
            let records = tree.records(zone, kind::DS);
            let above = parent(zone, &records).ok_or(Fault::Missing)?;
            match delegation(zone, &above, &keys(tree, &above, now)?, &records, now)?.0 {
                Delegation::Signed(digests) => digests,
                Delegation::Unsigned => return Err(None),
            }
        }
    };
    Ok(keys_of(zone, &digests, &tree.records(zone, kind::DNSKEY), now)?.0)
}

/// Checks the first set of a type; seconds for which it may be kept.
fn check(records: &[Expanded], rtype: u16, zone: &str, keys: &[Key]) -> Result<u32, Fault> {
    let first = records.iter().find(|record| record.rtype == rtype).unwrap();
    let set: Vec<&Expanded> = records.iter().filter(|one| one.rtype == rtype && one.owner == first.owner).collect();
    verify(&set, records.iter(), &name(zone), keys, NOW, &mut Effort::of_message()).map(|vouched| vouched.seconds)
}

/// What the zone `test` says of a name that is not there, and its keys.
fn denial() -> (Vec<Expanded>, Vec<Key>) {
    let tree = Tree::new();
    (tree.records(&name("b.test"), rtype::A), keys(&tree, &name("test"), NOW).unwrap())
}

/// The first record of a type among these.
fn first(records: &mut [Expanded], rtype: u16) -> &mut Expanded {
    records.iter_mut().find(|record| record.rtype == rtype).unwrap()
}

/// The signature over those of a type.
fn signature(records: &mut [Expanded], covered: u16) -> &mut Expanded {
    let covers = |record: &&mut Expanded| record.rtype == kind::RRSIG && record.rdata[..2] == covered.to_be_bytes();
    records.iter_mut().find(covers).unwrap()
}

#[test]
fn rfc4035_5_trust_leads_from_the_root_down_to_a_zone() {
    let tree = Tree::new();
    for (zone, tag) in [(".", 35019), ("test", 52134), ("sub.test", 64262)] {
        let tags: Vec<u16> = keys(&tree, &name(zone), NOW).unwrap().iter().map(Key::tag).collect();
        assert_eq!(tags, [tag], "{zone}");
    }
    assert_eq!(keys(&tree, &name("island.test"), NOW), Err(None), "that there is no DS record is proved");
}

#[test]
fn rfc4035_5_2_another_key_than_the_parent_says_is_not_believed() {
    let tree = Tree::of(&key!("rsa512"), Validity::of_zone(NOW, [0, 0]));
    assert_eq!(keys(&tree, &name("sub.test"), NOW), Err(Some(Fault::Key)));
    assert!(keys(&tree, &name("test"), NOW).is_ok());
}

#[test]
fn rfc4035_5_3_1_signatures_hold_from_their_inception_to_their_expiration() {
    let (tree, root) = (Tree::new(), name("."));
    let (from, to) = (NOW - 3 * 3600, NOW + 32 * 86_400);
    for now in [from, to] {
        assert!(keys(&tree, &root, now).is_ok());
    }
    for now in [from - 1, to + 1] {
        assert_eq!(keys(&tree, &root, now), Err(Some(Fault::Time)));
    }
    // Times are serial numbers (RFC 4034 §3.1.5): from 2038 on, too.
    let tree = Tree::of(&key!("rsa256"), Validity { inception: u32::MAX - 100, expiration: 500 });
    for (now, holds) in [(u32::MAX - 101, false), (u32::MAX - 100, true), (0, true), (500, true), (501, false)] {
        assert_eq!(keys(&tree, &root, now).is_ok(), holds, "{now}");
    }
}

#[test]
fn rfc8624_3_1_all_algorithms_that_zones_are_signed_with_are_checked_and_both_digests() {
    for key in [key!("p256"), key!("p384"), key!("ed25519"), key!("rsa256"), key!("rsa512")] {
        let zone = name("example");
        let tree = Tree(vec![signed("example", APEX, &key, Validity::of_zone(NOW, [0, 0]))]);
        let mut records = tree.records(&zone, kind::DNSKEY);
        let sha384 = digest::digest(&digest::SHA384, &[zone.wire(), key.dnskey()].concat());
        let longer = [&key.ds(&zone)[..3], &[4], sha384.as_ref()].concat();
        for ds in [key.ds(&zone), longer] {
            let digest = Digest::read(&ds).unwrap();
            assert!(digest.is_usable());
            assert!(keys_of(&zone, &[digest], &records, NOW).is_ok(), "algorithm {}", key.algorithm());
        }
        *signature(&mut records, kind::DNSKEY).rdata.last_mut().unwrap() ^= 1;
        let digest = Digest::read(&key.ds(&zone)).unwrap();
        assert_eq!(keys_of(&zone, &[digest], &records, NOW), Err(Fault::Wrong), "algorithm {}", key.algorithm());
    }
}

#[test]
fn rfc4034_6_2_the_signers_letters_may_be_of_any_case_and_nothing_else_may_be_changed() {
    let (mut records, keys) = denial();
    assert_eq!(check(&records, kind::NSEC, "test", &keys), Ok(300));
    let signature = signature(&mut records, kind::NSEC);
    signature.rdata[18..].first_chunk_mut::<6>().unwrap().make_ascii_uppercase();
    assert_eq!(check(&records, kind::NSEC, "test", &keys), Ok(300));
    let changed = first(&mut records, kind::NSEC);
    *changed.rdata.last_mut().unwrap() ^= 1;
    assert_eq!(check(&records, kind::NSEC, "test", &keys), Err(Fault::Wrong));
}

#[test]
fn rfc4035_5_3_3_what_is_checked_is_kept_for_the_least_of_its_times() {
    let (mut records, keys) = denial();
    first(&mut records, kind::NSEC).ttl = 1_000_000;
    signature(&mut records, kind::NSEC).ttl = 1_000_000;
    assert_eq!(check(&records, kind::NSEC, "test", &keys), Ok(300), "the time that is signed");
    signature(&mut records, kind::NSEC).ttl = 7;
    assert_eq!(check(&records, kind::NSEC, "test", &keys), Ok(7));
    let tree = Tree::of(&key!("rsa256"), Validity { inception: NOW, expiration: NOW + 5 });
    let records = tree.records(&name("b.test"), rtype::A);
    assert_eq!(check(&records, kind::NSEC, "test", &keys), Ok(5), "as long as the signature holds");
}

#[test]
fn rfc4035_5_3_1_a_signature_has_to_be_the_zones_own_over_this_very_set() {
    let (mut records, keys) = denial();
    assert_eq!(check(&records, kind::NSEC, ".", &keys), Err(Fault::Signer));
    assert_eq!(check(&records, kind::NSEC, "test", &[]), Err(Fault::Key));
    records.retain(|record| record.rtype != kind::RRSIG);
    assert_eq!(check(&records, kind::NSEC, "test", &keys), Err(Fault::Unsigned));
    let nothing = verify(&[], records.iter(), &name("test"), &keys, NOW, &mut Effort::of_message());
    assert_eq!(nothing.map(|vouched| vouched.seconds), Err(Fault::Missing));
}

#[test]
fn rfc4035_5_3_4_what_a_wildcard_stands_for_is_not_there_itself() {
    let tree = Tree::new();
    let keys = keys(&tree, &name("test"), NOW).unwrap();
    let made = tree.records(&name("x.w.test"), rtype::TXT);
    assert_eq!(check(&made, rtype::TXT, "test", &keys), Err(Fault::Wildcard));
    // The wildcard itself is.
    let mut own = tree.records(&name("x.w.test"), rtype::A);
    assert_eq!(first(&mut own, kind::NSEC).owner, name("*.w.test"));
    assert_eq!(check(&own, kind::NSEC, "test", &keys), Ok(300));
}

/// A key with the same tag as this one, but another one.
fn colliding(key: &SigningKey) -> Key {
    let mut data = key.dnskey().to_vec();
    data.swap(10, 12);
    let other = Key::read(&data).unwrap();
    assert!(other.tag() == key.tag() && data != key.dnskey());
    other
}

#[test]
fn cve_2023_50387_many_keys_with_one_tag_cost_no_more_than_a_few_checks() {
    let (records, own) = denial();
    let with = |others: usize| {
        let others = std::iter::repeat_n(colliding(&key!("p256")), others);
        others.chain(own.clone()).collect::<Vec<Key>>()
    };
    assert_eq!(check(&records, kind::NSEC, "test", &with(15)), Ok(300));
    assert_eq!(check(&records, kind::NSEC, "test", &with(16)), Err(Fault::Effort));
}

#[test]
fn cve_2023_50387_zones_with_more_keys_than_anybody_needs_are_not_believed() {
    let (tree, zone) = (Tree::new(), name("test"));
    let more = |records: &[Expanded], rtype: u16, count: usize| -> Vec<Expanded> {
        let one = records.iter().find(|record| record.rtype == rtype).unwrap();
        std::iter::repeat_n(one.clone(), count).chain(records.to_vec()).collect()
    };
    let digests = [Digest::read(&key!("p256").ds(&zone)).unwrap()];
    let records = more(&tree.records(&zone, kind::DNSKEY), kind::DNSKEY, 24);
    assert_eq!(keys_of(&zone, &digests, &records, NOW), Err(Fault::Effort));
    let root = keys(&tree, &name("."), NOW).unwrap();
    let told = |count| more(&tree.records(&zone, kind::DS), kind::DS, count);
    assert!(delegation(&zone, &name("."), &root, &told(11), NOW).is_ok());
    assert_eq!(delegation(&zone, &name("."), &root, &told(12), NOW), Err(Fault::Effort));
}

#[test]
fn rfc4034_2_1_1_only_keys_of_zones_that_are_not_revoked_count() {
    let data = key!("p256").dnskey().to_vec();
    let with = |at: usize, value: u8| {
        let mut data = data.clone();
        data[at] = value;
        Key::read(&data).is_some()
    };
    assert!(with(1, 0) && with(1, 1), "with and without the mark of those that a parent points to");
    assert!(!with(0, 0), "no zone's");
    assert!(!with(1, 0x81), "revoked (RFC 5011)");
    assert!(!with(2, 2), "of another protocol");
    assert!(!with(3, 5) && !with(3, 16), "of an algorithm that is not checked");
}

#[test]
fn rfc4035_5_2_where_no_ds_record_can_be_checked_it_is_as_if_there_were_none() {
    let (zone, root) = (name("test"), keys(&Tree::new(), &name("."), NOW).unwrap());
    // Signed with the root's key over other records: of another digest, of another algorithm.
    for ds in [&[0, 1, 13, 1, 7][..], &[0, 1, 5, 2, 7]] {
        let set = Set { owner: &zone, rtype: kind::DS, ttl: 60, data: vec![ds] };
        let validity = Validity::of_zone(NOW, [0, 0]);
        let made = rrsig(&key!("ed25519"), &name("."), &set, &set.canonical(), validity).unwrap();
        let record = |rtype, rdata: &[u8]| Expanded {
            section: Section::Answer,
            owner: zone.clone(),
            rtype,
            ttl: 60,
            rdata: rdata.to_vec(),
        };
        let records = [record(kind::DS, ds), record(kind::RRSIG, &made)];
        assert_eq!(delegation(&zone, &name("."), &root, &records, NOW), Ok((Delegation::Unsigned, 60)));
    }
}

#[test]
fn the_zone_whose_word_it_is_lies_above() {
    let tree = Tree::new();
    for (zone, above) in [("sub.test", Some("test")), ("island.test", Some("test")), ("test", Some("."))] {
        let zone = name(zone);
        assert_eq!(parent(&zone, &tree.records(&zone, kind::DS)), above.map(name), "{zone}");
    }
    // Without signatures it is who says where the zone begins; that may not be the zone itself.
    let mut records = tree.records(&name("island.test"), kind::DS);
    records.retain(|record| record.rtype == rtype::SOA);
    assert_eq!(parent(&name("island.test"), &records), Some(name("test")));
    assert_eq!(parent(&name("test"), &records), None);
    assert_eq!(parent(&name("island.test"), &[]), None);
}

#[test]
fn rfc6840_4_4_a_name_that_is_no_delegation_proves_nothing_of_a_zone_there() {
    let tree = Tree::new();
    let keys = keys(&tree, &name("test"), NOW).unwrap();
    for child in ["a.test", "b.test"] {
        let records = tree.records(&name(child), kind::DS);
        assert_eq!(delegation(&name(child), &name("test"), &keys, &records, NOW), Err(Fault::Missing), "{child}");
    }
}

/// An NSEC3 record of the zone `test`, with its signature.
fn nsec3(owner: Nsec3Hash, next: Nsec3Hash, flags: u8, iterations: u16, types: &[u16]) -> Vec<Expanded> {
    let owner = name("test").child(&BASE32HEX_NOPAD.encode(&owner)).unwrap();
    let bitmap = type_bitmap(types);
    let rdata = [&[1, flags][..], &iterations.to_be_bytes(), &[0, 20], &next, bitmap.as_slice()].concat();
    let set = Set { owner: &owner, rtype: kind::NSEC3, ttl: 300, data: vec![&rdata] };
    let validity = Validity::of_zone(NOW, [0, 0]);
    let made = rrsig(&key!("p256"), &name("test"), &set, &set.canonical(), validity).unwrap();
    let record = |rtype, rdata: &[u8]| Expanded {
        section: Section::Authority,
        owner: owner.clone(),
        rtype,
        ttl: 300,
        rdata: rdata.to_vec(),
    };
    vec![record(kind::NSEC3, &rdata), record(kind::RRSIG, &made)]
}

/// A span that a hash falls into, and hardly any other one.
fn around(hash: Nsec3Hash) -> (Nsec3Hash, Nsec3Hash) {
    let (mut before, mut after) = (hash, hash);
    before[0] = before[0].wrapping_sub(1);
    after[0] = after[0].wrapping_add(1);
    (before, after)
}

#[test]
fn rfc5155_8_6_delegations_that_are_not_signed_are_proved_by_hashes_or_left_out() {
    let (tree, child) = (Tree::new(), name("child.test"));
    let own = keys(&tree, &name("test"), NOW).unwrap();
    let said = |records: &[Vec<Expanded>]| delegation(&child, &name("test"), &own, &records.concat(), NOW);
    let hash = |name: &Name| nsec3_hash(name.wire(), 0, &[]);
    let (_, after) = around(hash(&child));
    let exact = |types: &[u16]| vec![nsec3(hash(&child), after, 0, 0, types)];
    assert_eq!(said(&exact(&[rtype::NS])), Ok((Delegation::Unsigned, 300)));
    assert_eq!(said(&exact(&[rtype::NS, kind::DS, kind::RRSIG])), Err(Fault::Missing), "there is a DS record");
    assert_eq!(said(&exact(&[rtype::NS, rtype::SOA, kind::RRSIG])), Err(Fault::Missing), "that is the child's own");
    assert_eq!(said(&exact(&[rtype::A, kind::RRSIG])), Err(Fault::Missing), "it is no delegation");
    let (before, after) = around(hash(&child));
    let (_, behind) = around(hash(&name("test")));
    let zone = nsec3(hash(&name("test")), behind, 0, 0, &[rtype::NS, rtype::SOA, kind::RRSIG]);
    let gap = |flags| nsec3(before, after, flags, 0, &[rtype::A]);
    assert_eq!(said(&[zone.clone(), gap(1)]), Ok((Delegation::Unsigned, 300)), "it opts out");
    assert_eq!(said(&[zone.clone(), gap(0)]), Err(Fault::Missing), "no such name is there");
    assert_eq!(said(&[gap(1)]), Err(Fault::Missing), "what is above it is not known");
    let mut forged = gap(1);
    forged[0].rdata[1] = 0;
    assert_eq!(said(&[zone, forged]), Err(Fault::Wrong));
}

#[test]
fn rfc5155_8_3_above_what_is_left_out_there_is_no_delegation_to_somebody_else() {
    let child = name("child.sub.test");
    let keys = keys(&Tree::new(), &name("test"), NOW).unwrap();
    let hash = |name: &Name| nsec3_hash(name.wire(), 0, &[]);
    let (before, after) = around(hash(&child));
    let (_, behind) = around(hash(&name("sub.test")));
    let said = |types: &[u16]| {
        let above = nsec3(hash(&name("sub.test")), behind, 0, 0, types);
        let records = [above, nsec3(before, after, 1, 0, &[rtype::A])].concat();
        delegation(&child, &name("test"), &keys, &records, NOW)
    };
    assert_eq!(said(&[rtype::A, kind::RRSIG]), Ok((Delegation::Unsigned, 300)));
    assert_eq!(said(&[rtype::NS]), Err(Fault::Missing));
    assert_eq!(said(&[kind::DNAME, kind::RRSIG]), Err(Fault::Missing));
}

#[test]
fn cve_2023_50387_no_more_than_a_few_signatures_are_looked_at_whatever_is_wrong_with_them() {
    let (records, keys) = denial();
    let with = |others: usize| {
        let mut records = records.clone();
        let mut other = signature(&mut records, kind::NSEC).clone();
        // No key has this tag.
        other.rdata[16] ^= 1;
        std::iter::repeat_n(other, others).chain(records).collect::<Vec<Expanded>>()
    };
    assert_eq!(check(&with(7), kind::NSEC, "test", &keys), Ok(300));
    assert_eq!(check(&with(8), kind::NSEC, "test", &keys), Err(Fault::Key));
}

#[test]
fn cve_2023_50868_many_iterations_are_not_made_but_count_as_no_signature() {
    let keys = keys(&Tree::new(), &name("test"), NOW).unwrap();
    let (before, after) = around([7; 20]);
    for (iterations, expected) in [(50, Err(Fault::Missing)), (51, Ok((Delegation::Unsigned, 300)))] {
        let records = nsec3(before, after, 0, iterations, &[rtype::A]);
        assert_eq!(delegation(&name("child.test"), &name("test"), &keys, &records, NOW), expected, "{iterations}");
    }
}

#[test]
fn the_roots_keys_are_built_in_and_files_have_those_of_other_zones() {
    let own = Anchors::default();
    assert_eq!(own.of(&name(".")).map(<[Digest]>::len), Some(2));
    assert_eq!(own.of(&name("example")), None);
    let key = key!("p256");
    let file = include_str!("../../testdata/p256.key");
    let mut both = own.clone();
    both.take(Anchors::read("keys", file).unwrap());
    let expected = [Digest::read(&key.ds(&name("example"))).unwrap()];
    assert_eq!(both.of(&name("example")), Some(&expected[..]), "a key vouches for itself");
    assert_eq!(both.of(&name(".")), own.of(&name(".")));
    // Of a zone that is told anew the old ones do not count any more.
    both.take(Anchors::read("keys", &Tree::new().anchors()).unwrap());
    assert_eq!(both.of(&name(".")).map(<[Digest]>::len), Some(1));
}

#[test]
fn files_that_have_no_trust_anchors_are_told() {
    let fault = |text: &str| Anchors::read("keys", text).unwrap_err().to_string();
    assert!(fault("; nothing\n").starts_with("there is no record; needed: "));
    assert!(fault("\na. A 192.0.2.1").starts_with("keys:2:1: found a record of type A, allowed: DS and DNSKEY"));
    assert!(fault("a. DS x").starts_with("keys:1:7: "), "{}", fault("a. DS x"));
    assert!(fault("a. DS 1 8 1 00").starts_with("no record of a. can be used, needed: "), "SHA-1 alone");
    assert!(Anchors::read("keys", "a. DS 1 8 1 00\na. DS 1 8 2 00\n").is_ok());
}
