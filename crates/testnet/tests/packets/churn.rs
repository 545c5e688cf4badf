//! Endpoints come and go while clients connect: every connection goes to a backend that its Service has at that time, and in the end
//! the kernel holds what a fresh start would make. Connections that were made before go on, whatever becomes of their backends.
//!
//! One namespace is the node, one a pod that connects, one is all backends at once: it has every address of their range and answers
//! with the one that it was reached at. So a backend that is gone answers as well, and is found out by it.

mod agent;
mod cluster;
mod history;
mod load;
mod questions;
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
use podnet_testnet::vm;

use crate::{group::Group, modes::nftables, namespace::Namespace};
use cluster::{Cluster, SERVICES};
use history::History;
use load::{End, Load, Met, Network};
use questions::{Forgetting, Question, Questions};

/// How much there is, and how fast it changes.
#[derive(Clone, Copy)]
struct Size {
    services: u32,
    /// Changes a second.
    rate: u32,
}

const MANY: Size = Size { services: SERVICES, rate: 500 };
/// As fast with fewer Services, of which a program of iptables is quicker to read and to write the first state.
const FAST: Size = Size { services: 100, rate: 500 };
/// For a machine whose processor is emulated.
const FEW: Size = Size { services: 100, rate: 20 };
/// As many there as elsewhere, but as slowly as such a processor follows among clients that take what they get of it.
const SLOW: Size = Size { services: SERVICES, rate: 100 };
/// How many seconds it goes on; as many as `$PODNET_TEST_CHURN_SECONDS` says where it says any, in the virtual machine too.
const SECONDS: u32 = 4;
/// After so many changes everything is put in force anew, as when an agent starts again.
const REPLACED_EVERY: u32 = 100;
/// How many times as long something may take where the machine is not for it alone.
const SLOWER: u32 = 8;
const SECONDS_VARIABLE: &str = "PODNET_TEST_CHURN_SECONDS";

/// What puts changes in force.
trait Follower {
    /// Puts in force what is wanted, whatever is there.
    fn replace(&mut self, rules: &NodeRules);

    /// Puts a change in force.
    fn follow(&mut self, rules: &NodeRules, plan: &Plan, edits: &Edits);

    /// Fails where more or less is in force than what is wanted.
    fn is_exact(&mut self, rules: &NodeRules);
}

#[test]
fn connections_go_where_their_service_has_a_backend_however_often_endpoints_change() {
    let network = Network::new("nft");
    let mut tables = InTables { socket: NftSocket::open_in(&network.node.netns).unwrap(), node: &network.node };
    churn(&network, &mut tables, None, MANY);
}

#[test]
fn connections_go_where_their_service_has_a_backend_with_ebpf_too() {
    let network = Network::new("ebpf");
    let group = Arc::new(Group::new());
    let programs = network.node.netns.run(|| Sockets::open(group.inside(), Sizes::LEAST)).unwrap().unwrap();
    programs.attach().unwrap();
    churn(&network, &mut AtSockets { programs, renderer: Ebpf::default() }, Some(&group), MANY);
}

/// A run of a program takes many times as long as a change may take to come: an agent writes in one go what came meanwhile.
#[test]
fn connections_go_where_their_service_has_a_backend_with_iptables_too() {
    agent::churn_in_chains(size(FAST, MANY));
}

#[test]
fn connections_go_where_their_service_has_a_backend_with_a_program_too() {
    agent::churn_in_program(MANY);
}

#[test]
fn connections_go_where_their_service_has_a_backend_with_the_agents_own_thread_too() {
    agent::churn_in_tables(MANY);
}

#[test]
fn connections_go_where_their_service_has_a_backend_with_ebpf_and_the_agents_own_thread_too() {
    agent::churn_at_sockets(MANY);
}

/// Clients are in the group.
fn churn(
    network: &Network,
    follower: &mut dyn Follower,
    group: Option<&Arc<Group>>,
    Size { services: count, rate }: Size,
) {
    let seconds = seconds(SECONDS);
    let mut services = NodeRules::new(cluster::config());
    let mut cluster = Cluster::new(count);
    cluster.all().iter().for_each(|change| drop(services.apply(change)));
    let started = Instant::now();
    follower.replace(&services);
    println!("the first state, of {count} Services, in {:?}", started.elapsed());

    let mut history = History::new(&cluster);
    let load = Load::start(network, group, count);
    let questions = Questions::start(network, group);
    let mut forgetting = Forgetting::default();
    let mut latencies = Vec::new();
    let start = Instant::now();
    for number in 0..seconds * rate {
        // One that is late catches up.
        let due = start + Duration::from_secs(1) * number / rate;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (service, change) = cluster.change();
        let before = Instant::now();
        let (plan, edits) = services.apply(&change);
        follower.follow(&services, &plan, &edits);
        latencies.push(before.elapsed());
        history.changed(service, before, Instant::now(), &cluster.ready[&service]);
        forgetting.follow(network, &services, &plan);
        if number % REPLACED_EVERY == 0 {
            follower.replace(&services);
        }
    }
    tell_pace(start.elapsed(), latencies);
    all_is_well(&load.stop(), &history);
    are_answered(&questions.stop(), &history);
    follower.is_exact(&services);
    let mut fresh = NodeRules::new(cluster::config());
    cluster.all().iter().for_each(|change| drop(fresh.apply(change)));
    // Which slot a backend has depends on what was before; that it has one does not.
    assert_eq!(nftables::without_slots(&services), nftables::without_slots(&fresh));
}

fn seconds(unless_said: u32) -> u32 {
    env::var(SECONDS_VARIABLE).map_or(unless_said, |seconds| seconds.parse().expect("a number of seconds"))
}

/// How much there is where nobody says how long it is to go on, and where somebody does.
fn size(unless_said: Size, where_said: Size) -> Size {
    if is_said() { where_said } else { unless_said }
}

fn is_said() -> bool {
    env::var_os(SECONDS_VARIABLE).is_some()
}

/// So long here: in the virtual machine everything takes many times as long, and anywhere at times where others have the processors. Who says how
/// long it is to go on (`make churn`) has a machine for it.
fn here(time: Duration) -> Duration {
    if vm::is_here() || !is_said() { time * SLOWER } else { time }
}

/// So long each change took to be in force, and all of them together.
fn tell_pace(all: Duration, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    let pace = latencies.len() as f64 / all.as_secs_f64();
    println!("{pace:.0} changes a second, p50 {:?}, p99 {:?}", at(50), at(99));
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

fn are_answered(questions: &[Question], history: &History) {
    let unanswered = questions.iter().filter(|question| question.answered.is_none()).count();
    println!("{} questions, {unanswered} of them unanswered", questions.len());
    for lasting in [true, false] {
        let count = questions.iter().filter(|question| question.lasting == lasting).count();
        assert!(count > 100, "{count} questions are not enough to see anything");
    }
    let wrong: Vec<String> = questions.iter().filter_map(|question| history.judge_question(question)).collect();
    assert!(wrong.is_empty(), "{} questions:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
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

    fn follow(&mut self, _rules: &NodeRules, _plan: &Plan, edits: &Edits) {
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

    fn follow(&mut self, _rules: &NodeRules, plan: &Plan, _edits: &Edits) {
        let edits = self.renderer.edits(&plan.frontends);
        self.programs.apply(&edits).unwrap();
    }

    fn is_exact(&mut self, rules: &NodeRules) {
        let there = self.programs.tables().unwrap();
        assert_eq!(there, self.renderer.desired(rules.services.frontends(), &there));
        assert!(there.frontends.len() >= SERVICES as usize, "{} frontends", there.frontends.len());
    }
}
