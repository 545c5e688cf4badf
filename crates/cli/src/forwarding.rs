//! How packets are forwarded: `podnet trace`, `podnet why` and `podnet explain`.
//!
//! - [`state`]: the cluster's objects and what is known of its nodes, as the planner's [`Cluster`](podnet_planner::trace::Cluster)
//! - [`operand`]: what people write for the two ends
//! - [`names`]: which names a pod's resolver asks for, and what it is told
//! - [`show`]: a trace as text, JSON or a graph
//! - [`compare`]: a trace beside what the kernels have
//! - [`live`]: a probe that is sent along it
//! - [`explain`]: what was done for a pod
//! - [`why`]: the first broken link; [`inside`]: what pods' own namespaces tell

mod compare;
mod explain;
mod inside;
mod live;
mod names;
mod operand;
mod show;
mod state;
mod why;

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
    let state = state::gather(&options.cluster, "trace")?;
    let mut question = operand::read(&state, &options.ends)?;
    if options.live {
        // There is one probe: of several addresses of a name it goes to the first.
        question.targets.truncate(1);
    }
    let trace = operand::follow(&state, &question)?;
    let compared = if options.compare { Some(compare::compare(&state, &trace)?) } else { None };
    let live = if options.live { Some(live::follow(&state, &question, &trace, options)?) } else { None };
    let told = show::Told { question: &question, trace: &trace, compared: compared.as_ref(), live: live.as_ref() };
    match options.output {
        Form::Table => print!("{}", told.text(&state)),
        Form::Json => {
            println!("{}", serde_json::to_string_pretty(&told.json()).doing(|| "cannot print the trace".into())?);
        }
        Form::Dot => print!("{}", told.dot()),
        Form::Mermaid => print!("{}", told.mermaid()),
    }
    if let Some(failure) = live.and_then(|live| live.failure(&trace)) {
        return Err(failure);
    }
    match compared.map_or(0, |(found, _)| found.len()) {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} things on the way are not as they are planned"))
            .remedy("agents mend such things within a second: is it running? podnet status; podnet logs agent")),
    }
}
