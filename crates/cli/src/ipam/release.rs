//! `podnet ipam release`.

use std::{fs, net::IpAddr, time::Duration};

use kube::Client;
use podnet_model::{NodeName, PodAddr, PodKey};
use podnet_planner::ipam::{
    Handle,
    audit::{Facts, PodFacts},
};

use super::{Machine, facts};
use crate::{
    arguments::ipam::ReleaseOptions,
    report::{Doing, Failure},
};

/// The agent looks every second, and after a failure every 10 s.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) async fn run(client: &Client, machines: &[Machine], options: &ReleaseOptions) -> Result<(), Failure> {
    let facts = facts::gather(client, machines).await?;
    let addr = PodAddr(options.address);
    // The node that the pod is on has it among its own; a lender names the borrower.
    let own = facts.local.iter().find_map(|(node, local)| {
        let holder = local.ipam.holder(addr).filter(|holder| holder.node.is_none())?;
        Some((node, holder, local.ipam.addresses_of(&holder.handle)))
    });
    let Some((node, holder, freed)) = own else { return Err(nobody_here(&facts, addr)) };
    if let Some(addr) = runs_with(&facts.pods, &holder.pod, &freed).filter(|_| !options.force) {
        let failure = Failure::new(format!("pod {} on node {node} runs with {addr}", holder.pod));
        return Err(failure.remedy("delete the pod; or, to take its network away, use --force"));
    }
    let machine = machines.iter().find(|machine| machine.node == node.as_str());
    let machine = machine.ok_or_else(|| Failure::new(format!("node {node} is not on this machine")))?;
    bury(machine, &holder.handle)?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !facts::read(machine)?.ipam.addresses_of(&holder.handle).is_empty() {
        if tokio::time::Instant::now() > deadline {
            let failure = Failure::new(format!("the agent of node {node} has not freed {} yet", options.address));
            return Err(failure.remedy("it does when it runs: podnet status"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    // An attachment is freed as a whole.
    for addr in freed {
        println!("{addr} of pod {} on node {node} is free", holder.pod);
    }
    Ok(())
}

/// An address of the attachment that the pod runs with. The attachment is freed as a whole, and the pod may show another of its addresses
/// than the one that was named, as where a runtime tells those of one family alone.
fn runs_with(pods: &[PodFacts], key: &PodKey, freed: &[PodAddr]) -> Option<IpAddr> {
    let mut addrs = pods.iter().filter(|pod| pod.key == *key).flat_map(|pod| &pod.addrs);
    addrs.find(|addr| freed.contains(&PodAddr(**addr))).copied()
}

/// Leaves word for the agent that the attachment is deleted, as a plugin does that found no agent: it removes the interface and frees
/// the address within a second, or at its next start.
pub(super) fn bury(machine: &Machine, handle: &Handle) -> Result<(), Failure> {
    let directory = machine.state.join("tombstones");
    let what = || format!("cannot leave word for the agent in {}", directory.display());
    let name = handle.as_str().rsplit_once('/').map(|(sandbox, interface)| format!("{sandbox}@{interface}"));
    let name = name.ok_or_else(|| Failure::new(format!("{handle} is no attachment of a sandbox")))?;
    fs::create_dir_all(&directory).doing(what)?;
    fs::write(directory.join(name), "").doing(what)
}

fn nobody_here(facts: &Facts, addr: PodAddr) -> Failure {
    let block = facts.blocks.iter().find(|block| block.cidr.0.contains(&addr.0));
    let published = block.and_then(|block| Some((block, block.occupancy.as_ref().ok()?)));
    let Some((block, holder)) = published.and_then(|(block, held)| Some((block, held.held.get(&addr.0)?))) else {
        return Failure::new(format!("nobody holds {addr}")).remedy("podnet ipam show --ip says what is known of it");
    };
    let node = holder.node.as_ref().or(block.owner.as_ref()).map_or("", NodeName::as_str);
    if facts.local.contains_key(&NodeName::from(node)) {
        return Failure::new(format!(
            "block {} says that pod {} holds {addr}, and node {node} knows nothing of it",
            block.cidr, holder.pod
        ))
        .remedy("podnet ipam check --repair");
    }
    Failure::new(format!("pod {} holds {addr} on node {node}, whose journal is not on this machine", holder.pod))
        .remedy(format!("run it there: podnet ipam --node {node} release {addr}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_runs_also_where_it_shows_another_address_of_its_attachment_than_the_one_named() {
        let [four, six, other] = ["10.0.0.1", "fd00::5", "10.0.0.2"].map(|addr| addr.parse::<IpAddr>().unwrap());
        let (key, freed) = (PodKey::new("default", "web"), [PodAddr(four), PodAddr(six)]);
        let shows = |addrs: &[IpAddr]| vec![PodFacts { key: key.clone(), uid: "u".into(), addrs: addrs.to_vec() }];
        assert_eq!(runs_with(&shows(&[four]), &key, &freed), Some(four));
        assert_eq!(runs_with(&shows(&[other]), &key, &freed), None, "it was made anew and has another attachment");
        assert_eq!(runs_with(&shows(&[]), &key, &freed), None);
        assert_eq!(runs_with(&shows(&[four]), &PodKey::new("default", "db"), &freed), None);
    }
}
