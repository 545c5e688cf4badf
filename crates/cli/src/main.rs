//! `podnet`: the command, and the entry points of every process of a cluster.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addons;
mod api;
mod arguments;
mod capture;
mod cluster;
mod daemon;
mod down;
mod fabric;
mod flows;
mod forwarding;
mod ipam;
mod layout;
mod lock;
mod logs;
mod manifests;
mod report;
mod status;
mod supervisor;
mod up;

use std::{io::Write, process::ExitCode};

use arguments::{Arguments, Command};
use clap::Parser;
use podnet_agent::dns::panics;
use report::Failure;

fn main() -> ExitCode {
    panics::end_the_process();
    // clap prints help and usage errors by itself and exits with 0 and 2.
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(options) => up::run(&options),
        Command::Down => down::run(),
        Command::Status(options) => status::run(&options),
        Command::Logs(options) => logs::run(&options),
        Command::Ipam(options) => ipam::run(&options),
        Command::Trace(options) => forwarding::trace(&options),
        Command::Explain(options) => forwarding::explain(&options),
        Command::Why(options) => forwarding::why(&options),
        Command::Flows(options) => flows::run(&options),
        Command::Capture(options) => capture::run(&options),
        Command::Manifests(options) => manifests::run(&options),
        Command::Kubeconfig => cluster::print_kubeconfig(),
        Command::Env => cluster::print_environment(),
        Command::Version => {
            println!("podnet {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Completions { shell } => {
            // A reader may have seen enough.
            let _ = std::io::stdout().write_all(&arguments::completions(shell));
            Ok(())
        }
        Command::Supervisor => supervisor::run(),
        Command::Apiserver(options) => daemon::apiserver(options),
        Command::Node(options) => daemon::node(options),
        Command::Agent(options) => daemon::agent(*options),
        Command::Proxy(options) => daemon::proxy(&options),
        Command::Dns(options) => daemon::dns(options),
        Command::Demoapp { arguments } => daemon::demoapp(arguments),
        Command::Pause { dir } => daemon::pause(&dir),
    }
}
