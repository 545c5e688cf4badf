//! A cgroup of the test's own, with a part for clients at whose sockets something is done and the rest for everybody else.
//!
//! What a socket belongs to is told by the thread that makes it. Threads of one process may be in different groups where these are
//! threaded (`cgroups(7)`); the process as a whole has to be in the group above them.

use std::{
    fs,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use podnet_kernel::cgroup::Cgroup;

/// The group. The process goes back to the root with the value.
pub(crate) struct Group {
    whole: Cgroup,
    inside: Cgroup,
}

impl Group {
    /// Makes it and moves the process into it, but nobody to the clients' part.
    pub(crate) fn new() -> Self {
        /// Tests of one process may overlap.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let whole = Cgroup::v2(format!("pntest-packets-{}-{number}", process::id())).unwrap();
        let inside = whole.child("inside");
        inside.create().unwrap();
        whole.add_self().unwrap();
        write(inside.path(), "cgroup.type", "threaded");
        Self { whole, inside }
    }

    /// The clients' part.
    pub(crate) fn inside(&self) -> &Cgroup {
        &self.inside
    }

    /// Moves the calling thread to the clients' part, for good.
    pub(crate) fn enter(&self) {
        write(self.inside.path(), "cgroup.threads", "0");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What stays behind is an empty group.
        let _ = Cgroup::v2("").and_then(|root| root.add_self());
        for group in [&self.inside, &self.whole] {
            let _ = fs::remove_dir(group.path());
        }
    }
}

fn write(group: &Path, file: &str, value: &str) {
    let file = group.join(file);
    fs::write(&file, value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
