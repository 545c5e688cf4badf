//! An agent that starts where another one was.

mod bygone;

use std::fs;

use podnet_kernel::{datapath::KernelDatapath, netns::NetNs};
use podnet_model::{EndpointSlice, SliceKey};

use super::*;

/// A Service whose clients come to the same endpoint again, and its endpoint.
fn sticky() -> [Change; 2] {
    let Change::Service(key, Some(mut web)) = service(Some("10.96.0.1")) else { unreachable!() };
    web.affinity = Some(3600);
    let slice = serde_json::json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "protocol": "TCP", "port": 8080}],
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}],
    });
    let slice: k8s_openapi::api::discovery::v1::EndpointSlice = serde_json::from_value(slice).unwrap();
    let slice = Change::Slice(SliceKey::new("default", "web-1"), Some(EndpointSlice::try_from(&slice).unwrap()));
    [Change::Service(key, Some(web)), slice]
}

/// What `iptables` remembers goes with the last rule that looks it up.
#[test]
fn chains_of_an_earlier_agent_stay_and_remember_their_clients() {
    let path = format!("/run/netns/podnet-test-restart-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let done = netns.run(|| {
        let mut datapath = KernelDatapath::open().unwrap();
        let mut start = |mode| {
            let mut rules = rules();
            sticky().iter().for_each(|change| rules.learn(change));
            rules.begin_in(mode);
            rules.put(&mut datapath).unwrap();
            assert!(rules.serves());
            datapath.nft_socket().tables(Family::V4).unwrap().iter().any(|table| table == nftables::TABLE)
        };
        let memory = || {
            let mut lists = fs::read_dir("/proc/thread-self/net/xt_recent").unwrap();
            let list = lists.find(|list| list.as_ref().unwrap().file_name() != "DEFAULT").unwrap().unwrap();
            list.path()
        };
        assert!(start(Mode::Nftables));
        assert!(!start(Mode::Iptables), "what is of another mode goes");
        fs::write(memory(), "+192.0.2.9\n").unwrap();
        assert!(!start(Mode::Iptables));
        let remembered = fs::read_to_string(memory()).unwrap();
        assert!(remembered.contains("src=192.0.2.9 "), "{remembered}");
        assert!(start(Mode::Nftables));
        assert!(fs::read_dir("/proc/thread-self/net/xt_recent").unwrap().next().is_none(), "and so back");
    });
    NetNs::remove(&path).unwrap();
    done.unwrap();
}
