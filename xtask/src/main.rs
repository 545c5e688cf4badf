//! Development tasks: `cargo xtask layers` checks that the crates depend on each other as ARCHITECTURE.md says.

mod layers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let result = match task.as_deref() {
        Some("layers") => layers::check(),
        _ => Err(vec!["usage: cargo xtask layers".to_owned()]),
    };
    match result {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(faults) => {
            for fault in faults {
                eprintln!("xtask: {fault}");
            }
            ExitCode::FAILURE
        }
    }
}
