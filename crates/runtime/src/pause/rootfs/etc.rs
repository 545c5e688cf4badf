//! The `/etc` of a container that runs the host's programs: what programs need to resolve names, find libraries and trust
//! certificates. Nothing that tells who the host's users are or how it is reached.

use std::{fs, os::fd::AsFd, path::Path};

use super::{Result, bind_host, directory, during, inside, open_root};

/// Read-only from the host where it has them.
const SHARED: [&str; 18] = [
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "debian_version",
    "ethertypes",
    "gai.conf",
    "host.conf",
    "inputrc",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "mime.types",
    "protocols",
    "rpc",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    bin:x:2:2:bin:/bin:/usr/sbin/nologin\n\
    www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
    tcpdump:x:104:104::/nonexistent:/usr/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\n\
    daemon:x:1:\n\
    bin:x:2:\n\
    tty:x:5:\n\
    www-data:x:33:\n\
    tcpdump:x:104:\n\
    nogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
    protocols: files\nservices: files\nethers: files\nrpc: files\n";

pub(super) fn fill(root: &Path) -> Result {
    let etc = root.join("etc");
    directory(&etc, 0o755)?;
    for (name, text) in [("passwd", PASSWD), ("group", GROUP), ("nsswitch.conf", NSSWITCH)] {
        fs::write(etc.join(name), text).map_err(during(|| format!("writing /etc/{name}")))?;
    }
    for (name, target) in [
        ("mtab", "/proc/self/mounts"),
        ("os-release", "../usr/lib/os-release"),
        ("localtime", "/usr/share/zoneinfo/Etc/UTC"),
    ] {
        std::os::unix::fs::symlink(target, etc.join(name)).map_err(during(|| format!("linking /etc/{name}")))?;
    }
    let opened = open_root(root)?;
    for name in SHARED {
        let host = Path::new("/etc").join(name);
        let Ok(found) = fs::metadata(&host) else { continue };
        let place = Path::new("etc").join(name);
        // Made here; nothing else is in the new file system that could be in the way.
        drop(inside(opened.as_fd(), &place, found.is_dir())?);
        bind_host(&host, &root.join(place))?;
    }
    Ok(())
}
