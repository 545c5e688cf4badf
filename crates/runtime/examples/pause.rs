//! `pause --dir <sandbox>`: what `podnet pause` does, for the tests of this crate, which cannot have the whole of podnet.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, option, dir] = arguments.as_slice() else { return ExitCode::from(2) };
    if option != "--dir" {
        return ExitCode::from(2);
    }
    match podnet_runtime::pause(Path::new(dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}: {}", std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
