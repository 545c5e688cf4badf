//! What one of all agents does for the cluster: they stand for election by a Lease.
//!
//! When to take the Lease is decided by [`podnet_planner::election`]. Who cannot renew it in time stops its work before anybody else may
//! begin; who ends gives it back.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::Lease;
use podnet_client::lease::{Seat, is_conflict};
use podnet_planner::election::{Act, Candidate, Seen, Timing};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// For one request to the API server.
const PATIENCE: Duration = Duration::from_secs(4);
/// Before somebody asks again who may not have the Lease.
const FORBIDDEN: Duration = Duration::from_secs(60);

/// The time in which it is this agent's turn. Whoever writes for the cluster asks first: an agent may have been stopped for a while.
#[derive(Debug)]
pub(crate) struct Term(Mutex<Instant>);

impl Term {
    fn until(end: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(end)))
    }

    /// Whether it is still this agent's turn.
    pub(crate) fn lasts(&self) -> bool {
        Instant::now() < *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, end: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }
}

/// One that stands for election.
#[derive(Debug)]
pub(crate) struct Leader {
    /// The Lease.
    pub(crate) seat: Seat,
    /// The node's name: no two agents have the same.
    pub(crate) name: Arc<str>,
    /// How long the Lease lasts, and what follows.
    pub(crate) timing: Timing,
}

/// Why it is this agent's turn no more.
#[derive(Debug)]
enum End {
    /// The agent ends.
    Asked,
    /// Somebody else has the Lease.
    Taken,
    /// It could not be renewed in time.
    Silent,
    /// The work ended, which it never should.
    Work,
}

impl Leader {
    /// Does the work whenever it is this agent's turn, until `stop`. `candidates` is how many may stand, this one included.
    pub(crate) async fn serve<F>(
        self,
        candidates: impl Fn() -> usize,
        work: impl Fn(Arc<Term>) -> F,
        stop: CancellationToken,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut candidate = Candidate::new(self.name.clone());
        loop {
            let (mut held, began) = tokio::select! {
                turn = self.turn(&mut candidate, &candidates) => turn,
                () = stop.cancelled() => return,
            };
            info!(lease = %self.seat, "this agent has the lease");
            let term = Term::until(began + self.timing.give_up);
            let mut tasks = JoinSet::new();
            tasks.spawn(work(term.clone()));
            let end = tokio::select! {
                end = self.keep(&mut held, began, &term) => end,
                _ = tasks.join_next() => End::Work,
                () = stop.cancelled() => End::Asked,
            };
            tasks.shutdown().await;
            candidate.lost(Instant::now());
            match end {
                End::Asked => return self.farewell(held).await,
                End::Taken => warn!(lease = %self.seat, "another one has taken the lease"),
                End::Silent => {
                    warn!(lease = %self.seat, "the lease could not be renewed in time, and is left to others");
                }
                End::Work => {
                    error!(lease = %self.seat, "the work ended; the lease is given back");
                    self.farewell(held).await;
                    // Another one may do better, and what ends each time is not begun as fast as the API server answers.
                    tokio::select! {
                        () = sleep(self.timing.lasts) => {}
                        () = stop.cancelled() => return,
                    }
                }
            }
        }
    }

    /// Waits until the Lease is this agent's; it, and when it was asked for.
    async fn turn(&self, candidate: &mut Candidate, candidates: &impl Fn() -> usize) -> (Lease, Instant) {
        let mut complained = false;
        loop {
            let wait = self.timing.wait(candidates(), chance());
            let looked = in_time(self.seat.look()).await;
            let pause = match looked {
                Ok(lease) => match candidate.saw(lease.as_ref().map(seen).as_ref(), wait, Instant::now()) {
                    Act::LookAfter(pause) => Ok(pause),
                    Act::Take => {
                        let asked = Instant::now();
                        match in_time(self.seat.take(lease, &self.name, self.timing.lasts)).await {
                            Ok(held) => return (held, asked),
                            Err(Fault::Api(error)) if is_conflict(&error) => Ok(wait),
                            Err(fault) => Err(fault),
                        }
                    }
                },
                Err(fault) => Err(fault),
            };
            let pause = pause.unwrap_or_else(|fault| {
                let forbidden = matches!(&fault, Fault::Api(kube::Error::Api(status)) if status.code == 403);
                if !std::mem::replace(&mut complained, true) {
                    let error = &fault as &dyn std::error::Error;
                    warn!(lease = %self.seat, error, "the lease cannot be had, trying again");
                }
                if forbidden { FORBIDDEN } else { wait }
            });
            sleep(pause).await;
        }
    }

    /// Renews the Lease until it is lost.
    async fn keep(&self, held: &mut Lease, mut renewed: Instant, term: &Term) -> End {
        let mut next = renewed + self.timing.pause;
        loop {
            let ends = renewed + self.timing.give_up;
            sleep(next.min(ends).saturating_duration_since(Instant::now())).await;
            let asked = Instant::now();
            if asked >= ends {
                return End::Silent;
            }
            match timeout(PATIENCE.min(ends - asked), self.renew(held)).await {
                Ok(Ok(true)) => {
                    renewed = asked;
                    term.extend(asked + self.timing.give_up);
                }
                Ok(Ok(false)) => return End::Taken,
                Ok(Err(error)) => debug!(error = &error as &dyn std::error::Error, "lease not renewed, trying again"),
                Err(_) => debug!("lease not renewed in time, trying again"),
            }
            next = asked + self.timing.pause;
        }
    }

    /// Answers whether it is still this agent's.
    async fn renew(&self, held: &mut Lease) -> kube::Result<bool> {
        match self.seat.renew(held).await {
            Ok(lease) => {
                *held = lease;
                Ok(true)
            }
            // A renewal of ours may have been done without our hearing of it.
            Err(error) if is_conflict(&error) => match self.seat.look().await? {
                Some(lease) if tenure(&lease) == tenure(held) => {
                    *held = self.seat.renew(&lease).await?;
                    Ok(true)
                }
                _ => Ok(false),
            },
            Err(error) => Err(error),
        }
    }

    async fn farewell(&self, held: Lease) {
        let given = async {
            match self.seat.give_back(held.clone()).await {
                // A renewal that was under way was done all the same.
                Err(error) if is_conflict(&error) => match self.seat.look().await? {
                    Some(lease) if tenure(&lease) == tenure(&held) => self.seat.give_back(lease).await,
                    _ => Err(error),
                },
                other => other,
            }
        };
        match timeout(self.timing.farewell, given).await {
            Ok(Ok(())) => info!(lease = %self.seat, "the lease is given back"),
            other => debug!(?other, "lease not given back; it expires"),
        }
    }
}

/// Who has it, and since when: another one of the same name would have another time.
fn tenure(
    lease: &Lease,
) -> Option<(&Option<String>, &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime>)> {
    lease.spec.as_ref().map(|spec| (&spec.holder_identity, &spec.acquire_time))
}

fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.clone().unwrap_or_default();
    Seen {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()).map(Arc::from),
        version: lease.metadata.resource_version.as_deref().unwrap_or_default().into(),
        lasts: Duration::from_secs(spec.lease_duration_seconds.unwrap_or(1).max(1).unsigned_abs().into()),
    }
}

/// Any number.
fn chance() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the API server refused or could not be reached")]
    Api(#[source] kube::Error),
    #[error("the API server did not answer in time")]
    Late,
}

async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Fault> {
    match timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(Fault::Api),
        Err(_) => Err(Fault::Late),
    }
}
