//! What is known of connections that are passed on.

use podnet_flow::{Key, Transport};

use super::*;
use crate::proxy::userspace::passed;

#[test]
fn both_sides_of_what_is_passed_on_are_known_to_be_one() {
    let mut scene = Scene::new("known");
    let backend = Backend::new(&scene, "10.0.0.1");
    scene.serve(&[backend.at]);
    for (addr, port) in [(SERVICE, 53), (NODE, 30053)] {
        let (mut client, mut there) = (scene.connect(addr, port).unwrap(), backend.accept());
        // It is passed on.
        echo(&mut client, &mut there);
        let transport = Transport::TCP;
        let asked = SocketAddr::new(addr.parse().unwrap(), port);
        let begun = Key { source: client.local_addr().unwrap(), destination: asked, transport };
        let answered = Key { source: there.peer_addr().unwrap(), destination: backend.at, transport };
        assert_eq!((passed::onward(&begun), passed::origin(&answered)), (Some(answered), Some(begun)));
        assert_eq!((passed::onward(&answered), passed::origin(&begun)), (None, None));
    }
    let client = scene.netns.run(|| UdpSocket::bind((NODE, 0))).unwrap().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"?", (SERVICE, 53)).unwrap();
    client.recv_from(&mut [0; 64]).unwrap();
    let asked = SocketAddr::new(SERVICE.parse().unwrap(), 53);
    let begun = Key { source: client.local_addr().unwrap(), destination: asked, transport: Transport::UDP };
    let answered = passed::onward(&begun).unwrap();
    assert_eq!(answered.destination, backend.at);
    assert_eq!(passed::origin(&answered), Some(begun));
}
