//! Flows that rules noted in a set.

use std::{net::SocketAddr, time::Duration};

use super::{
    DATA_VALUE, KEY,
    told::{elements, ip},
};
use crate::netlink::attribute::attribute;

/// A flow, by a packet of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedFlow {
    /// Where the packet came from; of ICMP the port is an echo's identifier.
    pub source: SocketAddr,
    /// Where it went, or was to go before it was translated; of ICMP the port is type and code.
    pub destination: SocketAddr,
    /// Its protocol, a number of IANA's.
    pub protocol: u8,
    /// So long it stays in the set from now on, unless there are more packets.
    pub left: Duration,
}

/// The flows in a message from the kernel; what is none is left out.
pub(in super::super) fn flows(list: &[u8]) -> impl Iterator<Item = NotedFlow> {
    /// `NFTA_SET_ELEM_EXPIRATION`, in milliseconds.
    const EXPIRATION: u16 = 5;
    elements(list).filter_map(|element| {
        let left = attribute(element, EXPIRATION).and_then(|left| left.try_into().ok()).map_or(0, u64::from_be_bytes);
        flow(attribute(attribute(element, KEY)?, DATA_VALUE)?, Duration::from_millis(left))
    })
}

/// Each field begins at a word.
fn flow(key: &[u8], left: Duration) -> Option<NotedFlow> {
    let addr = match key.len() {
        20 => 4,
        44 => 16,
        _ => return None,
    };
    let (source, rest) = key.split_at_checked(addr)?;
    let ([protocol, _, _, _, high, low, _, _], rest) = rest.split_first_chunk::<8>()?;
    let (destination, rest) = rest.split_at_checked(addr)?;
    let port = rest.first_chunk::<2>()?;
    Some(NotedFlow {
        source: SocketAddr::new(ip(source)?, u16::from_be_bytes([*high, *low])),
        destination: SocketAddr::new(ip(destination)?, u16::from_be_bytes(*port)),
        protocol: *protocol,
        left,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{LIST_ELEMENT, LIST_ELEMENTS},
        *,
    };
    use crate::netlink::attribute::Writer;

    #[test]
    fn flows_of_both_families_are_read_and_what_is_none_is_left_out() {
        let key = |from: &[u8], to: &[u8]| [from, &[6, 0, 0, 0, 0x9c, 0x40, 0, 0], to, &[0, 80, 0, 0]].concat();
        let (v6, other) = ([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [10, 0, 0, 1]);
        let keys = [key(&[10, 0, 0, 1], &[10, 0, 0, 2]), key(&v6, &v6), other.to_vec(), key(&other, &v6)];
        let mut writer = Writer::default();
        writer.nested(LIST_ELEMENTS, |writer| {
            for key in &keys {
                writer.nested(LIST_ELEMENT, |writer| {
                    writer.nested(KEY, |writer| writer.bytes(DATA_VALUE, key));
                    writer.bytes(5, &1500_u64.to_be_bytes());
                });
            }
        });
        let bytes = writer.into_bytes();
        let told = flows(&bytes).map(|flow| {
            let NotedFlow { source, destination, protocol, left } = flow;
            (source.to_string(), destination.to_string(), protocol, left.as_millis())
        });
        let flow = |from: &str, to: &str| (from.to_owned(), to.to_owned(), 6, 1500);
        let expected = [flow("10.0.0.1:40000", "10.0.0.2:80"), flow("[fd00::1]:40000", "[fd00::1]:80")];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
}
