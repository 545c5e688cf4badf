#![no_main]

#[path = "../../crates/dns/tests/fuzzed/mod.rs"]
mod trials;

libfuzzer_sys::fuzz_target!(|data: &[u8]| trials::zonefile::run(data));
