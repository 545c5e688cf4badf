//! The plugin chain: what a Corefile's directives mean.
//!
//! Plugins act in CoreDNS's fixed order ([`PLUGINS`]), whatever the order in the file. Each has its options as plain data; what
//! several plugins read alike (zones, durations, TLS files, fallthrough) is read in one place.

mod acl;
mod acme;
mod backends;
mod cache;
mod escape;
mod expression;
mod forward;
mod gotemplate;
mod guard;
mod hosts;
mod kubernetes;
mod listener;
mod local;
mod logformat;
mod logging;
mod order;
mod pattern;
mod plugin;
mod podlabels;
mod process;
mod prometheus;
mod read;
mod responses;
mod rewrite;
mod scope;
mod selector;
mod served;
mod signing;
mod sources;
mod template;
mod tls;
mod version;
mod view;
mod web;
mod weights;
mod zonefiles;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub use acl::{AclAction, AclOptions, AclRule};
pub use acme::AcmeOptions;
pub(crate) use acme::CHALLENGE;
pub use backends::{EtcdOptions, ExternalOptions, GrpcOptions};
pub use cache::{CacheOptions, Prefetch, Refresh, ServeStale, Share};
pub use expression::{Expression, ExpressionData, ExpressionError};
pub use forward::{ForwardOptions, Policy, UpstreamAddr, UpstreamTransport};
pub use gotemplate::{GoTemplate, TemplateData, TemplateError};
pub use guard::{CookieOptions, RrlOptions};
pub use hosts::HostsOptions;
pub(crate) use kubernetes::is_reverse;
pub use kubernetes::{ApiAccess, KubernetesOptions, PodNames};
pub use listener::{Listener, Port};
pub use local::LocalOptions;
pub use logformat::{LogField, LogFormat, LogPiece};
pub use logging::{Consolidate, ErrorsOptions, Level, LogClass, LogOptions};
pub use order::{NOT_SERVED, PLUGINS, WITHOUT_EFFECT};
pub use pattern::Pattern;
pub use plugin::Plugin;
pub(crate) use podlabels::CLIENT_LABEL;
pub use podlabels::PodLabels;
pub use process::{BindOptions, HealthOptions, Monitor, ReadyOptions, TimeoutOptions};
pub use prometheus::{PrometheusOptions, TlsVersions, WebTls};
pub use responses::{
    AutopathOptions, Balance, ChaosOptions, Dns64Options, ErraticOptions, HeaderFlag, HeaderRule, LoadbalanceOptions,
    SearchPath,
};
pub use rewrite::{
    AnswerRewrites, EdnsAction, EdnsData, EdnsOption, EdnsRewrite, NameMatch, Replacement, Rewrite, RewriteOptions,
};
pub use selector::{Requirement, Selector};
pub use signing::{DnssecOptions, SignOptions, SignedZone, TsigOptions, TsigRequire, TsigSecret};
pub use sources::{AutoOptions, FileOptions, Peer, SecondaryOptions, TransferOptions};
pub use template::TemplateOptions;
pub use tls::{ClientAuth, TlsFiles, TlsOptions};
pub use view::ViewOptions;
pub use web::WebOptions;
pub use weights::Weights;
pub use zonefiles::LoadedZone;

use crate::{
    corefile::{self, Block, CorefileError, Fault, Key, Place, Scheme},
    name::{Name, QueryName},
};
use scope::Scope;

/// Tells the addresses of a host, as one of these servers knows them.
pub type Resolve = dyn Fn(&[SocketAddr], &Name) -> io::Result<Vec<IpAddr>>;

/// What loading a Corefile may ask of its surroundings.
pub struct Environment<'a> {
    /// The value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file: `resolv.conf`, a hosts file, an imported Corefile.
    pub file: &'a dyn Fn(&str) -> io::Result<String>,
    /// The names of a directory's files, for imports by pattern and `auto`, and of its directories with a slash behind, or two where one
    /// is a link to it.
    pub list: &'a dyn Fn(&str) -> io::Result<Vec<String>>,
    /// The addresses of an interface.
    pub interface: &'a dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
    /// The addresses of a host, as one of these servers tells them; none: it has none.
    pub resolve: &'a Resolve,
}

impl Environment<'_> {
    /// Surroundings without variables and files.
    pub const EMPTY: Environment<'static> = Environment {
        variable: &|_| None,
        file: &|_| Err(io::Error::from(io::ErrorKind::NotFound)),
        list: &|_| Err(io::Error::from(io::ErrorKind::NotFound)),
        interface: &|_| Err(io::Error::from(io::ErrorKind::NotFound)),
        resolve: &|_, _| Err(io::Error::from(io::ErrorKind::NotFound)),
    };
}

/// A loaded Corefile.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server blocks.
    pub blocks: Vec<Chain>,
    /// What holds for the process.
    pub process: ProcessOptions,
    /// Files that were read; when one changes, the Corefile means something else.
    pub files: Vec<PathBuf>,
    /// Directories whose files were listed; when there is another one, the Corefile may mean something else.
    pub directories: Vec<PathBuf>,
    /// Those of the files and directories that plugins look at by themselves, and how often; none: never again, as long as the rest
    /// of the Corefile is the same. One may stand here for several plugins.
    pub watched: Vec<(PathBuf, Option<Duration>)>,
    /// Interfaces whose addresses are listened on; when they change, the Corefile means something else.
    pub interfaces: Vec<String>,
    /// What was accepted and has no effect, each with its place.
    pub warnings: Vec<String>,
    /// Which Corefile it is: the SHA-512 of its words, in hex.
    pub version: String,
}

/// A Corefile as far as it could be read, and all that is wrong with it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What could be read.
    pub config: Config,
    /// What is wrong, in the order of the text; nothing: the configuration can be used.
    pub errors: Vec<CorefileError>,
}

/// What the Corefile says about the process rather than about answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessOptions {
    /// `health`: where, and how long to go on after a stop was asked for, once for each address.
    pub health: Vec<(SocketAddr, Duration)>,
    /// `ready`: where, once for each address.
    pub ready: Vec<SocketAddr>,
    /// `ready`: how plugins are asked; the last one that says it says it for all.
    pub monitor: Monitor,
    /// `prometheus`: where and how, once for each address.
    pub metrics: Vec<PrometheusOptions>,
    /// `debug`, in any of the server blocks: it is all of them that tell more.
    pub debug: bool,
    /// `reload`: how often the Corefile is looked at, and the spread of that.
    pub reload: Option<(Duration, Duration)>,
}

/// The plugins of one server block.
#[derive(Clone, Debug)]
pub struct Chain {
    /// What it serves.
    pub keys: Vec<Key>,
    /// Its plugins, in the order in which they act; several of one kind in the file's order.
    pub plugins: Vec<Plugin>,
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
        let Checked { config, mut errors } = Self::check(name, text, environment);
        if errors.is_empty() { Ok(config) } else { Err(errors.swap_remove(0)) }
    }

    /// Reads a Corefile as far as possible, so that all that is wrong with it can be told; `name` is what errors call it.
    #[must_use]
    pub fn check(name: &str, text: &str, environment: &Environment<'_>) -> Checked {
        let corefile = corefile::parse(name, text, environment);
        let mut config = Self {
            blocks: Vec::new(),
            process: ProcessOptions::default(),
            files: corefile.files,
            directories: corefile.directories,
            watched: Vec::new(),
            interfaces: Vec::new(),
            warnings: corefile.warnings,
            version: version::of(&corefile.blocks),
        };
        let mut errors = corefile.errors;
        for block in corefile.blocks {
            config.block(block, environment, &mut errors);
        }
        config.watch_signed();
        errors.extend(served::overlaps(&config.blocks));
        errors.extend(signing::unknown_keys(&config.blocks));
        errors.extend(listener::disagreements(&config.blocks, &mut config.warnings));
        // The Corefile's own first, those of imported files behind them.
        errors.sort_by(|one, other| {
            let place = |error: &CorefileError| {
                let Place { file, line, column } = error.place.clone();
                (*file != *name, file, line, column)
            };
            place(one).cmp(&place(other))
        });
        errors.dedup();
        Checked { config, errors }
    }

    fn block(&mut self, block: Block, environment: &Environment<'_>, errors: &mut Vec<CorefileError>) {
        let mut scope = Scope::new(&block.keys, environment);
        for key in &block.keys {
            let what = format!("{}://", key.scheme.name());
            if NOT_SERVED.contains(&what.as_str()) {
                scope.errors.push(CorefileError { place: key.place.clone(), fault: Fault::NotServed { what } });
            }
        }
        let plugins = plugin::all(&block.directives, &mut scope);
        for plugin in &plugins {
            if let Plugin::Prometheus(options) = plugin {
                let before = &self.process.metrics;
                scope.errors.extend(prometheus::disagreement(options, before, &block.directives));
            }
            if let Plugin::Tls(TlsOptions { acme: Some(options), .. }) = plugin {
                scope.errors.extend(acme::disagreement(options, &self.blocks, &block.directives));
            }
            self.process.take(plugin);
        }
        if !plugins.iter().any(|plugin| matches!(plugin, Plugin::Tls(_))) {
            let plain = block.keys.iter().filter(|key| key.scheme != Scheme::Dns);
            // As CoreDNS documents it: somebody else may encrypt what comes here.
            scope.warnings.extend(plain.map(|key| format!("{}: {key} is not encrypted: it has no tls", key.place)));
        }
        self.files.append(&mut scope.files);
        self.directories.append(&mut scope.directories);
        self.watched.append(&mut scope.watched);
        self.interfaces.append(&mut scope.interfaces);
        self.warnings.append(&mut scope.warnings);
        errors.append(&mut scope.errors);
        self.blocks.push(Chain { keys: block.keys, plugins });
    }

    /// Zone files that are signed are looked at each minute, and as often as what is made of them.
    fn watch_signed(&mut self) {
        const LOOK: Duration = Duration::from_secs(60);
        let mut signed = Vec::new();
        for options in self.signs() {
            let made = |path: &PathBuf| options.zones.iter().any(|zone| path.as_os_str() == zone.file.as_str());
            let served = self.watched.iter().filter(|(path, _)| made(path)).filter_map(|(_, every)| *every);
            signed.push((PathBuf::from(&options.path), Some(served.fold(LOOK, Ord::min))));
        }
        self.watched.append(&mut signed);
    }

    /// Whether some part of it needs the pods: their names, or their search paths.
    #[must_use]
    pub fn verifies_pods(&self) -> bool {
        self.kubernetes().any(|options| options.pods == PodNames::Verified)
            || self.blocks.iter().flat_map(|chain| &chain.plugins).any(|plugin| {
                let search = if let Plugin::Autopath(options) = plugin { Some(&options.search) } else { None };
                matches!(search, Some(SearchPath::Plugin(name, _)) if name == "kubernetes")
            })
    }

    /// The labels of pods that some part of it asks for; none where pods are not known.
    #[must_use]
    pub fn pod_labels(&self) -> PodLabels {
        let mut labels = PodLabels::default();
        if self.verifies_pods() {
            let tells = |chain: &&Chain| chain.plugins.iter().any(|plugin| matches!(plugin, Plugin::Metadata(_)));
            let plugins = self.blocks.iter().filter(tells).flat_map(|chain| &chain.plugins);
            plugins.for_each(|plugin| labels.take_in(plugin));
        }
        labels
    }

    /// Whether some zone shows what the cluster imports of its cluster set.
    #[must_use]
    pub fn imports(&self) -> bool {
        self.kubernetes().any(|options| !options.multicluster.is_empty())
    }

    /// The zone files that are signed.
    pub fn signs(&self) -> impl Iterator<Item = &SignOptions> {
        let plugins = self.blocks.iter().flat_map(|chain| &chain.plugins);
        plugins.filter_map(|plugin| if let Plugin::Sign(options) = plugin { Some(options) } else { None })
    }

    /// The `kubernetes` plugins.
    pub fn kubernetes(&self) -> impl Iterator<Item = &KubernetesOptions> {
        self.blocks.iter().filter_map(Chain::kubernetes)
    }
}

impl ProcessOptions {
    fn take(&mut self, plugin: &Plugin) {
        match plugin {
            Plugin::Health(options) => match self.health.iter_mut().find(|(listen, _)| *listen == options.listen) {
                Some((_, lameduck)) => *lameduck = options.lameduck.max(*lameduck),
                None => self.health.push((options.listen, options.lameduck)),
            },
            Plugin::Ready(options) => {
                if !self.ready.contains(&options.listen) {
                    self.ready.push(options.listen);
                }
                self.monitor = options.monitor;
            }
            Plugin::Prometheus(options) if self.metrics.iter().all(|known| known.listen != options.listen) => {
                self.metrics.push(options.clone());
            }
            Plugin::Debug => self.debug = true,
            Plugin::Reload(times) => self.reload = *times,
            _ => {}
        }
    }

    /// How long to go on after a stop was asked for: the longest that a `health` says.
    #[must_use]
    pub fn lameduck(&self) -> Duration {
        self.health.iter().map(|(_, lameduck)| *lameduck).max().unwrap_or_default()
    }
}

impl Chain {
    /// The addresses that it listens on (`bind`); none: all of the machine's.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for plugin in &self.plugins {
            if let Plugin::Bind(bind) = plugin {
                addresses.extend(&bind.addresses);
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// `errors`: failures are reported.
    #[must_use]
    pub fn errors(&self) -> bool {
        self.plugins.iter().any(|plugin| matches!(plugin, Plugin::Errors(_)))
    }

    /// `log`: queries are reported.
    #[must_use]
    pub fn log(&self) -> bool {
        self.plugins.iter().any(|plugin| matches!(plugin, Plugin::Log(_)))
    }

    /// `loadbalance`: addresses take turns.
    #[must_use]
    pub fn loadbalance(&self) -> Option<&LoadbalanceOptions> {
        self.plugins.iter().find_map(|plugin| match plugin {
            Plugin::Loadbalance(options) => Some(options),
            _ => None,
        })
    }

    /// `view`: the conditions on questions, all of which have to hold.
    pub fn views(&self) -> impl Iterator<Item = &Expression> {
        let views = self.plugins.iter().filter_map(|plugin| match plugin {
            Plugin::View(view) => Some(&view.conditions),
            _ => None,
        });
        views.flatten()
    }

    /// `loop`: forwarding back to this server is looked for.
    #[must_use]
    pub fn loop_check(&self) -> bool {
        self.plugins.iter().any(|plugin| matches!(plugin, Plugin::Loop))
    }

    /// `whoami`.
    #[must_use]
    pub fn whoami(&self) -> bool {
        self.plugins.iter().any(|plugin| matches!(plugin, Plugin::Whoami))
    }

    /// `cache`.
    #[must_use]
    pub fn cache(&self) -> Option<&CacheOptions> {
        self.plugins.iter().find_map(|plugin| if let Plugin::Cache(options) = plugin { Some(options) } else { None })
    }

    /// `hosts`.
    #[must_use]
    pub fn hosts(&self) -> Option<&HostsOptions> {
        self.plugins.iter().find_map(|plugin| if let Plugin::Hosts(options) = plugin { Some(options) } else { None })
    }

    /// `kubernetes`.
    #[must_use]
    pub fn kubernetes(&self) -> Option<&KubernetesOptions> {
        self.plugins
            .iter()
            .find_map(|plugin| if let Plugin::Kubernetes(options) = plugin { Some(options) } else { None })
    }

    /// `k8s_external`.
    #[must_use]
    pub fn external(&self) -> Option<&ExternalOptions> {
        self.plugins
            .iter()
            .find_map(|plugin| if let Plugin::K8sExternal(options) = plugin { Some(options) } else { None })
    }

    /// `forward`, one for each origin, in the file's order.
    pub fn forwards(&self) -> impl Iterator<Item = &ForwardOptions> {
        self.plugins
            .iter()
            .filter_map(|plugin| if let Plugin::Forward(options) = plugin { Some(options) } else { None })
    }
}

#[cfg(test)]
mod tests;
