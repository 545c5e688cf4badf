//! `podnet flows`: what talks to what, from the agents of all nodes, in the order of time.
//!
//! - [`agents`]: where they are, and what they tell
//! - [`merge`]: one order of what several tell, each flow once

pub(crate) mod agents;
mod merge;

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    pin::pin,
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Item,
    output::{Form, heading, line},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

use self::{
    agents::Heard,
    merge::{Held, Merge},
};
use crate::{
    arguments::flows::FlowsOptions,
    report::{Doing, Failure},
};

/// How often it is looked what can be printed.
const TICK: Duration = Duration::from_millis(250);
/// A pod that is to go has that long to hear of what ended before: agents tell the end of a flow after up to 3 s, as packets may come late.
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
    let mut out = Out::open(options)?;
    let (sender, mut heard) = mpsc::channel(BACKLOG);
    let path = agents::path(options);
    let names = agents.iter().map(|agent| agent.name.clone()).collect();
    for agent in agents {
        tokio::spawn(agent.listen(path.clone(), options.follow, sender.clone()));
    }
    drop(sender);
    let mut merge = Merge::new(names, options.follow && !options.reports);
    if options.follow {
        return follow(&mut heard, merge, &mut out, ends).await;
    }
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
                out.write(&merge.joined(held.due(now)))?;
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

/// Where flows are printed.
struct Out {
    form: Form,
    to: BufWriter<Box<dyn Write>>,
    name: String,
}

impl Out {
    fn open(options: &FlowsOptions) -> Result<Self, Failure> {
        let form = options.output.into();
        let (to, name, is_begun): (Box<dyn Write>, _, _) = match &options.file {
            None => (Box::new(io::stdout()), "the output".to_owned(), false),
            Some(path) => {
                let name = path.display().to_string();
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file = file.doing(|| format!("cannot add to {name}"))?;
                let is_begun = file.metadata().is_ok_and(|file| file.len() > 0);
                (Box::new(file), name, is_begun)
            }
        };
        let mut out = Self { form, to: BufWriter::new(to), name };
        if let Some(heading) = heading(form).filter(|_| !is_begun) {
            out.put(&[heading])?;
        }
        Ok(out)
    }

    fn write(&mut self, items: &[Item]) -> Result<(), Failure> {
        let lines: Vec<String> = items.iter().map(|item| line(self.form, item)).collect();
        if lines.is_empty() { Ok(()) } else { self.put(&lines) }
    }

    fn put(&mut self, lines: &[String]) -> Result<(), Failure> {
        let written = lines.iter().try_for_each(|line| writeln!(self.to, "{line}")).and_then(|()| self.to.flush());
        match written {
            // Who reads this has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            written => written.doing(|| format!("cannot write to {}", self.name)),
        }
    }
}
