use std::{net::UdpSocket, os::fd::AsFd};

use super::*;

fn serve(socket: &UdpSocket, questions: &mut Questions) -> usize {
    let count = questions.receive(socket.as_fd()).unwrap();
    for number in 0..count {
        let (question, answer) = questions.question(number).unwrap();
        answer.extend(question.iter().rev());
    }
    count
}

#[test]
fn answers_go_back_to_who_asked_from_the_address_that_was_asked() {
    for (local, asked) in
        [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "127.0.0.3"), ("[::]:0", "::1"), ("127.0.0.1:0", "127.0.0.1")]
    {
        let server = UdpSocket::bind(local).unwrap();
        tell_destinations(server.as_fd(), local.starts_with('[')).unwrap();
        let asked: IpAddr = asked.parse().unwrap();
        let to = SocketAddr::new(asked, server.local_addr().unwrap().port());
        let mut questions = Questions::default();
        assert_eq!(questions.receive(server.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let any = if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let clients: Vec<UdpSocket> = (0..100).map(|_| UdpSocket::bind(any).unwrap()).collect();
        for (number, client) in clients.iter().enumerate() {
            client.send_to(&[number as u8, 7], to).unwrap();
        }
        let mut served = 0;
        while served < clients.len() {
            let count = serve(&server, &mut questions);
            assert!((0..count).all(|number| questions.destination(number) == Some(asked)));
            assert_eq!(questions.destination(count), None);
            served += count;
            if served == clients.len() {
                // One of them goes the slow way.
                questions.question(count - 1).unwrap().1.clear();
                questions.back(count - 1).unwrap().send(server.as_fd(), &[7, (served - 1) as u8]).unwrap();
                assert_eq!(questions.send(server.as_fd()), count - 1);
            } else {
                assert_eq!(questions.send(server.as_fd()), count);
            }
        }
        for (number, client) in clients.iter().enumerate() {
            let mut answer = [0; 9];
            let (length, from) = client.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..length], from), (&[7, number as u8][..], to));
        }
    }
}

/// Has the kernel put datagrams together that came as one (`UDP_GRO`, udp(7)), so that it is seen which did.
fn sees_messages(socket: &UdpSocket) {
    let on: libc::c_int = 1;
    let length = length_of::<libc::c_int>();
    // SAFETY: the value lives until the call returns, and its length is told.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, ptr::from_ref(&on).cast(), length)
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

#[test]
fn where_many_wait_answers_to_one_asker_go_together_and_come_apart() {
    for (local, asked) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "127.0.0.3"), ("[::]:0", "::1")] {
        let server = UdpSocket::bind(local).unwrap();
        tell_destinations(server.as_fd(), local.starts_with('[')).unwrap();
        let asked: IpAddr = asked.parse().unwrap();
        let to = SocketAddr::new(asked, server.local_addr().unwrap().port());
        let any = if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let (client, watcher) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
        sees_messages(&watcher);
        let mut questions = Questions::default();
        for few in [true, false] {
            let numbers = if few { 0..4_u8 } else { 0..20_u8 };
            for number in numbers.clone() {
                for socket in [&client, &watcher] {
                    // Two of three are of one length.
                    socket.send_to(&vec![number; if number % 3 == 2 { 60 } else { 80 }], to).unwrap();
                }
            }
            let count = serve(&server, &mut questions);
            assert_eq!((count, questions.send(server.as_fd())), (2 * numbers.len(), 2 * numbers.len()));
            let mut came: Vec<Vec<u8>> = Vec::new();
            for _ in numbers.clone() {
                let mut answer = [0; 999];
                let (length, from) = client.recv_from(&mut answer).unwrap();
                assert_eq!(from, to);
                came.push(answer[..length].to_vec());
            }
            came.sort_unstable();
            let whole = |number: u8| vec![number; if number % 3 == 2 { 60 } else { 80 }];
            assert_eq!(came, numbers.map(whole).collect::<Vec<_>>());
            let mut first = [0; 4096];
            assert_eq!(watcher.recv(&mut first).unwrap(), if few { 80 } else { 14 * 80 + 60 });
            watcher.set_nonblocking(true).unwrap();
            while watcher.recv(&mut first).is_ok() {}
            watcher.set_nonblocking(false).unwrap();
        }
    }
}

#[test]
fn who_cannot_be_answered_keeps_nobody_else_from_an_answer() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    tell_destinations(server.as_fd(), false).unwrap();
    let to = server.local_addr().unwrap();
    let (first, second) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    first.send_to(b"a", to).unwrap();
    second.send_to(b"b", to).unwrap();
    let mut questions = Questions::default();
    assert_eq!(questions.receive(server.as_fd()).unwrap(), 2);
    assert_eq!(questions.sender(0), first.local_addr().ok());
    assert!(questions.sender(2).is_none() && questions.back(2).is_none() && questions.question(2).is_none());
    // Larger than any datagram.
    questions.question(0).unwrap().1.resize(70_000, 0);
    questions.question(1).unwrap().1.push(b'c');
    assert_eq!(questions.send(server.as_fd()), 1);
    let mut answer = [0; 9];
    assert_eq!(second.recv(&mut answer).unwrap(), 1);
}

#[test]
fn one_way_that_is_too_narrow_or_gone_does_not_end_that_answers_go_together() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut questions = Questions { cuts: Some(true), ..Questions::default() };
    for (code, cuts) in [(libc::EMSGSIZE, true), (libc::EINVAL, true), (libc::EIO, false)] {
        let error = io::Error::from_raw_os_error(code);
        questions.send_apart(server.as_fd(), std::iter::empty(), &error);
        assert_eq!(questions.cuts, Some(cuts), "{error}");
    }
}
