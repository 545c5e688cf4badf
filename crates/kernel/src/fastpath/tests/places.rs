//! Where the programs are put, and next to what of others.

use std::time::Instant;

use super::*;

fn devices(tag: &str, count: u32) -> (TestNs, RtSocket, Vec<LinkName>) {
    let netns = TestNs::new(&format!("fp-{tag}"));
    for number in 0..count {
        netns.command(&format!("ip link add pn{number} up type veth peer name pod{number}"));
    }
    let socket = RtSocket::open_in(&netns).unwrap();
    (netns, socket, (0..count).map(|number| LinkName::from(format!("pn{number}"))).collect())
}

/// Where the kernel waits until no processor uses what was there before, it takes 10 to 30 ms.
#[test]
fn neither_new_nor_replaced_programs_make_the_kernel_wait() {
    let (_netns, mut socket, devices) = devices("wait", 9);
    for round in ["new", "replaced"] {
        let programs = FastPath::load().unwrap();
        let mut took: Vec<Duration> = devices
            .iter()
            .map(|device| {
                let begun = Instant::now();
                assert!(programs.attach(&mut socket, device, Behind::Pod).unwrap());
                begun.elapsed()
            })
            .collect();
        took.sort();
        println!("{round}: {took:?}");
        // Others have the processors at times; where the kernel waits, it does so each time.
        assert!(took[0] < Duration::from_millis(5), "{round}: {took:?}");
    }
}

#[test]
fn what_others_have_at_the_hooks_stays() {
    let (netns, mut socket, devices) = devices("others", 4);
    let programs = FastPath::load().unwrap();
    let filters = || ["ingress", "egress"].map(|hook| netns.command(&format!("tc filter show dev pn0 {hook}")));
    netns.command("tc qdisc add dev pn0 clsact");
    for hook in ["ingress", "egress"] {
        netns.command(&format!("tc filter add dev pn0 {hook} pref 88 u32 match u32 0 0 flowid 1:1"));
    }
    let before = filters();
    assert!(programs.attach(&mut socket, &devices[0], Behind::Pod).unwrap());
    assert_ne!(filters(), before);
    assert!(detach(&mut socket, &devices[0]).unwrap());
    assert_eq!(filters(), before);
    // A filter of our priority is not ours by that.
    netns.command("tc qdisc add dev pn1 clsact");
    netns.command("tc filter add dev pn1 ingress pref 89 u32 match u32 0 0 flowid 1:1");
    let error = programs.attach(&mut socket, &devices[1], Behind::Pod).unwrap_err();
    assert!(format!("{error:?}").contains("another program has filters of priority 89"), "{error:?}");
    assert!(!detach(&mut socket, &devices[1]).unwrap() && !is_attached(&mut socket, &devices[1]).unwrap());
    assert!(netns.command("tc filter show dev pn1 ingress").contains("u32"));
    // The old hook would take what is for the egress at the ingress.
    netns.command("tc qdisc add dev pn2 ingress");
    assert!(programs.attach(&mut socket, &devices[2], Behind::Pod).is_err());
    assert_eq!(netns.command("tc filter show dev pn2 ingress"), "");
    // What is not there needs nothing.
    assert!(!programs.attach(&mut socket, &"pn9".into(), Behind::Pod).unwrap());
    assert!(!detach(&mut socket, &"pn9".into()).unwrap());
}

/// Whoever is about to limit a pod must not take a failure for done.
#[test]
fn what_cannot_be_taken_away_or_put_there_is_an_error() {
    let (_netns, mut socket, devices) = devices("refused", 2);
    let programs = FastPath::load().unwrap();
    assert!(programs.attach(&mut socket, &devices[0], Behind::Pod).unwrap());
    thread::scope(|scope| {
        let refused = scope.spawn(|| {
            let mut sets = rustix::thread::capabilities(None).unwrap();
            sets.effective.remove(rustix::thread::CapabilitySet::NET_ADMIN);
            rustix::thread::set_capabilities(None, sets).unwrap();
            let away = detach(&mut socket, &devices[0]).unwrap_err();
            assert!(matches!(away, FastPathError::Detach { .. }) && !away.is_lacking(), "{away:?}");
            assert!(is_attached(&mut socket, &devices[0]).unwrap());
            let put = programs.attach(&mut socket, &devices[1], Behind::Pod).unwrap_err();
            assert!(matches!(put, FastPathError::Attach { .. }) && !put.is_lacking(), "{put:?}");
        });
        refused.join().unwrap();
    });
}
