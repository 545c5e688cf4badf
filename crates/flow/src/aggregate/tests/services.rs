//! Flows that asked a Service.

use podnet_model::ServiceKey;

use super::*;

/// What is translated, by what who began it sees, and what who answers does.
#[derive(Default)]
struct Translated(Vec<(Key, Key)>);

impl Translations for Translated {
    fn onward(&mut self, key: &Key) -> Option<Key> {
        self.0.iter().find(|(from, _)| from == key).map(|(_, to)| *to)
    }

    fn origin(&mut self, key: &Key) -> Option<Key> {
        self.0.iter().find(|(_, to)| to == key).map(|(from, _)| *from)
    }
}

fn key(source: &str, destination: &str) -> Key {
    Key { source: source.parse().unwrap(), destination: destination.parse().unwrap(), transport: Transport::TCP }
}

/// At a pod's interface, as it is seen there: who began it is behind the interface, or is its peer.
fn entry(device: u32, pod_began: bool, key: Key) -> Entry {
    let (local, remote) = if pod_began { (key.source, key.destination) } else { (key.destination, key.source) };
    let way = Way { packets: 3, bytes: 180, ..Way::default() };
    Entry {
        key: EntryKey {
            device,
            local: local.ip(),
            remote: remote.ip(),
            local_port: local.port(),
            remote_port: remote.port(),
            transport: key.transport,
        },
        pod_began,
        out: way,
        into: way,
        born: u64::from(pod_began),
        first: at(1),
        last: at(2),
        handshake_micros: 0,
        ended: false,
        asked: None,
        error: None,
        unserved: None,
    }
}

/// `shop/cart` at 10.96.0.7:80 and at port 30080 of two nodes.
fn reader() -> Reader {
    let mut reader = Reader::new();
    let (cart, tcp) = (ServiceKey::new("shop", "cart"), Transport::TCP);
    let places = ["10.96.0.7:80", "0.0.0.0:30080"].map(|at| ((at.parse().unwrap(), tcp), cart.clone()));
    reader.names.set_services(places.into());
    let nodes = [("172.16.0.1", "node1"), ("172.16.0.2", "node2")];
    reader.names.set_nodes(nodes.map(|(addr, name)| (addr.parse().unwrap(), name.into())).into());
    reader
}

fn observe(reader: &mut Reader, translated: &mut Translated, entries: &[Entry]) {
    let mut scene = Scene { now: at(5), names: &reader.names, translations: translated };
    for entry in entries {
        assert_eq!(reader.aggregator.observe(entry, &mut scene, &mut reader.told), Fate::Stays);
    }
}

/// Of a record: who asked, who answers, the address of the Service that was asked, its class, and who counted it.
type Told = (String, String, Option<String>, Class, Reporter);

/// The one record that there is.
fn one(reader: &Reader) -> Told {
    let [record] = &reader.told[..] else { panic!("{:?}", reader.told) };
    let asked = record.service.as_ref().map(|asked| {
        assert_eq!(asked.service, ServiceKey::new("shop", "cart"));
        asked.at().to_string()
    });
    let [source, destination] = [&record.source, &record.destination].map(|end| end.at().to_string());
    (source, destination, asked, record.class, record.reporter)
}

/// The same with one more packet to the pod.
fn later(entry: Entry) -> Entry {
    Entry { into: Way { packets: entry.into.packets + 1, ..entry.into }, last: at(3), ..entry }
}

/// What both ends' entries come to, whichever is read first.
fn both(sees: Key, is_seen: Key, devices: [u32; 2]) -> [Told; 2] {
    let ends = [entry(devices[0], true, sees), entry(devices[1], false, is_seen)];
    [[ends[0], ends[1]], [ends[1], ends[0]]].map(|entries| {
        let mut reader = reader();
        // Where the source's entry comes first it is told before the other one is there.
        reader.aggregator.timeouts.update = SignedDuration::ZERO;
        observe(&mut reader, &mut Translated(vec![(sees, is_seen)]), &entries);
        observe(&mut reader, &mut Translated::default(), &ends.map(later));
        let ids: HashSet<_> = reader.told.iter().map(|record| record.id).collect();
        assert_eq!(ids.len(), 1, "{:?}", reader.told);
        reader.told.drain(..reader.told.len() - 1);
        one(&reader)
    })
}

#[test]
fn a_service_that_was_asked_is_told_beside_the_backend_that_answers() {
    let [sees, is_seen] = ["10.96.0.7:80", "10.0.0.2:80"].map(|to| key("10.0.0.1:1000", to));
    let mut reader = reader();
    // The destination's is read first.
    let entries = [entry(2, false, is_seen), entry(1, true, sees)];
    observe(&mut reader, &mut Translated(vec![(sees, is_seen)]), &entries);
    let (_, destination, asked, class, reporter) = one(&reader);
    assert_eq!((&*destination, asked.as_deref()), ("10.0.0.2:80", Some("10.96.0.7:80")));
    assert_eq!((class, reporter), (Class::PodService, Reporter::Both));
    assert_eq!(reader.told[0].destination.pod.as_ref().unwrap().name.as_ref(), "b");
}

#[test]
fn a_service_that_was_asked_at_the_socket_is_told_though_packets_show_the_backend_alone() {
    for at in ["10.96.0.7:80", "172.16.0.1:30080"] {
        let seen = key("10.0.0.1:1000", "10.0.0.2:80");
        let mut reader = reader();
        let source = Entry { asked: Some(at.parse().unwrap()), ..entry(1, true, seen) };
        observe(&mut reader, &mut Translated::default(), &[entry(2, false, seen), source]);
        let (_, destination, asked, class, reporter) = one(&reader);
        assert_eq!((&*destination, asked.as_deref()), ("10.0.0.2:80", Some(at)));
        assert_eq!((class, reporter), (Class::PodService, Reporter::Both));
    }
}

#[test]
fn a_flow_is_one_record_whichever_address_of_the_service_was_asked_and_whoever_its_backend_takes_for_the_source() {
    let source = "10.0.0.1:1000";
    let rows = [
        // All is masqueraded, or a program of the node passes it on.
        ("10.96.0.7:80", "172.16.0.1:4000", "10.0.0.2:80", [1, 2]),
        // The pod meets itself.
        ("10.96.0.7:80", "172.16.0.1:4000", "10.0.0.1:80", [1, 1]),
        ("172.16.0.1:30080", "172.16.0.1:4000", "10.0.0.1:80", [1, 1]),
        // At the node's port a pod keeps its address.
        ("172.16.0.1:30080", source, "10.0.0.2:80", [1, 2]),
        // At an address that is nobody's as far as all know.
        ("192.168.7.7:30080", source, "10.0.0.2:80", [1, 2]),
    ];
    for (at, seen_source, backend, devices) in rows {
        let expected: Told = (source.into(), backend.into(), Some(at.into()), Class::PodService, Reporter::Both);
        let found = both(key(source, at), key(seen_source, backend), devices);
        assert_eq!(found, [expected.clone(), expected], "{at} {backend}");
    }
}

#[test]
fn a_port_of_the_host_is_no_service_and_the_flow_is_between_the_pods() {
    let (source, backend) = ("10.0.0.1:1000", "10.0.0.2:80");
    let expected: Told = (source.into(), backend.into(), None, Class::PodPodSameNode, Reporter::Both);
    let found = both(key(source, "172.16.0.1:8080"), key(source, backend), [1, 2]);
    assert_eq!(found, [expected.clone(), expected]);
}

#[test]
fn who_asks_from_elsewhere_is_known_where_this_node_translated_it() {
    let rows = [
        // From outside, its address replaced or not; a node's own; a pod of another node at this one's port.
        ("203.0.113.9:1000", "172.16.0.1:30080", "172.16.0.1:4000", Class::WorldPod),
        ("203.0.113.9:1000", "172.16.0.1:30080", "203.0.113.9:1000", Class::WorldPod),
        ("172.16.0.2:1000", "10.96.0.7:80", "172.16.0.1:4000", Class::NodePod),
        ("10.0.1.1:1000", "172.16.0.1:30080", "172.16.0.1:4000", Class::PodService),
        ("10.0.1.1:1000", "172.16.0.1:30080", "10.0.1.1:1000", Class::PodService),
    ];
    for (source, at, seen_source, class) in rows {
        let (sees, is_seen) = (key(source, at), key(seen_source, "10.0.0.2:80"));
        let mut reader = reader();
        observe(&mut reader, &mut Translated(vec![(sees, is_seen)]), &[entry(2, false, is_seen)]);
        let expected: Told = (source.into(), "10.0.0.2:80".into(), Some(at.into()), class, Reporter::Destination);
        assert_eq!(one(&reader), expected);
        assert_eq!(reader.told[0].is_secondary(), class == Class::PodService, "the source's node tells it as well");
    }
}

#[test]
fn what_a_node_asks_at_its_loopback_is_its_own() {
    let (sees, is_seen) = (key("127.0.0.1:1000", "127.0.0.1:30080"), key("172.16.0.1:4000", "10.0.0.2:80"));
    let mut reader = reader();
    observe(&mut reader, &mut Translated(vec![(sees, is_seen)]), &[entry(2, false, is_seen)]);
    let (source, _, asked, class, _) = one(&reader);
    assert_eq!((&*source, asked.as_deref()), ("172.16.0.1:4000", Some("127.0.0.1:30080")));
    assert_eq!(class, Class::NodePod);
}

#[test]
fn what_was_read_before_the_translation_was_known_is_still_the_same_flow() {
    let sees = key("10.0.0.1:1000", "10.96.0.7:80");
    let is_seen = key("172.16.0.1:4000", "10.0.0.2:80");
    let ends = [entry(1, true, sees), entry(2, false, is_seen)];
    for [first, second] in [ends, [ends[1], ends[0]]] {
        let mut reader = reader();
        reader.aggregator.timeouts.update = SignedDuration::ZERO;
        observe(&mut reader, &mut Translated::default(), &[first]);
        assert_eq!(reader.told.len(), 1);
        let known = &mut Translated(vec![(sees, is_seen)]);
        observe(&mut reader, known, &[later(second), later(first)]);
        assert_eq!(reader.aggregator.len(), 1);
        let [.., last] = &reader.told[..] else { panic!("nothing is told") };
        assert_eq!((last.source.at(), last.destination.at()), (sees.source, is_seen.destination));
        assert_eq!((last.class, last.reporter), (Class::PodService, Reporter::Both));
        assert!(reader.told.iter().all(|record| record.id == last.id), "{:?}", reader.told);
        assert_eq!(last.source.pod.as_ref().map(|pod| &*pod.name), Some("a"));
        assert_eq!(last.destination.pod.as_ref().map(|pod| &*pod.name), Some("b"));
    }
}

#[test]
fn that_a_pod_is_not_seen_to_get_what_was_masqueraded_is_no_word_of_a_drop() {
    let sees = key("10.0.0.1:1000", "10.96.0.7:80");
    let answered = |source: &str| {
        let mut reader = reader();
        let asks = Entry { into: Way::default(), ..entry(1, true, sees) };
        let translated = &mut Translated(vec![(sees, key(source, "10.0.0.2:80"))]);
        let mut scene = Scene { now: at(5), names: &reader.names, translations: translated };
        reader.aggregator.over(&asks, &mut scene);
        reader.aggregator.settle(true, &mut scene, &mut reader.told);
        reader.told[0].verdict
    };
    assert_eq!(answered("10.0.0.1:1000"), Verdict::Dropped);
    assert_eq!(answered("172.16.0.1:4000"), Verdict::Unanswered);
}

#[test]
fn as_whom_a_backend_of_another_node_sees_who_asked_is_told_by_the_node_that_masqueraded() {
    let sees = key("10.0.0.1:1000", "10.96.0.7:80");
    let told = |seen_source: &str, backend: &str, entries: &[Entry]| {
        let mut reader = reader();
        observe(&mut reader, &mut Translated(vec![(sees, key(seen_source, backend))]), entries);
        let [record] = &reader.told[..] else { panic!("{:?}", reader.told) };
        (record.reporter, record.seen_as.map(|at| at.to_string()), record.seen_key())
    };
    let (other, masked) = ("10.0.1.1:80", "172.16.0.1:4000");
    let source = entry(1, true, sees);
    assert_eq!(told(masked, other, &[source]), (Reporter::Source, Some(masked.to_owned()), Some(key(masked, other))));
    assert_eq!(told("10.0.0.1:1000", other, &[source]), (Reporter::Source, None, None));
    // Both ends are this node's.
    let near = [entry(2, false, key(masked, "10.0.0.2:80")), source];
    assert_eq!(told(masked, "10.0.0.2:80", &near), (Reporter::Both, None, None));
}

#[test]
fn a_port_of_nodes_without_anybody_to_answer_is_without_a_backend() {
    let (cart, udp) = (ServiceKey::new("shop", "cart"), Transport::UDP);
    let asks = Entry { into: Way::default(), ..entry(1, true, key("10.0.0.1:1000", "172.16.0.2:30053")) };
    let asks = Entry { key: EntryKey { transport: udp, ..asks.key }, ..asks };
    for (is_unserved, expected) in [(true, Verdict::Dropped), (false, Verdict::Forwarded)] {
        let mut reader = reader();
        let place = ("0.0.0.0:30053".parse().unwrap(), udp);
        reader.names.set_services([(place, cart.clone())].into());
        reader.names.set_unserved([place].into_iter().filter(|_| is_unserved).collect());
        observe(&mut reader, &mut Translated::default(), &[asks]);
        assert_eq!((reader.told[0].verdict, reader.told[0].class), (expected, Class::PodService));
    }
}

#[test]
fn both_ends_of_an_echo_are_one_flow_which_is_unanswered_until_a_reply_comes() {
    for (transport, kind, addrs) in
        [(Transport::ICMP, 8, ["10.0.0.1", "10.0.0.2"]), (Transport::ICMP6, 128, ["fd00::1", "fd00::2"])]
    {
        let [source, destination] = addrs.map(|addr| addr.parse::<IpAddr>().unwrap());
        let mut reader = reader();
        for (addr, name) in [(source, "a"), (destination, "b")] {
            reader.names.hold(addr, &pod(name, "node1"), at(0), at(0));
        }
        // The identifier and the type, at both ends.
        let end = |device, pod_began, local, remote| {
            let plain = entry(device, pod_began, key("10.0.0.1:1", "10.0.0.2:1"));
            Entry { key: EntryKey { device, local, remote, local_port: 77, remote_port: kind, transport }, ..plain }
        };
        let (asks, answers) = (end(1, true, source, destination), end(2, false, destination, source));
        let silent = Entry { into: Way::default(), ..asks };
        observe(&mut reader, &mut Translated::default(), &[answers, silent]);
        let [record] = &reader.told[..] else { panic!("{:?}", reader.told) };
        assert_eq!((record.verdict, record.reporter), (Verdict::Unanswered, Reporter::Both));
        let ends = (SocketAddr::new(source, 77), SocketAddr::new(destination, kind));
        assert_eq!((record.source.at(), record.destination.at()), ends);
        reader.with(60_005, |aggregator, scene, told| {
            let _ = aggregator.observe(&asks, scene, told);
        });
        assert_eq!(reader.told.last().unwrap().verdict, Verdict::Forwarded);
    }
}

#[test]
fn an_association_that_nobody_takes_is_unanswered_and_a_message_that_needs_no_answer_is_not() {
    let to = key("10.0.0.1:1000", "203.0.113.5:3868");
    for (transport, port, verdict) in [
        (Transport::SCTP, 3868, Verdict::Unanswered),
        (Transport::UDP, 3868, Verdict::Forwarded),
        // A redirection.
        (Transport::ICMP, 5, Verdict::Forwarded),
    ] {
        let plain = entry(1, true, to);
        let key = EntryKey { transport, remote_port: port, ..plain.key };
        let mut reader = reader();
        let silent = Entry { key, into: Way::default(), ..plain };
        observe(&mut reader, &mut Translated::default(), &[silent]);
        assert_eq!(reader.told[0].verdict, verdict, "{transport}");
    }
}
