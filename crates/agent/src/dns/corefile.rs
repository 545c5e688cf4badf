//! Reading the Corefile, and what it reads itself.

use std::{
    fs::Metadata,
    io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
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

/// The names of a directory's files, sorted. What is no text cannot be imported.
fn list(directory: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // Through links: the files of a mounted ConfigMap are links.
        let file = std::fs::metadata(entry.path()).is_ok_and(|entry| entry.is_file());
        names.extend(entry.file_name().into_string().ok().filter(|_| file));
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
        let name = options.corefile.display().to_string();
        let load = || Config::load(&name, &corefile, &environment(&|path| read(&options, path)));
        let mut config = load().map_err(DnsError::Corefile)?;
        // What is signed now may be what is served.
        if signing::sign(&config) {
            config = load().map_err(DnsError::Corefile)?;
        }
        for secure in podnet_dns::forward::secured(&config) {
            connections::check(&secure).map_err(DnsError::Tls)?;
        }
        let sources = made_from(&options, corefile, &config);
        Ok((config, sources))
    })
    .await
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

/// What there is to read now. `before` is what was loaded, or refused, last: when the Corefile is another one, it may name other
/// files.
pub(super) async fn look(options: &DnsOptions, before: &Sources) -> io::Result<Sources> {
    let (options, before) = (options.clone(), before.clone());
    blocking(move || {
        let corefile = std::fs::read_to_string(&options.corefile)?;
        if corefile != before.corefile {
            return Ok(sources(&options, corefile));
        }
        let files: Vec<PathBuf> = before.files.into_iter().map(|(path, _)| path).collect();
        let directories: Vec<PathBuf> = before.directories.into_iter().map(|(path, _)| path).collect();
        let interfaces: Vec<String> = before.interfaces.into_iter().map(|(name, _)| name).collect();
        Ok(Sources {
            corefile,
            files: texts(&options, &files),
            directories: names(&directories),
            interfaces: addresses(&interfaces),
        })
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
    made_from(options, corefile, &config)
}

fn made_from(options: &DnsOptions, corefile: String, config: &Config) -> Sources {
    Sources {
        corefile,
        files: texts(options, &config.files),
        directories: names(&config.directories),
        interfaces: addresses(&config.interfaces),
    }
}

fn addresses(interfaces: &[String]) -> Vec<(String, Vec<IpAddr>)> {
    interfaces.iter().map(|name| (name.clone(), interface(name).unwrap_or_default())).collect()
}

fn texts(options: &DnsOptions, files: &[PathBuf]) -> Vec<(PathBuf, Option<String>)> {
    files.iter().map(|path| (path.clone(), read(options, &path.display().to_string()).ok())).collect()
}

fn names(directories: &[PathBuf]) -> Vec<(PathBuf, Vec<String>)> {
    directories.iter().map(|path| (path.clone(), list(&path.display().to_string()).unwrap_or_default())).collect()
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
