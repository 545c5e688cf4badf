//! The plugin chain: what a Corefile's directives mean.
//!
//! Plugins act in CoreDNS's fixed order, whatever the order in the file: errors and log watch, then hosts, kubernetes and
//! forward are asked in this order, with loadbalance and cache around them.

mod cache;
mod forward;
mod hosts;
mod kubernetes;
mod process;
mod read;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

pub use cache::{CacheOptions, Share};
pub use forward::{ForwardOptions, Policy};
pub use hosts::HostsOptions;
pub use kubernetes::{KubernetesOptions, PodNames};

use crate::{
    corefile::{self, Block, CorefileError, Directive, Fault, Key},
    name::{Name, QueryName},
};

/// What loading a Corefile may ask of its surroundings.
pub struct Environment<'a> {
    /// The value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file: `resolv.conf`, a hosts file, an imported Corefile.
    pub file: &'a dyn Fn(&str) -> io::Result<String>,
}

impl Environment<'_> {
    /// Surroundings without variables and files.
    pub const EMPTY: Environment<'static> =
        Environment { variable: &|_| None, file: &|_| Err(io::Error::from(io::ErrorKind::NotFound)) };
}

/// The plugins that a Corefile may use, in the order in which they act.
pub const PLUGINS: [&str; 13] = [
    "reload",
    "ready",
    "health",
    "prometheus",
    "errors",
    "log",
    "loadbalance",
    "cache",
    "hosts",
    "kubernetes",
    "loop",
    "forward",
    "whoami",
];

/// A loaded Corefile.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server blocks.
    pub blocks: Vec<Chain>,
    /// What holds for the process.
    pub process: ProcessOptions,
    /// Files that were read; when one changes, the Corefile means something else.
    pub files: Vec<PathBuf>,
    /// What was accepted and has no effect, each with its place.
    pub warnings: Vec<String>,
}

/// What the Corefile says about the process rather than about answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessOptions {
    /// `health`: where, and how long to go on after a stop was asked for.
    pub health: Option<(SocketAddr, Duration)>,
    /// `ready`: where.
    pub ready: Option<SocketAddr>,
    /// `prometheus`: where.
    pub metrics: Option<SocketAddr>,
    /// `reload`: how often the Corefile is looked at, and the spread of that.
    pub reload: Option<(Duration, Duration)>,
    /// How often the hosts files are looked at.
    pub hosts_reload: Option<Duration>,
}

/// The plugins of one server block.
#[derive(Clone, Debug)]
pub struct Chain {
    /// What it serves.
    pub keys: Vec<Key>,
    /// `errors`: failures are reported.
    pub errors: bool,
    /// `log`: queries are reported.
    pub log: bool,
    /// `prometheus`: queries are counted.
    pub metrics: bool,
    /// `loadbalance`: addresses take turns.
    pub loadbalance: bool,
    /// `cache`.
    pub cache: Option<CacheOptions>,
    /// `hosts`.
    pub hosts: Option<HostsOptions>,
    /// `kubernetes`.
    pub kubernetes: Option<KubernetesOptions>,
    /// `loop`: forwarding back to this server is looked for.
    pub loop_check: bool,
    /// `forward`, one for each origin, in the file's order.
    pub forwards: Vec<ForwardOptions>,
    /// `whoami`.
    pub whoami: bool,
}

/// The names for which a plugin that has no answer lets the next one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fallthrough(Vec<Name>);

impl Fallthrough {
    /// For every name.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![Name::root()])
    }

    /// For names within these zones.
    #[must_use]
    pub fn zones(zones: Vec<Name>) -> Self {
        Self(zones)
    }

    /// Whether a name falls through.
    #[must_use]
    pub fn holds(&self, name: &QueryName) -> bool {
        self.0.iter().any(|zone| name.within(zone).is_some())
    }
}

impl Config {
    /// Loads a Corefile; `name` is what errors call it.
    ///
    /// # Errors
    /// With the first thing that is wrong, and where.
    pub fn load(name: &str, text: &str, environment: &Environment<'_>) -> Result<Self, CorefileError> {
        let corefile = corefile::parse(name, text, environment)?;
        let mut config =
            Self { blocks: Vec::new(), process: ProcessOptions::default(), files: Vec::new(), warnings: Vec::new() };
        for block in corefile.blocks {
            config.block(block, environment)?;
        }
        Ok(config)
    }

    fn block(&mut self, block: Block, environment: &Environment<'_>) -> Result<(), CorefileError> {
        let mut chain = Chain {
            keys: block.keys,
            errors: false,
            log: false,
            metrics: false,
            loadbalance: false,
            cache: None,
            hosts: None,
            kubernetes: None,
            loop_check: false,
            forwards: Vec::new(),
            whoami: false,
        };
        let mut seen: Vec<&str> = Vec::new();
        for directive in &block.directives {
            let name = directive.name.text.as_str();
            // CoreDNS allows several forwards, each for its own names, and takes the last of the others silently.
            if seen.contains(&name) && name != "forward" {
                return Err(directive.name.error(Fault::Twice { plugin: name.to_owned() }));
            }
            seen.push(name);
            self.directive(&mut chain, directive, environment)?;
        }
        self.blocks.push(chain);
        Ok(())
    }

    fn directive(
        &mut self,
        chain: &mut Chain,
        directive: &Directive,
        environment: &Environment<'_>,
    ) -> Result<(), CorefileError> {
        let zones = || chain.keys.iter().map(|key| key.zone.clone()).collect::<Vec<_>>();
        match directive.name.text.as_str() {
            "errors" => chain.errors = process::errors(directive, &mut self.warnings)?,
            "log" => chain.log = process::log(directive, &mut self.warnings)?,
            "health" => self.process.health = Some(process::health(directive)?),
            "ready" => self.process.ready = Some(process::ready(directive, &mut self.warnings)?),
            "prometheus" => {
                self.process.metrics = Some(process::prometheus(directive)?);
                chain.metrics = true;
            }
            "reload" => self.process.reload = process::reload(directive)?,
            "loadbalance" => chain.loadbalance = process::loadbalance(directive)?,
            "cache" => chain.cache = Some(cache::parse(directive, zones(), &mut self.warnings)?),
            "hosts" => {
                let (options, interval) = hosts::parse(directive, zones(), environment)?;
                self.files.push(PathBuf::from(&options.path));
                self.process.hosts_reload = interval;
                chain.hosts = Some(options);
            }
            "kubernetes" => chain.kubernetes = Some(kubernetes::parse(directive, zones())?),
            "loop" => {
                read::nothing(directive)?;
                chain.loop_check = true;
            }
            "forward" => {
                let options = forward::parse(directive, environment)?;
                self.files.extend(options.files.iter().map(PathBuf::from));
                chain.forwards.push(options);
            }
            "whoami" => {
                read::nothing(directive)?;
                chain.whoami = true;
            }
            other => {
                let known = PLUGINS.to_vec();
                return Err(directive.name.error(Fault::UnknownPlugin { found: other.to_owned(), known }));
            }
        }
        Ok(())
    }

    /// Whether some part of it needs the pods.
    #[must_use]
    pub fn verifies_pods(&self) -> bool {
        self.kubernetes().any(|options| options.pods == PodNames::Verified)
    }

    /// The `kubernetes` plugins.
    pub fn kubernetes(&self) -> impl Iterator<Item = &KubernetesOptions> {
        self.blocks.iter().filter_map(|block| block.kubernetes.as_ref())
    }

    /// The ports that are served, each once.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.blocks.iter().flat_map(|block| &block.keys).map(|key| key.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

#[cfg(test)]
mod tests;
