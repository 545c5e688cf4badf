use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use podnet_kernel::memory::MemoryKernel;
use podnet_model::{
    ClusterIp, Pool, Protocol, Service, ServiceKey, ServicePort,
    service::{Port, ServiceKind},
};
use podnet_planner::{
    proxy::RuleSettings,
    services::{MASQUERADE_MARK, NodePortAddresses, Plan, ebpf::Remembered},
};

use super::*;
use crate::proxy::mode::ServiceRules;

mod beside;
mod damage;
mod forget;
mod linger;
mod others;
mod refused;
mod restart;

fn rules() -> ClusterRules {
    let services = ServicesConfig::new(Family::V4, "node1".into(), Vec::new());
    let no_nat_cidrs = ["192.0.2.0/24", "2001:db8::/32", "10.96.0.0/12"].map(|range| range.parse().unwrap()).into();
    let border = BorderConfig { family: Family::V4, node_addrs: Vec::new(), pod_cidrs: Vec::new(), no_nat_cidrs };
    ClusterRules::new(&services, &border)
}

fn pool(name: &str, cidr: Option<&str>) -> Change {
    let pool = cidr.map(|cidr| Pool { nat_outgoing: true, ..Pool::new(name.into(), cidr.parse().unwrap()) });
    Change::Pool(name.into(), pool)
}

fn service(ip: Option<&str>) -> Change {
    let key = ServiceKey::new("default", "web");
    let port = Port { name: "".into(), protocol: Protocol::Tcp, port: ServicePort(80), node_port: None };
    let kind = |ip: &str| ServiceKind::Virtual { cluster_ips: vec![ClusterIp(ip.parse().unwrap())] };
    Change::Service(key.clone(), ip.map(|ip| Service::new(key, kind(ip), vec![port])))
}

/// Whatever comes and goes, the tables in the kernel are those that an agent would make that starts now.
#[test]
fn there_are_tables_of_ipv6_while_the_cluster_has_anything_of_it() {
    let kernel = MemoryKernel::new();
    let mut tables_in_force = rules();
    tables_in_force.put(&mut kernel.clone()).unwrap();
    let mut cluster = Vec::new();
    for (change, tables) in [
        (pool("four", Some("10.0.0.0/16")), 2),
        (pool("six", Some("fd00::/64")), 3),
        (pool("more", Some("fd01::/64")), 3),
        (service(Some("fd96::1")), 4),
        (pool("four", None), 4),
        (pool("six", None), 4),
        (pool("more", None), 3),
        (service(Some("10.96.0.1")), 2),
        (pool("six", Some("fd00::/64")), 3),
        (service(None), 3),
    ] {
        tables_in_force.learn(&change);
        tables_in_force.edit(Tries::All, &mut kernel.clone()).unwrap();
        cluster.push(change);
        let afresh = MemoryKernel::new();
        let mut other = rules();
        cluster.iter().for_each(|change| other.learn(change));
        other.put(&mut afresh.clone()).unwrap();
        assert_eq!(kernel.state().tables.len(), tables);
        assert_eq!(kernel.state().tables, afresh.state().tables);
    }
}

/// Rules that stand beside others in a list of what is done, and may be refused.
#[derive(Debug)]
struct Fake {
    refuses: bool,
    /// So many times they cannot be taken away.
    stays: usize,
    lingers: Arc<AtomicBool>,
    /// Where it lingers.
    held: BTreeSet<IpAddr>,
    takes_new: Arc<AtomicBool>,
    /// What lingers of others, and is over once these are put in force.
    ends: Arc<AtomicBool>,
    remembers: Arc<std::sync::Mutex<Remembered>>,
    done: Arc<std::sync::Mutex<Vec<String>>>,
    kernel: MemoryKernel,
}

impl Fake {
    /// Rules that take everything, tell nobody and go when they are told to.
    fn beside(kernel: &MemoryKernel) -> Self {
        let (lingers, takes_new, ends) = (Arc::default(), Arc::default(), Arc::default());
        let (remembers, done, held) = (Arc::default(), Arc::default(), BTreeSet::new());
        Self { refuses: false, stays: 0, lingers, held, takes_new, ends, remembers, done, kernel: kernel.clone() }
    }

    fn note(&self, what: &str) {
        let tables = self.kernel.state().tables.keys().filter(|(_, table)| table == nftables::TABLE).count();
        self.done.lock().unwrap().push(format!("{what} beside {tables}"));
    }
}

impl ServiceRules for Fake {
    fn learn(&mut self, _: &Services, _: &Plan) {}

    fn follow(&mut self, _: &Services, _: &mut dyn Datapath) -> Result<usize, RulesError> {
        Ok(0)
    }

    fn may_be_there(&self) -> bool {
        false
    }

    fn put(&mut self, services: &Services, _: &mut dyn Datapath) -> Result<(), RulesError> {
        self.note("put");
        self.ends.store(false, Ordering::Relaxed);
        if self.refuses && services.config().family == Family::V6 {
            return Err(RulesError::Other("no such mode".into()));
        }
        Ok(())
    }

    fn take_away(&mut self, _: &mut dyn Datapath) -> Result<(), RulesError> {
        self.note("gone");
        if let Some(stays) = self.stays.checked_sub(1) {
            self.stays = stays;
            return Err(RulesError::Other("somebody has the lock".into()));
        }
        Ok(())
    }

    fn in_force(&self) -> bool {
        true
    }

    fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }

    fn held(&self) -> BTreeSet<IpAddr> {
        if self.lingers() { self.held.clone() } else { BTreeSet::new() }
    }

    fn takes_new(&self) -> bool {
        self.takes_new.load(Ordering::Relaxed)
    }

    fn leave_to_rules(&mut self, _: &Services, addrs: &BTreeSet<IpAddr>) {
        if !addrs.is_empty() || !self.held.is_empty() {
            self.note(&format!("leaves {}", addrs.len()));
        }
    }

    fn recall(&mut self) {
        self.note("recalled");
    }

    fn remembered(&self) -> Remembered {
        self.remembers.lock().unwrap().clone()
    }

    fn withdraw(&mut self, is_served: &dyn Fn(&FrontendKey) -> bool, _: &mut dyn Datapath) -> Result<(), RulesError> {
        if self.lingers() {
            let web = FrontendKey { addr: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port: 80 };
            self.note(if is_served(&web) { "keeps web" } else { "withdraws web" });
        }
        Ok(())
    }

    fn begin_anew(&mut self, _services: &Services) {}
}

/// Rules in mode `ipvs`, of which it is told what they remember once they are left.
pub(in crate::network) struct OfServers {
    pub(in crate::network) rules: ClusterRules,
    remembers: Arc<std::sync::Mutex<Remembered>>,
    kernel: MemoryKernel,
}

impl OfServers {
    pub(in crate::network) fn new() -> Self {
        let (kernel, mut rules) = (MemoryKernel::new(), rules());
        let remembers = Arc::default();
        let fakes = Dual::from_fn(|_| -> Box<dyn ServiceRules> {
            Box::new(Fake { remembers: Arc::clone(&remembers), ..Fake::beside(&kernel) })
        });
        rules.put(&mut kernel.clone()).unwrap();
        rules.replace(Mode::Ipvs, fakes, &rules.held_beside(Mode::Ipvs), &mut kernel.clone()).unwrap();
        rules.mode = Mode::Ipvs;
        Self { rules, remembers, kernel }
    }

    /// The mode becomes `ebpf`.
    pub(in crate::network) fn leave(&mut self) {
        self.rules.switch(Mode::Ebpf, &mut self.kernel.clone()).unwrap();
    }

    /// They remember these from now on, and are looked at where they are left.
    pub(in crate::network) fn remember(&mut self, backends: Remembered) {
        *self.remembers.lock().unwrap() = backends;
        self.rules.pass(Duration::from_secs(60));
        self.rules.look(&mut self.kernel.clone()).unwrap();
    }
}

#[test]
fn another_mode_is_in_force_before_the_old_one_goes_and_a_refused_one_leaves_it() {
    let kernel = MemoryKernel::new();
    let mut rules = rules();
    rules.learn(&service(Some("10.96.0.1")));
    rules.put(&mut kernel.clone()).unwrap();
    let before = kernel.state().tables.clone();
    let done = Arc::default();
    let fakes = |refuses| {
        Dual::from_fn(|_| -> Box<dyn ServiceRules> {
            Box::new(Fake { refuses, done: Arc::clone(&done), ..Fake::beside(&kernel) })
        })
    };
    let taken = || std::mem::take(&mut *done.lock().unwrap());
    rules.replace(Mode::Iptables, fakes(true), &Dual::default(), &mut kernel.clone()).unwrap_err();
    assert_eq!(taken(), ["put beside 1", "put beside 1", "gone beside 1", "gone beside 1"]);
    assert_eq!(kernel.state().tables, before);
    assert!(rules.is_needed(Family::V4, nftables::TABLE));
    rules.replace(Mode::Iptables, fakes(false), &Dual::default(), &mut kernel.clone()).unwrap();
    assert_eq!(taken(), ["put beside 1", "put beside 1"]);
    assert!(!rules.is_needed(Family::V4, nftables::TABLE));
    assert_eq!(kernel.state().tables.len(), 1, "the border stays");
    rules.replace(Mode::Userspace, fakes(false), &rules.held_beside(Mode::Userspace), &mut kernel.clone()).unwrap();
    let whole = ["put beside 0", "put beside 0", "gone beside 0", "gone beside 0"];
    assert_eq!(taken(), whole);
    // And back, while the cluster has gone on.
    rules.learn(&service(Some("10.96.0.2")));
    let back = Dual::from_fn(|family| mode::rules(Mode::Nftables, &rules.families[family].services));
    rules.replace(Mode::Nftables, back, &Dual::default(), &mut kernel.clone()).unwrap();
    assert_eq!(taken(), ["gone beside 1", "gone beside 1"]);
    let afresh = MemoryKernel::new();
    let mut other = super::tests::rules();
    other.learn(&service(Some("10.96.0.2")));
    other.put(&mut afresh.clone()).unwrap();
    assert_eq!(kernel.state().tables, afresh.state().tables);
}

#[test]
fn what_the_configuration_says_is_in_force_as_if_it_had_been_from_the_first() {
    let kernel = MemoryKernel::new();
    let mut rules = rules();
    rules.learn(&service(Some("10.96.0.1")));
    rules.put(&mut kernel.clone()).unwrap();
    let defaults = kernel.state().tables.clone();
    let mut seen = vec![defaults.clone()];
    let settings = |mark, all, cidr: Option<&str>| RuleSettings {
        node_port_addresses: NodePortAddresses::Primary,
        loopback: Vec::new(),
        cluster_cidrs: Dual { v4: cidr.map(|cidr| cidr.parse().unwrap()), v6: None },
        masquerade_mark: mark,
        masquerade_all: all,
        drops_invalid: true,
        ipvs: IpvsConfig::default(),
    };
    for wanted in [
        settings(0x8000, false, None),
        settings(0x8000, true, None),
        settings(MASQUERADE_MARK, false, Some("10.1.0.0/16")),
    ] {
        rules.configure(&wanted);
        rules.edit(Tries::All, &mut kernel.clone()).unwrap();
        let afresh = MemoryKernel::new();
        let mut other = super::tests::rules();
        other.configure(&wanted);
        other.learn(&service(Some("10.96.0.1")));
        other.put(&mut afresh.clone()).unwrap();
        assert_eq!(kernel.state().tables, afresh.state().tables);
        // Each of them says something by itself.
        let tables = kernel.state().tables.clone();
        assert!(!seen.contains(&tables), "{wanted:?}");
        seen.push(tables);
    }
    rules.configure(&settings(MASQUERADE_MARK, false, None));
    rules.edit(Tries::All, &mut kernel.clone()).unwrap();
    assert_eq!(kernel.state().tables, defaults);
}

#[test]
fn addresses_of_others_are_known_where_an_earlier_agents_virtual_servers_go() {
    for mode in [Mode::Nftables, Mode::Iptables] {
        let mut rules = rules();
        let exclude_cidrs = vec!["10.97.5.0/24".parse().unwrap()];
        rules.configure(&RuleSettings {
            node_port_addresses: NodePortAddresses::Primary,
            loopback: Vec::new(),
            cluster_cidrs: Dual::default(),
            masquerade_mark: MASQUERADE_MARK,
            masquerade_all: false,
            drops_invalid: true,
            ipvs: IpvsConfig { exclude_cidrs, ..IpvsConfig::default() },
        });
        rules.begin_in(mode);
        let left = format!("{:?}", rules.left);
        assert_eq!(left.matches("exclude_cidrs: [10.97.5.0/24]").count(), 2, "{left}");
    }
}

#[test]
fn connections_from_before_the_first_service_of_a_family_are_looked_at() {
    let kernel = MemoryKernel::new();
    let mut rules = rules();
    rules.put(&mut kernel.clone()).unwrap();
    rules.all_suspected = Dual::default();
    rules.learn(&service(Some("fd96::1")));
    assert_eq!(rules.due(), None);
    rules.edit(Tries::All, &mut kernel.clone()).unwrap();
    assert_eq!(rules.all_suspected, Dual { v4: false, v6: true });
    assert!(rules.due().is_some());
}

/// Says something through a connection, and hears it again.
fn echoes(mut client: &std::net::TcpStream, mut server: &std::net::TcpStream) {
    use std::io::{Read, Write};
    let mut heard = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut heard).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"pong");
}

/// A connection through a ClusterIP lives in connection tracking, and not in the rules of any mode.
#[test]
fn a_connection_outlives_the_rules_that_it_was_made_by() {
    use std::{
        net::{TcpListener, TcpStream},
        process::Command,
        time::Duration,
    };

    use podnet_kernel::{datapath::KernelDatapath, netns::NetNs};
    use podnet_model::{EndpointSlice, SliceKey};

    let path = format!("/run/netns/podnet-test-modes-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let done = netns.run(|| {
        for line in ["address add 192.0.2.1/32 dev lo", "route add 10.96.0.0/16 dev lo src 192.0.2.1"] {
            assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success());
        }
        let listener = TcpListener::bind("192.0.2.1:0").unwrap();
        let slice = serde_json::json!({
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "protocol": "TCP", "port": listener.local_addr().unwrap().port()}],
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}],
        });
        let slice: k8s_openapi::api::discovery::v1::EndpointSlice = serde_json::from_value(slice).unwrap();
        let slice = EndpointSlice::try_from(&slice).unwrap();
        let mut datapath = KernelDatapath::open().unwrap();
        let mut rules = rules();
        rules.learn(&service(Some("10.96.0.1")));
        rules.learn(&Change::Slice(SliceKey::new("default", "web-1"), Some(slice)));
        rules.put(&mut datapath).unwrap();
        let connect = || {
            let to = "10.96.0.1:80".parse().unwrap();
            TcpStream::connect_timeout(&to, Duration::from_millis(500))
                .map(|client| (client, listener.accept().unwrap().0))
        };
        let (client, server) = connect().unwrap();
        echoes(&client, &server);
        let fake = |_| -> Box<dyn ServiceRules> { Box::new(Fake::beside(&MemoryKernel::new())) };
        rules.replace(Mode::Iptables, Dual::from_fn(fake), &Dual::default(), &mut datapath).unwrap();
        assert!(connect().is_err(), "the mode that was put in force serves nobody");
        echoes(&client, &server);
        let back = Dual::from_fn(|family| mode::rules(Mode::Nftables, &rules.families[family].services));
        rules.replace(Mode::Nftables, back, &Dual::default(), &mut datapath).unwrap();
        let (other, other_server) = connect().unwrap();
        echoes(&other, &other_server);
        echoes(&client, &server);
    });
    NetNs::remove(&path).unwrap();
    done.unwrap();
}
