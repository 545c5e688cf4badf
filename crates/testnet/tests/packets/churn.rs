//! Endpoints come and go while clients connect: every connection goes to a backend that its Service has at that time, and in the end
//! the kernel holds what a fresh start would make. Connections that were made before go on, whatever becomes of their backends.
//!
//! One namespace is the node, one a pod that connects, one is all backends at once: it has every address of their range and answers
//! with the one that it was reached at. So a backend that is gone answers as well, and is found out by it.

mod cluster;
mod history;
mod load;

use std::{
    env,
    time::{Duration, Instant},
};

use podnet_kernel::nft::NftSocket;
use podnet_model::Family;
use podnet_planner::services::packet_table::NodeRules;

use crate::modes::nftables;
use cluster::{Cluster, SERVICES};
use history::History;
use load::{End, Load, Met, Network};

/// How many changes a second there are.
const RATE: u32 = 500;
/// How many seconds it goes on; as many as `$PODNET_TEST_CHURN_SECONDS` says where it says any.
const SECONDS: u32 = 4;
/// After so many changes everything is put in force anew, as when an agent starts again.
const REPLACED_EVERY: u32 = 700;
const SECONDS_VARIABLE: &str = "PODNET_TEST_CHURN_SECONDS";

#[test]
fn connections_go_where_their_service_has_a_backend_however_often_endpoints_change() {
    let seconds = env::var(SECONDS_VARIABLE).map_or(SECONDS, |seconds| seconds.parse().expect("a number of seconds"));
    let network = Network::new();
    let mut socket = NftSocket::open_in(&network.node.netns).unwrap();
    let mut services = NodeRules::new(cluster::config());
    let mut cluster = Cluster::new();
    cluster.all().iter().for_each(|change| drop(services.apply(change)));
    let started = Instant::now();
    nftables::replace(&mut socket, &services);
    println!("the first rules, of {SERVICES} Services, in {:?}", started.elapsed());

    let mut history = History::new(&cluster);
    let load = Load::start(&network);
    let mut latencies = Vec::new();
    let start = Instant::now();
    for number in 0..seconds * RATE {
        // One that is late catches up.
        let due = start + Duration::from_secs(1) * number / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (service, change) = cluster.change();
        let before = Instant::now();
        let (_, edits) = services.apply(&change);
        nftables::follow(&mut socket, Family::V4, &edits);
        latencies.push(before.elapsed());
        history.changed(service, before, Instant::now(), &cluster);
        if number % REPLACED_EVERY == 0 {
            nftables::replace(&mut socket, &services);
        }
    }
    let took = start.elapsed();
    let Met { connections, talks } = load.stop();
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    let rate = f64::from(seconds * RATE) / took.as_secs_f64();
    let count = connections.len();
    let refused = connections.iter().filter(|connection| matches!(connection.end, End::Refused)).count();
    println!("{rate:.0} changes a second, p50 {:?}, p99 {:?}; {count} connections, {refused} refused", at(50), at(99));

    assert!(count > 1000, "{count} connections are not enough to see anything");
    let wrong: Vec<String> = connections.iter().filter_map(|connection| history.judge(connection)).collect();
    assert!(wrong.is_empty(), "{} of {count} connections:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    let ended: Vec<&String> = talks.iter().filter_map(|talk| talk.as_ref().err()).collect();
    assert!(ended.is_empty(), "{ended:?}");
    is_as_after_a_fresh_start(&network, &mut socket, &services, &cluster);
}

/// Nothing is left of what went, and nothing is missing.
fn is_as_after_a_fresh_start(network: &Network, socket: &mut NftSocket, services: &NodeRules, cluster: &Cluster) {
    let mut fresh = NodeRules::new(cluster::config());
    cluster.all().iter().for_each(|change| drop(fresh.apply(change)));
    // Which slot a backend has depends on what was before; that it has one does not.
    assert_eq!(nftables::without_slots(services), nftables::without_slots(&fresh));
    let churned = nftables::contents(&network.node);
    nftables::replace(socket, services);
    assert_eq!(churned, nftables::contents(&network.node), "by edits, and by a replacement of all");
    assert!(churned.len() > SERVICES as usize, "{} elements", churned.len());
}
