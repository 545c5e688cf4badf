//! What others do to single elements.

use std::net::Ipv4Addr;

use podnet_kernel::{
    datapath::KernelDatapath,
    monitor::{Monitor, Notice, Transaction},
    netns::NetNs,
};
use podnet_planner::ruleset::Set;

use super::*;

const SERVICES: u32 = 10_000;

fn ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a60_0000 + number)
}

fn service_at(number: u32) -> Change {
    let Change::Service(_, Some(service)) = service(Some(&ip(number).to_string())) else { panic!("a Service") };
    let key = ServiceKey::new("default", &format!("web-{number}"));
    Change::Service(key.clone(), Some(Service { key, ..service }))
}

/// What somebody else's transaction is told to be.
fn does(monitor: &mut Monitor, edits: &[Edit]) -> Transaction {
    let mut other = KernelDatapath::open().unwrap();
    other.edit(Family::V4, nftables::TABLE, edits).unwrap();
    loop {
        for notice in monitor.wait().unwrap() {
            if let Notice::Rules(transaction) = notice {
                return transaction;
            }
        }
    }
}

/// The element of a Service, none of which has endpoints.
fn without(number: u32) -> [Edit; 1] {
    let key = FrontendKey { addr: ip(number).into(), protocol: Protocol::Tcp, port: 80 };
    [Edit::RemoveVerdict { map: "no-endpoints".into(), key }]
}

/// How many Services there are in the kernel.
fn counted(datapath: &mut KernelDatapath) -> u32 {
    let count = datapath.nft_socket().element_count(Family::V4, nftables::TABLE, "no-endpoints");
    count.unwrap().try_into().unwrap()
}

#[test]
fn of_10_000_services_that_one_is_mended_which_somebody_damaged() {
    let path = format!("/run/netns/podnet-test-touched-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let done = netns.run(|| {
        let mut datapath = KernelDatapath::open().unwrap();
        let mut rules = rules();
        (0..SERVICES).for_each(|number| rules.learn(&service_at(number)));
        rules.put(&mut datapath).unwrap();
        // Nobody hears of this one: it would show if more was looked at than what is told.
        KernelDatapath::open().unwrap().edit(Family::V4, nftables::TABLE, &without(1)).unwrap();
        let mut monitor = datapath.monitor(&[]).unwrap();
        let told = does(&mut monitor, &without(7));
        assert!(!told.is_more, "{told:?}");
        assert_eq!(counted(&mut datapath), SERVICES - 2);
        assert_eq!(rules.mend_elements(&told.touched, &mut datapath).unwrap(), Some(1));
        assert_eq!(rules.mend_elements(&told.touched, &mut datapath).unwrap(), Some(0), "it is right");
        assert_eq!(counted(&mut datapath), SERVICES - 1);
        // What is planned now counts, and not what was there.
        let stale = does(&mut monitor, &without(8));
        rules.learn(&Change::Service(ServiceKey::new("default", "web-8"), None));
        assert_eq!(rules.mend_elements(&stale.touched, &mut datapath).unwrap(), None, "not all is in force");
        rules.edit(Tries::All, &mut datapath).unwrap_err();
        rules.edit(Tries::All, &mut datapath).unwrap();
        assert_eq!(
            (counted(&mut datapath), rules.mend_elements(&stale.touched, &mut datapath).unwrap()),
            (SERVICES - 1, Some(0))
        );
        // Of what is no frontend's, of a rule, of many at once it is not told what helps.
        let ping = Edit::RemoveElements("cluster-ips".into(), Set::Addresses([ip(9).into()].into()));
        let told = does(&mut monitor, &[ping]);
        assert_eq!((told.is_more, rules.mend_elements(&told.touched, &mut datapath).unwrap()), (false, None));
        let many: Vec<Edit> = (100..400).flat_map(without).collect();
        assert!(does(&mut monitor, &many).is_more);
        assert!(does(&mut monitor, &[Edit::AddMemory("theirs".into())]).is_more);
    });
    NetNs::remove(&path).unwrap();
    done.unwrap();
}
