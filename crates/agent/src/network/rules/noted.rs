//! Frontends of UDP that connection tracking may remember although they are no Service's any more.
//!
//! Each is written down before rules lead it anywhere, and struck out once it is no Service's and was looked for in connection tracking. So
//! an agent that begins anew knows of all that went while none ran, in whichever mode the one before it was, and however that one ended.

use std::{collections::HashSet, error::Error, net::SocketAddr, path::Path};

use podnet_model::{Dual, Family, Protocol};
use podnet_planner::{
    ruleset::FrontendKey,
    services::{FrontendChange, Services},
};
use tracing::warn;

use crate::journal::{Journal, JournalError};

/// What is written down, and what of it may be gone.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Lines `+ADDRESS:PORT` and `-ADDRESS:PORT`. They need not reach the disk: connection tracking does not outlive the machine either.
    /// None where there can be no file.
    journal: Option<Journal>,
    /// All that are written down or about to be, and not struck out.
    known: HashSet<FrontendKey>,
    /// Those that are still to be written down.
    unwritten: Vec<FrontendKey>,
    /// Those that may be no Service's any more.
    gone: Dual<HashSet<FrontendKey>>,
    /// The file took nothing the last time, which was told.
    is_refused: bool,
}

impl Noted {
    /// Goes on with what an agent before this one wrote down there: all of it may be gone. Where the file cannot be had, that is told, and
    /// nothing is written down.
    pub(super) fn open(path: &Path) -> Self {
        let mut noted = Self::default();
        match Journal::open(path) {
            Ok((journal, lines)) => {
                noted.journal = Some(journal);
                noted.known = replay(&lines);
            }
            Err(error) => noted.refused(&error),
        }
        for key in &noted.known {
            noted.gone[Family::of(&key.addr)].insert(*key);
        }
        noted
    }

    /// Takes in which frontends come and go.
    pub(super) fn learn(&mut self, changes: &[FrontendChange]) {
        for FrontendChange { key, before, after } in changes {
            if key.protocol != Protocol::Udp || before.is_some() == after.is_some() {
                continue;
            }
            if after.is_none() {
                self.gone[Family::of(&key.addr)].insert(*key);
            } else if self.known.insert(*key) {
                self.unwritten.push(*key);
            }
        }
    }

    /// Takes in what was found in the rules of an agent before this one, and is no Service's: also of one that wrote nothing down.
    pub(super) fn found(&mut self, family: Family, keys: Vec<FrontendKey>) {
        self.gone[family].extend(keys);
    }

    /// Writes down what is new: to be done before rules lead it anywhere. Where that cannot be, they do all the same, and it is tried again.
    pub(super) fn write(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let done = match &self.journal {
            Some(journal) => journal.append(self.unwritten.iter().map(|key| line('+', key))).map(drop),
            None => Ok(()),
        };
        match done {
            Ok(()) => {
                self.unwritten = Vec::new();
                self.is_refused &= self.journal.is_none();
            }
            Err(error) => self.refused(&error),
        }
    }

    /// Those of a family that may be no Service's any more.
    pub(super) const fn gone(&self, family: Family) -> &HashSet<FrontendKey> {
        match family {
            Family::V4 => &self.gone.v4,
            Family::V6 => &self.gone.v6,
        }
    }

    /// Connection tracking knows of none of these any more: strikes out those that are no Service's.
    pub(super) fn forgotten(&mut self, family: Family, services: &Services) {
        let gone = std::mem::take(&mut self.gone[family]);
        let over: Vec<FrontendKey> = gone.into_iter().filter(|key| services.serving(key).is_none()).collect();
        if over.is_empty() {
            return;
        }
        for key in &over {
            self.known.remove(key);
        }
        self.unwritten.retain(|key| self.known.contains(key));
        let Some(journal) = &self.journal else { return };
        let struck = journal.append(over.iter().map(|key| line('-', key)));
        let left = || self.known.iter().map(|key| line('+', key)).collect::<Vec<_>>();
        if let Err(error) = struck.and_then(|_| journal.compact(left)) {
            self.refused(&error);
        }
    }

    fn refused(&mut self, error: &JournalError) {
        if !std::mem::replace(&mut self.is_refused, true) {
            let error = error as &dyn Error;
            warn!(
                error,
                "UDP clients of Services that go while no agent runs may go on to where these led; see that the file can be written"
            );
        }
    }
}

fn line(sign: char, key: &FrontendKey) -> String {
    format!("{sign}{}", SocketAddr::new(key.addr, key.port))
}

/// What cannot be read names nobody.
fn replay(lines: &[String]) -> HashSet<FrontendKey> {
    let mut known = HashSet::new();
    for line in lines {
        match line.split_at_checked(1) {
            Some(("+", at)) => known.extend(frontend(at)),
            Some(("-", at)) => {
                if let Some(key) = frontend(at) {
                    known.remove(&key);
                }
            }
            _ => {}
        }
    }
    known
}

fn frontend(at: &str) -> Option<FrontendKey> {
    let at: SocketAddr = at.parse().ok()?;
    Some(FrontendKey { addr: at.ip(), protocol: Protocol::Udp, port: at.port() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use podnet_model::{
        Change, ClusterIp, Service, ServiceKey, ServicePort,
        service::{Port, ServiceKind},
    };
    use podnet_planner::services::ServicesConfig;

    use super::*;

    /// A Service at an address, by UDP and by TCP.
    fn service(ip: &str) -> (ServiceKey, Change) {
        let key = ServiceKey::new("default", &format!("at-{ip}"));
        let port = |protocol, port| Port { name: "".into(), protocol, port: ServicePort(port), node_port: None };
        let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(ip.parse().unwrap())] };
        let ports = vec![port(Protocol::Udp, 53), port(Protocol::Tcp, 54)];
        (key.clone(), Change::Service(key.clone(), Some(Service::new(key, kind, ports))))
    }

    fn gone(noted: &Noted) -> Vec<String> {
        let mut all: Vec<_> = Family::ALL.into_iter().flat_map(|of| noted.gone(of)).map(ToString::to_string).collect();
        all.sort();
        all
    }

    #[test]
    fn what_was_written_down_may_be_gone_until_connection_tracking_was_gone_through() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/udp-frontends");
        let mut services = Dual::from_fn(|of| Services::new(ServicesConfig::new(of, "node1".into(), Vec::new())));
        let mut noted = Noted::open(&path);
        let all = ["10.96.0.1", "10.96.0.2", "fd96::1"];
        for ip in all {
            for family in Family::ALL {
                noted.learn(&services[family].apply(&service(ip).1).frontends);
            }
        }
        assert_eq!(gone(&Noted::open(&path)), [""; 0], "nothing is written down yet");
        noted.write();
        let at = |ip: &str| FrontendKey { addr: ip.parse().unwrap(), protocol: Protocol::Udp, port: 53 }.to_string();
        assert_eq!(gone(&Noted::open(&path)), all.map(at));
        assert_eq!(gone(&noted), [""; 0], "Services have them");

        // Two go, and one of these comes back before connection tracking is gone through.
        for (ip, back) in [("10.96.0.1", true), ("10.96.0.2", false)] {
            let (key, change) = service(ip);
            noted.learn(&services.v4.apply(&Change::Service(key, None)).frontends);
            if back {
                noted.learn(&services.v4.apply(&change).frontends);
            }
        }
        assert_eq!(gone(&noted), [at("10.96.0.1"), at("10.96.0.2")]);
        assert_eq!(gone(&Noted::open(&path)), all.map(at), "however the agent ends");
        noted.forgotten(Family::V4, &services.v4);
        assert_eq!(gone(&noted), [""; 0]);
        let mut next = Noted::open(&path);
        assert_eq!(gone(&next), [at("10.96.0.1"), at("fd96::1")]);

        // The last Service of a family went while no agent ran. What comes once more is written down once more.
        let nobody = Services::new(ServicesConfig::new(Family::V6, "node1".into(), Vec::new()));
        next.forgotten(Family::V6, &nobody);
        next.learn(&services.v6.whole().frontends);
        assert_eq!(gone(&Noted::open(&path)), [at("10.96.0.1")]);
        next.write();
        assert_eq!(gone(&Noted::open(&path)), [at("10.96.0.1"), at("fd96::1")]);
    }

    #[test]
    fn without_a_file_what_goes_is_known_for_as_long_as_the_agent_runs() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let mut services = Services::new(ServicesConfig::new(Family::V4, "node1".into(), Vec::new()));
        let mut noted = Noted::open(&directory.path().join("file/udp-frontends"));
        let (key, change) = service("10.96.0.1");
        noted.learn(&services.apply(&change).frontends);
        noted.write();
        noted.learn(&services.apply(&Change::Service(key, None)).frontends);
        assert_eq!(gone(&noted).len(), 1);
        noted.forgotten(Family::V4, &services);
        assert_eq!(gone(&noted), [""; 0]);
    }

    #[test]
    fn a_line_that_cannot_be_read_names_nobody() {
        let lines = ["+10.96.0.1:53", "+", "", "ä", "+nobody", "+10.96.0.2", "-10.96.0.3:53", "+[fd96::1]:53", "x"];
        let mut known: Vec<_> = replay(&lines.map(str::to_owned)).iter().map(ToString::to_string).collect();
        known.sort();
        assert_eq!(known.len(), 2, "{known:?}");
        assert!(known[0].contains("10.96.0.1") && known[1].contains("fd96::1"), "{known:?}");
    }
}
