//! What would keep the API server from starting, found before anything is made: its own message would come late and in a log.

use std::{io, net::TcpListener, path::Path};

use podnet_kernel::capabilities;
use podnet_model::proxy::Mode;
use podnet_planner::proxy::Capabilities;
use rustix::fs::{Access, access};

use crate::{
    arguments::ProxyMode,
    cluster::Cluster,
    lock,
    report::{Doing, Failure},
    supervisor,
};

pub(super) fn check(cluster: &Cluster) -> Result<(), Failure> {
    if let Some(path) = &cluster.datastore {
        check_datastore(path)?;
    }
    // Ours has the port, or is about to take it again.
    if lock::supervisor_lives() || supervisor::pid_of("apiserver").is_some() {
        return Ok(());
    }
    let [local, _] = cluster.api_addresses();
    match TcpListener::bind(local) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(Failure::new(format!("the API server's address {local} is in use by another program"))
                .remedy(format!("end that program; who it is says: ss -ltnp 'sport = :{}'", local.port())))
        }
        Err(error) => Err(Failure::because(format!("cannot listen on {local}"), error)),
    }
}

fn check_datastore(path: &Path) -> Result<(), Failure> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        return Err(Failure::new(format!("the directory of --datastore {} does not exist", path.display()))
            .remedy(format!("make it: mkdir -p {}", directory.display())));
    }
    let exists = path.exists();
    if exists && !path.is_file() {
        return Err(Failure::new(format!("--datastore {} is not a file", path.display()))
            .remedy(format!("name a file, for example {}", path.join("podnet.redb").display())));
    }
    let written = if exists { path } else { directory };
    access(written, Access::READ_OK | Access::WRITE_OK).doing(|| format!("cannot write --datastore {}", path.display()))
}

/// The nodes have this machine's kernel and tools. Where they could not take the mode they would serve Services in none.
pub(super) fn check_mode(asked: ProxyMode) -> Result<(), Failure> {
    judge(asked.into(), &capabilities::probe())
}

fn judge(asked: Mode, has: &Capabilities) -> Result<(), Failure> {
    let Some(lack) = has.lacks.get(&asked) else { return Ok(()) };
    let rest: Vec<&str> = Mode::ALL.into_iter().filter(|mode| !has.lacks.contains_key(mode)).map(Mode::name).collect();
    let remedy = match asked {
        Mode::Ipvs => "load the kernel's modules (modprobe -a ip_vs ip_vs_rr ip_set dummy) and install iptables",
        Mode::Iptables => "install iptables",
        Mode::Nftables | Mode::Ebpf | Mode::Userspace => "take a kernel that has it",
    };
    Err(Failure::new(format!("--proxy-mode {asked} cannot be had on this machine: {lack}"))
        .remedy(format!("{remedy}, or take another mode; this machine has {}", rest.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_this_machine_cannot_have_is_refused_with_the_remedy_and_those_that_it_has() {
        let has = Capabilities { lacks: [(Mode::Ipvs, "virtual servers (CONFIG_IP_VS)".to_owned())].into() };
        assert!(judge(Mode::Iptables, &has).is_ok());
        let refused = judge(Mode::Ipvs, &has).unwrap_err().to_string();
        assert_eq!(
            refused,
            "podnet: --proxy-mode ipvs cannot be had on this machine: virtual servers (CONFIG_IP_VS)\n  → load the kernel's modules \
             (modprobe -a ip_vs ip_vs_rr ip_set dummy) and install iptables, or take another mode; this machine has ebpf, nftables, \
             iptables, userspace"
        );
    }

    #[test]
    fn a_datastore_is_a_file_in_a_directory_that_exists() {
        let directory = tempfile::tempdir().unwrap();
        assert!(check_datastore(&directory.path().join("lab.redb")).is_ok());
        let missing = check_datastore(&directory.path().join("no/lab.redb")).unwrap_err().to_string();
        assert!(missing.contains("does not exist") && missing.contains("mkdir -p"), "{missing}");
        let itself = check_datastore(directory.path()).unwrap_err().to_string();
        assert!(itself.contains("is not a file"), "{itself}");
    }
}
