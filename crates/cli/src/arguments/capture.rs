//! The arguments of `podnet capture`.

use std::path::PathBuf;

use clap::{Args, ValueHint, value_parser};
use podnet_flow::pcapng::MOST_BYTES;
use podnet_model::PodKey;

use super::flows::{PORT, seconds};
use crate::report::Failure;

#[derive(Debug, Args)]
pub(crate) struct CaptureOptions {
    /// Pods (NAMESPACE/NAME, pod/NAME of the namespace default, pod/NAMESPACE/NAME); behind them which packets, as tcpdump has it
    /// (pcap-filter(7))
    #[arg(required = true, value_name = "POD… EXPRESSION")]
    words: Vec<String>,
    /// The interface, as it is called in the pods
    #[arg(short, long, value_name = "NAME", default_value = "eth0")]
    pub(crate) interface: String,
    /// Write to this file; - is the output, as is nothing where that is no terminal
    #[arg(short = 'w', long = "write", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// End after so many packets
    #[arg(short, long, value_name = "NUMBER", value_parser = value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after that time: 90s, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) duration: Option<u32>,
    /// So many bytes of each packet
    #[arg(short, long, value_name = "BYTES", default_value_t = MOST_BYTES, value_parser = value_parser!(u32).range(1..=i64::from(MOST_BYTES)))]
    pub(crate) snaplen: u32,
    /// The port of the agents
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    pub(crate) agent_port: u16,
    /// How to reach the API server; without it the embedded cluster's, or in a pod its service account
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl CaptureOptions {
    /// The pods, each once, and the expression. That begins with the first word that is no pod: no pod is without a `/`, or has a space.
    ///
    /// # Errors
    /// No pod is named.
    pub(crate) fn wanted(&self) -> Result<(Vec<PodKey>, Option<String>), Failure> {
        let mut pods: Vec<PodKey> = Vec::new();
        let mut words = self.words.iter().peekable();
        while let Some(pod) = words.peek().and_then(|word| pod(word)) {
            if !pods.contains(&pod) {
                pods.push(pod);
            }
            words.next();
        }
        let expression = words.map(String::as_str).collect::<Vec<_>>().join(" ");
        if pods.is_empty() {
            return Err(Failure::usage(format!("{expression:?} does not begin with a pod"))
                .remedy("NAMESPACE/NAME, pod/NAME or pod/NAMESPACE/NAME, then the expression"));
        }
        Ok((pods, Some(expression).filter(|expression| !expression.is_empty())))
    }
}

fn pod(word: &str) -> Option<PodKey> {
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
    };
    let parts: Vec<&str> = word.split('/').collect();
    let (namespace, name) = match parts[..] {
        ["pod" | "pods" | "po", name] => ("default", name),
        ["pod" | "pods" | "po", namespace, name] | [namespace, name] => (namespace, name),
        _ => return None,
    };
    (is_name(namespace) && is_name(name)).then(|| PodKey::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn wanted(words: &str) -> Result<(Vec<PodKey>, Option<String>), Failure> {
        let line = ["podnet", "capture"].into_iter().chain(words.split(' ').filter(|word| !word.is_empty()));
        let line = line.map(|word| word.replace('_', " "));
        let Command::Capture(options) = Arguments::try_parse_from(line).unwrap().command else { panic!("not capture") };
        options.wanted()
    }

    #[test]
    fn pods_come_first_and_the_rest_is_the_expression() {
        let (web, client) = (PodKey::new("shop", "web"), PodKey::new("default", "client"));
        for (words, pods, expression) in [
            ("shop/web", vec![web.clone()], None),
            ("shop/web pod/client pod/shop/web", vec![web.clone(), client], None),
            ("shop/web tcp", vec![web.clone()], Some("tcp")),
            ("shop/web -i eth0 tcp port 80 -c 1", vec![web.clone()], Some("tcp port 80")),
            ("shop/web net_10.0.0.0/8", vec![web.clone()], Some("net 10.0.0.0/8")),
            ("shop/web src net 10.0.0.0/8", vec![web], Some("src net 10.0.0.0/8")),
        ] {
            let found = wanted(words).unwrap();
            assert_eq!(found, (pods, expression.map(str::to_owned)), "{words}");
        }
        for words in ["web", "tcp_port_80", "svc/shop/web/x"] {
            assert!(wanted(words).is_err(), "{words}");
        }
    }
}
