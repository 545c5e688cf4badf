//! `podnet ipam`: who holds which address, whether that is so, and what to do where it is not.
//!
//! - [`facts`]: what the API, the journals and the interfaces say
//! - [`show`], [`check`], [`release`], [`split`]: the commands

mod check;
mod facts;
mod release;
mod show;
mod split;

use std::{fs, path::PathBuf};

use crate::{
    api,
    arguments::ipam::{IpamAction, IpamOptions},
    layout::{self, NodeLayout},
    report::{Doing, Failure, require_root},
};

pub(crate) fn run(options: &IpamOptions) -> Result<(), Failure> {
    require_root("ipam")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(|| "cannot start".into())?;
    runtime.block_on(async {
        let client = api::connect(options.kubeconfig.as_deref(), "ipam").await?;
        let machines = machines(options)?;
        match &options.action {
            IpamAction::Show(options) => show::run(&client, &machines, options).await,
            IpamAction::Check(options) => check::run(&client, &machines, options).await,
            IpamAction::Release(options) => release::run(&client, &machines, options).await,
            IpamAction::Split(options) => split::run(&client, options).await,
        }
    })
}

/// A node of which this machine has the journal and the interfaces.
struct Machine {
    node: String,
    state: PathBuf,
    /// Where its interfaces are; none for those of this process.
    netns: Option<PathBuf>,
}

/// The nodes of the embedded cluster, or the one that this machine is.
fn machines(options: &IpamOptions) -> Result<Vec<Machine>, Failure> {
    if let Some(node) = &options.node {
        let state = options.state_dir.clone().unwrap_or_else(|| layout::data("agent"));
        return Ok(vec![Machine { node: node.clone(), state, netns: None }]);
    }
    let directory = layout::data("nodes");
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.doing(|| format!("cannot list {}", directory.display()))?,
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names
        .into_iter()
        .map(|node| Machine { state: NodeLayout::new(&node).agent_state(), netns: Some(layout::netns(&node)), node })
        .filter(|machine| machine.netns.as_ref().is_some_and(|path| path.exists()))
        .collect())
}
