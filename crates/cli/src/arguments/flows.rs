//! The arguments of `podnet flows`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use podnet_flow::{
    Cause, Class, Filter, Transport, Verdict,
    filter::{Place, Term},
    output::Form,
};

/// Where agents let flows be read.
pub(crate) const PORT: u16 = 9098;

#[derive(Clone, Debug, Args)]
pub(crate) struct FlowsOptions {
    /// Go on printing flows as they end; without --since and --last only these
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Flows that were under way that long ago or later: 90s, 30m, 1h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) since: Option<u32>,
    /// The last ones of these alone; with --follow of those that ended before, and then what comes
    #[arg(long, value_name = "NUMBER")]
    pub(crate) last: Option<usize>,
    /// Only between pods
    #[arg(long)]
    pub(crate) pod_to_pod: bool,
    /// Who began it: pod/NAMESPACE/NAME, namespace/NAME, label/KEY=VALUE, pods/NAMESPACE/KEY=VALUE,KEY=VALUE (all of these labels),
    /// service/NAMESPACE/NAME (pods with the labels that it selects), workload/NAMESPACE/NAME, or workload/NAMESPACE/KIND/NAME where other kinds have one
    /// of that name, node/NAME, world, an address or a range; of several one
    #[arg(long, value_name = "PLACE")]
    pub(crate) from: Vec<Place>,
    /// Who was asked: as --from, where service/NAMESPACE/NAME is the Service that was asked
    #[arg(long, value_name = "PLACE")]
    pub(crate) to: Vec<Place>,
    /// The port that was asked
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Vec<u16>,
    /// tcp, udp, sctp, icmp, icmpv6 or a number
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) protocol: Vec<Transport>,
    /// forwarded, refused, unanswered or dropped
    #[arg(long, value_name = "VERDICT")]
    pub(crate) verdict: Vec<Verdict>,
    /// What dropped or refused it: no-backend, spoof-guard, no-route, prohibited, port-closed, packet-too-big, hop-limit, limit (told by interface, not
    /// by flow) or policy (which nothing tells yet)
    #[arg(long, value_name = "CAUSE")]
    pub(crate) cause: Vec<Cause>,
    /// pod-pod-same-node, pod-pod-other-node, pod-service, pod-node, pod-world, world-pod or node-pod
    #[arg(long, value_name = "CLASS")]
    pub(crate) class: Vec<Class>,
    /// What is not wanted: from=PLACE, to=PLACE, port=PORT, protocol=PROTOCOL, verdict=VERDICT, cause=CAUSE or class=CLASS
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) not: Vec<Term>,
    /// With --follow, tell also that flows began and go on; each of a flow's records says what passed until then
    #[arg(long)]
    pub(crate) reports: bool,
    /// How to print them; json is an object in each line, as jsonl
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Add to this file instead of printing
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Ask the agent at this address of a node alone; may be given several times. Without it all nodes', in a pod that may not list nodes its own node's
    #[arg(long, value_name = "ADDRESS", env = "PODNET_AGENT", value_delimiter = ',')]
    pub(crate) agent: Vec<IpAddr>,
    /// The port of the agents
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    pub(crate) agent_port: u16,
    /// How to reach the API server; without it the embedded cluster's, or in a pod its service account
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl FlowsOptions {
    /// What is asked of flows, as terms, beside [`FlowsOptions::outcome`].
    pub(crate) fn wanted(&self) -> Vec<Term> {
        let from = self.from.iter().cloned().map(Term::From);
        let to = self.to.iter().cloned().map(Term::To);
        let port = self.port.iter().copied().map(Term::Port);
        let protocol = self.protocol.iter().copied().map(Term::Protocol);
        let class = self.class.iter().copied().map(Term::Class);
        from.chain(to).chain(port).chain(protocol).chain(class).collect()
    }

    /// What is asked of what became of flows: that is known where both ends' records are.
    pub(crate) fn outcome(&self) -> Filter {
        let verdict = self.verdict.iter().copied().map(Term::Verdict);
        let cause = self.cause.iter().copied().map(Term::Cause);
        Filter {
            wanted: verdict.chain(cause).collect(),
            unwanted: self.not.iter().filter(|term| term.is_of_outcome()).cloned().collect(),
            pod_to_pod: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns for people
    Table,
    /// As jsonl
    Json,
    /// A JSON object in each line
    Jsonl,
    /// A line of words for each
    Compact,
    /// Values with commas between them, with a line of names first
    Csv,
}

impl From<Output> for Form {
    fn from(output: Output) -> Self {
        match output {
            Output::Table => Self::Table,
            Output::Json | Output::Jsonl => Self::JsonLines,
            Output::Compact => Self::Compact,
            Output::Csv => Self::Csv,
        }
    }
}

/// How many that may be: up to 256 MiB for the places and 4 GiB for flows in them.
pub(crate) fn entries() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1024..=1 << 24)
}

/// A time, in seconds: `90`, `90s`, `30m`, `1h`.
pub(crate) fn seconds(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => (text, 1),
    };
    let seconds = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    seconds
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "a time is a number with s, m or h behind it, as 90s or 5m".into())
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_time_is_a_number_with_its_unit() {
        let read = ["90", "90s", "5m", "2h"].map(|text| seconds(text).unwrap());
        assert_eq!(read, [90, 90, 300, 7200]);
        for wrong in ["", "m", "0s", "-1s", "5d", "5000000h", "5µ"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
