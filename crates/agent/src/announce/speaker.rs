//! The thread that hears and speaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_kernel::announce::{AnnounceSocket, Heard};
use podnet_model::Family;
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
    devices: BTreeMap<IpAddr, BTreeSet<Arc<str>>>,
    sockets: BTreeMap<Place, AnnounceSocket>,
    /// Where no socket could be had, and when to try again.
    missing: BTreeMap<Place, Instant>,
    /// Where not all questions are heard for certain.
    deaf: BTreeSet<Place>,
    /// When the devices were last compared with those that the sockets are on.
    compared: Instant,
}

/// A device, and the family of what is announced there.
type Place = (Arc<str>, Family);

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
            deaf: BTreeSet::new(),
            compared: Instant::now(),
        }
    }

    /// Never ends.
    pub(super) fn run(mut self) {
        loop {
            if self.devices.is_empty() {
                self.announcements.wait(self.version);
            }
            let is_news = self.take_duties();
            let is_time = self.close_sockets();
            let is_open = self.open_sockets();
            if is_news || is_time || is_open {
                self.listen();
            }
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

    /// Answers whether there are others.
    fn take_duties(&mut self) -> bool {
        let Some(News { version, duties, underlay }) = self.announcements.news_since(self.version) else {
            return false;
        };
        self.version = version;
        self.underlay = underlay.map(|device| Arc::from(device.as_str()));
        self.posts.assign(&duties, Instant::now());
        let own = |duty: Duty| match duty.interfaces.is_empty() {
            true => self.underlay.iter().cloned().collect(),
            false => duty.interfaces,
        };
        self.devices = duties.into_iter().map(|duty| (duty.addr, own(duty))).collect();
        let wanted = self.wanted();
        self.sockets.retain(|place, _| wanted.contains(place));
        self.deaf.retain(|place| wanted.contains(place));
        true
    }

    /// Where there is something to announce, or will be one day.
    fn wanted(&self) -> BTreeSet<Place> {
        let places = self.devices.iter().map(|(addr, devices)| (Family::of(addr), devices));
        places.flat_map(|(family, devices)| devices.iter().map(move |device| (device.clone(), family))).collect()
    }

    /// Closes the sockets on devices that are other ones by now, or have another Ethernet address. Answers whether it was time to look.
    fn close_sockets(&mut self) -> bool {
        let now = Instant::now();
        if now.saturating_duration_since(self.compared) < RETRY {
            return false;
        }
        self.compared = now;
        self.sockets.retain(|(device, family), socket| {
            // Where the kernel does not answer nothing is known to be wrong.
            let stays = socket.is_current(device).unwrap_or(true);
            if !stays {
                info!(%device, %family, "the device is another one, or has another address: load balancers' addresses are announced anew");
            }
            stays
        });
        true
    }

    /// Answers whether there are new ones.
    fn open_sockets(&mut self) -> bool {
        let now = Instant::now();
        let mut is_open = false;
        for place in self.wanted() {
            let too_early = self.missing.get(&place).is_some_and(|at| now < *at);
            if self.sockets.contains_key(&place) || too_early {
                continue;
            }
            let (device, family) = &place;
            match AnnounceSocket::open(device, *family) {
                Ok(socket) => {
                    self.missing.remove(&place);
                    // What was said while there was none was said to nobody.
                    addresses_at(&self.devices, &place).for_each(|addr| self.posts.tell_again(addr, now));
                    self.sockets.insert(place, socket);
                    is_open = true;
                }
                Err(error) => {
                    if self.missing.insert(place.clone(), now + RETRY).is_none() {
                        let error = &error as &dyn std::error::Error;
                        warn!(%device, %family, error, "load balancers' addresses cannot be announced there, trying again");
                    }
                }
            }
        }
        is_open
    }

    /// Hears the questions for what is announced from here, or may soon be: switches have to know before.
    fn listen(&mut self) {
        for (place, socket) in &mut self.sockets {
            let posts = &self.posts;
            let heard = socket.listen_for(addresses_at(&self.devices, place).filter(|addr| posts.has(*addr)));
            match heard {
                Ok(()) => drop(self.deaf.remove(place)),
                Err(error) if self.deaf.insert(place.clone()) => {
                    let device = &place.0;
                    warn!(%device, %error, "not all questions for load balancers' addresses are heard where switches forward by group, trying again");
                }
                Err(_) => {}
            }
        }
    }

    fn send(&mut self, act: Act) {
        let (Act::Ask(addr) | Act::Claim(addr)) = act;
        for device in self.devices.get(&addr).into_iter().flatten() {
            let Some(socket) = self.sockets.get(&(device.clone(), Family::of(&addr))) else { continue };
            let sent = match act {
                Act::Ask(_) => socket.ask(addr),
                Act::Claim(_) => socket.claim(addr),
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
        for (place, socket) in &self.sockets {
            let device = &place.0;
            loop {
                match socket.hear() {
                    Ok(None) => break,
                    Ok(Some(Heard::Asks { addr, asker })) => {
                        let here = self.devices.get(&addr).is_some_and(|devices| devices.contains(device));
                        if here && self.posts.announces(addr) {
                            let answered = socket.answer(addr, asker);
                            answered.unwrap_or_else(|error| debug!(%device, %addr, %error, "nothing answered"));
                        }
                    }
                    Ok(Some(Heard::Claims { addr, by })) => {
                        if self.posts.heard(addr, by < socket.mac(), Instant::now()) {
                            info!(%addr, %by, "another node announces the load balancer's address");
                        }
                    }
                    Err(error) => {
                        debug!(%device, %error, "device lost");
                        broken.push(place.clone());
                        break;
                    }
                }
            }
        }
        let now = Instant::now();
        for place in broken {
            self.sockets.remove(&place);
            self.missing.insert(place, now + RETRY);
        }
    }
}

/// What is announced there, or may be.
fn addresses_at(devices: &BTreeMap<IpAddr, BTreeSet<Arc<str>>>, place: &Place) -> impl Iterator<Item = IpAddr> {
    let (device, family) = place;
    let there = devices.iter().filter(move |(addr, devices)| Family::of(addr) == *family && devices.contains(device));
    there.map(|(addr, _)| *addr)
}
