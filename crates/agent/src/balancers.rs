//! Addresses for Services of type LoadBalancer: one agent of the cluster gives them. Every node announces its share of them
//! ([`announce`](crate::announce)).

mod addresses;
mod pools;
mod request;

use std::{sync::Arc, time::Duration};

use kube::Client;
use podnet_client::lease::Seat;
use podnet_model::{NodeName, balancer::LEASE};
use podnet_planner::election::Timing;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::leader::{Leader, Term};

/// An agent that stands for election.
#[derive(Debug)]
pub struct Standing {
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// How long the end may take: the Lease is given back, which spares others the wait until it expires.
    farewell: Duration,
}

/// Gives addresses whenever it is this node's turn. `candidates` is how many nodes there are.
#[must_use]
pub fn stand(client: Client, node: &NodeName, candidates: impl Fn() -> usize + Send + Sync + 'static) -> Standing {
    stand_with(client, node, candidates, Timing::USUAL)
}

/// As [`stand`], with other times.
#[must_use]
pub fn stand_with(
    client: Client,
    node: &NodeName,
    candidates: impl Fn() -> usize + Send + Sync + 'static,
    timing: Timing,
) -> Standing {
    let stop = CancellationToken::new();
    let seat = Seat::new(client.clone(), LEASE.0, LEASE.1);
    let leader = Leader { seat, name: node.as_str().into(), timing };
    let work = move |term: Arc<Term>| addresses::give(client.clone(), term);
    let farewell = timing.farewell * 2;
    let task = tokio::spawn(leader.serve(candidates, work, stop.clone()));
    Standing { stop, task, farewell }
}

impl Standing {
    /// Leaves it to others.
    pub async fn end(mut self) {
        self.stop.cancel();
        // What it could not give back in time expires.
        let _ = timeout(self.farewell, &mut self.task).await;
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.task.abort();
    }
}
