use super::*;
use crate::{link, netlink::attribute::Writer, testing::TestNs};

#[test]
fn an_error_names_the_operation_its_operand_and_what_the_kernel_says() {
    let namespace = TestNs::new("nl-error");
    let mut socket = RtSocket::open_in(&namespace).unwrap();
    link::create_bridge(&mut socket, "br0").unwrap();
    let error = link::create_bridge(&mut socket, "br0").unwrap_err();
    assert!(error.is_exists());
    assert_eq!(error.to_string(), "cannot make bridge br0");
    let error = link::set_mtu(&mut socket, "br0", 10).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot change the MTU of device br0 (the kernel says: mtu less than device minimum)"
    );
    assert!(link::set_up(&mut socket, "br1").unwrap_err().is_missing());
}

#[test]
fn a_batch_does_all_it_can_and_tells_which_request_failed_first() {
    let namespace = TestNs::new("nl-batch");
    let mut socket = RtSocket::open_in(&namespace).unwrap();
    let requests = ["a", "b", "a", "c", "b"].map(link::request::bridge);
    let error = socket.perform_all(&requests).unwrap_err();
    assert_eq!(error.index, 2);
    assert!(error.source.is_exists());
    let names: Vec<String> = link::list(&mut socket).unwrap().iter().map(|link| link.name.to_string()).collect();
    assert_eq!(names, ["lo", "a", "b", "c"]);
}

#[test]
fn a_batch_may_be_larger_than_any_socket_buffer() {
    let namespace = TestNs::new("nl-large");
    let mut socket = RtSocket::open_in(&namespace).unwrap();
    let requests: Vec<Request> = (0..5000).map(|_| link::request::find("lo".into())).collect();
    let replies = socket.exchange(&requests).unwrap();
    assert_eq!(replies.len(), 5000);
    assert!(replies.iter().all(|messages| messages.len() == 1));
}

#[test]
fn a_socket_serves_the_namespace_that_it_was_opened_in_from_any_thread() {
    let (one, other) = (TestNs::new("nl-one"), TestNs::new("nl-other"));
    let mut socket = RtSocket::open_in(&one).unwrap();
    other.run(|| link::create_bridge(&mut socket, "br0")).unwrap().unwrap();
    assert!(link::find(&mut socket, "br0").unwrap().is_some());
    assert!(link::find(&mut RtSocket::open_in(&other).unwrap(), "br0").unwrap().is_none());
}

#[test]
fn attributes_are_read_as_they_were_written() {
    let mut writer = Writer::default();
    writer.text(1, "name");
    writer.nested(2, |writer| {
        writer.be32(3, 7);
        writer.bytes(4, &[1, 2, 3]);
    });
    let bytes = writer.into_bytes();
    assert_eq!(bytes.len() % 4, 0);
    assert_eq!(attribute::attribute(&bytes, 1).map(attribute::text).as_deref(), Some("name"));
    let inner: Vec<_> = attribute::attributes(attribute::attribute(&bytes, 2).unwrap()).collect();
    assert_eq!(inner, [(3, &7u32.to_be_bytes()[..]), (4, &[1, 2, 3][..])]);
    assert_eq!(attribute::attributes(&bytes[..bytes.len() - 1]).count(), 1, "what is cut off is not read");
}
