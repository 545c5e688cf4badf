//! Changes are put in force by the agent's own thread, as on a node: it takes what watches would tell it, and does all that it does besides.
//! Halfway another agent takes its place, but in mode `userspace`.

mod fresh;
mod place;
mod running;

use std::{
    collections::{BTreeSet, VecDeque},
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use podnet_model::proxy::Mode;
use podnet_testnet::eventually;

use super::{
    Size, all_is_well, are_answered, cluster::Cluster, here, history::History, load::Load, questions::Questions,
    seconds, tell_pace,
};
pub(super) use fresh::{churn_at_sockets, churn_in_chains, churn_in_program, churn_in_tables};
use place::Place;
use running::Agent;

/// A request may still come to a backend that has been gone for so long, whenever the agent says that the change is in force.
const GONE: Duration = Duration::from_secs(1);
/// For what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many seconds it goes on, where nobody says any: agents begin besides.
const SECONDS: u32 = 3;
/// A slow machine makes few connections in the time.
const CONNECTIONS: usize = 1_001;

/// A node, and the agent that changed what is in force there; this is the cluster as it is in the end.
struct Changed {
    place: Place,
    agent: Agent,
    cluster: Cluster,
}

/// Another agent takes the place of the first one where that can be without an end to connections.
fn churn(place: Place, Size { services, rate }: Size) -> Changed {
    let mut cluster = Cluster::new(services);
    let started = Instant::now();
    let mut agent = Agent::start(&place, &cluster);
    println!("the first state, of {services} Services, in {:?}", started.elapsed());

    let mut account = Account { history: History::new(&cluster), latencies: Vec::new(), held_up: Duration::ZERO };
    let load = Load::start(&place.network, place.group.as_ref(), services);
    let questions = Questions::start(&place.network, place.group.as_ref());
    let mut underway = Underway::default();
    let count = seconds(SECONDS) * rate;
    let mut start = Instant::now();
    for number in 0..count {
        // Those that an agent passes on itself end with it.
        if number == count / 2 && place.mode != Mode::Userspace {
            let ended = Instant::now();
            underway.settle_all(&agent, &mut account);
            agent.end();
            agent = Agent::start(&place, &cluster);
            underway = Underway::default();
            start += ended.elapsed();
            println!("another agent began after {:?}", ended.elapsed());
        }
        let due = start + Duration::from_secs(1) * number / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = Instant::now();
        account.held_up = account.held_up.max(at.saturating_duration_since(due));
        let (service, change) = cluster.change();
        underway.told.push_back(Sent { service, at, ready: cluster.ready[&service].clone() });
        agent.tell(change);
        underway.settle(&agent, &mut account);
    }
    underway.settle_all(&agent, &mut account);
    let Account { history, latencies, .. } = account;
    tell_pace(start.elapsed(), latencies);
    load.wait_for(CONNECTIONS);
    all_is_well(&load.stop(), &history);
    are_answered(&questions.stop(), &history);
    Changed { place, agent, cluster }
}

/// Changes that the agent was told of.
#[derive(Default)]
struct Underway {
    /// Those that were not seen to be in force.
    told: VecDeque<Sent>,
    /// So many others there were.
    done: u64,
}

struct Sent {
    service: u32,
    at: Instant,
    /// The endpoints that the Service has from then on.
    ready: BTreeSet<Ipv4Addr>,
}

/// What became of changes.
struct Account {
    history: History,
    latencies: Vec<Duration>,
    /// So much later than it wanted to the test went on at most: the machine did something else, and nobody is quicker than it.
    held_up: Duration,
}

impl Underway {
    /// Looks which of them are in force.
    fn settle(&mut self, agent: &Agent, account: &mut Account) {
        let in_force = agent.in_force();
        let now = Instant::now();
        while self.done < in_force
            && let Some(Sent { service, at, ready }) = self.told.pop_front()
        {
            self.done += 1;
            account.latencies.push(now - at);
            let until = now.min(at + here(GONE) + account.held_up);
            account.history.changed(service, at, until, &ready);
        }
    }

    fn settle_all(&mut self, agent: &Agent, account: &mut Account) {
        eventually("all changes are in force", PATIENCE, || {
            self.settle(agent, account);
            if self.told.is_empty() { Ok(()) } else { Err(format!("{} are not", self.told.len())) }
        });
    }
}
