//! What is refused is counted while somebody wants to know.

use podnet_ebpf::sockets::REFUSED;
use podnet_flow::{Refusal, Transport, Unserved};

use super::*;
use crate::flows::Refusals;

fn counted(lab: &Lab) -> Refusals {
    let refusals = Refusals::at(&lab.group.0).unwrap().unwrap();
    refusals.record(true).unwrap();
    refusals
}

/// Where was asked, by which protocol and port, how often, and what was said.
fn told(refusal: &Refusal) -> (SocketAddr, Transport, u16, u64, Unserved) {
    (refusal.to, refusal.transport, refusal.port, refusal.count, refusal.unserved)
}

#[test]
fn what_is_refused_is_counted_by_who_asked_while_that_is_wanted() {
    let lab = Lab::new("refused");
    lab.refuse(FRONTEND, Serves::Nobody);
    lab.refuse(FRONTEND6, Serves::NobodyHere);
    let [front, front6] = [FRONTEND, FRONTEND6].map(|addr| SocketAddr::from((addr, 80)));
    let udp = lab.udp(OWN);
    let ask = || {
        lab.tcp(front).unwrap_err();
        lab.tcp(front).unwrap_err();
        lab.tcp(front6).unwrap_err();
        udp.send_to(&[0], front).unwrap_err();
        // Of the node itself.
        TcpStream::connect(front).unwrap_err();
    };
    ask();
    let mut refusals = counted(&lab);
    assert!(refusals.read().unwrap().is_empty(), "nobody wanted to know");
    ask();
    let mut all = refusals.read().unwrap();
    all.sort_by_key(|refusal| (refusal.to, refusal.transport));
    let port = udp.local_addr().unwrap().port();
    let expected = [
        (front, Transport::TCP, 0, 2, Unserved::Nobody),
        (front, Transport::UDP, port, 1, Unserved::Nobody),
        (front6, Transport::TCP, 0, 1, Unserved::NobodyHere),
    ];
    assert_eq!(all.iter().map(told).collect::<Vec<_>>(), expected);
    let netns = cookie_of(&lab.netns).unwrap();
    assert!(all.iter().all(|one| one.netns == netns && one.born > 0 && one.first <= one.last), "{all:?}");
    // One that goes on stays, and one that does not is taken out once.
    lab.tcp(front).unwrap_err();
    assert_eq!(refusals.take(&all[0]).unwrap(), None);
    assert_eq!(refusals.take(&all[1]).unwrap(), Some(all[1]));
    assert_eq!(refusals.take(&all[1]).unwrap(), None);
    let mut left = refusals.read().unwrap();
    left.sort_by_key(|refusal| refusal.to);
    assert_eq!(left.iter().map(|refusal| refusal.count).collect::<Vec<_>>(), [3, 1]);
    // The next agent's programs go on with it.
    let newer = Sockets::open(&lab.group.0, Sizes::LEAST).unwrap();
    newer.attach().unwrap();
    let mut again = Refusals::at(&lab.group.0).unwrap().unwrap();
    assert!(again.is_same(&refusals));
    lab.tcp(front6).unwrap_err();
    assert_eq!(again.read().unwrap().iter().map(|refusal| refusal.count).sum::<u64>(), 5);
    again.record(false).unwrap();
    ask();
    assert!(refusals.read().unwrap().is_empty() && again.missed().unwrap() == 0);
}

#[test]
fn refusals_that_find_no_room_are_counted_together() {
    let lab = Lab::with("missed", &[(REFUSED, 1)]);
    lab.refuse(FRONTEND, Serves::Nobody);
    let mut refusals = counted(&lab);
    let udp = lab.udp(OWN);
    for _ in 0..2 {
        lab.tcp((FRONTEND, 80)).unwrap_err();
        udp.send_to(&[0], (FRONTEND, 80)).unwrap_err();
    }
    assert_eq!(refusals.read().unwrap().iter().map(told).map(|told| told.3).collect::<Vec<_>>(), [2]);
    assert_eq!([refusals.missed().unwrap(), refusals.missed().unwrap()], [2, 0]);
    // What one agent does not tell is the next one's to tell, unless nobody wants to know by then.
    udp.send_to(&[0], (FRONTEND, 80)).unwrap_err();
    let next = Refusals::at(&lab.group.0).unwrap().unwrap();
    assert_eq!([&next, &refusals].map(|one| one.missed().unwrap()), [1, 0]);
    udp.send_to(&[0], (FRONTEND, 80)).unwrap_err();
    next.record(false).unwrap();
    assert_eq!(next.missed().unwrap(), 0);
    let elsewhere = Cgroup::v2("pntest-sockets-nowhere").unwrap();
    assert!(Refusals::at(&elsewhere).unwrap().is_none());
}
