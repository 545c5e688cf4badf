//! Does cluster DNS answer? Asked as a pod on the first node would ask.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use podnet_kernel::netns::NetNs;

use crate::{
    cluster::Cluster,
    layout,
    report::{Doing, Failure},
};

/// The name that exists in every cluster.
const NAME: [&str; 5] = ["kubernetes", "default", "svc", "cluster", "local"];
const ID: [u8; 2] = [0x70, 0x6e];

/// One question, from a port of its own: of an earlier one the kernel may remember that it was not translated.
pub(crate) fn ask(cluster: &Cluster, patience: Duration) -> Result<(), Failure> {
    let first = cluster.places().into_iter().next().map(|place| place.name).unwrap_or_default();
    let namespace = NetNs::open(layout::netns(&first)).doing(|| format!("cannot enter the namespace of {first}"))?;
    let server = SocketAddr::from((cluster.dns_address(), 53));
    let answer =
        namespace.run(move || exchange(server, patience)).doing(|| format!("cannot enter the namespace of {first}"))?;
    let answer = answer.doing(|| format!("cluster DNS at {server} does not answer"))?;
    let code = answer.get(3).map_or(15, |flags| flags & 15);
    let answers = answer.get(6..8).map_or(0, |count| u16::from_be_bytes([count[0], count[1]]));
    if answer.starts_with(&ID) && code == 0 && answers > 0 {
        return Ok(());
    }
    Err(Failure::new(format!("cluster DNS answers {} with code {code} and {answers} records", NAME.join("."))))
}

fn exchange(server: SocketAddr, patience: Duration) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(server)?;
    socket.send(&question())?;
    let mut buffer = vec![0; 1232];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// A question for an A record, recursion desired (RFC 1035, section 4.1).
fn question() -> Vec<u8> {
    let mut message = ID.to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in NAME {
        message.extend(u8::try_from(label.len()).into_iter().chain(label.bytes()));
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

#[cfg(test)]
mod tests {
    use super::question;

    #[test]
    fn the_question_is_for_an_address_of_the_api_service() {
        let message = question();
        assert_eq!(&message[12..23], b"\x0akubernetes");
        assert_eq!(&message[message.len() - 5..], [0, 0, 1, 0, 1]);
    }
}
