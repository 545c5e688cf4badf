//! In a namespace, with the real programs.

use std::{path::PathBuf, process::Command};

use podnet_kernel::{datapath::KernelDatapath, iptables::Iptables};
use podnet_model::{
    Change, ClusterIp, Protocol, Service, ServiceKey, ServicePort,
    service::{Port, ServiceKind},
};
use podnet_planner::services::ServicesConfig;

use super::*;

struct Scene {
    path: PathBuf,
    netns: NetNs,
    datapath: KernelDatapath,
    services: Services,
    rules: InIptables,
}

impl Scene {
    /// On a host whose rules are in this variant.
    fn new(variant: Variant) -> Self {
        let path = PathBuf::from(format!("/run/netns/pntest-proxy-{variant}-{}", std::process::id()));
        NetNs::remove(&path).unwrap();
        let netns = NetNs::create(&path).unwrap();
        let datapath = KernelDatapath::open_in(&netns).unwrap();
        let services = Services::new(ServicesConfig::new(Family::V4, "node1".into(), Vec::new()));
        let rules = InIptables::new(&services);
        let scene = Self { path, netns, datapath, services, rules };
        scene.command(&format!("iptables-{variant} -t mangle -N KUBE-IPTABLES-HINT"));
        scene
    }

    fn command(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let output = self.netns.run(|| Command::new(words[0]).args(&words[1..]).output()).unwrap().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The chains of the variant but for the hint, and whether each is podnet's is for the caller to see.
    fn saved(&self, variant: Variant) -> String {
        let saved = Iptables::new(self.netns.clone(), Family::V4, variant).unwrap().saved().unwrap();
        format!("{saved:?}").replace("KUBE-IPTABLES-HINT", "")
    }

    fn learn(&mut self, name: &str, ip: Option<&str>) {
        let key = ServiceKey::new("default", name);
        let port = Port { name: "".into(), protocol: Protocol::Tcp, port: ServicePort(80), node_port: None };
        let kind = |ip: &str| ServiceKind::Virtual { cluster_ips: vec![ClusterIp(ip.parse().unwrap())] };
        let service = ip.map(|ip| Service::new(key.clone(), kind(ip), vec![port]));
        let plan = self.services.apply(&Change::Service(key, service));
        self.rules.learn(&self.services, &plan);
    }

    fn edit(&mut self) -> usize {
        self.rules.edit(&self.services, &mut self.datapath).unwrap()
    }

    fn look(&mut self) -> Option<String> {
        // Time is not waited for.
        self.rules.next_look = Instant::now();
        self.rules.look(&self.services, &mut self.datapath).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = NetNs::remove(&self.path);
    }
}

#[test]
fn the_hosts_variant_is_used_changes_follow_and_all_goes_with_the_mode() {
    for (variant, other) in [(Variant::Legacy, Variant::Nft), (Variant::Nft, Variant::Legacy)] {
        let mut scene = Scene::new(variant);
        assert!(!scene.rules.in_force());
        scene.learn("first", Some("10.96.0.1"));
        assert_eq!(scene.edit(), 0, "all is put in force the first time");
        assert!(scene.rules.in_force() && scene.saved(variant).contains("default/first has no endpoints"));
        assert!(!scene.saved(other).contains("KUBE-"));

        scene.learn("second", Some("10.96.0.2"));
        scene.learn("first", None);
        assert!(scene.edit() > 0);
        let saved = scene.saved(variant);
        assert!(saved.contains("default/second") && !saved.contains("default/first"), "{saved}");
        assert_eq!(scene.look(), None);
        let Packets { invalid, from_loopback } = scene.rules.counted();
        for rule in [invalid, from_loopback] {
            assert_eq!(rule.unwrap().packets().unwrap(), Some(0), "nothing was sent");
        }

        scene.rules.take_away(&mut scene.datapath).unwrap();
        assert!(!scene.saved(variant).contains("KUBE-"));
        assert!(!scene.rules.in_force() && scene.rules.counted().invalid.is_none());
    }
}

#[test]
fn what_others_damage_is_seen_and_mended_once() {
    for variant in [Variant::Legacy, Variant::Nft] {
        let mut scene = Scene::new(variant);
        scene.learn("first", Some("10.96.0.1"));
        scene.edit();
        let right = scene.saved(variant);
        scene.command(&format!("iptables-{variant} -F KUBE-SERVICES"));
        scene.command(&format!("iptables-{variant} -t nat -D OUTPUT 1"));
        let chain = |table: &str, name: &str| (2, table.to_owned(), name.to_owned());
        scene.rules.hear(&changed([chain("filter", "KUBE-SERVICES"), chain("nat", "OUTPUT")]));
        let told = scene.look().unwrap();
        assert_eq!(told, "the way from chain OUTPUT of table nat and 1 more of iptables");
        assert_eq!(scene.saved(variant), right);
        assert_eq!(scene.look(), None);
    }
}

/// Somebody's transaction.
fn changed<const N: usize>(chains: [(u8, String, String); N]) -> Notice {
    let tables = chains.iter().map(|(family, table, _)| (*family, table.clone())).collect();
    Notice::Rules(Transaction { tables, chains: chains.into(), ..Transaction::default() })
}

#[test]
fn what_others_do_in_chains_of_their_own_is_no_reason_to_read_all_rules() {
    let touches = |family: u8, table: &str, name: &str| {
        let Notice::Rules(transaction) = changed([(family, table.to_owned(), name.to_owned())]) else { unreachable!() };
        touches(None, Family::V4, &transaction)
    };
    assert!(touches(2, "nat", "KUBE-SERVICES") && touches(2, "filter", "KUBE-FORWARD"));
    assert!(touches(2, "nat", "POSTROUTING"), "from there podnet's chains are reached");
    assert!(touches(2, "nat", ""), "the table went");
    for (family, table, name) in [
        (2, "nat", "DOCKER"),
        (2, "nat", "CNI-HOSTPORT-DNAT"),
        (2, "mangle", "KUBE-KUBELET-CANARY"),
        (2, "somebodys", "POSTROUTING"),
        (10, "nat", "KUBE-SERVICES"),
    ] {
        assert!(!touches(family, table, name), "{family} {table} {name}");
    }
    let tables = [(2, "nat".to_owned())].into();
    let many = Transaction { tables, has_more_chains: true, ..Transaction::default() };
    assert!(super::touches(None, Family::V4, &many) && !super::touches(None, Family::V6, &many));
}

#[test]
fn who_writes_without_end_does_not_take_all_of_the_threads_time() {
    let now = Instant::now();
    assert_eq!(rested(now, Duration::from_millis(250)), now + LOOK);
    assert_eq!(rested(now, Duration::from_millis(2250)), now + Duration::from_secs(20));
    let mut scene = Scene::new(Variant::Nft);
    scene.edit();
    scene.rules.hear(&Notice::Lost);
    assert_eq!(scene.look(), None);
    scene.rules.hear(&Notice::Lost);
    assert!(scene.rules.due().unwrap() >= now + LOOK);
}

#[test]
fn what_an_earlier_agent_made_in_the_other_variant_goes() {
    let mut scene = Scene::new(Variant::Nft);
    let chains = Chains::new(&scene.services).desired(&scene.services);
    let mut earlier = Iptables::new(scene.netns.clone(), Family::V4, Variant::Legacy).unwrap();
    earlier.put(&chains).unwrap();
    assert!(scene.saved(Variant::Legacy).contains("KUBE-SERVICES"));
    scene.rules.put(&scene.services, &mut scene.datapath).unwrap();
    assert!(!scene.saved(Variant::Legacy).contains("KUBE-"));
    assert!(scene.saved(Variant::Nft).contains("KUBE-SERVICES"));
}
