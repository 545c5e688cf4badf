//! Exchanges over datagrams, with an upstream and forgers that these tests play.

use std::collections::BTreeSet;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// A question for the address of `a`.
fn question(upstream: SocketAddr, id: u8) -> Exchange {
    let message = vec![0x12, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
    Exchange::plain(upstream, Transport::Udp, message, DEADLINE)
}

/// An answer to it: an address that ends with this number.
fn answer(question: &[u8], last: u8) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2] |= 0x80;
    message[7] = 1;
    message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
    message
}

fn network() -> (Network, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    (Network::new(Arc::clone(&metrics)), metrics)
}

#[tokio::test]
async fn each_question_goes_from_a_port_of_its_own_that_the_one_before_does_not_tell() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = upstream.local_addr().unwrap();
    let (network, _) = network();
    let mut ports = Vec::new();
    for id in 0..200 {
        let play = async {
            let mut message = [0; 512];
            let (length, from) = upstream.recv_from(&mut message).await.unwrap();
            upstream.send_to(&answer(&message[..length], 1), from).await.unwrap();
            from.port()
        };
        let (answered, port) = tokio::join!(network.exchange(question(to, id)), play);
        answered.unwrap();
        ports.push(port);
    }
    // The kernel has some 28,000 to choose from (ip(7), `ip_local_port_range`): of 200 hardly any two are the same, or near each other.
    let different: BTreeSet<u16> = ports.iter().copied().collect();
    assert!(different.len() > 180, "{ports:?}");
    let near = ports.windows(2).filter(|two| two[0].abs_diff(two[1]) < 50).count();
    assert!(near < 20, "{near} of them follow each other: {ports:?}");
}

#[tokio::test]
async fn an_answer_from_elsewhere_is_not_heard_and_one_to_another_question_is_counted() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = upstream.local_addr().unwrap();
    // One has the same port at another address, one the same address and another port.
    let forgers =
        [UdpSocket::bind(("127.0.0.2", to.port())).await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
    let (network, metrics) = network();
    let play = async {
        let mut message = [0; 512];
        let (length, from) = upstream.recv_from(&mut message).await.unwrap();
        let asked = &message[..length];
        for forger in &forgers {
            // What the kernel refuses is not heard either.
            let _ = forger.send_to(&answer(asked, 66), from).await;
        }
        let (mut other_id, mut other_name) = (answer(asked, 66), answer(asked, 66));
        other_id[1] ^= 1;
        other_name[13] = b'b';
        for wrong in [other_id, other_name, asked.to_vec(), vec![0x12], answer(asked, 1)] {
            upstream.send_to(&wrong, from).await.unwrap();
        }
    };
    let (answered, ()) = tokio::join!(network.exchange(question(to, 7)), play);
    assert_eq!(answered.unwrap().last(), Some(&1));
    let told = metrics.render(&podnet_dns::metrics::Gauges::default());
    let counted = told.lines().find(|line| line.starts_with("coredns_cache_drops_total")).unwrap_or(&told);
    assert!(counted.ends_with(" 4"), "{counted}");
}
