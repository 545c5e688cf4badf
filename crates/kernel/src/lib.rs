//! Every kernel object that podnet touches. The only crate with `unsafe` and the only home of system calls.
