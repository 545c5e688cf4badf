//! What fuzzing has found to reach all that there is to reach, replayed: no panic, and everything in time.
//!
//! `make fuzz` finds more; it and this test share what is tried on an input.

#[path = "fuzzed/mod.rs"]
mod trials;

use std::time::{Duration, Instant};

use data_encoding::BASE64;

/// No input may take longer, on a machine that is busy with other things and without optimisation. Fuzzing itself allows
/// a tenth of it.
const LONGEST: Duration = Duration::from_secs(10);

fn replay(corpus: &str, least: usize, run: impl Fn(&[u8])) {
    let inputs: Vec<Vec<u8>> = corpus
        .lines()
        .map(|line| BASE64.decode(line.as_bytes()).unwrap_or_else(|error| panic!("{line:?} is no input: {error}")))
        .collect();
    assert!(inputs.len() >= least, "only {} inputs", inputs.len());
    for input in inputs {
        let start = Instant::now();
        run(&input);
        let took = start.elapsed();
        assert!(took < LONGEST, "{took:?} for {:?}", BASE64.encode(&input));
    }
}

#[test]
fn messages_hold_what_is_promised() {
    replay(include_str!("fuzzed/corpus/message.txt"), 100, trials::message::run);
}

/// Otherwise nobody would hear of it where fuzzing ends at the first check again.
#[test]
fn what_is_proved_is_validated_and_used_and_what_catalogs_list_is_taken_in() {
    for seed in trials::proof::seeds() {
        trials::message::run(&seed.input);
        let (how, rest) = seed.input.split_first().expect("it is not empty");
        assert!(trials::proof::takes(*how));
        let server = trials::proof::run(*how, rest);
        let metrics = server.metrics().render(&server.gauges());
        for metric in seed.shows {
            let number = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
            assert!(number.is_some_and(|number| number != "0"), "{}: {metric} in\n{metrics}", seed.what);
        }
    }
}

#[test]
fn corefiles_hold_what_is_promised() {
    replay(include_str!("fuzzed/corpus/corefile.txt"), 100, trials::corefile::run);
}

#[test]
fn zone_files_hold_what_is_promised() {
    replay(include_str!("fuzzed/corpus/zonefile.txt"), 100, trials::zonefile::run);
}

#[test]
fn hosts_files_hold_what_is_promised() {
    replay(include_str!("fuzzed/corpus/hosts.txt"), 10, trials::hosts::run);
}
