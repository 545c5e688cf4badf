//! `podnet flows`: what talks to what, from the agents of all nodes, in the order of time.
//!
//! - [`agents`]: where they are, and what they tell
//! - [`merge`]: one order of what several tell, each flow once
//! - `services`: who is behind a Service
//! - [`out`]: where that is printed

pub(crate) mod agents;
mod merge;
mod out;
mod services;

use std::{pin::pin, time::Duration};

use futures::{FutureExt, future::try_join_all};
use k8s_openapi::jiff::Timestamp;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::sleep,
};

use self::{
    agents::{Agent, Heard},
    merge::{Held, Merge},
    out::Out,
};
use crate::{
    arguments::flows::FlowsOptions,
    report::{Doing, Failure},
};

/// How often it is looked what can be printed.
const TICK: Duration = Duration::from_millis(100);
/// A pod that is to go has that long to hear of what ended before: agents tell the end of a flow that nobody acknowledged after up to 3 s.
const LAST: Duration = Duration::from_secs(5);
/// What agents told and is not taken in yet.
const BACKLOG: usize = 1024;

pub(crate) fn run(options: &FlowsOptions) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.doing(|| "cannot start".into())?.block_on(read(options))
}

async fn read(options: &FlowsOptions) -> Result<(), Failure> {
    // The first process of a container is told to end in vain as long as it does not listen.
    let mut ends = Ends::listen()?;
    let agents = tokio::select! {
        agents = agents::find(options) => agents?,
        _ = ends.told() => return Ok(()),
    };
    let mut out = Out::open(options.file.as_deref(), options.output.into())?;
    let resolved = tokio::select! {
        resolved = services::resolved(options) => resolved?,
        _ = ends.told() => return Ok(()),
    };
    let names = agents.iter().map(|agent| agent.name.clone()).collect();
    let mut merge = Merge::new(names, options.follow && !options.reports).picking(options.outcome());
    let kept = agents::path(&resolved, false);
    if options.follow {
        let (agents, held) = match options.last {
            None => (agents, Held::default()),
            Some(number) => match latest((agents, kept.as_str()), &mut merge, number, &mut ends).await? {
                Some(found) => found,
                None => return Ok(()),
            },
        };
        let (mut heard, _) = listen_to(agents, &agents::path(&resolved, true), true);
        return follow(&mut heard, (merge, held), &mut out, ends).await;
    }
    let (mut heard, _) = listen_to(agents, &kept, false);
    let mut merge = merge.of_the_past();
    let (mut held, mut batch) = (Held::default(), Vec::new());
    loop {
        tokio::select! {
            count = heard.recv_many(&mut batch, BACKLOG) => match count {
                0 => break,
                _ => take_in(&mut batch, &mut merge, &mut held),
            },
            _ = ends.told() => return Ok(()),
        }
    }
    out.write(&merge.whole(held, options.last))?;
    merge.failure().map_or(Ok(()), Err)
}

/// Takes in what agents told meanwhile, all of it at once: to wait for one item costs as much as to take it in.
fn take_in(batch: &mut Vec<Heard>, merge: &mut Merge, held: &mut Held) {
    let now = Timestamp::now();
    held.add(batch.drain(..).filter_map(|heard| merge.hear(heard, now)), now);
}

/// All agents at once, with what they tell, and who is to be listened to again.
fn listen_to(agents: Vec<Agent>, path: &str, follow: bool) -> (mpsc::Receiver<Heard>, Vec<JoinHandle<Agent>>) {
    let (sender, heard) = mpsc::channel(BACKLOG);
    let listen = |agent: Agent| tokio::spawn(agent.listen(path.to_owned(), follow, sender.clone()));
    (heard, agents.into_iter().map(listen).collect())
}

/// The last flows that agents keep, which wait for others as all that is told later, and the agents, which go on behind what they told. None where somebody
/// ended this meanwhile.
async fn latest(
    (agents, path): (Vec<Agent>, &str),
    merge: &mut Merge,
    number: usize,
    ends: &mut Ends,
) -> Result<Option<(Vec<Agent>, Held)>, Failure> {
    let (mut heard, asked) = listen_to(agents, path, false);
    let mut held = Held::default();
    loop {
        tokio::select! {
            told = heard.recv() => match told {
                // It is asked again as it is followed.
                Some(Heard::Lost { agent, why }) => eprintln!("podnet: the last flows of {agent} are missing: {why}"),
                Some(told) => {
                    let now = Timestamp::now();
                    held.add(merge.hear(told, now), now);
                }
                None => break,
            },
            _ = ends.told() => return Ok(None),
        }
    }
    let agents = try_join_all(asked).await.doing(|| "cannot go on with the agents".into())?;
    Ok(Some((agents, merge.latest(held, number))))
}

/// Until nobody is left who tells something, or reads; first what is held.
async fn follow(
    heard: &mut mpsc::Receiver<Heard>,
    (mut merge, mut held): (Merge, Held),
    out: &mut Out,
    mut ends: Ends,
) -> Result<(), Failure> {
    let mut tick = tokio::time::interval(TICK);
    let mut batch = Vec::new();
    let mut last = pin!(futures::future::pending().left_future());
    loop {
        tokio::select! {
            end = ends.told() => match end {
                End::Terminated => last.set(sleep(LAST).right_future()),
                // Somebody has seen enough.
                End::Interrupted => return out.write(&merge.told(held.all())),
            },
            () = &mut last => return out.write(&merge.told(held.all())),
            count = heard.recv_many(&mut batch, BACKLOG) => match count {
                // All agents have ended.
                0 => {
                    out.write(&merge.told(held.all()))?;
                    return merge.failure().map_or(Ok(()), Err);
                }
                _ => take_in(&mut batch, &mut merge, &mut held),
            },
            _ = tick.tick() => {
                let now = Timestamp::now();
                held.add(merge.overdue(now), now);
                let due = held.due(now, |item| merge.hold(item));
                out.write(&merge.told(due))?;
                merge.forget(now);
            }
        }
    }
}

/// What tells this process to end.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Terminated,
    Interrupted,
}

impl Ends {
    fn listen() -> Result<Self, Failure> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn told(&mut self) -> End {
        tokio::select! {
            _ = self.terminate.recv() => End::Terminated,
            _ = self.interrupt.recv() => End::Interrupted,
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).doing(|| "cannot listen to signals".into())
}
