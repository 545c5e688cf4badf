//! Who is served at ports that strangers may reach: so many at once and no more, and nobody keeps others out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    future::Future as _,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Context,
};

use tokio::sync::oneshot;

/// How many connections a port has at once, and all ports together: each is a descriptor, of which a process has 1,024 as a rule.
const MOST_OF_PORT: usize = 64;
const MOST: usize = 256;

/// Those who are served at all ports.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<Present>>);

#[derive(Debug, Default)]
struct Present {
    next: u64,
    /// In the order in which they came.
    all: BTreeMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    port: SocketAddr,
    from: IpAddr,
    asked: bool,
    /// Dropped where it has to go.
    _stays: oneshot::Sender<()>,
}

impl Guests {
    /// Lets a connection in. Where there are too many one has to go: of who has most, the oldest that has not asked for anything yet. So
    /// who holds many keeps nobody else out.
    pub(super) fn admit(&self, port: SocketAddr, peer: IpAddr) -> Admitted {
        let mut present = self.present();
        if present.all.values().filter(|guest| guest.port == port).count() >= MOST_OF_PORT {
            present.show_out(Some(port));
        } else if present.all.len() >= MOST {
            present.show_out(None);
        }
        let (stays, shown_out) = oneshot::channel();
        let number = present.next;
        present.next += 1;
        present.all.insert(number, Guest { port, from: origin(peer), asked: false, _stays: stays });
        drop(present);
        Admitted { guests: self.clone(), number, shown_out }
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    /// Ends a connection of the port, or of any.
    fn show_out(&mut self, port: Option<SocketAddr>) {
        let considered = || self.all.iter().filter(|(_, guest)| port.is_none_or(|port| guest.port == port));
        let mut counts = HashMap::<IpAddr, usize>::new();
        considered().for_each(|(_, guest)| *counts.entry(guest.from).or_default() += 1);
        let order =
            |(number, guest): &(&u64, &Guest)| (Reverse(counts.get(&guest.from).copied()), guest.asked, **number);
        if let Some(number) = considered().min_by_key(order).map(|(number, _)| *number) {
            self.all.remove(&number);
        }
    }
}

/// Who has one address of IPv6 has many.
pub(super) fn origin(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() & (u128::MAX << 64)).into(),
        addr => addr,
    }
}

/// A connection that is let in, until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    guests: Guests,
    number: u64,
    shown_out: oneshot::Receiver<()>,
}

impl Admitted {
    /// It has asked for something.
    pub(super) fn asked(&self) {
        if let Some(guest) = self.guests.present().all.get_mut(&self.number) {
            guest.asked = true;
        }
    }

    /// Whether it has to go; where not, the task is woken when it has.
    pub(super) fn is_shown_out(&mut self, context: &mut Context<'_>) -> bool {
        // Who is asked again gives the same answer.
        self.shown_out.is_terminated() || Pin::new(&mut self.shown_out).poll(context).is_ready()
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.guests.present().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16) -> SocketAddr {
        ([192, 0, 2, 1], number).into()
    }

    fn stays(admitted: &mut Admitted) -> bool {
        !admitted.is_shown_out(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn who_holds_many_connections_keeps_nobody_else_out() {
        let guests = Guests::default();
        let mut honest = guests.admit(port(1), [192, 0, 2, 7].into());
        let mut many: Vec<_> = (0..200).map(|_| guests.admit(port(1), [192, 0, 2, 66].into())).collect();
        assert!(stays(&mut honest));
        assert_eq!(many.iter_mut().map(stays).filter(|stays| *stays).count(), MOST_OF_PORT - 1);
        assert!(stays(many.last_mut().unwrap()), "the oldest go");
        let mut next = guests.admit(port(1), [192, 0, 2, 8].into());
        assert!(stays(&mut honest) && stays(&mut next));
        drop(many);
        assert_eq!(guests.present().all.len(), 2);
    }

    #[test]
    fn who_has_asked_goes_after_those_who_have_not_and_all_ports_have_a_limit_together() {
        let guests = Guests::default();
        // Addresses of one network of IPv6 are one's.
        let peer = |number: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, number));
        let mut asked = guests.admit(port(1), peer(1));
        asked.asked();
        let mut others: Vec<_> = (0..300).map(|number| guests.admit(port(2 + number % 20), peer(number))).collect();
        assert!(stays(&mut asked));
        assert_eq!(others.iter_mut().map(stays).filter(|stays| *stays).count(), MOST - 1);
        assert!(!stays(&mut others[0]));
        let mut other = guests.admit(port(1), "::ffff:192.0.2.9".parse().unwrap());
        drop(guests.admit(port(1), peer(2)));
        assert!(stays(&mut other));
    }
}
