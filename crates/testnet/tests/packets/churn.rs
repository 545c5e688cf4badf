//! Endpoints come and go while clients connect: every connection goes to a backend that its Service has at that time, and in the end
//! the kernel holds what a fresh start would make. Connections that were made before go on, whatever becomes of their backends.
//!
//! One namespace is the node, one a pod that connects, one is all backends at once: it has every address of their range and answers
//! with the one that it was reached at. So a backend that is gone answers as well, and is found out by it.

mod cluster;
mod history;
mod load;
mod servers;
mod switch;

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_kernel::{
    nft::NftSocket,
    sockets::{Sizes, Sockets},
};
use podnet_model::Family;
use podnet_planner::services::{
    Plan,
    ebpf::Ebpf,
    packet_table::{Edits, NodeRules},
};

use crate::{group::Group, modes::nftables, namespace::Namespace};
use cluster::{Cluster, SERVICES};
use history::History;
use load::{End, Load, Met, Network};

/// How many changes a second there are.
const RATE: u32 = 500;
/// How many seconds it goes on; as many as `$PODNET_TEST_CHURN_SECONDS` says where it says any.
const SECONDS: u32 = 4;
/// After so many changes everything is put in force anew, as when an agent starts again.
const REPLACED_EVERY: u32 = 100;
const SECONDS_VARIABLE: &str = "PODNET_TEST_CHURN_SECONDS";

/// What puts changes in force.
trait Follower {
    /// Puts in force what is wanted, whatever is there.
    fn replace(&mut self, rules: &NodeRules);

    /// Puts a change in force.
    fn follow(&mut self, plan: &Plan, edits: &Edits);

    /// Fails where more or less is in force than what is wanted.
    fn is_exact(&mut self, rules: &NodeRules);
}

#[test]
fn connections_go_where_their_service_has_a_backend_however_often_endpoints_change() {
    let network = Network::new("nft");
    let mut tables = InTables { socket: NftSocket::open_in(&network.node.netns).unwrap(), node: &network.node };
    churn(&network, &mut tables, None);
}

#[test]
fn connections_go_where_their_service_has_a_backend_with_ebpf_too() {
    let network = Network::new("ebpf");
    let group = Arc::new(Group::new());
    let programs = network.node.netns.run(|| Sockets::open(group.inside(), Sizes::LEAST)).unwrap().unwrap();
    programs.attach().unwrap();
    churn(&network, &mut AtSockets { programs, renderer: Ebpf::default() }, Some(&group));
}

/// Clients are in the group.
fn churn(network: &Network, follower: &mut dyn Follower, group: Option<&Arc<Group>>) {
    let seconds = env::var(SECONDS_VARIABLE).map_or(SECONDS, |seconds| seconds.parse().expect("a number of seconds"));
    let mut services = NodeRules::new(cluster::config());
    let mut cluster = Cluster::new();
    cluster.all().iter().for_each(|change| drop(services.apply(change)));
    let started = Instant::now();
    follower.replace(&services);
    println!("the first state, of {SERVICES} Services, in {:?}", started.elapsed());

    let mut history = History::new(&cluster);
    let load = Load::start(network, group);
    let mut latencies = Vec::new();
    let start = Instant::now();
    for number in 0..seconds * RATE {
        // One that is late catches up.
        let due = start + Duration::from_secs(1) * number / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (service, change) = cluster.change();
        let before = Instant::now();
        let (plan, edits) = services.apply(&change);
        follower.follow(&plan, &edits);
        latencies.push(before.elapsed());
        history.changed(service, before, Instant::now(), &cluster);
        if number % REPLACED_EVERY == 0 {
            follower.replace(&services);
        }
    }
    let rate = f64::from(seconds * RATE) / start.elapsed().as_secs_f64();
    let met = load.stop();
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!("{rate:.0} changes a second, p50 {:?}, p99 {:?}", at(50), at(99));
    all_is_well(&met, &history);
    follower.is_exact(&services);
    let mut fresh = NodeRules::new(cluster::config());
    cluster.all().iter().for_each(|change| drop(fresh.apply(change)));
    // Which slot a backend has depends on what was before; that it has one does not.
    assert_eq!(nftables::without_slots(&services), nftables::without_slots(&fresh));
}

fn all_is_well(met: &Met, history: &History) {
    let (connections, count) = (&met.connections, met.connections.len());
    let refused = connections.iter().filter(|connection| matches!(connection.end, End::Refused)).count();
    println!("{count} connections, {refused} of them refused");
    assert!(count > 1000, "{count} connections are not enough to see anything");
    let wrong: Vec<String> = connections.iter().filter_map(|connection| history.judge(connection)).collect();
    assert!(wrong.is_empty(), "{} of {count} connections:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    let ended: Vec<&String> = met.talks.iter().filter_map(|talk| talk.as_ref().err()).collect();
    assert!(ended.is_empty(), "{ended:?}");
}

/// Tables of nftables.
struct InTables<'a> {
    socket: NftSocket,
    node: &'a Namespace,
}

impl Follower for InTables<'_> {
    fn replace(&mut self, rules: &NodeRules) {
        nftables::replace(&mut self.socket, rules);
    }

    fn follow(&mut self, _plan: &Plan, edits: &Edits) {
        nftables::follow(&mut self.socket, Family::V4, edits);
    }

    fn is_exact(&mut self, rules: &NodeRules) {
        let there = nftables::contents(self.node, rules);
        self.replace(rules);
        assert_eq!(there, nftables::contents(self.node, rules), "by edits, and by a replacement of all");
        assert!(there.len() > SERVICES as usize, "{} elements", there.len());
    }
}

/// Programs at the sockets of the clients.
struct AtSockets {
    programs: Sockets,
    renderer: Ebpf,
}

impl Follower for AtSockets {
    fn replace(&mut self, rules: &NodeRules) {
        let there = self.programs.tables().unwrap();
        let desired = self.renderer.desired(rules.services.frontends(), &there);
        self.programs.apply(&desired.edits_from(&there)).unwrap();
    }

    fn follow(&mut self, plan: &Plan, _edits: &Edits) {
        let edits = self.renderer.edits(&plan.frontends);
        self.programs.apply(&edits).unwrap();
    }

    fn is_exact(&mut self, rules: &NodeRules) {
        let there = self.programs.tables().unwrap();
        assert_eq!(there, self.renderer.desired(rules.services.frontends(), &there));
        assert!(there.frontends.len() >= SERVICES as usize, "{} frontends", there.frontends.len());
    }
}
