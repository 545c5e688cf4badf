//! `podnet ipam check`.

use std::{collections::BTreeSet, time::Duration};

use comfy_table::Table;
use kube::{Api, Client, api::PostParams};
use podnet_kernel::{cni_wire::host_ifname, link};
use podnet_model::{
    BlockCidr, LinkName, NodeName,
    crd::{IPAMBlock, block_name},
};
use podnet_planner::ipam::{
    Handle,
    audit::{Facts, Finding, Repair},
};
use serde::Serialize;

use super::{Machine, facts, release};
use crate::{
    arguments::{Output, ipam::CheckOptions},
    report::{Doing, Failure},
    status::{table, trimmed},
};

/// What is under way looks wrong for a moment: only what is still wrong after this counts.
const SECOND_LOOK: Duration = Duration::from_millis(1500);
/// For agents to do what they were asked; they look every second, and after a failure every 10 s.
const REPAIR_PATIENCE: Duration = Duration::from_secs(25);

/// A finding as JSON, which is an interface.
#[derive(Serialize)]
struct Row<'a> {
    kind: String,
    subject: &'a str,
    text: &'a str,
    repairable: bool,
}

pub(super) async fn run(client: &Client, machines: &[Machine], options: &CheckOptions) -> Result<(), Failure> {
    let (facts, mut findings) = lasting(client, machines).await?;
    if options.repair && !findings.is_empty() {
        for repair in findings.iter().filter_map(|finding| finding.repair.clone()).collect::<BTreeSet<_>>() {
            println!("{}", mend(client, machines, &facts, &repair).await?);
        }
        let deadline = tokio::time::Instant::now() + REPAIR_PATIENCE;
        while findings.iter().any(|finding| finding.repair.is_some()) && tokio::time::Instant::now() < deadline {
            findings = lasting(client, machines).await?.1;
        }
    }
    print(&facts, &findings, options)?;
    if findings.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(format!("{} things are not as they should be", findings.len()));
    let repairable = findings.iter().filter(|finding| finding.repair.is_some()).count();
    Err(match (repairable, options.repair) {
        (0, _) => failure,
        (count, false) => failure.remedy(format!("podnet ipam check --repair mends {count} of them")),
        (count, true) => {
            failure.remedy(format!("{count} of them are being mended: is the agent running? (podnet status)"))
        }
    })
}

/// What is wrong at two looks.
async fn lasting(client: &Client, machines: &[Machine]) -> Result<(Facts, Vec<Finding>), Failure> {
    let facts = facts::gather(client, machines).await?;
    let first: BTreeSet<Finding> = facts.findings(link_of).into_iter().collect();
    if first.is_empty() {
        return Ok((facts, Vec::new()));
    }
    tokio::time::sleep(SECOND_LOOK).await;
    let facts = facts::gather(client, machines).await?;
    let findings = facts.findings(link_of).into_iter().filter(|finding| first.contains(finding)).collect();
    Ok((facts, findings))
}

fn link_of(handle: &Handle) -> LinkName {
    let (sandbox, interface) = handle.as_str().rsplit_once('/').unwrap_or((handle.as_str(), ""));
    host_ifname(sandbox, interface)
}

async fn mend(client: &Client, machines: &[Machine], facts: &Facts, repair: &Repair) -> Result<String, Failure> {
    let machine = |node: &NodeName| {
        let found = machines.iter().find(|machine| machine.node == node.as_str());
        found.ok_or_else(|| Failure::new(format!("node {node} is not on this machine")))
    };
    match repair {
        Repair::Bury { node, handle } => {
            release::bury(machine(node)?, handle)?;
            Ok(format!("node {node}: {handle} is given to the agent to be freed"))
        }
        Repair::Publish { node, block } => {
            publish(client, facts, node, *block).await?;
            Ok(format!("block {block}: written anew from the journal of node {node}"))
        }
        Repair::RemoveLink { node, link } => {
            let removed = facts::with_socket(machine(node)?, |socket| link::delete(socket, link.as_str()))?;
            removed.doing(|| format!("cannot remove interface {link} of node {node}"))?;
            Ok(format!("node {node}: interface {link} removed"))
        }
    }
}

/// Writes into the block's object what the journal says.
async fn publish(client: &Client, facts: &Facts, node: &NodeName, block: BlockCidr) -> Result<(), Failure> {
    let what = || format!("cannot write block {block}");
    let Some(held) = facts.local.get(node).and_then(|local| local.ipam.occupancy_of(block)) else { return Ok(()) };
    let api = Api::<IPAMBlock>::all(client.clone());
    let name = block_name(block);
    let mut object = api.get(&name).await.doing(what)?;
    if held.publish(node, &mut object.spec) {
        // Refused where the agent was faster, which is as good.
        match api.replace(&name, &PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            written => drop(written.doing(what)?),
        }
    }
    Ok(())
}

fn print(facts: &Facts, findings: &[Finding], options: &CheckOptions) -> Result<(), Failure> {
    if options.output == Output::Json {
        let rows: Vec<Row<'_>> = findings.iter().map(Row::of).collect();
        println!("{}", serde_json::to_string_pretty(&rows).doing(|| "cannot print the findings".into())?);
        return Ok(());
    }
    let held: usize =
        facts.blocks.iter().filter_map(|block| block.occupancy.as_ref().ok()).map(|block| block.held.len()).sum();
    println!(
        "{} pools, {} blocks, {held} addresses held, {} pods, {} of {} nodes with their journals",
        facts.pools.len(),
        facts.blocks.len(),
        facts.pods.len(),
        facts.local.len(),
        facts.nodes.len()
    );
    if findings.is_empty() {
        println!("everything agrees");
        return Ok(());
    }
    let mut rows: Table = table(&["WHAT", "WHERE", "WHY"]);
    for finding in findings {
        rows.add_row([&finding.kind.to_string(), &finding.subject, &finding.text]);
    }
    println!("\n{}", trimmed(&rows));
    Ok(())
}

impl<'a> Row<'a> {
    fn of(finding: &'a Finding) -> Self {
        Self {
            kind: finding.kind.to_string(),
            subject: &finding.subject,
            text: &finding.text,
            repairable: finding.repair.is_some(),
        }
    }
}
