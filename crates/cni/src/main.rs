//! `podnet-cni`: the CNI plugin that a container runtime executes.
//!
//! It reads what the runtime says (environment and standard input), hands it with the sandbox's namespace to the agent, and prints
//! what the agent answers. It decides nothing, so it has no async runtime and starts in well under a millisecond. The one thing
//! that it does by itself is DEL while the agent is down: the interface is removed, and a tombstone tells the agent later.
//!
//! Where the network's addresses are local ranges (`"ipam": {"type": "host-local"}`) there is no agent, and no Kubernetes: it does all
//! itself ([`standalone`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agentless;
mod chaining;
mod environment;
mod output;
mod standalone;

use std::{
    fs::File,
    io::{IsTerminal, Read},
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use environment::{Command, Environment};
use podnet_kernel::{
    cni_wire::{self, Failure, Reply, Request, Verb},
    netns::NetNs,
};
use podnet_model::cni::{MODE_KEYS, Mode, check_keys};
use serde_json::Value;

/// Longest input that is read: far above any configuration, far below what would hurt.
const MAX_INPUT: u64 = 1 << 20;

/// How long the agent may take for one request: it waits at most 5 s for the pod and 10 s for a block, and others' requests come first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys of a plugin's configuration that only podnet has.
const OWN_KEYS: [&str; 2] = ["socket", "tombstones"];

fn main() -> ExitCode {
    let environment = match Environment::read() {
        Ok(environment) => environment,
        Err(failure) => return output::failure(output::LATEST, &failure),
    };
    let verb = match environment.command {
        Command::Add => Verb::Add,
        Command::Del => Verb::Del,
        Command::Check => Verb::Check,
        Command::Status => Verb::Status,
        Command::Gc => Verb::Gc,
        Command::Version => return versions(),
    };
    match configuration() {
        Ok(config) => {
            let version = config.get("cniVersion").and_then(Value::as_str).unwrap_or(output::OLDEST).to_owned();
            match output::check_version(&version, verb).and_then(|()| serve(verb, environment, config, &version)) {
                Ok(result) => output::result(&version, result),
                Err(failure) => output::failure(&version, &failure),
            }
        }
        Err(failure) => output::failure(output::LATEST, &failure),
    }
}

/// A person who tries the plugin by hand gives no input, and is answered all the same.
fn versions() -> ExitCode {
    let asked = if std::io::stdin().is_terminal() { None } else { configuration().ok() };
    output::versions(asked.as_ref().and_then(|config| config["cniVersion"].as_str()))
}

fn configuration() -> Result<Value, Failure> {
    let mut text = Vec::new();
    std::io::stdin().take(MAX_INPUT).read_to_end(&mut text).map_err(|error| {
        Failure::new(Failure::IO, format!("cannot read the network configuration from standard input: {error}"))
    })?;
    let config: Value = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(Failure::DECODING, format!("the network configuration on standard input is not JSON: {error}"))
    })?;
    if !config.is_object() {
        return Err(Failure::new(
            Failure::DECODING,
            "the network configuration on standard input is not a JSON object",
        ));
    }
    Ok(config)
}

/// Where the agent is and where it looks for tombstones, from the keys that the agent itself wrote into the conflist.
struct Agent {
    socket: PathBuf,
    tombstones: PathBuf,
}

impl Agent {
    fn from_config(config: &Value) -> Result<Self, Failure> {
        let key = |name: &str| {
            config.get(name).and_then(Value::as_str).map(PathBuf::from).ok_or_else(|| {
                Failure::new(
                    Failure::INVALID_CONFIG,
                    format!(
                        "key {name:?} is missing in the network configuration; the agent writes it into its conflist"
                    ),
                )
            })
        };
        Ok(Self { socket: key("socket")?, tombstones: key("tombstones")? })
    }
}

fn serve(verb: Verb, environment: Environment, config: Value, version: &str) -> Result<Option<Value>, Failure> {
    check_network(verb, &config)?;
    let previous = if verb == Verb::Add { chaining::previous(&config)?.cloned() } else { None };
    let agent = if standalone::is_meant(&config) { None } else { Some(Agent::from_config(&config)?) };
    let netns = open_namespace(verb, &environment.netns)?;
    let request = Request {
        verb,
        container_id: environment.container_id,
        ifname: environment.ifname,
        netns_path: environment.netns,
        args: environment.args,
        config,
    };
    let result = match agent {
        None => standalone::serve(&request, netns)?,
        Some(agent) => serve_by_agent(&agent, &request, netns.as_ref())?,
    };
    Ok(result.map(|mut result| {
        output::in_version(&mut result, version);
        match &previous {
            Some(previous) => chaining::appended(previous, result),
            None => result,
        }
    }))
}

fn serve_by_agent(agent: &Agent, request: &Request, netns: Option<&NetNs>) -> Result<Option<Value>, Failure> {
    let verb = request.verb;
    match ask(agent, request, netns) {
        Ok(Reply::Done(result)) => Ok(result),
        Ok(Reply::Failed(failure)) => Err(failure),
        // The specification wants DEL to succeed in the end whatever happened: what cannot be done now is done by the agent later.
        Err(_) if verb == Verb::Del => {
            agentless::delete(&request.container_id, &request.ifname, &agent.tombstones).map(|()| None)
        }
        Err(error) => Err(unreachable_agent(verb, agent, &error)),
    }
}

/// A DEL is not refused for what an ADD was refused for: it has to clean up.
fn check_network(verb: Verb, config: &Value) -> Result<(), Failure> {
    if verb != Verb::Add {
        return Ok(());
    }
    let keys = config.as_object().ok_or_else(|| Failure::new(Failure::DECODING, "the configuration is no object"))?;
    check_keys(keys, &[&OWN_KEYS[..], &MODE_KEYS].concat())?;
    match standalone::is_meant(config) {
        true => drop(Mode::parse(config)?),
        false => drop(Mode::parse_with_agent(config)?),
    }
    // "Must start with an alphanumeric character, optionally followed by … underscore, dot, hyphen" (section 1).
    let name = config.get("name").and_then(Value::as_str).unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed) {
        return Ok(());
    }
    let rule = "letters, digits, '_', '.' and '-' are allowed, starting with a letter or digit";
    Err(Failure::new(Failure::INVALID_CONFIG, format!("key \"name\" of the network configuration is {name:?}; {rule}")))
}

/// DEL is also asked for sandboxes whose namespace is gone already (specification, "DEL").
fn open_namespace(verb: Verb, path: &str) -> Result<Option<NetNs>, Failure> {
    match verb {
        Verb::Status | Verb::Gc => Ok(None),
        Verb::Del => Ok((!path.is_empty()).then(|| NetNs::open(path).ok()).flatten()),
        Verb::Add | Verb::Check => {
            let file = File::open(path).map_err(|error| {
                let what = format!("cannot open the network namespace {path} (CNI_NETNS): {error}");
                Failure::new(Failure::INVALID_ENVIRONMENT, what)
            })?;
            checked(NetNs::from_fd(file.into()), path).map(Some)
        }
    }
}

/// Refuses what is no network namespace, and the one that the plugin runs in: it would be the node's that loses its default route.
fn checked(netns: NetNs, path: &str) -> Result<NetNs, Failure> {
    let wrong = |what: &str| Err(Failure::new(Failure::INVALID_NAMESPACE, format!("CNI_NETNS: {path} {what}")));
    if !netns.is_network() {
        return wrong("is no network namespace");
    }
    let own = NetNs::current().and_then(|own| own.inode());
    match (own, netns.inode()) {
        (Ok(own), Ok(inode)) if own == inode => {
            wrong("is the namespace that the plugin itself runs in, not a sandbox's")
        }
        _ => Ok(netns),
    }
}

fn ask(agent: &Agent, request: &Request, netns: Option<&NetNs>) -> std::io::Result<Reply> {
    let stream = UnixStream::connect(&agent.socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    cni_wire::send_request(&stream, request, netns.map(AsFd::as_fd))?;
    cni_wire::receive_reply(&stream)
}

fn unreachable_agent(verb: Verb, agent: &Agent, error: &std::io::Error) -> Failure {
    let code = if verb == Verb::Status { Failure::NOT_AVAILABLE } else { Failure::TRY_AGAIN };
    Failure {
        code,
        msg: format!("the podnet agent does not answer on {}: {error}", agent.socket.display()),
        details:
            "The agent of this node is starting or has stopped; the runtime tries again by itself. `podnet status` and \
                  `podnet logs agent` tell more."
                .to_owned(),
    }
}
