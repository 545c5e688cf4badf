//! What live flows take of memory: in podnet, and in those who watch them beside a pod's programs.

use std::{fmt, fs, ops::Range, thread, time::Duration};

use podnet_testnet::Cluster;
use serde::Serialize;

use super::{Follower, agent, load, peers::Peer};
use crate::{Result, lab::Process, traffic::End};

/// From so many ports to so many others: 100,000 flows.
const FROM: u16 = 5000;
const TO: Range<u16> = 9300..9320;
/// For the map to be read, and what is written or told to be taken in.
const TAKING_IN: Duration = Duration::from_secs(4);

/// By who watches.
#[derive(Serialize)]
pub(super) struct Live(Vec<Held>);

/// What somebody holds of 100,000 flows that go on, more than before the first.
#[derive(Serialize)]
struct Held {
    name: &'static str,
    /// Of the program that watches: resident.
    process_mib: f64,
    /// In the kernel: maps of eBPF; entries of connection tracking in the pod's namespace. What tcpdump has there is a buffer of fixed size.
    kernel_mib: f64,
}

pub(super) fn measure(podnet: &str, cluster: &Cluster, [client, server]: [&End; 2]) -> Result<Live> {
    let agent = agent(cluster)?;
    let follower = Follower::start(podnet, None)?;
    let podnet = held("podnet", [client, server], agent, || agent.maps_mib())?;
    follower.end()?;
    let mut all = vec![podnet];
    for name in ["tcpdump", "conntrack"] {
        let peer = Peer::start(name, client)?;
        let tracks = name == "conntrack";
        let in_kernel = || if tracks { tracked_mib(client) } else { Ok(0.0) };
        all.push(held(name, [client, server], peer.process(), in_kernel)?);
        peer.end()?;
    }
    Ok(Live(all))
}

fn held(
    name: &'static str,
    [client, server]: [&End; 2],
    process: Process,
    in_kernel: impl Fn() -> Result<f64>,
) -> Result<Held> {
    let look = || Ok::<_, Box<dyn std::error::Error>>((process.status_mib("VmRSS")?, in_kernel()?));
    let before = look()?;
    load::datagrams(client, server, FROM, TO)?;
    thread::sleep(TAKING_IN);
    let after = look()?;
    Ok(Held { name, process_mib: after.0 - before.0, kernel_mib: after.1 - before.1 })
}

/// What connection tracking takes for connections in a pod's namespace.
fn tracked_mib(end: &End) -> Result<f64> {
    let count = end.netns.run(|| fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"))??;
    let size = object_size(&fs::read_to_string("/proc/slabinfo")?, "nf_conntrack");
    let bytes =
        count.trim().parse::<f64>()? * size.ok_or("the kernel does not tell how large a tracked connection is")?;
    Ok(bytes / 1_048_576.0)
}

/// Of what size objects of a cache are, by slabinfo(5): behind the name are how many are in use, how many there are, and how many bytes each has.
fn object_size(slabs: &str, name: &str) -> Option<f64> {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.nth(2)?.parse().ok())?
    };
    slabs.lines().find_map(of)
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |Held { name, process_mib, kernel_mib }: &Held| {
            format!(
                "100,000 live flows, {name:<10} {process_mib:8.1} MiB in the process, {kernel_mib:6.1} MiB in the kernel"
            )
        };
        f.write_str(&self.0.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_caches_objects_is_found() {
        let slabs = "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize>\n\
                     nf_conntrack_expect      0      0    208   39    2 : tunables\n\
                     nf_conntrack        1024   1280    256   32    2 : tunables    0    0    0 : slabdata     40     40      0\n";
        assert_eq!(object_size(slabs, "nf_conntrack"), Some(256.0));
        assert_eq!(object_size(slabs, "nf_conntrack_helper"), None);
    }
}
