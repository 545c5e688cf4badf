//! Somebody else's programs at the hooks that packets pass before filters (Linux 6.6).

use super::*;
use crate::object::always;

/// Puts programs of somebody else's before all that is at a device: what it receives no filter sees any more, and what it sends goes on to them.
fn others_stand_before(lab: &Lab, device: &LinkName) {
    // `TC_ACT_OK` and `TC_ACT_UNSPEC` of linux/pkt_cls.h, at BPF_TCX_INGRESS and BPF_TCX_EGRESS.
    for (hook, verdict) in [(46, 0), (47, -1)] {
        let program = always(verdict);
        let index = index(lab, device);
        lab.netns.run(|| call::attach_to(index, hook, program.as_fd(), None)).unwrap().unwrap();
    }
}

fn index(lab: &Lab, device: &LinkName) -> u32 {
    link::find(&mut lab.socket(), device).unwrap().unwrap().index
}

/// The programs at the hook of what a device receives, and the filters of ours there.
fn received(lab: &Lab, device: &LinkName) -> (Vec<String>, usize) {
    let (socket, place) = (&mut lab.socket(), (index(lab, device), device));
    let programs = tcx::at(socket, place, Hook::Ingress).unwrap().into_iter().map(|one| one.name).collect();
    (programs, program::at(socket, place, Hook::Ingress, program::FLOWS).unwrap().len())
}

#[test]
fn what_somebodys_program_keeps_from_filters_is_counted_before_it_and_nothing_twice() {
    let lab = Lab::new("before");
    let flows = lab.counting(SMALL);
    let socket = lab.udp(v4(2));
    let port = socket.local_addr().unwrap().port();
    let seen = |flows: &Flows| {
        let (source, destination) = both(flows, port).unwrap();
        [source.out, source.into, destination.into, destination.out].map(|way| way.packets)
    };
    let device = &lab.devices[0];
    datagrams(&socket, 2, 100);
    assert_eq!((seen(&flows), received(&lab, device)), ([2; 4], (Vec::new(), 1)));
    others_stand_before(&lab, device);
    datagrams(&socket, 1, 100);
    assert_eq!(seen(&flows), [2, 3, 3, 3], "no filter saw it");
    assert!(flows.attach(&mut lab.socket(), device).unwrap());
    assert!(!flows.attach(&mut lab.socket(), device).unwrap());
    datagrams(&socket, 2, 100);
    let ours_first = || (vec![OUT.to_owned(), "other".to_owned()], 0);
    assert_eq!((seen(&flows), received(&lab, device)), ([4, 5, 5, 5], ours_first()));
    // The next agent's take their place, and go on.
    let next = lab.counting(SMALL);
    assert!(next.goes_on());
    datagrams(&socket, 1, 100);
    assert_eq!((seen(&next), received(&lab, device)), ([5, 6, 6, 6], ours_first()));
    assert!(is_at(&mut lab.socket(), device).unwrap());
    assert!(detach(&mut lab.socket(), device).unwrap() && !detach(&mut lab.socket(), device).unwrap());
    assert!(!is_at(&mut lab.socket(), device).unwrap());
    datagrams(&socket, 1, 100);
    assert_eq!((seen(&next), received(&lab, device)), ([5, 6, 7, 7], (vec!["other".to_owned()], 0)));
}

#[test]
fn who_comes_before_ours_later_stands_behind_them_at_the_next_look_but_not_again_and_again() {
    let lab = Lab::new("behind");
    let device = &lab.devices[0];
    others_stand_before(&lab, device);
    let flows = lab.counting(SMALL);
    let order = || received(&lab, device).0;
    others_stand_before(&lab, device);
    assert_eq!(order(), ["other", OUT, "other"]);
    assert!(flows.attach(&mut lab.socket(), device).unwrap());
    assert_eq!(order(), [OUT, "other", "other"]);
    let socket = lab.udp(v4(2));
    datagrams(&socket, 1, 100);
    assert_eq!(both(&flows, socket.local_addr().unwrap().port()).unwrap().0.out.packets, 1);
    others_stand_before(&lab, device);
    assert!(!flows.attach(&mut lab.socket(), device).unwrap(), "within the same minute");
    assert_eq!(order(), ["other", OUT, "other", "other"]);
    // The next agent's.
    let _next = lab.counting(SMALL);
    assert_eq!(order(), [OUT, "other", "other", "other"]);
}
