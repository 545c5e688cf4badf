//! Who a process is: user, groups, capabilities.

use std::io;

use rustix::{
    process::{Gid, Uid},
    thread::{CapabilitySet, CapabilitySets},
};

/// Names as Kubernetes writes them, at the index that is the capability's number (capabilities(7), `linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capability of that name, with or without `CAP_`, in any case.
pub fn capability_named(name: &str) -> Option<CapabilitySet> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

/// What a container has that asks for nothing: the set that container engines agree on, NET_RAW among it.
pub fn default_capabilities() -> CapabilitySet {
    CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::SETPCAP
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::NET_RAW
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::MKNOD
        | CapabilitySet::AUDIT_WRITE
        | CapabilitySet::SETFCAP
}

/// Who the calling thread becomes.
#[derive(Clone, Debug)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Upper bound of its capabilities. Those that this process lacks itself are left out.
    pub capabilities: CapabilitySet,
    /// Set-user-id programs and file capabilities give it nothing (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
}

/// A step of [`Identity::assume`] failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct IdentityError {
    /// What was tried.
    action: String,
    /// Why it failed.
    #[source]
    source: io::Error,
}

impl Identity {
    /// Makes the calling thread so, for good. A user other than root keeps no capability through the next `exec`, as user ids
    /// work on Linux, unless the program's file carries it.
    ///
    /// # Errors
    /// The step that the kernel refused; the thread then is in between and should end.
    pub fn assume(&self) -> Result<(), IdentityError> {
        let failed = |action: String| move |source: rustix::io::Errno| IdentityError { action, source: source.into() };
        let have = rustix::thread::capabilities(None).map_err(failed("read the own capabilities".into()))?.permitted;
        let wanted = self.capabilities & have;
        for (number, name) in NAMES.iter().enumerate() {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if !wanted.contains(capability)
                && rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false)
            {
                rustix::thread::remove_capability_from_bounding_set(capability)
                    .map_err(failed(format!("drop {name} from the bounding set")))?;
            }
        }
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        rustix::thread::set_thread_groups(&groups).map_err(failed(format!("set the groups {:?}", self.groups)))?;
        let gid = Gid::from_raw(self.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed(format!("become group {}", self.gid)))?;
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(failed("set no_new_privs".into()))?;
        }
        let uid = Uid::from_raw(self.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed(format!("become user {}", self.uid)))?;
        let kept = if self.uid == 0 { wanted } else { CapabilitySet::empty() };
        rustix::thread::set_capabilities(
            None,
            CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
        )
        .map_err(failed("set the capabilities".into()))
    }
}
