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

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

use self::{
    agents::Heard,
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
    let (sender, mut heard) = mpsc::channel(BACKLOG);
    let path = tokio::select! {
        resolved = services::resolved(options) => agents::path(&resolved?),
        _ = ends.told() => return Ok(()),
    };
    let names = agents.iter().map(|agent| agent.name.clone()).collect();
    for agent in agents {
        tokio::spawn(agent.listen(path.clone(), options.follow, sender.clone()));
    }
    drop(sender);
    let merge = Merge::new(names, options.follow && !options.reports).picking(options.outcome());
    if options.follow {
        return follow(&mut heard, merge, &mut out, ends).await;
    }
    let mut merge = merge.of_the_past();
    let mut held = Held::default();
    loop {
        tokio::select! {
            heard = heard.recv() => match heard {
                Some(heard) => {
                    let now = Timestamp::now();
                    held.add(merge.hear(heard, now), now);
                }
                None => break,
            },
            _ = ends.told() => return Ok(()),
        }
    }
    out.write(&merge.whole(held, options.last))?;
    merge.failure().map_or(Ok(()), Err)
}

/// Until nobody is left who tells something, or reads.
async fn follow(
    heard: &mut mpsc::Receiver<Heard>,
    mut merge: Merge,
    out: &mut Out,
    mut ends: Ends,
) -> Result<(), Failure> {
    let mut held = Held::default();
    let mut tick = tokio::time::interval(TICK);
    let mut last = pin!(futures::future::pending().left_future());
    loop {
        tokio::select! {
            end = ends.told() => match end {
                End::Terminated => last.set(sleep(LAST).right_future()),
                // Somebody has seen enough.
                End::Interrupted => return out.write(&merge.joined(held.all())),
            },
            () = &mut last => return out.write(&merge.joined(held.all())),
            told = heard.recv() => match told {
                Some(told) => {
                    let now = Timestamp::now();
                    held.add(merge.hear(told, now), now);
                }
                None => {
                    out.write(&merge.joined(held.all()))?;
                    return merge.failure().map_or(Ok(()), Err);
                }
            },
            _ = tick.tick() => {
                let now = Timestamp::now();
                held.add(merge.overdue(now), now);
                out.write(&merge.joined(held.due(now, |item| merge.hold(item))))?;
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
