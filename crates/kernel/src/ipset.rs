//! Sets of addresses and ports that rules of iptables ask (`ipset(8)`), over netlink.

mod message;

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use podnet_model::Family;
use podnet_planner::ipvs::{Edit, Set, SetName, SetType};
use rustix::io::Errno;

use crate::{
    netlink::{Connection, NetlinkError, Operation, Refusal, attribute::Writer, batch},
    netns::NetNs,
};
use message::{Command, Shape};

/// A blocking socket for the sets of one family in one namespace. Sets of ports alone are of every family.
#[derive(Debug)]
pub struct IpsetSocket {
    connection: Connection,
    family: Family,
    /// The newest form of each type that the kernel has, as far as it was asked.
    revisions: BTreeMap<SetType, u8>,
}

impl IpsetSocket {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// Where the process may not.
    pub fn open(family: Family) -> Result<Self, IpsetError> {
        let connection = Connection::open(NETLINK_NETFILTER)?;
        Ok(Self { connection, family, revisions: BTreeMap::new() })
    }

    /// Opens a socket in a namespace; it stays there, whoever uses it.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, and as [`IpsetSocket::open`].
    pub fn open_in(netns: &NetNs, family: Family) -> Result<Self, IpsetError> {
        netns.run(|| Self::open(family)).map_err(NetlinkError::from)?
    }

    /// Whether the kernel has sets of a type; it loads the type's module for the question.
    ///
    /// # Errors
    /// Where it has not.
    pub fn try_type(&mut self, of: SetType) -> Result<(), IpsetError> {
        self.revision(of).map(drop)
    }

    /// Those of the named sets that are there, with their elements. Elements that podnet cannot write (of other protocols) are left out.
    ///
    /// # Errors
    /// [`IpsetError::Unlike`] where one is of a type that podnet does not make, of another family, or its elements expire; else what the
    /// kernel refused.
    pub fn read(&mut self, names: &[SetName]) -> Result<BTreeMap<SetName, Set>, IpsetError> {
        let mut found = BTreeMap::new();
        for name in names {
            if let Some(set) = self.read_one(name)? {
                found.insert(name.clone(), set);
            }
        }
        Ok(found)
    }

    /// Whether a set is there that is of this one's kind and has as many elements. Where the kernel does not tell how many it has, it is
    /// believed.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn seems_to_be(&mut self, name: &str, set: &Set) -> Result<bool, IpsetError> {
        let operation = Operation::new("list the head of set", name);
        let body = |writer: &mut Writer| message::ask_for_head(writer, name);
        let frames = match self.connection.ask(&operation, Command::List.kind(), NLM_F_DUMP, body) {
            Err(error) if error.is_missing() => return Ok(false),
            frames => frames?,
        };
        let shape = frames.iter().find_map(|frame| message::shape(&frame.payload));
        let count = frames.iter().find_map(|frame| message::count(&frame.payload));
        let is_so = |count: u32| usize::try_from(count) == Ok(set.elements.len());
        Ok(shape.and_then(|shape| shape.kind(self.family)) == Some(set.kind) && count.is_none_or(is_so))
    }

    fn read_one(&mut self, name: &str) -> Result<Option<Set>, IpsetError> {
        let operation = Operation::new("list set", name);
        let body = |writer: &mut Writer| message::head(writer, Some(name));
        let frames = match self.connection.ask(&operation, Command::List.kind(), NLM_F_DUMP, body) {
            Err(error) if error.is_missing() => return Ok(None),
            frames => frames?,
        };
        let Some(shape) = frames.iter().find_map(|frame| message::shape(&frame.payload)) else { return Ok(None) };
        let kind = shape.kind(self.family).ok_or_else(|| unlike(name, &shape))?;
        let elements = frames.iter().flat_map(|frame| message::elements(&frame.payload, kind.of));
        Ok(Some(Set { kind, elements: elements.collect() }))
    }

    /// Does edits of sets, in order; all are tried. Others than those of sets are passed over. A set or an element that is to be made and
    /// is there, or is to go and is not, is no error.
    ///
    /// # Errors
    /// The first refusal: [`IpsetError::Unlike`] where a set is there as something else than it is to be made, [`IpsetError::InUse`] where
    /// one is to go that a rule asks.
    pub fn apply(&mut self, edits: &[Edit]) -> Result<(), IpsetError> {
        for edit in edits {
            if let Edit::MakeSet(_, kind) = edit {
                self.revision(kind.of)?;
            }
        }
        let edits: Vec<&Edit> = edits.iter().filter(|edit| is_of_sets(edit)).collect();
        let (family, revisions) = (self.family, &self.revisions);
        let refused = batch::send_all(&mut self.connection, edits.len(), |index, message| {
            let edit = edits[index];
            message.write(command(edit).kind(), 0, |writer| write(writer, edit, family, revisions));
        })?;
        let serious = refused.into_iter().find(|refused| !is_done(edits[refused.index], &refused.refusal));
        serious.map_or(Ok(()), |refused| Err(self.explain(edits[refused.index], refused.refusal)))
    }

    fn revision(&mut self, of: SetType) -> Result<u8, IpsetError> {
        if let Some(known) = self.revisions.get(&of) {
            return Ok(*known);
        }
        let operation = Operation::new("find the kernel's sets of type", of.name());
        let body = |writer: &mut Writer| message::ask_for_type(writer, of, self.family);
        let frames = self.connection.ask(&operation, Command::Type.kind(), NLM_F_ACK, body)?;
        let newest = frames.iter().find_map(|frame| message::revision(&frame.payload));
        let newest = newest.ok_or(NetlinkError::Refused { operation, hint: None, errno: Errno::NOENT })?;
        self.revisions.insert(of, newest);
        Ok(newest)
    }

    /// Why an edit was refused. A set that is in the way is looked at.
    fn explain(&mut self, edit: &Edit, refusal: Refusal) -> IpsetError {
        match edit {
            Edit::DestroySet(name) if refusal.code == code::BUSY => IpsetError::InUse { set: name.to_string() },
            Edit::MakeSet(name, wanted) if refusal.code == Errno::EXIST.raw_os_error() => {
                let wanted = wanted.of.name();
                match self.read_one(name) {
                    Err(unlike @ IpsetError::Unlike { .. }) => unlike,
                    Ok(Some(set)) if set.kind.of.name() != wanted => {
                        IpsetError::Unlike { set: name.to_string(), found: set.kind.of.name().to_owned() }
                    }
                    _ => IpsetError::Unlike { set: name.to_string(), found: format!("{wanted} with other settings") },
                }
            }
            _ => told(edit, refusal).into(),
        }
    }
}

/// The kernel's own numbers of errors (`enum ipset_errno`).
mod code {
    pub(super) const MISSING_TYPE: i32 = 4098;
    pub(super) const BUSY: i32 = 4100;
    pub(super) const EXISTS: i32 = 4103;
    pub(super) const CIDR: i32 = 4104;
    pub(super) const MARKS: i32 = 4114;
    pub(super) const FULL: i32 = 4352;
}

const fn is_of_sets(edit: &Edit) -> bool {
    matches!(edit, Edit::MakeSet(..) | Edit::AddElement(..) | Edit::RemoveElement(..) | Edit::DestroySet(_))
}

const fn command(edit: &Edit) -> Command {
    match edit {
        Edit::MakeSet(..) => Command::Create,
        Edit::DestroySet(_) => Command::Destroy,
        Edit::RemoveElement(..) => Command::Delete,
        _ => Command::Add,
    }
}

fn write(writer: &mut Writer, edit: &Edit, family: Family, revisions: &BTreeMap<SetType, u8>) {
    match edit {
        Edit::MakeSet(name, kind) => {
            let revision = revisions.get(&kind.of).copied().unwrap_or_default();
            message::create(writer, name, *kind, family, revision);
        }
        Edit::AddElement(name, element, mark) => message::element(writer, name, element, *mark),
        Edit::RemoveElement(name, element) => message::element(writer, name, element, None),
        Edit::DestroySet(name) => message::head(writer, Some(name)),
        _ => {}
    }
}

/// What was to go is gone already.
fn is_done(edit: &Edit, refusal: &Refusal) -> bool {
    let missing = refusal.code == Errno::NOENT.raw_os_error();
    match edit {
        Edit::DestroySet(_) => missing,
        Edit::RemoveElement(..) => missing || refusal.code == code::EXISTS,
        _ => false,
    }
}

fn told(edit: &Edit, refusal: Refusal) -> NetlinkError {
    let operation = match edit {
        Edit::MakeSet(name, kind) => Operation::new("make set", format_args!("{name} ({})", kind.of.name())),
        Edit::AddElement(name, element, _) => Operation::new("add", format_args!("{element} to set {name}")),
        Edit::RemoveElement(name, element) => Operation::new("remove", format_args!("{element} from set {name}")),
        Edit::DestroySet(name) => Operation::new("remove set", name),
        _ => Operation::new("do", "an edit that is none of sets"),
    };
    let words = match refusal.code {
        code::MISSING_TYPE => "there are no sets of this type",
        code::CIDR => "a range of everything (/0) cannot be an element",
        code::MARKS => "the set's elements have no marks",
        code::FULL => "the set is full",
        _ => return refusal.of(&operation),
    };
    NetlinkError::Refused { operation, hint: Some(words.to_owned()), errno: Errno::PROTO }
}

fn unlike(set: &str, found: &Shape) -> IpsetError {
    IpsetError::Unlike { set: set.to_owned(), found: found.to_string() }
}

/// Why sets could not be changed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum IpsetError {
    /// A set is there, and not as podnet makes it.
    #[error(
        "set {set} is there as {found}, which podnet does not make; if the program that made it is not used any more, remove it: ipset \
         destroy {set}"
    )]
    Unlike {
        /// The set.
        set: String,
        /// What it is.
        found: String,
    },
    /// A set cannot go while a rule asks it. Those of the variant `nft` of iptables go a moment after they were removed.
    #[error("cannot remove set {set}: a rule asks it")]
    InUse {
        /// The set.
        set: String,
    },
    /// The kernel refused, or the socket failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

#[cfg(test)]
mod tests;
