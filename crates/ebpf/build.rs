//! Compiles the programs of `src/bpf` for the kernel's virtual machine.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Objects, each with its source and what is defined for it.
const OBJECTS: [(&str, &str, &[&str]); 4] = [
    ("fastpath", "fastpath", &[]),
    ("fastpath-flows", "fastpath", &["-DFLOWS"]),
    ("flows", "flows", &[]),
    ("sockets", "sockets", &[]),
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=src/bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    for (object, source, definitions) in OBJECTS {
        if let Err(error) = compile(object, source, definitions) {
            println!("cargo::error={error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn compile(object: &str, source: &str, definitions: &[&str]) -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let source = Path::new("src/bpf").join(format!("{source}.c"));
    let object = PathBuf::from(variable("OUT_DIR")?).join(format!("{object}.o"));
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    // Where Debian keeps the headers of the kernel that differ from machine to machine.
    let headers = format!("/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH")?);
    let status = Command::new(&clang)
        .args(["-target", "bpfel", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-idirafter", &headers, "-c"])
        .args(definitions)
        .args([source.as_os_str(), "-o".as_ref(), object.as_os_str()])
        .status()
        .map_err(|error| format!("cannot run {clang} ({error}); scripts/setup installs it, CLANG names another"))?;
    if status.success() { Ok(()) } else { Err(format!("{clang} could not compile {}", source.display())) }
}
