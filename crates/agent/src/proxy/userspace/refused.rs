//! What cannot be listened at, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use podnet_planner::{
    ruleset::FrontendKey,
    services::userspace::{self, Place},
};
use rustix::io::Errno;

use crate::proxy::mode::{NOT_SERVED, Unserved};

/// A frontend that cannot be listened at.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) front: userspace::Front,
    pub(super) why: io::Error,
}

/// In words, for the Services that they are of.
pub(super) fn told(refused: &BTreeMap<FrontendKey, Refused>) -> BTreeSet<Unserved> {
    let of = |(key, refused): (&FrontendKey, &Refused), why: String| Unserved {
        service: refused.front.serving.service.clone(),
        reason: NOT_SERVED,
        message: format!("{key} is not served: {why}").into(),
        fact: None,
    };
    // Too few files are a matter of the node, and told once.
    let (full, others): (Vec<_>, Vec<_>) = refused.iter().partition(|(_, refused)| is_full(&refused.why));
    let count = full.len();
    let told = full.into_iter().take(1).map(|first| of(first, too_few_files(count)));
    told.chain(others.into_iter().map(|other| of(other, refusal(&other.1.front, &other.1.why)))).collect()
}

fn refusal(front: &userspace::Front, why: &io::Error) -> String {
    match (front.place, why.kind()) {
        (Place::Node, io::ErrorKind::AddrInUse) => {
            "another program of the node listens there (ss -lnp says which one); \
             it has to end, or the Service to take another port"
                .to_owned()
        }
        _ => format!("{why}; it is tried again"),
    }
}

fn too_few_files(count: usize) -> String {
    format!(
        "the agent may not open as many files as the node's Services need, {count} of their ports are without one; \
         let it have more (LimitNOFILE of its unit, or ulimit -n)"
    )
}

/// The process has too few files.
pub(super) fn full() -> io::Error {
    Errno::MFILE.into()
}

fn is_full(why: &io::Error) -> bool {
    why.raw_os_error() == Some(Errno::MFILE.raw_os_error())
}
