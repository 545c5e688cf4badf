//! `podnet capture`: packets of pods, from the agents of their nodes, in one capture in the order of time.
//!
//! - [`pods`]: where the pods are
//! - [`agents`]: what their nodes' agents tell
//! - [`written`]: the capture, and what is told of it

mod agents;
mod pods;
mod written;

use std::{
    collections::BTreeMap,
    pin::pin,
    time::{Duration, Instant},
};

use futures::FutureExt;
use podnet_flow::capture::{Instruction, Order};
use podnet_kernel::capture::expression::{self, ExpressionError};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{interval, sleep},
};

use self::{agents::Heard, written::Written};
use crate::{
    api,
    arguments::capture::CaptureOptions,
    flows::agents::kubeconfig,
    report::{Doing, Failure},
};

/// So long packets are held for those of other nodes that were earlier.
const HOLD: Duration = Duration::from_millis(500);
/// So many bytes of them at most.
const HELD: usize = 32 << 20;
/// How often it is looked what can be written.
const TICK: Duration = Duration::from_millis(100);
/// Who ends it gets what passed before: that is there once an agent has told for the second time how much that was, which it does every
/// quarter of a second. The first word may have been under way.
const WORDS: u8 = 2;
const LAST: Duration = Duration::from_secs(2);
/// Pieces that agents told and that are not taken in yet.
const BACKLOG: usize = 16;

pub(crate) fn run(options: &CaptureOptions) -> Result<(), Failure> {
    let (keys, expression) = options.wanted()?;
    let program = expression.as_deref().map_or(Ok(Vec::new()), |text| compiled(text, options.snaplen))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.doing(|| "cannot start".into())?.block_on(async {
        let kubeconfig = kubeconfig(options.kubeconfig.as_deref());
        let client = match &kubeconfig {
            Some(path) => api::connect(Some(path), "capture").await?,
            None => podnet_client::connect::in_cluster().doing(|| "cannot use the pod's service account".into())?,
        };
        // Before anybody is asked.
        let out = written::open(options.file.as_deref())?;
        let pods = pods::find(&client, &keys).await?;
        let question = agents::Question { options, program, expression, kubeconfig };
        let (streams, interfaces) = agents::ask(question, &pods).await?;
        let mut written = Written::begin(out, &pods, interfaces)?;
        let ended = follow(options, streams, &mut written).await;
        written.tell();
        ended
    })
}

fn compiled(expression: &str, snap: u32) -> Result<Vec<Instruction>, Failure> {
    expression::compile(expression, snap).map_err(|error| match error {
        ExpressionError::Wrong { .. } => Failure::usage(error.to_string()).remedy("the language: man pcap-filter"),
        error => Failure::new(error.to_string()),
    })
}

/// Until it is to end, nobody tells anything any more, or nobody reads.
async fn follow(options: &CaptureOptions, streams: Vec<agents::Stream>, written: &mut Written) -> Result<(), Failure> {
    let hold = if streams.len() > 1 { HOLD } else { Duration::ZERO };
    let mut order = Order::new(hold, HELD);
    let most = options.count.unwrap_or(u64::MAX);
    let (sender, mut heard) = mpsc::channel(BACKLOG);
    for stream in streams {
        tokio::spawn(stream.listen(sender.clone()));
    }
    drop(sender);
    let listen = |kind| signal(kind).doing(|| "cannot listen to signals".into());
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    eprintln!("podnet: capturing {} of {} pods; ctrl-c ends it", options.interface, written.alive().len());
    let time = options.duration.map(|seconds| Duration::from_secs(seconds.into()));
    let mut end =
        pin!(time.map_or_else(|| futures::future::pending().left_future(), |time| sleep(time).right_future()));
    let mut awaited = Awaited(None);
    let mut tick = interval(TICK);
    loop {
        let is_end = tokio::select! {
            told = heard.recv() => {
                let Some(Heard { interfaces, told }) = told else { break };
                let Some(told) = written.hear(&interfaces, told) else { continue };
                for packet in told.packets {
                    order.push(packet, Instant::now());
                }
                awaited.heard(&told.counted);
                false
            }
            _ = tick.tick() => false,
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            () = &mut end => true,
        };
        while written.count() < most
            && let Some(packet) = order.due(Instant::now())
        {
            written.packet(packet);
        }
        if written.flush()?.is_break() || written.count() >= most {
            return written.end();
        }
        if is_end && !awaited.begin(written) {
            // Once more, or too late.
            break;
        }
        if is_end {
            end.set(sleep(LAST).right_future());
        }
        if awaited.is_over(written) {
            break;
        }
    }
    while written.count() < most
        && let Some(packet) = order.first()
    {
        written.packet(packet);
    }
    written.end()
}

/// Interfaces of which it is not told yet that all that passed before the end is there, with the words that are awaited; none before the end.
struct Awaited(Option<BTreeMap<u32, u8>>);

impl Awaited {
    /// The end is wanted; answers whether it was not before.
    fn begin(&mut self, written: &Written) -> bool {
        self.0.replace(written.alive().into_iter().map(|number| (number, WORDS)).collect()).is_none()
    }

    /// It was told of these how many packets there were.
    fn heard(&mut self, counted: &[u32]) {
        for number in counted {
            if let Some(words) = self.0.as_mut().and_then(|awaited| awaited.get_mut(number)) {
                *words = words.saturating_sub(1);
            }
        }
    }

    fn is_over(&self, written: &Written) -> bool {
        let is_told = |awaited: &BTreeMap<u32, u8>, number: u32| awaited.get(&number).is_none_or(|words| *words == 0);
        self.0.as_ref().is_some_and(|awaited| written.alive().into_iter().all(|number| is_told(awaited, number)))
    }
}
