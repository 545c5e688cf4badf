//! What Services without backends refuse at sockets (mode `ebpf`): no packet of it is sent, so that the programs at sockets count it.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use podnet_ebpf::sockets::{Asker, IS_WANTED, Place, Refusal as Counted, WITHOUT_ROOM};
use podnet_flow::{Refusal, Transport, Unserved};

use super::{Clock, FlowsError, refused};
use crate::{
    cgroup::Cgroup,
    sockets::{NOBODY_HERE, call, refused_at},
};

/// What the programs at a cgroup refuse, whoever put them there.
#[derive(Debug)]
pub struct Refusals {
    counted: OwnedFd,
    /// The number of that map.
    id: u32,
    recording: OwnedFd,
    clock: Clock,
}

impl Refusals {
    /// Those of the programs at this cgroup; none where there are no such programs, or those of a version that does not count.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn at(cgroup: &Cgroup) -> Result<Option<Self>, FlowsError> {
        let Some(((counted, id), recording)) = refused_at(cgroup)? else { return Ok(None) };
        Ok(Some(Self { counted, id, recording, clock: Clock::now() }))
    }

    /// Whether both are of the same programs.
    #[must_use]
    pub const fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Whether the programs are to count. Where they are not to, what they counted is given up.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn record(&self, is_wanted: bool) -> Result<(), FlowsError> {
        let wanted = (IS_WANTED.to_le_bytes(), u64::from(is_wanted).to_le_bytes());
        call::update(self.recording.as_fd(), &[wanted]).map_err(refused("set whether refusals are counted"))?;
        if is_wanted {
            return Ok(());
        }
        self.forget_missed()?;
        let map = self.counted.as_fd();
        let all: Vec<([u8; Asker::SIZE], [u8; Counted::SIZE])> =
            call::elements(map).map_err(refused("read the refusals"))?;
        let keys: Vec<_> = all.into_iter().map(|(key, _)| key).collect();
        call::delete(map, &keys).map_err(refused("give up the refusals"))
    }

    /// All that is counted, since it began.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn read(&mut self) -> Result<Vec<Refusal>, FlowsError> {
        self.clock.follow(Clock::now());
        let mut all = Vec::new();
        let visit = |key: &[u8; Asker::SIZE], value: &[u8; Counted::SIZE]| {
            let counted = Counted::from_bytes(value);
            // One that is being made.
            if counted.count > 0 {
                all.push(refusal(self.clock, &Asker::from_bytes(key), &counted));
            }
        };
        call::each(self.counted.as_fd(), visit).map_err(refused("read the refusals"))?;
        Ok(all)
    }

    /// Takes one out that is as it was read. None where it is not, as more were refused since: these go on to be counted there.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn take(&self, read: &Refusal) -> Result<Option<Refusal>, FlowsError> {
        let to = Place { addr: read.to.ip(), port: read.to.port(), protocol: read.transport.0 };
        let asker = Asker { netns: read.netns, to, port: read.port };
        let as_read = |value: &[u8; Counted::SIZE]| refusal(self.clock, &asker, &Counted::from_bytes(value));
        let is_same = |last: &Refusal| last.born == read.born && last.count == read.count;
        call::take_read(self.counted.as_fd(), &asker.to_bytes(), as_read, is_same).map_err(refused("take a refusal"))
    }

    /// How many were refused that found no room, since somebody asked this last, be it by another value: what no agent told is the next one's to tell.
    /// One that is refused as this is read may be left out of it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn missed(&self) -> Result<u64, FlowsError> {
        let count = call::lookup(self.recording.as_fd(), &WITHOUT_ROOM.to_le_bytes());
        let missed = count.map_err(refused("read how many refusals were missed"))?.map_or(0, u64::from_le_bytes);
        if missed > 0 {
            self.forget_missed()?;
        }
        Ok(missed)
    }

    fn forget_missed(&self) -> Result<(), FlowsError> {
        let none = (WITHOUT_ROOM.to_le_bytes(), 0_u64.to_le_bytes());
        call::update(self.recording.as_fd(), &[none]).map_err(refused("set how many refusals were missed"))
    }
}

fn refusal(clock: Clock, asker: &Asker, counted: &Counted) -> Refusal {
    let Asker { netns, to, port } = *asker;
    Refusal {
        netns,
        port,
        to: SocketAddr::new(to.addr, to.port),
        transport: Transport(to.protocol),
        count: counted.count,
        born: counted.first,
        first: clock.at(counted.first),
        last: clock.at(counted.last),
        unserved: if counted.error == NOBODY_HERE { Unserved::NobodyHere } else { Unserved::Nobody },
    }
}
