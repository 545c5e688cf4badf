//! `podnet up` from nothing to all nodes Ready and DNS answering; and `podnet down`.

use std::{fmt, time::Instant};

use podnet_testnet::Cluster;
use serde::Serialize;

use crate::{Result, figures::Times};

const RUNS: usize = 5;

#[derive(Serialize)]
pub(crate) struct Up {
    up: Times,
    down: Times,
}

pub(crate) fn measure(podnet: &str) -> Result<Up> {
    let cluster = Cluster::none(podnet);
    let timed = |command: &str| -> Result<_> {
        let started = Instant::now();
        let output = cluster.podnet(&[command]);
        let elapsed = started.elapsed();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(elapsed) } else { Err(format!("podnet {command}: {text}").into()) }
    };
    let (mut ups, mut downs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ups.push(timed("up")?);
        downs.push(timed("down")?);
    }
    Ok(Up { up: Times::of(ups), down: Times::of(downs) })
}

impl fmt::Display for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "podnet up, 3 nodes Ready, DNS answers   {}\npodnet down                             {}",
            self.up, self.down
        )
    }
}
