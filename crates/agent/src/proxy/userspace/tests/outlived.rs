//! A program that outlives its agents. It is in this process, and all that is said goes through its socket.

use std::{
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::Arc,
};

use podnet_flow::{Key, Transport};

use super::*;
use crate::proxy::userspace::{
    away::{Away, Launch, Link},
    passed::{Passed, Since},
    process::{self, Served},
    wire::{self, Purpose, Reply, Request, State},
};

/// A socket at which a program listens in the scene's namespace.
fn living(scene: &Scene) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("proxy.sock");
    process::listen(&socket, &Arc::new(Served::new(scene.netns.clone()))).unwrap();
    (directory, socket)
}

/// What an agent knows of a program. It can start none.
fn away(socket: &Path) -> Away {
    let launch = Launch { binary: "/nonexistent/podnet".into(), socket: socket.to_path_buf(), cgroup: None };
    Away::new(launch, Family::V4)
}

/// Another agent takes the place of the scene's.
fn another_agent(scene: &mut Scene, socket: &Path) {
    scene.rules = InUserspace::new(&scene.services);
    scene.rules.server = Box::new(away(socket));
}

#[test]
fn connections_and_flows_outlive_their_agent_and_the_next_one_goes_on_with_them() {
    let mut scene = Scene::new("apart");
    let (_directory, socket) = living(&scene);
    another_agent(&mut scene, &socket);
    let backends = [Backend::new(&scene, "10.0.0.1"), Backend::new(&scene, "10.0.0.2")];
    scene.serve(&[backends[0].at]);
    assert!(scene.rules.in_force());
    let (mut first, mut first_there) = (scene.connect(SERVICE, 53).unwrap(), backends[0].accept());
    let client = scene.netns.run(|| UdpSocket::bind((NODE, 0))).unwrap().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = || {
        client.send_to(b"?", (SERVICE, 53)).unwrap();
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let by_first = format!("{}?", backends[0].at);
    assert_eq!(ask(), by_first);

    // The agent is killed, and while there is none others go on to be served.
    another_agent(&mut scene, &socket);
    echo(&mut first, &mut first_there);
    echo(&mut scene.connect(NODE, 30053).unwrap(), &mut backends[0].accept());
    // The next one knows of another backend; what is right stays.
    scene.serve(&[backends[0].at, backends[1].at]);
    assert!(scene.rules.in_force());
    for _ in 0..20 {
        assert_eq!(ask(), by_first, "a flow stays");
    }
    echo(&mut first, &mut first_there);
    scene.command("ip route del 10.96.0.10 proto 87");
    scene.rules.next_look = Instant::now();
    let mended = scene.rules.look(&scene.services, &mut scene.datapath).unwrap();
    assert_eq!(mended.unwrap(), "1 ways to where Services are served");
    echo(&mut first, &mut first_there);

    // A frontend that goes while no agent is there is none for the next one.
    another_agent(&mut scene, &socket);
    scene.serve(&[]);
    assert_eq!(scene.connect(SERVICE, 53).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    echo(&mut first, &mut first_there);

    // The mode is left by an agent that never served in it.
    scene.serve(&[backends[0].at]);
    another_agent(&mut scene, &socket);
    scene.rules.take_away(&mut scene.datapath).unwrap();
    assert!(scene.rules.lingers() && !scene.rules.in_force());
    echo(&mut scene.connect(NODE, 30053).unwrap(), &mut backends[0].accept());
    scene.rules.withdraw(&|_| false, &mut scene.datapath).unwrap();
    assert_eq!(scene.connect(NODE, 30053).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    echo(&mut first, &mut first_there);
}

#[test]
fn an_agent_that_begins_in_another_mode_learns_where_connections_of_an_earlier_ones_program_are() {
    let mut scene = Scene::new("recall");
    let (_directory, socket) = living(&scene);
    another_agent(&mut scene, &socket);
    scene.rules.recall();
    assert!(!scene.rules.lingers() && !scene.rules.takes_new(), "nothing was ever served");
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    let (mut client, mut there) = (scene.connect(SERVICE, 53).unwrap(), backend.accept());
    echo(&mut client, &mut there);

    // The agent ends while the mode is not left.
    another_agent(&mut scene, &socket);
    scene.rules.recall();
    assert!(scene.rules.lingers() && scene.rules.takes_new());
    scene.rules.take_away(&mut scene.datapath).unwrap();
    let service = IpAddr::from([10, 96, 0, 10]);
    assert!(scene.rules.takes_new() && scene.rules.held().contains(&service));
    // And so does the next one. As if the time in which somebody may be about to connect were over.
    another_agent(&mut scene, &socket);
    scene.rules.recall();
    assert!(scene.rules.lingers() && scene.rules.takes_new());
    scene.rules.withdraw(&|_| false, &mut scene.datapath).unwrap();
    assert!(!scene.rules.takes_new());
    another_agent(&mut scene, &socket);
    scene.rules.recall();
    assert_eq!((scene.rules.held(), scene.rules.takes_new()), (BTreeSet::from([service]), false));
    scene.rules.take_away(&mut scene.datapath).unwrap();
    let routes = scene.command("ip route show table all proto 87");
    let led = [SERVICE, EXTERNAL].map(|addr| routes.lines().any(|line| line.starts_with(&format!("{addr} "))));
    assert_eq!(led, [true, false], "{routes}");
    echo(&mut client, &mut there);
    drop((client, there));
    let deadline = Instant::now() + PATIENCE;
    while !scene.rules.held().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", scene.rules.held());
        scene.rules.take_away(&mut scene.datapath).unwrap();
        thread::yield_now();
    }
}

#[test]
fn a_program_that_does_not_answer_may_have_connections_anywhere() {
    let mut scene = Scene::new("silent");
    // Whether somebody is there cannot be known.
    another_agent(&mut scene, Path::new("/dev/null/proxy.sock"));
    scene.rules.recall();
    assert!(scene.rules.lingers() && scene.rules.takes_new());
    another_agent(&mut scene, Path::new("/dev/null/proxy.sock"));
    scene.rules.take_away(&mut scene.datapath).unwrap_err();
    assert!(scene.rules.lingers() && scene.rules.takes_new());

    // One that is gone has none, whatever it had.
    let (directory, socket) = living(&scene);
    another_agent(&mut scene, &socket);
    scene.serve(&[]);
    scene.rules.take_away(&mut scene.datapath).unwrap();
    assert!(scene.rules.lingers());
    drop(directory);
    another_agent(&mut scene, &socket);
    scene.rules.recall();
    assert!(!scene.rules.lingers() && !scene.rules.takes_new(), "nobody is there");
}

#[test]
fn what_an_agent_says_that_is_gone_does_not_come_after_what_the_next_one_says() {
    let mut scene = Scene::new("turns");
    let (_directory, socket) = living(&scene);
    let before = Link::open(&socket, Purpose::ServeV4, PATIENCE).unwrap();
    another_agent(&mut scene, &socket);
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    assert!(before.ask(&Request::Be { source: None }).is_err());
    echo(&mut scene.connect(SERVICE, 53).unwrap(), &mut backend.accept());
}

#[test]
fn who_tells_flows_knows_both_sides_of_what_another_process_passes_on() {
    let mut scene = Scene::new("news");
    let (_directory, socket) = living(&scene);
    another_agent(&mut scene, &socket);
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    let (mut client, mut there) = (scene.connect(SERVICE, 53).unwrap(), backend.accept());
    echo(&mut client, &mut there);
    let link = Link::open(&socket, Purpose::Know, PATIENCE).unwrap();
    let Reply::Passed(news) = link.ask(&Request::Passed(Since::default())).unwrap() else { panic!("no news") };
    let mut passed = Passed::default();
    passed.take(news, Instant::now());
    let asked = SocketAddr::new(SERVICE.parse().unwrap(), 53);
    let transport = Transport::TCP;
    let begun = Key { source: client.local_addr().unwrap(), destination: asked, transport };
    let answered = Key { source: there.peer_addr().unwrap(), destination: backend.at, transport };
    assert_eq!((passed.onward(&begun), passed.origin(&answered)), (Some(answered), Some(begun)));
}

#[test]
fn a_program_of_another_version_makes_way_and_its_connections_go_on() {
    let mut scene = Scene::new("version");
    let (_directory, socket) = living(&scene);
    another_agent(&mut scene, &socket);
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    let (mut at_node, mut at_node_there) = (scene.connect(NODE, 30053).unwrap(), backend.accept());
    echo(&mut at_node, &mut at_node_there);
    let other = UnixStream::connect(&socket).unwrap();
    wire::send(&other, &Request::Hello { purpose: Purpose::ServeV4, version: "0 of podnet".to_owned() }).unwrap();
    assert!(matches!(wire::receive(&other).unwrap(), Some(Reply::Here { .. })));
    wire::send(&other, &Request::Retire).unwrap();
    assert!(matches!(wire::receive(&other).unwrap(), Some(Reply::Done(_))));
    assert_eq!(scene.connect(NODE, 30053).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    echo(&mut at_node, &mut at_node_there);
}

#[test]
fn a_program_that_cannot_be_started_is_told_by_name() {
    let mut scene = Scene::new("nobody");
    let directory = tempfile::tempdir().unwrap();
    another_agent(&mut scene, &directory.path().join("proxy.sock"));
    let error = scene.rules.put(&scene.services, &mut scene.datapath).unwrap_err();
    assert!(error.to_string().contains("(podnet proxy)"), "{error}");
    assert!(!scene.rules.in_force());
}

#[test]
fn what_leads_to_a_program_goes_after_it_also_where_another_version_made_way_for_it() {
    let mut scene = Scene::new("tidied");
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("proxy.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let other = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let said = || wire::receive::<Request>(&stream).unwrap();
        said();
        wire::send(&stream, &Reply::Here { version: "0 of podnet".to_owned() }).unwrap();
        assert_eq!(said(), Some(Request::Retire));
        wire::send(&stream, &Reply::Done(State::default())).unwrap();
    });
    another_agent(&mut scene, &socket);
    scene.rules.recall();
    other.join().unwrap();
    process::listen(&socket, &Arc::new(Served::new(scene.netns.clone()))).unwrap();
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    assert!(scene.left().contains(SERVICE));

    // It hears this agent no more, and the next time nobody is there.
    Link::open(&socket, Purpose::ServeV4, PATIENCE).unwrap().ask(&Request::Remaining).unwrap();
    drop(directory);
    scene.rules.take_away(&mut scene.datapath).unwrap();
    assert_eq!(scene.left(), "");
}

#[test]
fn a_program_that_ends_as_it_is_connected_to_is_nobody_and_one_that_hangs_up_again_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let ends = directory.path().join("ends.sock");
    let listener = UnixListener::bind(&ends).unwrap();
    let ending = thread::spawn(move || {
        let taken = listener.accept().unwrap();
        drop(listener);
        drop(taken);
    });
    let mut agent = away(&ends);
    agent.recall();
    assert_eq!(agent.remains(), None);
    ending.join().unwrap();

    let hangs_up = directory.path().join("hangs-up.sock");
    let listener = UnixListener::bind(&hangs_up).unwrap();
    let hanging_up = thread::spawn(move || listener.incoming().take(2).for_each(|taken| drop(taken.unwrap())));
    let mut agent = away(&hangs_up);
    agent.recall();
    assert!(agent.remains().is_some_and(|remains| remains.listens));
    hanging_up.join().unwrap();
}
