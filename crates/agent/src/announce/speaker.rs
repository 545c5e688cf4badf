//! The thread that hears and speaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_kernel::arp::{ArpSocket, Heard};
use podnet_planner::loadbalancer::{
    announcer::Duty,
    posts::{Act, Posts},
};
use rustix::event::{PollFd, PollFlags, poll};
use tracing::{debug, info, warn};

use super::{Announcements, News};

/// How long a change of duties may wait at most while something is announced.
const LOOK: Duration = Duration::from_millis(100);
/// How long a device that is not there is left alone.
const RETRY: Duration = Duration::from_millis(500);

/// Speaks on each device.
pub(super) struct Speaker {
    announcements: Arc<Announcements>,
    /// The device of the underlay; none: not known yet.
    underlay: Option<Arc<str>>,
    /// Of which state of the cluster the duties are.
    version: u64,
    posts: Posts,
    /// What the log says to be announced.
    told: BTreeSet<IpAddr>,
    /// Where each address is announced.
    devices: BTreeMap<Ipv4Addr, BTreeSet<Arc<str>>>,
    sockets: BTreeMap<Arc<str>, ArpSocket>,
    /// Devices that could not be had, and when to try again.
    missing: BTreeMap<Arc<str>, Instant>,
    /// When the devices were last compared with those that the sockets are on.
    compared: Instant,
}

impl Speaker {
    pub(super) fn new(announcements: Arc<Announcements>) -> Self {
        Self {
            announcements,
            underlay: None,
            version: 0,
            posts: Posts::default(),
            told: BTreeSet::new(),
            devices: BTreeMap::new(),
            sockets: BTreeMap::new(),
            missing: BTreeMap::new(),
            compared: Instant::now(),
        }
    }

    /// Never ends.
    pub(super) fn run(mut self) {
        loop {
            if self.devices.is_empty() {
                self.announcements.wait(self.version);
            }
            self.take_duties();
            self.close_sockets();
            self.open_sockets();
            for act in self.posts.act(Instant::now()) {
                self.send(act);
            }
            self.tell();
            self.await_frames();
            self.hear();
        }
    }

    fn tell(&mut self) {
        let now: BTreeSet<IpAddr> = self.posts.announced().collect();
        let before = std::mem::replace(&mut self.told, now);
        let gained = self.told.difference(&before);
        gained.for_each(|addr| info!(%addr, "load balancer's address announced from here"));
        let lost = before.difference(&self.told);
        lost.for_each(|addr| info!(%addr, "load balancer's address not announced from here any more"));
    }

    fn take_duties(&mut self) {
        let Some(News { version, duties, underlay }) = self.announcements.news_since(self.version) else { return };
        self.version = version;
        self.underlay = underlay.map(|device| Arc::from(device.as_str()));
        // Those of IPv6 are nobody's yet.
        let duties: Vec<Duty> = duties.into_iter().filter(|duty| duty.addr.is_ipv4()).collect();
        self.posts.assign(&duties, Instant::now());
        let own = |duty: &Duty| match duty.interfaces.is_empty() {
            true => self.underlay.iter().cloned().collect(),
            false => duty.interfaces.clone(),
        };
        self.devices = duties.iter().filter_map(|duty| Some((v4(duty.addr)?, own(duty)))).collect();
        let wanted: BTreeSet<&Arc<str>> = self.devices.values().flatten().collect();
        self.sockets.retain(|device, _| wanted.contains(device));
    }

    /// Closes the sockets on devices that are other ones by now, or have another Ethernet address.
    fn close_sockets(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.compared) < RETRY {
            return;
        }
        self.compared = now;
        self.sockets.retain(|device, socket| {
            // Where the kernel does not answer nothing is known to be wrong.
            let stays = socket.is_current(device).unwrap_or(true);
            if !stays {
                info!(%device, "the device is another one, or has another address: load balancers' addresses are announced anew");
            }
            stays
        });
    }

    fn open_sockets(&mut self) {
        let now = Instant::now();
        let wanted: BTreeSet<Arc<str>> = self.devices.values().flatten().cloned().collect();
        for device in wanted {
            let too_early = self.missing.get(&device).is_some_and(|at| now < *at);
            if self.sockets.contains_key(&device) || too_early {
                continue;
            }
            match ArpSocket::open(&device) {
                Ok(socket) => {
                    self.missing.remove(&device);
                    // What was said while there was none was said to nobody.
                    let there = self.devices.iter().filter(|(_, devices)| devices.contains(&device));
                    there.for_each(|(addr, _)| self.posts.tell_again((*addr).into(), now));
                    self.sockets.insert(device, socket);
                }
                Err(error) => {
                    if self.missing.insert(device.clone(), now + RETRY).is_none() {
                        let error = &error as &dyn std::error::Error;
                        warn!(%device, error, "load balancers' addresses cannot be announced there, trying again");
                    }
                }
            }
        }
    }

    fn send(&mut self, act: Act) {
        let (Act::Ask(addr) | Act::Claim(addr)) = act;
        let Some(v4) = v4(addr) else { return };
        for device in self.devices.get(&v4).into_iter().flatten() {
            let Some(socket) = self.sockets.get(device) else { continue };
            let sent = match act {
                Act::Ask(_) => socket.ask(v4),
                Act::Claim(_) => socket.claim(v4),
            };
            if let Err(error) = sent {
                debug!(%device, %addr, %error, "nothing sent");
            }
        }
    }

    /// Waits until something is heard or is to be done.
    fn await_frames(&self) {
        let until = self.posts.due().map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
        let mut wanted: Vec<_> = self.sockets.values().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        // A signal or a full kernel: the next round waits.
        let _ = poll(&mut wanted, Some(&until.try_into().unwrap_or_default()));
    }

    fn hear(&mut self) {
        let mut broken = Vec::new();
        for (device, socket) in &self.sockets {
            loop {
                match socket.hear() {
                    Ok(None) => break,
                    Ok(Some(Heard::Asks { addr, asker })) => {
                        let here = self.devices.get(&addr).is_some_and(|devices| devices.contains(device));
                        if here && self.posts.announces(addr.into()) {
                            let answered = socket.answer(addr, asker);
                            answered.unwrap_or_else(|error| debug!(%device, %addr, %error, "nothing answered"));
                        }
                    }
                    Ok(Some(Heard::Claims { addr, by })) => {
                        if self.posts.heard(addr.into(), by < socket.mac(), Instant::now()) {
                            info!(%addr, %by, "another node announces the load balancer's address");
                        }
                    }
                    Err(error) => {
                        debug!(%device, %error, "device lost");
                        broken.push(device.clone());
                        break;
                    }
                }
            }
        }
        let now = Instant::now();
        for device in broken {
            self.sockets.remove(&device);
            self.missing.insert(device, now + RETRY);
        }
    }
}

const fn v4(addr: IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    }
}
