//! A program in a process of its own, as the agent knows it: found where it lives, else started, told what to be.

mod error;
mod link;

use std::{
    collections::BTreeSet,
    error::Error,
    io,
    net::IpAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::{apart, netns::NetNs, process::keep_descriptors};
use podnet_model::{Family, ServiceKey};
use podnet_planner::{ruleset::FrontendKey, services::userspace::Work};
use tracing::{info, warn};

use error::AwayError;
pub(super) use link::Link;
use link::{is_gone, is_nobody};

use super::{
    program::Remains,
    server::{Here, Server},
    wire::{self, Purpose, Reply, Request, State},
};
use crate::proxy::mode::{NOT_SERVED, RulesError, Unserved};

/// How long a program may take for one answer: ten thousand sockets are opened in a second or two.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take until it listens to its agent.
const BIRTH: Duration = Duration::from_secs(10);
/// How often that is tried meanwhile.
const TRY: Duration = Duration::from_millis(5);
/// In which time one that was about to end has ended.
const END: Duration = Duration::from_millis(50);

static LAUNCH: OnceLock<Launch> = OnceLock::new();
/// An agent's Services are, or were, served by such a program.
static IS_APART: AtomicBool = AtomicBool::new(false);

/// How the program is started that passes on connections to Services, and where it is found.
#[derive(Clone, Debug)]
pub struct Launch {
    /// podnet of this very version, which has the program as a subcommand (`proxy`).
    pub binary: PathBuf,
    /// Where it listens to its agent.
    pub socket: PathBuf,
    /// The cgroup (v2) that it enters, by its path from the hierarchy's root; without it, it is in its agent's.
    pub cgroup: Option<PathBuf>,
}

/// From now on such a program passes on connections for this process. What was said first counts.
pub(crate) fn serve_apart(launch: Launch) {
    let _ = LAUNCH.set(launch);
}

/// Who passes on for a family.
pub(super) fn server(family: Family) -> Box<dyn Server> {
    match LAUNCH.get() {
        Some(launch) => Box::new(Away::new(launch.clone(), family)),
        None => Box::new(Here::new(family)),
    }
}

/// Where a program may be that knows of connections; none where this process never had one.
pub(super) fn knows() -> Option<&'static Path> {
    LAUNCH.get().filter(|_| IS_APART.load(Ordering::Relaxed)).map(|launch| &*launch.socket)
}

/// The program of a family, as an agent has it.
#[derive(Debug)]
pub(super) struct Away {
    launch: Launch,
    family: Family,
    link: Option<Link>,
    serves: bool,
    state: State,
    /// One of another version goes with its connections, and removes then what leads to it.
    made_way: bool,
}

impl Away {
    pub(super) fn new(launch: Launch, family: Family) -> Self {
        Self { launch, family, link: None, serves: false, state: State::default(), made_way: false }
    }

    const fn purpose(&self) -> Purpose {
        match self.family {
            Family::V4 => Purpose::ServeV4,
            Family::V6 => Purpose::ServeV6,
        }
    }

    fn lost(&self, source: io::Error) -> AwayError {
        AwayError::Lost { socket: self.launch.socket.clone(), source }
    }

    /// Connects to the living program; none where there is none. One of another version closes what listens, and goes with its connections.
    fn find(&mut self) -> Result<Option<&Link>, AwayError> {
        if self.link.is_none() {
            let open = || Link::open(&self.launch.socket, self.purpose(), PATIENCE);
            let opened = match open() {
                // Either nobody is there then, or the next one.
                Err(error) if is_gone(&error) => {
                    thread::sleep(END);
                    open()
                }
                opened => opened,
            };
            match opened {
                Ok(link) if link.is_own_version() => {
                    IS_APART.store(true, Ordering::Relaxed);
                    self.link = Some(link);
                }
                Ok(link) => {
                    info!(version = link.version, "another version passes on connections to Services; it makes way");
                    self.made_way = true;
                    if let Err(error) = link.ask(&Request::Retire) {
                        warn!(%error, "another version of the program that passes on connections may go on to listen");
                    }
                }
                Err(error) if is_nobody(&error) => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
        Ok(self.link.as_ref())
    }

    /// Says the requests, of which the last one is answered, to the living program, or where there is none to a new one if it may be started
    /// in a namespace; none where nobody is there. One that ends as it is asked is followed by another one.
    fn tell(&mut self, requests: &[Request], netns: Option<&NetNs>) -> Result<Option<Reply>, AwayError> {
        for is_again in [false, true] {
            if self.find()?.is_none() {
                let Some(netns) = netns else { return Ok(None) };
                self.start(netns)?;
            }
            match self.go_on(requests) {
                Err(AwayError::Lost { source, .. }) if !is_again && is_gone(&source) => {}
                done => return done.map(Some),
            }
        }
        Ok(None)
    }

    /// Says something to the program that it was said to before; another one knows nothing of that.
    fn go_on(&mut self, requests: &[Request]) -> Result<Reply, AwayError> {
        let Some(link) = &self.link else { return Err(self.lost(io::ErrorKind::NotConnected.into())) };
        match link.ask_at_last(requests) {
            Ok(Reply::Failed(why)) => Err(AwayError::Refused(why)),
            Ok(reply) => Ok(reply),
            Err(error) => {
                self.link = None;
                Err(self.lost(error))
            }
        }
    }

    /// Takes in how things are.
    fn take(&mut self, reply: Reply) -> Result<(), AwayError> {
        match reply {
            Reply::Done(state) => {
                self.state = state;
                Ok(())
            }
            _ => Err(self.lost(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Starts a program, and connects to it.
    fn start(&mut self, netns: &NetNs) -> Result<(), AwayError> {
        let Launch { binary, socket, cgroup } = &self.launch;
        let failed = |source| AwayError::Start { source };
        // Files that this process was given by its parent are not for one that outlives it.
        let _ = keep_descriptors();
        let mut command = Command::new(binary);
        // Its path may say nothing of what it is.
        command.arg0("podnet").arg("proxy").arg("--socket").arg(socket);
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        command.stdin(Stdio::null());
        let mut child = netns.run(|| command.spawn())?.map_err(failed)?;
        let pid = child.id();
        let born = Instant::now();
        let link = loop {
            match Link::open(socket, self.purpose(), PATIENCE) {
                Ok(link) if link.is_own_version() => break Ok(link),
                // The one before has the path still.
                Ok(_) => {}
                Err(error) if is_nobody(&error) || is_gone(&error) => {}
                Err(error) => break Err(self.lost(error)),
            }
            if let Some(how) = child.try_wait().map_err(failed)? {
                break Err(AwayError::Stillborn { how });
            }
            if born.elapsed() > BIRTH {
                break Err(self.lost(io::ErrorKind::TimedOut.into()));
            }
            thread::sleep(TRY);
        };
        if link.is_err() {
            let _ = child.kill();
        }
        reap(child);
        self.link = Some(link?);
        IS_APART.store(true, Ordering::Relaxed);
        info!(pid, socket = %self.launch.socket.display(), "a program of its own passes on connections to Services");
        Ok(())
    }
}

/// Waits for the end of a program that this process started, if this process lives to see it.
fn reap(mut child: Child) {
    let pid = child.id();
    let wait = move || match child.wait() {
        Ok(how) => info!(pid, %how, "the program that passed on connections to Services ended"),
        Err(error) => warn!(pid, %error, "the program that passes on connections to Services cannot be waited for"),
    };
    if let Err(error) = thread::Builder::new().name("proxy-ends".into()).stack_size(128 * 1024).spawn(wait) {
        warn!(pid, %error, "nobody waits for the program that passes on connections to Services");
    }
}

impl Server for Away {
    fn be(&mut self, netns: &NetNs, work: Work, source: Option<IpAddr>) -> Result<(), RulesError> {
        let mut requests = wire::pieces(work);
        requests.push(Request::Be { source });
        let Some(reply) = self.tell(&requests, Some(netns))? else {
            return Err(self.lost(io::ErrorKind::NotConnected.into()).into());
        };
        self.take(reply)?;
        self.serves = true;
        // What leads there from now on is this one's.
        self.made_way = false;
        Ok(())
    }

    fn serves(&self) -> bool {
        self.serves
    }

    fn follow(&mut self, work: Work) -> Result<(), RulesError> {
        if !self.serves {
            return Ok(());
        }
        let mut requests = wire::pieces(work);
        requests.push(Request::Follow);
        let reply = self.go_on(&requests)?;
        Ok(self.take(reply)?)
    }

    fn look(&mut self) -> Result<Option<String>, RulesError> {
        if !self.serves {
            return Ok(None);
        }
        match self.go_on(&[Request::Look]) {
            Ok(reply) => {
                self.take(reply)?;
                Ok(self.state.damage.take())
            }
            Err(AwayError::Lost { source, .. }) => {
                Ok(Some(format!("the program that passes on connections to Services ({source})")))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn is_refused(&self) -> bool {
        self.serves && self.state.is_refused
    }

    fn refused(&self) -> BTreeSet<Unserved> {
        let unserved = |(service, message): &(ServiceKey, String)| Unserved {
            service: service.clone(),
            reason: NOT_SERVED,
            message: message.clone().into(),
            fact: None,
        };
        self.state.refused.iter().filter(|_| self.serves).map(unserved).collect()
    }

    fn leave(&mut self, netns: Option<&NetNs>) -> Result<(), RulesError> {
        self.serves = false;
        // Where the program is not heard from it may have connections.
        let remains = self.state.remains.take().unwrap_or_else(Remains::anywhere);
        self.state = State { remains: Some(remains), ..State::default() };
        if let Some(reply) = self.tell(&[Request::Leave], None)? {
            self.take(reply)?;
        } else {
            self.state.remains = None;
            if let Some(netns) = netns
                && !self.made_way
            {
                apart::remove(netns, self.family)?;
            }
        }
        if self.state.remains.is_none() {
            // It ends by itself, once nobody needs it.
            self.link = None;
        }
        Ok(())
    }

    fn remains(&self) -> Option<Remains> {
        self.state.remains.clone().filter(|_| !self.serves)
    }

    fn recall(&mut self) {
        if self.serves {
            return;
        }
        self.state.remains = match self.tell(&[Request::Remaining], None) {
            Ok(Some(Reply::Remaining(remains))) => remains,
            Ok(None) => None,
            Ok(Some(_)) => Some(Remains::anywhere()),
            Err(error) => {
                let error = &error as &dyn Error;
                warn!(error, "which connections to Services an earlier agent's program has is not known");
                Some(Remains::anywhere())
            }
        };
    }

    fn withdraw(&mut self, is_served: &dyn Fn(&FrontendKey) -> bool) -> Result<(), RulesError> {
        if self.serves || self.state.remains.is_none() {
            return Ok(());
        }
        let Some(Reply::Left(left)) = self.tell(&[Request::Left], None)? else { return Ok(()) };
        let gone: Vec<FrontendKey> = left.into_iter().filter(|key| !is_served(key)).collect();
        if !gone.is_empty()
            && let Some(reply) = self.tell(&[Request::Close(gone)], None)?
        {
            self.take(reply)?;
        }
        Ok(())
    }
}
