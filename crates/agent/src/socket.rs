//! The socket that `podnet-cni` talks to: a thread for each request, as many as there may be at once and no more.
//!
//! Requests are short and made of system calls, so they run on plain threads: a runtime that starts fifty pods at once has fifty
//! requests here, each in its own kernel calls, sharing one sync of the journal.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use podnet_kernel::cni_wire::{self, Failure, Reply, Request};
use tracing::{debug, warn};

/// Requests served at once; more wait in the socket's backlog.
const AT_ONCE: usize = 64;
/// A peer that says nothing for this long is not a plugin.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers requests.
pub trait Serve: Send + Sync + 'static {
    /// Does what the request asks; `netns` is the sandbox's namespace where the request has one.
    fn serve(&self, request: &Request, netns: Option<OwnedFd>) -> Reply;

    /// The peer went away before it was answered: what was done for it is undone.
    fn unanswered(&self, request: &Request);
}

/// Binds the socket (mode 0600) and serves it on threads of its own until the process ends.
///
/// # Errors
///
/// When the socket cannot be bound or another agent serves it.
pub fn listen(path: &Path, server: Arc<dyn Serve>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if UnixStream::connect(path).is_ok() {
        let taken = format!("another agent serves {} already", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, taken));
    }
    // The name may be left from an agent that was killed.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    thread::Builder::new().name("cni-accept".into()).spawn(move || accept(&listener, &server)).map(|_| ())
}

fn accept(listener: &UnixListener, server: &Arc<dyn Serve>) {
    let slots = Arc::new(Slots::default());
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                warn!(%error, "CNI connection not accepted");
                // Out of descriptors, most likely: asking again at once would only burn the processor.
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let slot = Slots::take(&slots);
        let server = server.clone();
        let spawned = thread::Builder::new().name("cni-request".into()).stack_size(512 * 1024).spawn(move || {
            let _slot = slot;
            if let Err(error) = answer(&stream, &*server) {
                debug!(%error, "CNI request not answered");
            }
        });
        if let Err(error) = spawned {
            warn!(%error, "no thread for a CNI request; the plugin will be told to try again");
        }
    }
}

fn answer(stream: &UnixStream, server: &dyn Serve) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let uid = cni_wire::peer_uid(stream)?;
    if uid != 0 {
        warn!(uid, "CNI request of a user that is not root refused");
        let refusal =
            Failure::new(Failure::INVALID_ENVIRONMENT, format!("user {uid} may not change the network; only root may"));
        return cni_wire::send_reply(stream, &Reply::Failed(refusal));
    }
    let (request, netns) = cni_wire::receive_request(stream)?;
    let reply = server.serve(&request, netns);
    cni_wire::send_reply(stream, &reply).inspect_err(|_| server.unanswered(&request))
}

/// Counts the requests that are being served.
#[derive(Default)]
struct Slots {
    taken: Mutex<usize>,
    freed: Condvar,
}

impl Slots {
    fn take(slots: &Arc<Self>) -> Slot {
        let taken = slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken =
            slots.freed.wait_while(taken, |taken| *taken >= AT_ONCE).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Slot(slots.clone())
    }
}

struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use podnet_kernel::cni_wire::Verb;

    use super::*;

    struct Echo;

    impl Serve for Echo {
        fn serve(&self, request: &Request, _: Option<OwnedFd>) -> Reply {
            Reply::Done(Some(request.container_id.clone().into()))
        }

        fn unanswered(&self, _: &Request) {}
    }

    fn request(id: &str) -> Request {
        Request {
            verb: Verb::Status,
            container_id: id.to_owned(),
            ifname: String::new(),
            netns_path: String::new(),
            args: BTreeMap::new(),
            config: serde_json::json!({}),
        }
    }

    fn ask(path: &Path, id: &str) -> io::Result<Reply> {
        let stream = UnixStream::connect(path)?;
        cni_wire::send_request(&stream, &request(id), None)?;
        cni_wire::receive_reply(&stream)
    }

    #[test]
    fn more_requests_than_slots_are_all_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        listen(&path, Arc::new(Echo)).unwrap();
        let askers: Vec<_> = (0..2 * AT_ONCE)
            .map(|id| {
                let path = path.clone();
                thread::spawn(move || ask(&path, &id.to_string()).unwrap())
            })
            .collect();
        for (id, asker) in askers.into_iter().enumerate() {
            assert_eq!(asker.join().unwrap(), Reply::Done(Some(id.to_string().into())));
        }
    }

    /// Answers when it is told to, and tells of answers that nobody took.
    struct Slow {
        go: Mutex<std::sync::mpsc::Receiver<()>>,
        unanswered: std::sync::mpsc::Sender<String>,
    }

    impl Serve for Slow {
        fn serve(&self, _: &Request, _: Option<OwnedFd>) -> Reply {
            self.go.lock().unwrap().recv().unwrap();
            Reply::Done(None)
        }

        fn unanswered(&self, request: &Request) {
            self.unanswered.send(request.container_id.clone()).unwrap();
        }
    }

    #[test]
    fn what_was_done_for_a_plugin_that_died_is_told_to_be_undone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let ((go, gone), (unanswered, told)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        listen(&path, Arc::new(Slow { go: Mutex::new(gone), unanswered })).unwrap();
        let plugin = UnixStream::connect(&path).unwrap();
        cni_wire::send_request(&plugin, &request("killed"), None).unwrap();
        drop(plugin);
        go.send(()).unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(5)).unwrap(), "killed");
    }

    #[test]
    fn the_socket_is_for_its_owner_and_for_one_agent_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        listen(&path, Arc::new(Echo)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&path, Arc::new(Echo)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_socket_that_a_killed_agent_left_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        drop(UnixListener::bind(&path).unwrap());
        listen(&path, Arc::new(Echo)).unwrap();
        assert!(ask(&path, "x").is_ok());
    }
}
