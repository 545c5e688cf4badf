//! What happens while backends come and go, and while one agent takes over from another.

use super::*;

#[test]
fn udp_chooses_again_when_its_backend_is_gone_and_not_when_it_only_moved() {
    let lab = Lab::new("again");
    lab.serve(FRONTEND, 1, &[1, 2, 3, 4]);
    let socket = lab.udp(OWN);
    let to = SocketAddr::from((FRONTEND, 80));
    let first = asked(&socket, to).unwrap().0;
    let mut order = vec![1, 2, 3, 4];
    for _ in 0..4 {
        order.rotate_left(1);
        lab.serve(FRONTEND, 1, &order);
        assert_eq!(asked(&socket, to).unwrap(), (first, to));
    }
    order.retain(|number| *number != first);
    lab.serve(FRONTEND, 1, &order);
    let (second, from) = asked(&socket, to).unwrap();
    assert!(second != first && from == to);
    lab.refuse(FRONTEND, Serves::Nobody);
    assert_eq!(asked(&socket, to).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_socket_of_udp_goes_on_with_a_backend_that_ends_and_nobody_comes_to_it_anew() {
    let lab = Lab::new("ends");
    let to = SocketAddr::from((FRONTEND, 80));
    let key = key(FRONTEND, Protocol::Udp);
    // Not even who would stay with it.
    let affinity = Some(Affinity { seconds: 3600, group: 7 });
    let put = |backends: &[u8], ending: &[u8], empty: &[u32]| {
        let at = |number: &u8| BackendAddress { addr: v4(*number), port: PORT };
        let target = |number| Target { at: at(number), protocol: Protocol::Udp };
        let slots = (ebpf::ENDING..).zip(ending).chain((0..).zip(backends));
        let serves = Serves::Backends(backends.len() as u32);
        let entry = Entry { list: 1, serves, affinity };
        let fill = slots.map(|(number, backend)| (Slot { list: 1, number }, target(backend))).collect();
        let empty = empty.iter().map(|number| Slot { list: 1, number: *number }).collect();
        lab.sockets.apply(&Edits { fill, point: vec![(key, entry)], empty, ..Edits::default() }).unwrap();
        let tables = lab.sockets.tables().unwrap();
        assert_eq!(tables.frontends[&key], entry);
        assert_eq!(tables.backends.len(), backends.len() + ending.len());
    };
    put(&[1], &[], &[]);
    let socket = lab.udp(OWN);
    assert_eq!(asked(&socket, to).unwrap(), (1, to));
    put(&[2], &[1], &[]);
    assert_eq!(asked(&socket, to).unwrap(), (1, to));
    assert_eq!(asked(&lab.udp(OWN), to).unwrap(), (2, to));
    assert_eq!(asked(&socket, to).unwrap(), (1, to));
    // Wherever it stands among those that end, and where the backends are more and fewer.
    put(&[2, 3], &[4, 1], &[]);
    assert_eq!(asked(&socket, to).unwrap(), (1, to));
    put(&[2], &[1], &[1, ebpf::ENDING + 1]);
    assert_eq!(asked(&socket, to).unwrap(), (1, to));
    put(&[2], &[], &[ebpf::ENDING]);
    assert_eq!(asked(&socket, to).unwrap(), (2, to));
}

#[test]
fn what_the_programs_know_and_which_are_missing_is_seen_by_who_did_not_load_them() {
    let lab = Lab::new("seen");
    lab.serve(FRONTEND, 1, &[1, 2]);
    let tables = lab.sockets.tables().unwrap();
    assert_eq!((tables.frontends.len(), tables.backends.len()), (2, 4));
    assert_eq!(look(&lab.group.0).unwrap(), Seen { missing: Vec::new(), tables });
    assert!(detach(&lab.group.0, false).unwrap());
    let chooses = PROGRAMS.iter().filter(|program| program.chooses).map(|program| program.name);
    assert_eq!(look(&lab.group.0).unwrap().missing, chooses.collect::<Vec<_>>());
    let nowhere = look(&Cgroup::v2("pntest-sockets-nowhere").unwrap()).unwrap();
    assert_eq!((nowhere.missing.len(), nowhere.tables), (PROGRAMS.len(), Tables::default()));
}

/// So many answers of each frontend say something, and take this long at most.
const ENOUGH: usize = 50;
const PATIENCE: Duration = Duration::from_secs(60);

/// Of one frontend backends are taken away and put back in the order that [`Edits`] prescribe, and another one comes and goes, as fast as can be:
/// what is taken from the one is used for the other.
#[test]
fn no_connection_fails_or_comes_to_a_wrong_backend_while_others_change() {
    let lab = Lab::new("load");
    let (key, other) = (key(FRONTEND, Protocol::Udp), key(OTHER, Protocol::Udp));
    let over = AtomicBool::new(false);
    let fill = |list, number, backend| {
        let target = Target { at: BackendAddress { addr: v4(backend), port: PORT }, protocol: Protocol::Udp };
        (Slot { list, number }, target)
    };
    let point = |list, count| Entry { list, serves: Serves::Backends(count), affinity: None };
    let slot = |list, number| Slot { list, number };
    let apply = |fill, point, forget, empty| lab.sockets.apply(&Edits { fill, point, forget, empty }).unwrap();
    apply(vec![fill(1, 0, 1), fill(1, 1, 2)], vec![(key, point(1, 2))], vec![], vec![]);
    let [front, other_front] = [FRONTEND, OTHER].map(|addr| SocketAddr::from((addr, 80)));
    let mut asks = [0; 2];
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (kept, back) in [(2, 1), (1, 2)] {
                    apply(vec![fill(1, 0, kept)], vec![(key, point(1, 1))], vec![], vec![slot(1, 1)]);
                    apply(vec![fill(2, 0, 3), fill(2, 1, 4)], vec![(other, point(2, 2))], vec![], vec![]);
                    apply(vec![fill(1, 1, back)], vec![(key, point(1, 2))], vec![], vec![]);
                    apply(vec![], vec![], vec![other], vec![slot(2, 0), slot(2, 1)]);
                }
            }
        });
        let began = Instant::now();
        // A machine that does much else gets less done in that time.
        let are_few = |asks: &[usize; 2], elapsed| asks.iter().any(|asks| *asks < ENOUGH) && elapsed < PATIENCE;
        while began.elapsed() < Duration::from_secs(2) || are_few(&asks, began.elapsed()) {
            let first = asked(&lab.udp(OWN), front);
            let second = asked(&lab.udp(OWN), other_front);
            asks = [asks[0] + 1, asks[1] + usize::from(second.is_ok())];
            let is_right = matches!(first, Ok((1 | 2, from)) if from == front)
                // Where it is none it has no route.
                && second.as_ref().map_or_else(
                    |error| error.kind() != ErrorKind::WouldBlock,
                    |second| matches!(second, (3 | 4, from) if *from == other_front),
                );
            if !is_right {
                over.store(true, Ordering::Relaxed);
            }
            assert!(is_right, "{first:?} {second:?}");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(asks.iter().all(|asks| *asks >= ENOUGH), "{asks:?} in {PATIENCE:?}");
}

#[test]
fn another_agent_goes_on_with_what_sockets_and_clients_have() {
    let lab = Lab::new("takeover");
    let to = SocketAddr::from((FRONTEND, 80));
    let affinity = Some(Affinity { seconds: 3600, group: 7 });
    let all = [1, 2, 3, 4];
    lab.set(FRONTEND, Protocol::Tcp, 1, &all, affinity);
    lab.set(FRONTEND, Protocol::Udp, 2, &all, None);
    let (stayed, connection) = (lab.connect(to), lab.tcp(to).unwrap());
    let socket = lab.udp(OWN);
    let spoken = asked(&socket, to).unwrap();
    let next = Sockets::open(&lab.group.0, Sizes::LEAST).unwrap();
    assert_eq!(next.tables().unwrap(), lab.sockets.tables().unwrap());
    assert_eq!(next.tables().unwrap().backends.len(), 8);
    // Both together: nothing is attached in between.
    assert_eq!(lab.connect(to), stayed);
    assert_eq!(next.attach().unwrap(), PROGRAMS.len());
    assert_eq!(next.attach().unwrap(), 0);
    assert_eq!(lab.sockets.attach().unwrap(), PROGRAMS.len(), "each takes the other's place");
    assert_eq!(next.attach().unwrap(), PROGRAMS.len());
    let Lab { netns, group, sockets } = lab;
    drop(sockets);
    let lab = Lab { netns, group, sockets: next };
    assert_eq!(lab.connect(to), stayed);
    assert_eq!(connection.peer_addr().unwrap(), to);
    assert_eq!(asked(&socket, to).unwrap(), spoken);
    // The programs go on although nobody holds them.
    let Lab { netns, group, sockets } = lab;
    drop(sockets);
    assert_eq!(told(netns.run(|| TcpStream::connect(to)).unwrap().unwrap()), stayed);
    assert!(detach(&group.0, false).unwrap() && !detach(&group.0, false).unwrap());
    assert!(netns.run(|| TcpStream::connect(to)).unwrap().is_err());
    assert_eq!(connection.peer_addr().unwrap(), to, "what was opened goes on to see the frontend");
    assert!(detach(&group.0, true).unwrap() && !detach(&group.0, true).unwrap());
    assert_ne!(connection.peer_addr().unwrap(), to);
}

#[test]
fn tables_grow_without_a_moment_without_them() {
    let lab = Lab::new("grow");
    let to = SocketAddr::from((FRONTEND, 80));
    lab.set(FRONTEND, Protocol::Tcp, 1, &[1, 2], None);
    let connection = lab.tcp(to).unwrap();
    let sizes = Sizes::for_twice(20_000, 70_000);
    assert!(sizes.hold(40_000, 140_000) && !Sizes::LEAST.hold(20_000, 0));
    let larger = Sockets::open(&lab.group.0, sizes).unwrap();
    assert_eq!(larger.sizes(), sizes);
    assert_eq!(larger.tables().unwrap(), Tables::default());
    let Lab { netns, group, .. } = lab;
    let lab = Lab { netns, group, sockets: larger };
    lab.set(FRONTEND, Protocol::Tcp, 1, &[3, 4], None);
    let former = (0..20).map(|_| lab.connect(to)).max();
    assert!(former <= Some(2), "not in force yet");
    lab.sockets.attach().unwrap();
    assert!(lab.connect(to) >= 3);
    assert_eq!(connection.peer_addr().unwrap(), to);
    // A smaller one is content with the larger.
    assert_eq!(Sockets::open(&lab.group.0, Sizes::LEAST).unwrap().sizes(), sizes);
}

#[test]
fn ten_thousand_services_are_there_at_once_and_one_endpoint_changes_in_no_time() {
    let lab = Lab::new("size");
    let sockets = Sockets::open(&lab.group.0, Sizes::for_twice(10_000, 100_000)).unwrap();
    let mut edits = Edits::default();
    for service in 0..10_000_u32 {
        let addr = Ipv4Addr::from(0x0a60_0000 + service).into();
        let serves = Serves::Backends(10);
        edits.point.push((key(addr, Protocol::Tcp), Entry { list: service, serves, affinity: None }));
        for number in 0..10 {
            let at = BackendAddress { addr: Ipv4Addr::from(0x0a01_0000 + service * 10 + number).into(), port: 80 };
            edits.fill.push((Slot { list: service, number }, Target { at, protocol: Protocol::Tcp }));
        }
    }
    let began = Instant::now();
    sockets.apply(&edits).unwrap();
    let first = began.elapsed();
    let began = Instant::now();
    let tables = sockets.tables().unwrap();
    let read = began.elapsed();
    assert_eq!((tables.frontends.len(), tables.backends.len()), (10_000, 100_000));
    let one = Edits { fill: vec![edits.fill[5]], point: vec![edits.point[3]], ..Edits::default() };
    let mut changes: Vec<Duration> = (0..100)
        .map(|_| {
            let began = Instant::now();
            sockets.apply(&one).unwrap();
            began.elapsed()
        })
        .collect();
    changes.sort_unstable();
    let change = changes[changes.len() / 2];
    println!("10,000 Services: written in {first:?}, read in {read:?}; one endpoint: {change:?}");
    // 0.15 s and 3 µs, and more on a machine that does other things as well: what is meant is that no element costs a look at all others.
    assert!(first < Duration::from_secs(10) && change < Duration::from_millis(1), "{first:?} {change:?}");
    // What is not there is no obstacle to removing.
    let missing = Slot { list: 90_000, number: 0 };
    let mut empty: Vec<Slot> = tables.backends.into_keys().collect();
    empty.insert(50_000, missing);
    empty.push(missing);
    let forget = tables.frontends.into_keys().collect();
    sockets.apply(&Edits { forget, empty, ..Edits::default() }).unwrap();
    assert_eq!(sockets.tables().unwrap(), Tables::default());
    eventually("the lab's own are not touched", || lab.sockets.tables().unwrap() == Tables::default());
}
