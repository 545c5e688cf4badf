//! Reading the Corefile, and what it reads itself.

use std::{
    collections::BTreeSet,
    fs::Metadata,
    io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use podnet_dns::{Config, Environment};
use podnet_kernel::{addr, link, netlink::RtSocket};

use super::{DnsError, DnsOptions, connections, hostnames, signing};

/// What the configuration was made from: each file with its text, or none where it could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources {
    corefile: String,
    files: Vec<(PathBuf, Option<String>)>,
    /// Directories from which files were imported by pattern, and the names of their files.
    directories: Vec<(PathBuf, Vec<String>)>,
    /// Interfaces that are listened on, and their addresses.
    interfaces: Vec<(String, Vec<IpAddr>)>,
}

/// Which sources are looked at anew.
#[derive(Clone, Debug)]
pub(super) enum Anew {
    /// The Corefile, and what it is made from but for these: plugins look at them by themselves.
    Corefile(BTreeSet<PathBuf>),
    /// These files and directories, which plugins look at by themselves.
    These(BTreeSet<PathBuf>),
}

impl Anew {
    fn has(&self, path: &Path) -> bool {
        match self {
            Self::Corefile(others) => !others.contains(path),
            Self::These(paths) => paths.contains(path),
        }
    }

    fn has_corefile(&self) -> bool {
        matches!(self, Self::Corefile(_))
    }
}

/// Surroundings with this process' environment variables.
pub(super) fn environment<'a>(file: &'a dyn Fn(&str) -> io::Result<String>) -> Environment<'a> {
    Environment {
        variable: &|name| std::env::var(name).ok(),
        file,
        list: &list,
        interface: &interface,
        resolve: &hostnames::resolve,
    }
}

/// The addresses of an interface, sorted.
fn interface(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut socket = RtSocket::open().map_err(io::Error::other)?;
    let index = link::index_of(&mut socket, name).map_err(io::Error::other)?;
    let found = addr::list(&mut socket, index).map_err(io::Error::other)?;
    let mut addresses: Vec<IpAddr> = found.into_iter().map(|net| net.addr()).collect();
    addresses.sort_unstable();
    Ok(addresses)
}

/// The names of a directory's files, and of its directories with a slash behind, or two where it is a link to one, sorted. What is no
/// text cannot be imported. Where a ConfigMap is mounted, directories that begin with a dot are its versions, and what they have is
/// there without them: directories, too, as links that count as the directories themselves.
fn list(directory: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // Through links: the files of a mounted ConfigMap are links.
        let Ok(kind) = std::fs::metadata(entry.path()).map(|entry| entry.file_type()) else { continue };
        let Ok(name) = entry.file_name().into_string() else { continue };
        if kind.is_file() {
            names.push(name);
        } else if kind.is_dir() && !name.starts_with('.') {
            // kubelet has each of them lead into the version that holds, which has no links.
            let is_mounted = || std::fs::read_link(entry.path()).is_ok_and(|to| to.starts_with("..data"));
            let is_link = entry.file_type().is_ok_and(|own| own.is_symlink()) && !is_mounted();
            names.push(name + if is_link { "//" } else { "/" });
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Reads and loads the Corefile.
pub(super) async fn load(options: &DnsOptions) -> Result<(Config, Sources), DnsError> {
    let options = options.clone();
    blocking(move || {
        let unreadable = |source| DnsError::Unreadable { path: options.corefile.clone(), source };
        let corefile = std::fs::read_to_string(&options.corefile).map_err(unreadable)?;
        loaded(&options, corefile, &environment(&|path| read(&options, path)))
    })
    .await
}

/// Loads what was loaded before once more, with these files and directories as they are now.
pub(super) async fn load_again(
    options: &DnsOptions,
    before: &Sources,
    due: &BTreeSet<PathBuf>,
) -> Result<(Config, Sources), DnsError> {
    let (options, before, due) = (options.clone(), before.clone(), due.clone());
    blocking(move || {
        let known = |path: &str| !due.contains(Path::new(path));
        let read = |path: &str| match before.file(path).filter(|_| known(path)) {
            Some(text) => text.cloned().ok_or_else(|| io::ErrorKind::NotFound.into()),
            None => read(&options, path),
        };
        let list = |path: &str| match before.directory(path).filter(|_| known(path)) {
            Some(names) => Ok(names.to_vec()),
            None => list(path),
        };
        let interface = |name: &str| match before.interfaces.iter().find(|(known, _)| known == name) {
            Some((_, addresses)) => Ok(addresses.clone()),
            None => interface(name),
        };
        let environment = Environment { list: &list, interface: &interface, ..environment(&read) };
        loaded(&options, before.corefile.clone(), &environment)
    })
    .await
}

fn loaded(
    options: &DnsOptions,
    corefile: String,
    environment: &Environment<'_>,
) -> Result<(Config, Sources), DnsError> {
    let name = options.corefile.display().to_string();
    let load = || Config::load(&name, &corefile, environment).map_err(DnsError::Corefile);
    let mut config = load()?;
    // What is signed now may be what is served.
    if signing::sign(&config) {
        config = load()?;
    }
    for secure in podnet_dns::forward::secured(&config) {
        connections::check(&secure).map_err(DnsError::Tls)?;
    }
    let sources = made_from(corefile, &config, environment);
    Ok((config, sources))
}

impl Sources {
    /// The same, with these files and directories as others have them.
    pub(super) fn with(&self, others: &Self, paths: &BTreeSet<PathBuf>) -> Self {
        let mut with = self.clone();
        for (path, text) in with.files.iter_mut().filter(|(path, _)| paths.contains(path)) {
            let other = others.files.iter().find(|(known, _)| known == path);
            other.into_iter().for_each(|(_, other)| text.clone_from(other));
        }
        for (path, names) in with.directories.iter_mut().filter(|(path, _)| paths.contains(path)) {
            let other = others.directories.iter().find(|(known, _)| known == path);
            other.into_iter().for_each(|(_, other)| names.clone_from(other));
        }
        with
    }

    /// The files and directories that are others than before.
    pub(super) fn changed(&self, before: &Self) -> BTreeSet<PathBuf> {
        let files = self.files.iter().filter(|file| !before.files.contains(file)).map(|(path, _)| path);
        let directories = self.directories.iter().filter(|listed| !before.directories.contains(listed));
        files.chain(directories.map(|(path, _)| path)).cloned().collect()
    }

    /// A file's text, or that it could not be read; none: it is not among them.
    fn file(&self, path: &str) -> Option<Option<&String>> {
        let path = Path::new(path);
        self.files.iter().find(|(known, _)| known == path).map(|(_, text)| text.as_ref())
    }

    /// The names of a directory's files; none: it is not among them.
    fn directory(&self, path: &str) -> Option<&[String]> {
        let path = Path::new(path);
        self.directories.iter().find(|(known, _)| known == path).map(|(_, names)| names.as_slice())
    }
}

/// Signs the zone files whose time has come.
pub(super) async fn sign(config: &Config) {
    if config.signs().next().is_some() {
        let config = config.clone();
        blocking(move || signing::sign(&config)).await;
    }
}

/// Which file something is, as far as that can be told without reading it: device, number, time of change and size. Where it is
/// mounted from a ConfigMap, each change is another file behind the same links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([i128; 5]);

impl Stamp {
    pub(super) fn of(file: &Metadata) -> Self {
        Self([file.dev().into(), file.ino().into(), file.mtime().into(), file.mtime_nsec().into(), file.len().into()])
    }
}

pub(super) async fn stamp(options: &DnsOptions) -> Option<Stamp> {
    tokio::fs::metadata(&options.corefile).await.ok().map(|file| Stamp::of(&file))
}

/// What there is to read now, as far as it is looked at; the rest is as it was. `before` is what was loaded, or refused, last: when
/// the Corefile is another one, it may name other files.
pub(super) async fn look(options: &DnsOptions, before: &Sources, anew: Anew) -> io::Result<Sources> {
    let (options, mut now) = (options.clone(), before.clone());
    blocking(move || {
        if anew.has_corefile() {
            let corefile = std::fs::read_to_string(&options.corefile)?;
            if corefile != now.corefile {
                return Ok(sources(&options, corefile));
            }
            for (name, addresses) in &mut now.interfaces {
                *addresses = interface(name).unwrap_or_default();
            }
        }
        for (path, text) in now.files.iter_mut().filter(|(path, _)| anew.has(path)) {
            *text = read(&options, &path.display().to_string()).ok();
        }
        for (path, names) in now.directories.iter_mut().filter(|(path, _)| anew.has(path)) {
            *names = list(&path.display().to_string()).unwrap_or_default();
        }
        Ok(now)
    })
    .await
}

/// What a Corefile is made from that cannot be loaded, as far as it can be read.
pub(super) async fn refused(options: &DnsOptions) -> io::Result<Sources> {
    let options = options.clone();
    blocking(move || Ok(sources(&options, std::fs::read_to_string(&options.corefile)?))).await
}

fn sources(options: &DnsOptions, corefile: String) -> Sources {
    let name = options.corefile.display().to_string();
    let read = |path: &str| read(options, path);
    // Which files it names does not depend on where upstreams are; that they are somewhere has all of it read.
    let environment = Environment { resolve: &|_, _| Ok(vec![Ipv4Addr::LOCALHOST.into()]), ..environment(&read) };
    let config = Config::check(&name, &corefile, &environment).config;
    made_from(corefile, &config, &environment)
}

fn made_from(corefile: String, config: &Config, environment: &Environment<'_>) -> Sources {
    let text = |path: &PathBuf| (path.clone(), (environment.file)(&path.display().to_string()).ok());
    let names = |path: &PathBuf| (path.clone(), (environment.list)(&path.display().to_string()).unwrap_or_default());
    let addresses = |name: &String| (name.clone(), (environment.interface)(name).unwrap_or_default());
    Sources {
        corefile,
        files: config.files.iter().map(text).collect(),
        directories: config.directories.iter().map(names).collect(),
        interfaces: config.interfaces.iter().map(addresses).collect(),
    }
}

fn read(options: &DnsOptions, path: &str) -> io::Result<String> {
    if path == "/etc/resolv.conf" {
        return std::fs::read_to_string(&options.resolv_conf);
    }
    std::fs::read_to_string(path)
}

/// Runs what reads files off the threads that answer queries.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
