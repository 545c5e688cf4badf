//! Services by virtual servers, which this machine's kernel may lack, in a cluster inside a virtual machine with Debian's kernel.
//!
//! Its processor is emulated: the figures compare with each other and with nothing else. So mode `nftables` is measured there too.

use std::{fmt, path::Path};

use podnet_kernel::sysctl;
use podnet_testnet::{Cluster, vm};
use serde::Serialize;

use crate::{
    Result,
    services::{self, ThroughServices},
};

/// Each with so many rounds, beside the one that warms up. A round takes about 5 s of a processor; the machine's time is counted by its instructions,
/// so that rounds differ by little.
const MODES: [(&str, usize); 2] = [("nftables", 4), ("ipvs", 4)];
/// The first argument inside; the binary `podnet` follows.
pub(crate) const INSIDE: &str = "inside-with";
/// Before the figures in the output.
const FIGURES: &str = "podnet-bench-figures ";

#[derive(Serialize)]
pub(crate) struct Emulated(ThroughServices);

pub(crate) fn measure(podnet: &str) -> Result<Emulated> {
    let podnet = Path::new(podnet).canonicalize()?.display().to_string();
    let (output, code) = vm::run_with_cluster(&std::env::current_exe()?, &[INSIDE, &podnet], &podnet);
    let figures = output.lines().find_map(|line| line.strip_prefix(FIGURES));
    match figures {
        Some(figures) if code == 0 => Ok(Emulated(serde_json::from_str(figures)?)),
        _ => Err(format!("in the virtual machine: exit code {code}\n{output}").into()),
    }
}

/// What is done inside.
pub(crate) fn inside(args: &[String]) -> Result<()> {
    let [podnet] = args else { return Err("inside, the binary podnet is the one argument".into()) };
    // So small a machine tracks few thousands of connections, remembers those that have ended for minutes, and drops what is too many.
    sysctl::set_here("net.netfilter.nf_conntrack_max", "500000")?;
    let cluster = Cluster::up(podnet, &["--nodes", "2"]);
    let figures = services::in_modes(&cluster, &MODES)?;
    println!("{FIGURES}{}", serde_json::to_string(&figures)?);
    Ok(())
}

impl fmt::Display for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(figures) = self;
        write!(
            f,
            "in a virtual machine whose processor is emulated: its figures compare only with each other\n{figures}"
        )
    }
}
