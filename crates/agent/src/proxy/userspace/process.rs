//! The process that passes on connections for an agent and outlives it (`podnet proxy`).
//!
//! It has the programs of both families, in the namespace that it was started in. The agent connects to its socket and tells it what to be; while
//! no agent is there it goes on as it was told last. It ends where nobody needs it: the mode was left and no connection is under way, or its
//! socket is gone, and with it the agent's directory. Where another process has taken the socket's path, this one listens for Services no more
//! and ends with its last connection.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::{
    apart, cni_wire,
    netns::{NetNs, NetNsError},
};
use podnet_model::{Dual, Family, errors::chain};
use podnet_planner::ruleset::FrontendKey;
use rustix::process::geteuid;
use tracing::{debug, info, warn};

use super::{
    passed, program,
    server::{Here, Server},
    wire::{self, Gathered, Purpose, Reply, Request, State, VERSION},
};
use crate::proxy::mode::{RulesError, Unserved};

/// How often it is looked whether the process is still needed.
const LOOK: Duration = Duration::from_secs(1);
/// So long after it was told something last it is needed still: an agent may be about to say more.
const GRACE: Duration = Duration::from_secs(5);
/// Connections of agents at once: one for each family, one for flows, and those of an agent that was before.
const AT_ONCE: usize = 16;
/// Of what cannot be listened at as much is told at once.
const TOLD: usize = 1_000;
/// When no connection can be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no such process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It cannot tell where it is.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// Nothing can be made there to listen to the agent at.
    #[error("cannot listen to the agent at {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Passes on connections to Services in the calling thread's namespace, as agents say at the socket, until nobody needs that any more.
///
/// # Errors
/// Where there can be no such socket.
pub fn serve(socket: &Path) -> Result<(), ProcessError> {
    // What ends the agent's session, or comes from its terminal, is not meant.
    let _ = rustix::process::setsid();
    // The agent starts it by a path that says nothing.
    let _ = rustix::thread::set_name(c"podnet");
    if let Err(error) = podnet_kernel::descriptors::raise_limit() {
        warn!(%error, "no more files may be open than the process began with");
    }
    let failed = |source| ProcessError::Socket { path: socket.to_path_buf(), source };
    let served = Arc::new(Served::new(NetNs::current()?));
    let own = listen(socket, &served).map_err(failed)?;
    info!(socket = %socket.display(), "connections to Services are passed on as agents say here");
    let mut is_replaced = false;
    loop {
        thread::sleep(LOOK);
        match fs::symlink_metadata(socket).map(|found| found.ino()) {
            Ok(inode) if inode == own => {}
            Ok(_) if is_replaced => {}
            Ok(_) => {
                info!("another process passes on connections to Services; this one ends with its own");
                served.retire();
                is_replaced = true;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                info!("the agent's directory is gone; connections to Services are passed on no more");
                // Another program's would be gone with its socket.
                served.remove();
                return Ok(());
            }
            Err(error) => warn!(%error, "the agent's socket cannot be looked at"),
        }
        if served.is_over() {
            info!("nobody needs that connections to Services are passed on");
            return Ok(());
        }
    }
}

/// Takes the path, whoever had it, and serves agents there on threads of its own. Answers the socket's inode.
///
/// # Errors
/// Where there can be no socket, or no thread.
pub(super) fn listen(path: &Path, served: &Arc<Served>) -> io::Result<u64> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let own = path.with_file_name(name);
    let _ = fs::remove_file(&own);
    let listener = UnixListener::bind(&own)?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600))?;
    let inode = fs::symlink_metadata(&own)?.ino();
    fs::rename(&own, path)?;
    let served = served.clone();
    thread::Builder::new().name("agents".into()).spawn(move || accept(&listener, &served))?;
    Ok(inode)
}

fn accept(listener: &UnixListener, served: &Arc<Served>) {
    let counted = Arc::new(());
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                warn!(%error, "an agent's connection is not taken");
                // Too few files, most likely.
                thread::sleep(PAUSE);
                continue;
            }
        };
        let (own, served) = (counted.clone(), served.clone());
        if Arc::strong_count(&counted) > AT_ONCE + 1 {
            warn!("more connections of agents than {AT_ONCE} are not taken");
            continue;
        }
        let answer = move || {
            let _own = own;
            if let Err(error) = answer(&stream, &served) {
                debug!(%error, "an agent's connection ended");
            }
        };
        if let Err(error) = thread::Builder::new().name("agent".into()).spawn(answer) {
            warn!(%error, "no thread for an agent's connection");
        }
    }
}

fn answer(stream: &UnixStream, served: &Served) -> io::Result<()> {
    let uid = cni_wire::peer_uid(stream)?;
    if uid != geteuid().as_raw() {
        warn!(uid, "a user that is not the agent's is not heard");
        return Ok(());
    }
    let Some(Request::Hello { purpose, version }) = wire::receive(stream)? else { return Ok(()) };
    wire::send(stream, &Reply::Here { version: VERSION.to_owned() })?;
    if version != VERSION {
        if let Some(Request::Retire) = wire::receive(stream)? {
            info!(version, "another version is to pass on connections to Services");
            served.retire();
            wire::send(stream, &Reply::Done(State::default()))?;
        }
        return Ok(());
    }
    match purpose {
        Purpose::ServeV4 => serve_family(stream, served, Family::V4),
        Purpose::ServeV6 => serve_family(stream, served, Family::V6),
        Purpose::Know => {
            while let Some(Request::Passed(since)) = wire::receive(stream)? {
                wire::send(stream, &Reply::Passed(passed::news(since)))?;
            }
            Ok(())
        }
    }
}

/// One agent's requests, until it goes or another one comes for the same family.
fn serve_family(stream: &UnixStream, served: &Served, family: Family) -> io::Result<()> {
    let turn = served.take_turn(family);
    let mut gathered = Gathered::default();
    while let Some(request) = wire::receive(stream)? {
        if let Request::Piece(piece) = request {
            gathered.add(piece)?;
            continue;
        }
        let mut seat = served.seat(family);
        // What an agent said that is gone must not come after what the next one said.
        if seat.turn != turn {
            return Ok(());
        }
        let reply = seat.reply(request, &mut gathered, &served.netns);
        drop(seat);
        wire::send(stream, &reply)?;
    }
    Ok(())
}

/// What is served.
#[derive(Debug)]
pub(super) struct Served {
    netns: NetNs,
    families: Dual<Mutex<Seat>>,
}

/// The Services of a family, and which connection of an agent's they are told by.
#[derive(Debug)]
struct Seat {
    here: Here,
    turn: u64,
    told: Instant,
}

impl Served {
    /// Nothing yet, in a node's namespace.
    pub(super) fn new(netns: NetNs) -> Self {
        let seat = |family| Mutex::new(Seat { here: Here::new(family), turn: 0, told: Instant::now() });
        Self { netns, families: Dual::from_fn(seat) }
    }

    fn seat(&self, family: Family) -> MutexGuard<'_, Seat> {
        let mut seat = self.families[family].lock().unwrap_or_else(PoisonError::into_inner);
        seat.told = Instant::now();
        seat
    }

    fn take_turn(&self, family: Family) -> u64 {
        let mut seat = self.seat(family);
        seat.turn += 1;
        seat.turn
    }

    /// Closes what listens. Connections go on.
    fn retire(&self) {
        for family in Family::ALL {
            self.seat(family).here.close();
        }
    }

    /// Takes away what leads here.
    fn remove(&self) {
        for family in Family::ALL {
            if let Err(error) = apart::remove(&self.netns, family) {
                debug!(error = chain(&error), "what leads to Services stays");
            }
        }
    }

    /// Nothing is served, no connection is under way, and nothing was said for a while.
    fn is_over(&self) -> bool {
        let is_quiet = |family: Family| {
            let seat = self.families[family].lock().unwrap_or_else(PoisonError::into_inner);
            !seat.here.serves() && seat.told.elapsed() >= GRACE
        };
        Family::ALL.into_iter().all(is_quiet) && !program::is_any()
    }
}

impl Seat {
    fn reply(&mut self, request: Request, gathered: &mut Gathered, netns: &NetNs) -> Reply {
        let done = match request {
            Request::Be { source } => self.here.be(netns, gathered.take(), source).map(|()| None),
            Request::Follow => self.here.follow(gathered.take()).map(|()| None),
            Request::Look => self.here.look(),
            Request::Leave => self.here.leave(Some(netns)).map(|()| None),
            Request::Remaining => return Reply::Remaining(self.here.there()),
            Request::Left => return Reply::Left(self.here.left()),
            Request::Close(gone) => {
                let gone: BTreeSet<FrontendKey> = gone.into_iter().collect();
                self.here.withdraw(&|key| !gone.contains(key)).map(|()| None)
            }
            Request::Hello { .. } | Request::Retire | Request::Piece(_) | Request::Passed(_) => {
                return Reply::Failed("that cannot be asked for here".to_owned());
            }
        };
        self.state(done)
    }

    fn state(&self, done: Result<Option<String>, RulesError>) -> Reply {
        let told = |unserved: Unserved| (unserved.service, unserved.message.into_owned());
        match done {
            Ok(damage) => Reply::Done(State {
                is_refused: self.here.is_refused(),
                refused: self.here.refused().into_iter().take(TOLD).map(told).collect(),
                remains: self.here.remains().filter(|_| !self.here.serves()),
                damage,
            }),
            Err(error) => Reply::Failed(chain(&error)),
        }
    }
}
