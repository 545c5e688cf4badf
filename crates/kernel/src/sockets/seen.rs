//! What there is at a cgroup, for who did not put it there.

use std::{fs::File, io, os::fd::AsFd};

use podnet_ebpf::sockets::{BACKENDS, FRONTENDS, PROGRAMS};
use podnet_planner::services::ebpf::Tables;

use super::{Sizes, SocketsError, call, load, tables};
use crate::cgroup::Cgroup;

/// The programs at a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Those that are not there, by their names.
    pub missing: Vec<&'static str>,
    /// What those that are there know.
    pub tables: Tables,
}

/// Looks at the programs of a cgroup, whoever put them there. Nothing is loaded or changed.
///
/// # Errors
/// What the kernel refused. A cgroup that is not there has no programs.
pub fn look(cgroup: &Cgroup) -> Result<Seen, SocketsError> {
    let directory = match File::open(cgroup.path()) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let missing = PROGRAMS.iter().map(|program| program.name).collect();
            return Ok(Seen { missing, tables: Tables::default() });
        }
        Err(source) => return Err(SocketsError::Cgroup { path: cgroup.path().to_path_buf(), source }),
    };
    let mut missing = Vec::new();
    for program in &PROGRAMS {
        let found = call::attached(directory.as_fd(), program.hook).map_err(SocketsError::Look)?;
        if !found.iter().any(|one| one.name == program.name) {
            missing.push(program.name);
        }
    }
    let maps = load::to_keep(directory.as_fd(), Sizes { frontends: 0, backends: 0 })?;
    let map = |name: &str| maps.iter().find(|(info, _)| info.name == name).map(|(_, map)| map.as_fd());
    let tables = match (map(FRONTENDS), map(BACKENDS)) {
        (Some(frontends), Some(backends)) => tables(frontends, backends)?,
        _ => Tables::default(),
    };
    Ok(Seen { missing, tables })
}
