//! How packets are forwarded: `podnet trace`, `podnet why` and `podnet explain`.
//!
//! - [`state`]: the cluster's objects and what is known of its nodes, as the planner's [`Cluster`](podnet_planner::trace::Cluster)
//! - [`operand`]: what people write for the two ends
//! - [`names`]: which names a pod's resolver asks for, and what it is told; [`outside`]: of those outside of the cluster
//! - [`show`]: a trace as text, JSON or a graph
//! - [`kernels`]: what the kernels of nodes have, by the nodes' namespaces or their agents; [`access`]: how agents are reached
//! - [`compare`]: a trace beside that
//! - [`live`]: a probe that is sent along it
//! - [`explain`]: what was done for a pod
//! - [`why`]: the first broken link; [`inside`]: what pods' own namespaces tell

mod access;
mod compare;
mod explain;
mod inside;
mod kernels;
#[cfg(test)]
mod lab;
mod live;
mod names;
mod operand;
mod outside;
mod show;
mod state;
mod why;

use self::{access::Access, state::State};
use crate::{
    arguments::forwarding::{Form, TraceOptions},
    report::{Doing, Failure},
};

pub(crate) use explain::run as explain;
pub(crate) use why::run as why;

pub(crate) fn trace(options: &TraceOptions) -> Result<(), Failure> {
    if options.live && matches!(options.output, Form::Dot | Form::Mermaid) {
        let failure = Failure::usage("a graph has no room for what is seen of a probe");
        return Err(failure.remedy("podnet trace --live -o table|json"));
    }
    let mut state = state::gather(&options.cluster, "trace")?;
    let access = Access::new(&options.cluster, options.agent_port);
    let mut question = operand::read(&state, &options.ends)?;
    let senders = match options.live {
        true => {
            // There is one probe: of several addresses of a name it goes to the first.
            question.targets.truncate(1);
            live::senders(&state, &mut question, options.ends.via.as_deref())?
        }
        false => vec![question.from.clone()],
    };
    let follow = |state: &State| operand::follow_from(state, &question, &senders);
    let (mut trace, compared) = match options.compare {
        true => {
            let (trace, kernels) = kernels::look(&mut state, &access, follow)?;
            let compared = compare::compare(&state, &trace, &kernels);
            (trace, Some(compared))
        }
        false => (follow(&state)?, None),
    };
    let mut live = if options.live { Some(live::follow(&state, &question, &trace, &access, None)?) } else { None };
    if let Some(live) = live.as_mut().filter(|_| senders.len() > 1) {
        live.narrow(&mut trace);
    }
    let told = show::Told { question: &question, trace: &trace, compared: compared.as_ref(), live: live.as_ref() };
    match options.output {
        Form::Table => print!("{}", told.text(&state)),
        Form::Json => {
            println!("{}", serde_json::to_string_pretty(&told.json()).doing(|| "cannot print the trace".into())?);
        }
        Form::Dot => print!("{}", told.dot()),
        Form::Mermaid => print!("{}", told.mermaid()),
    }
    if let Some(compared) = compared.as_ref().filter(|_| matches!(options.output, Form::Dot | Form::Mermaid)) {
        // A graph has no room for them.
        show::remarks(compared).for_each(|line| eprintln!("{line}"));
    }
    if let Some(failure) = live.and_then(|live| live.failure(&trace)) {
        return Err(failure);
    }
    compared.and_then(|compared| compared.failure()).map_or(Ok(()), Err)
}
