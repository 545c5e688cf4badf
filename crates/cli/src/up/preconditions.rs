//! What would keep the API server from starting, found before anything is made: its own message would come late and in a log.

use std::{io, net::TcpListener, path::Path};

use rustix::fs::{Access, access};

use crate::{
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

#[cfg(test)]
mod tests {
    use super::*;

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
