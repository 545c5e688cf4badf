//! How `podnet-cni` and the agent talk: one request and one reply over the agent's unix socket.
//!
//! A frame is four bytes of length (little endian) and that many bytes of JSON. The request's first bytes carry the sandbox's network
//! namespace as a file descriptor (`SCM_RIGHTS`, `unix(7)`), so that the agent needs no access to the runtime's mount namespace and
//! the namespace cannot be exchanged on the way. The agent looks at the peer's credentials (`SO_PEERCRED`) and serves root only.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Largest frame: a configuration with a long `prevResult` stays far below; a broken peer cannot make the agent allocate more.
pub const MAX_FRAME: usize = 1 << 20;

/// What the plugin asks, as the runtime asked it (CNI specification 1.1.0, sections 2 and 3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// `CNI_COMMAND`.
    pub verb: Verb,
    /// `CNI_CONTAINERID`; empty for STATUS and GC.
    pub container_id: String,
    /// `CNI_IFNAME`; empty for STATUS and GC.
    pub ifname: String,
    /// `CNI_NETNS`: for the result only, the namespace itself comes as a descriptor.
    pub netns_path: String,
    /// `CNI_ARGS`, split.
    pub args: BTreeMap<String, String>,
    /// The network configuration from standard input.
    pub config: Value,
}

/// The verbs that need the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// Connect a sandbox.
    Add,
    /// Disconnect it.
    Del,
    /// Is it connected as it should be?
    Check,
    /// Is the agent ready for an ADD?
    Status,
    /// Free what belongs to no attachment of the list given.
    Gc,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Success; ADD has a result to print.
    Done(Option<Value>),
    /// An error to print.
    Failed(Failure),
}

/// An error result (CNI specification, section 5, "Error").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// 1–99 are the specification's, from 100 on the plugin's own.
    pub code: u32,
    /// One sentence: what failed, on what.
    pub msg: String,
    /// The cause and the remedy, may be empty.
    pub details: String,
}

impl Failure {
    /// The configuration's version is not supported, or has not the verb.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// The container is not known here: there is nothing of it to clean up.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or invalid.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Input cannot be read.
    pub const IO: u32 = 5;
    /// Input cannot be decoded.
    pub const DECODING: u32 = 6;
    /// The network configuration is invalid.
    pub const INVALID_CONFIG: u32 = 7;
    /// The path is no network namespace that a sandbox could have (`types.ErrInvalidNetNS` of the specification's library).
    pub const INVALID_NAMESPACE: u32 = 8;
    /// A passing condition: the runtime should try again.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: the plugin cannot serve ADD requests.
    pub const NOT_AVAILABLE: u32 = 50;
    /// No address can be given.
    pub const NO_ADDRESS: u32 = 100;
    /// The interface cannot be made, or is not as it should be.
    pub const INTERFACE: u32 = 101;
    /// The journal cannot be written.
    pub const JOURNAL: u32 = 102;

    /// An error with a code, a sentence and no details.
    #[must_use]
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }
}

impl From<podnet_model::cni::InvalidConfig> for Failure {
    fn from(error: podnet_model::cni::InvalidConfig) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Sends a request, with the namespace's descriptor if there is one.
///
/// # Errors
///
/// When the socket fails or the request is longer than [`MAX_FRAME`].
pub fn send_request(stream: &UnixStream, request: &Request, netns: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let frame = frame(request)?;
    let fds: Vec<BorrowedFd<'_>> = netns.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let sent = rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)?;
    // A stream socket may take less than all; the descriptor went with the first bytes.
    let mut stream = stream;
    stream.write_all(&frame[sent..])
}

/// Receives a request and the descriptor that came with it.
///
/// # Errors
///
/// When the socket fails, the frame is too long, or it is not a request.
pub fn receive_request(stream: &UnixStream) -> io::Result<(Request, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut length = [0; 4];
    let received = rustix::net::recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut length)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more than one descriptor came with the request"));
    }
    let netns = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let mut reader = stream;
    reader.read_exact(&mut length[received.bytes..])?;
    Ok((body(reader, length)?, netns))
}

/// Sends a reply.
///
/// # Errors
///
/// When the socket fails or the reply is longer than [`MAX_FRAME`].
pub fn send_reply(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    stream.write_all(&frame(reply)?)
}

/// Receives the reply.
///
/// # Errors
///
/// When the socket fails or ends (the agent died), the frame is too long, or it is not a reply.
pub fn receive_reply(mut stream: &UnixStream) -> io::Result<Reply> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    body(stream, length)
}

/// The user id of the process at the other end.
///
/// # Errors
///
/// When the socket cannot say.
pub fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream.as_fd())?.uid.as_raw())
}

/// The attachments that a runtime's GC leaves valid, by container and interface: the key `cni.dev/valid-attachments`, or
/// `cni.dev/attachments`, as the specification's library also calls it.
///
/// # Errors
///
/// When there is no such list, or an entry is not understood.
pub fn valid_attachments(config: &Value) -> Result<BTreeSet<(String, String)>, Failure> {
    let wrong = |what: &str| Failure::new(Failure::INVALID_CONFIG, format!("GC: {what}"));
    let list = ["cni.dev/valid-attachments", "cni.dev/attachments"].iter().find_map(|key| config.get(*key));
    let list = list.ok_or_else(|| wrong("the key \"cni.dev/valid-attachments\" is missing"))?;
    let entries = match list {
        // A runtime without attachments may say so in this way.
        Value::Null => return Ok(BTreeSet::new()),
        Value::Array(entries) => entries,
        other => return Err(wrong(&format!("\"cni.dev/valid-attachments\" is {other}; it is a list"))),
    };
    let attachment = |entry: &Value| {
        let text =
            |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        // An entry that is not understood must not cost an attachment its network.
        let wrong = || wrong(&format!("{entry} in \"cni.dev/valid-attachments\" has not both containerID and ifname"));
        Ok((text("containerID").ok_or_else(wrong)?, text("ifname").ok_or_else(wrong)?))
    };
    entries.iter().map(attachment).collect()
}

/// The name of an attachment's host-side interface: `pn` and 48 bits of a hash of the attachment's identity in hexadecimal, so that
/// plugin and agent agree on it without asking each other, even when the other is not there.
#[must_use]
pub fn host_ifname(container_id: &str, ifname: &str) -> podnet_model::LinkName {
    // FNV-1a: fixed for all time, unlike the standard library's hasher. A collision would show as "interface exists" at ADD.
    let hash = container_id
        .bytes()
        .chain([0])
        .chain(ifname.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    podnet_model::LinkName::from(format!("pn{:012x}", hash >> 16))
}

fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{length} bytes are more than a frame holds ({MAX_FRAME})"),
        ));
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded by MAX_FRAME just above")]
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

fn body<T: DeserializeOwned>(mut reader: &UnixStream, length: [u8; 4]) -> io::Result<T> {
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes was announced; {MAX_FRAME} are allowed"),
        ));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsRawFd};

    use super::*;

    fn request() -> Request {
        Request {
            verb: Verb::Add,
            container_id: "abc".into(),
            ifname: "eth0".into(),
            netns_path: "/run/netns/x".into(),
            args: BTreeMap::from([("K8S_POD_NAME".into(), "web".into())]),
            config: serde_json::json!({"name": "podnet"}),
        }
    }

    #[test]
    fn a_request_arrives_with_its_descriptor() {
        let (near, far) = UnixStream::pair().unwrap();
        let file = File::open("/proc/self/ns/net").unwrap();
        send_request(&near, &request(), Some(file.as_fd())).unwrap();
        let (received, netns) = receive_request(&far).unwrap();
        assert_eq!(received, request());
        let netns = netns.unwrap();
        assert_ne!(netns.as_raw_fd(), file.as_raw_fd());
        assert_eq!(rustix::fs::fstat(&netns).unwrap().st_ino, rustix::fs::fstat(&file).unwrap().st_ino);
    }

    #[test]
    fn a_request_longer_than_the_socket_buffer_arrives_whole() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut long = request();
        long.config = serde_json::json!({"pad": "x".repeat(900_000)});
        let sent = long.clone();
        let sender = std::thread::spawn(move || send_request(&near, &sent, None));
        assert_eq!(receive_request(&far).unwrap().0, long);
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_read() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(&u32::MAX.to_le_bytes()).unwrap();
        let error = receive_request(&far).unwrap_err();
        assert!(error.to_string().contains("allowed"), "{error}");
    }

    #[test]
    fn a_peer_that_closes_half_way_is_an_error_and_not_a_hang() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(&[10, 0, 0, 0, b'{']).unwrap();
        drop(near);
        assert!(receive_request(&far).is_err());
    }

    #[test]
    fn a_list_that_is_not_understood_frees_nothing() {
        for wrong in [
            serde_json::json!({}),
            serde_json::json!({"cni.dev/valid-attachments": "all"}),
            serde_json::json!({"cni.dev/valid-attachments": [{"containerID": "a"}]}),
            serde_json::json!({"cni.dev/valid-attachments": [{"containerID": "", "ifname": "eth0"}]}),
        ] {
            assert_eq!(valid_attachments(&wrong).unwrap_err().code, Failure::INVALID_CONFIG, "{wrong}");
        }
        let entry = serde_json::json!({"containerID": "a", "ifname": "eth0"});
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            assert_eq!(
                valid_attachments(&serde_json::json!({key: [entry]})).unwrap(),
                [("a".to_owned(), "eth0".to_owned())].into()
            );
        }
        assert!(valid_attachments(&serde_json::json!({"cni.dev/valid-attachments": null})).unwrap().is_empty());
    }

    #[test]
    fn interface_names_fit_and_differ_by_container_and_interface() {
        let name = host_ifname("0123456789abcdef", "eth0");
        assert!(name.as_str().len() <= 15);
        assert_ne!(name, host_ifname("0123456789abcdef", "eth1"));
        assert_ne!(name, host_ifname("0123456789abcdee", "eth0"));
    }
}
