//! A trace as text, JSON or a graph.

mod live;

use std::{collections::BTreeMap, fmt::Write};

use podnet_planner::trace::{Hop, Kind, Path, Place, Trace};
use serde_json::{Value, json};

use super::{
    compare::{Compared, Remark, is_by_underlay},
    live::{Live, Watched},
    operand::Question,
    state::State,
};

/// So many ways are shown to people; a Service may have thousands of endpoints.
const WAYS: usize = 16;

/// What was asked and what it came to.
pub(super) struct Told<'a> {
    pub(super) question: &'a Question,
    pub(super) trace: &'a Trace,
    /// What differs in the kernels; none where nobody looked.
    pub(super) compared: Option<&'a Compared>,
    /// What became of a probe; none where none was sent.
    pub(super) live: Option<&'a Live>,
}

impl Told<'_> {
    /// For people.
    pub(super) fn text(&self, state: &State) -> String {
        let mut text = format!("{}\n", self.question.title);
        for line in &self.question.names {
            let _ = writeln!(text, "  name: {line}");
        }
        let mut nodes = self.trace.paths.iter().flat_map(|path| &path.hops).filter_map(|hop| hop.place.node());
        if nodes.any(|node| !state.is_known(node)) {
            text.push_str(
                "  (not all of the nodes are on this machine: devices and MTU of others are assumed to be eth0 and 1500; --compare asks their agents)\n",
            );
        }
        match self.live {
            Some(live) => live::write(&mut text, self.trace, live, self.compared),
            None => self.write_ways(&mut text),
        }
        if let Some(compared) = self.compared {
            let mut remarks = remarks(compared).peekable();
            if remarks.peek().is_none() {
                text.push_str("the kernels have it so");
                text.push_str(if self.is_by_underlay() {
                    " (the underlay's own routes are not compared)\n"
                } else {
                    "\n"
                });
            }
            remarks.for_each(|line| {
                let _ = writeln!(text, "{line}");
            });
        }
        text
    }

    /// Whether a way takes routes that nobody plans.
    fn is_by_underlay(&self) -> bool {
        self.trace.paths.iter().flat_map(|path| &path.hops).any(is_by_underlay)
    }

    /// All ways, what they have in common once.
    fn write_ways(&self, text: &mut String) {
        let common = self.trace.common();
        let [first, ..] = self.trace.paths.as_slice() else { return };
        write_hops(text, &first.hops[..common], 1, self.compared);
        let many = self.trace.paths.len();
        for (number, path) in self.trace.paths.iter().enumerate().take(WAYS) {
            if many > 1 {
                let _ = writeln!(text, "way {} of {many}, {} of all connections:", number + 1, percent(path.share));
            }
            write_hops(text, &path.hops[common..], common + 1, self.compared);
            let _ = writeln!(text, "⇒ {}: {}", path.end.verdict.name(), path.end.why);
        }
        if many > WAYS {
            let _ = writeln!(text, "and {} ways more (all of them: -o json)", many - WAYS);
        }
    }

    /// For programs: an interface.
    pub(super) fn json(&self) -> Value {
        json!({
            "question": self.question.title,
            "names": self.question.names,
            "object": self.question.object.as_ref().map(ToString::to_string),
            "differences": self.compared.map(|compared| compared.differences().map(remark).collect::<Vec<_>>()),
            "uncompared": self.compared.map(|compared| {
                let unseen = compared.unseen.iter().map(|(node, why)| json!({"node": node.to_string(), "what": why}));
                unseen.chain(compared.left_out.iter().map(remark)).collect::<Vec<_>>()
            }),
            "paths": self.trace.paths.iter().map(|one| path(one, self.compared)).collect::<Vec<_>>(),
            "live": self.live.map(|live| live::json(self.trace, live)),
        })
    }

    /// For Graphviz.
    pub(super) fn dot(&self) -> String {
        let mut text = "digraph trace {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
        let graph = self.graph();
        for (number, label) in graph.boxes() {
            let _ = writeln!(text, "  n{number} [label=\"{}\"];", quoted(label).replace('\n', "\\n"));
        }
        for ((from, to), label) in &graph.edges {
            let _ = writeln!(text, "  n{from} -> n{to} [label=\"{}\"];", quoted(label));
        }
        text.push_str("}\n");
        text
    }

    /// For Markdown.
    pub(super) fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        let graph = self.graph();
        for (number, label) in graph.boxes() {
            let _ = writeln!(text, "  n{number}[\"{}\"]", quoted(label).replace('\n', "<br/>"));
        }
        for ((from, to), label) in &graph.edges {
            let _ = match label.as_str() {
                "" => writeln!(text, "  n{from} --> n{to}"),
                label => writeln!(text, "  n{from} -->|\"{}\"| n{to}", quoted(label)),
            };
        }
        text
    }

    fn graph(&self) -> Graph {
        let mut graph = Graph::default();
        for path in &self.trace.paths {
            let mut last = None;
            for hop in &path.hops {
                let here = graph.named(format!("{}\n{}{}", hop.place, device(hop), hop.what));
                if let Some(last) = last.replace(here) {
                    graph.edges.entry((last, here)).or_default();
                }
            }
            let end = graph.named(format!("{}\n{}", path.end.verdict.name(), path.end.why));
            if let Some(last) = last {
                let share = if self.trace.paths.len() > 1 { percent(path.share) } else { String::new() };
                graph.edges.insert((last, end), share);
            }
        }
        graph
    }
}

/// Boxes by their text, and arrows between them.
#[derive(Default)]
struct Graph {
    numbers: BTreeMap<String, usize>,
    edges: BTreeMap<(usize, usize), String>,
}

impl Graph {
    fn named(&mut self, label: String) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(label).or_insert(next)
    }

    fn boxes(&self) -> impl Iterator<Item = (usize, &String)> {
        let by_number: BTreeMap<usize, &String> = self.numbers.iter().map(|(label, number)| (*number, label)).collect();
        by_number.into_iter()
    }
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "'")
}

fn device(hop: &Hop) -> String {
    hop.device.as_ref().map_or_else(String::new, |device| format!("{device}: "))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn write_hops(text: &mut String, hops: &[Hop], first: usize, compared: Option<&Compared>) {
    for (number, hop) in (first..).zip(hops) {
        write_hop(text, number, hop, compared, None);
    }
}

/// One of them, with what was seen of a probe where one was sent.
fn write_hop(text: &mut String, number: usize, hop: &Hop, compared: Option<&Compared>, watched: Option<&Watched>) {
    let device = match (&hop.device, watched) {
        (Some(device), _) => device.to_string(),
        // Of a node that is elsewhere its agent knows it.
        (None, Some(Watched::Passed(passing))) => passing.device.clone(),
        (None, _) => "-".to_owned(),
    };
    let column = live::column(watched);
    let _ = writeln!(text, "{number:>3}  {:<28} {device:<16} {column}{}", hop.place.to_string(), hop.what);
    let seen = live::addresses(watched);
    let by = hop.rule.as_ref().map(|rule| format!("by {rule}"));
    let of = hop.object.as_ref().map(|object| format!("from {object}"));
    let mtu = hop.mtu.map(|mtu| format!("MTU {mtu}"));
    let costs = hop.cost.as_ref().map(|cost| format!("costs {cost}"));
    let uncompared = (is_compared(hop, compared) == Some(false)).then(|| "not compared".to_owned());
    let more: Vec<String> = [seen, by, of, mtu, costs, uncompared].into_iter().flatten().collect();
    if !more.is_empty() {
        let _ = writeln!(text, "     {}", more.join("; "));
    }
}

/// Whether a hop was held against what the kernel has; none where there is nothing that could be, or nobody wanted it.
fn is_compared(hop: &Hop, compared: Option<&Compared>) -> Option<bool> {
    let compared = compared?;
    if is_by_underlay(hop) {
        return Some(false);
    }
    match (&hop.place, hop.kind) {
        (Place::Node(node), _) | (Place::Pod(_, node), Kind::Chosen) => Some(!compared.unseen.contains_key(node)),
        (Place::Pod(pod, _), _) => Some(!compared.closed.contains(pod)),
        (Place::Underlay, _) => None,
    }
}

/// What comparing came to, a line for each difference and for what was not compared.
pub(super) fn remarks(compared: &Compared) -> impl Iterator<Item = String> {
    compared.differences().map(differs).chain(compared.lines())
}

fn differs(Remark { node, what, .. }: &Remark) -> String {
    format!("differs on node {node}: {what}")
}

fn remark(Remark { node, what, .. }: &Remark) -> Value {
    json!({"node": node.to_string(), "what": what})
}

fn path(path: &Path, compared: Option<&Compared>) -> Value {
    json!({
        "share": path.share,
        "verdict": path.end.verdict.name(),
        "why": path.end.why,
        "source": path.source.to_string(),
        "destination": path.destination.to_string(),
        "hops": path.hops.iter().map(|one| hop(one, compared)).collect::<Vec<_>>(),
    })
}

fn hop(hop: &Hop, compared: Option<&Compared>) -> Value {
    json!({
        "place": hop.place.to_string(),
        "node": hop.place.node().map(ToString::to_string),
        "kind": hop.kind.name(),
        "device": hop.device.as_ref().map(ToString::to_string),
        "what": hop.what,
        "rule": hop.rule,
        "object": hop.object.as_ref().map(ToString::to_string),
        "mtu": hop.mtu,
        "cost": hop.costs(),
        "compared": is_compared(hop, compared),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::{compare::compare, kernels::Kernels, lab};

    #[test]
    fn what_a_graph_has_no_room_for_is_told_in_lines() {
        let mut told = lab::told(1);
        told.kernel.fdb.clear();
        let mut state = lab::state();
        state.learn([(lab::node(1), told.facts.clone())].into());
        let trace = lab::follow(&state).unwrap();
        let answers = [(lab::node(1), Ok(told)), (lab::node(2), Err("its agent does not answer".to_owned()))];
        let compared = compare(&state, &trace, &Kernels::told(answers));
        let lines: Vec<String> = remarks(&compared).collect();
        for words in [
            "differs on node node1: the FDB entry of ",
            "node node2 was not compared: its agent does not answer",
            "not compared on node node1: what is inside of pod default/p1: ",
        ] {
            assert!(lines.iter().any(|line| line.starts_with(words)), "{words}: {lines:?}");
        }
    }
}
