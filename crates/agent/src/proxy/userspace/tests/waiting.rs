//! Who is connected and was not taken yet when a socket is closed.

use std::sync::Arc;

use podnet_planner::{ruleset::FrontendKey, services::userspace::Guard};
use tokio::runtime::{Builder, Handle};

use super::*;
use crate::proxy::userspace::front::{Front, Insiders};

/// A socket at the node, and what is done for who comes there.
fn listening(scene: &Scene, runtime: &Handle) -> (tokio::net::TcpListener, Arc<Front>) {
    let key = FrontendKey { addr: NODE.parse().unwrap(), protocol: Protocol::Tcp, port: 7 };
    let serving = scene.services.frontends().find(|(key, _)| key.protocol == Protocol::Tcp).unwrap().1.clone();
    let everybody = Guard::Only { inside: false, sources: None };
    let front = Arc::new(Front::new(key, everybody, Arc::new(serving), Insiders::default()));
    let listener = scene.netns.run(|| TcpListener::bind((NODE, 7))).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let _entered = runtime.enter();
    (tokio::net::TcpListener::from_std(listener).unwrap(), front)
}

#[test]
fn who_waits_to_be_taken_is_passed_on_when_a_socket_is_closed() {
    let mut scene = Scene::new("queue");
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    // The one that serves.
    let program = program::Program::start(&scene.netns, Family::V4).unwrap();
    let (life, runtime) = program.life();
    let (listener, front) = listening(&scene, &runtime);
    let mut clients = [(); 3].map(|()| scene.connect(NODE, 7).unwrap());
    tcp::take_all(&listener, &front, &life, &runtime);
    drop(listener);
    assert_eq!(scene.connect(NODE, 7).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    for client in &mut clients {
        client.write_all(b"here").unwrap();
    }
    for _ in 0..3 {
        let mut heard = [0; 4];
        backend.accept().read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"here");
    }
}

#[test]
fn what_is_taken_is_counted_before_it_has_its_turn() {
    let mut scene = Scene::new("turn");
    scene.serve(&[]);
    let program = program::Program::start(&scene.netns, Family::V4).unwrap();
    let (life, _) = program.life();
    // Nobody runs what it is given.
    let idle = Builder::new_current_thread().enable_all().build().unwrap();
    let (listener, front) = listening(&scene, idle.handle());
    let client = scene.connect(NODE, 7).unwrap();
    tcp::take_all(&listener, &front, &life, idle.handle());
    let remaining = program.close();
    let held = [NODE.parse().unwrap()].into();
    assert_eq!(remaining.remains().unwrap(), program::Remains { listens: false, held });
    drop((listener, idle, client));
    assert_eq!(remaining.remains().unwrap().held, BTreeSet::new(), "it is over");
}
