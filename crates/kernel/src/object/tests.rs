use std::{fs, process};

use podnet_ebpf::{fastpath, sockets};

use super::*;

fn at_most_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn programs_are_loaded_without_reading_all_types_of_the_kernel() {
    // Other tests of this process would count as well.
    let before = at_most_kib();
    for (object, maps) in [(sockets::OBJECT, 10), (fastpath::OBJECT, 5)] {
        let object = Object::new(object, &[], Vec::new()).unwrap();
        assert_eq!(object.maps.len(), maps);
        assert!(object.types.is_some());
    }
    let more = at_most_kib() - before;
    assert!(more < 8 * 1024, "{more} KiB more than {before} KiB at its most, in process {}", process::id());
}

#[test]
fn what_is_wrong_with_a_program_is_told() {
    let object = Object::new(sockets::OBJECT, &[], Vec::new()).unwrap();
    // enum bpf_prog_type: a program for devices, which has no addresses of sockets.
    let refused = object.program("podnet_connect4", Kind { kind: 3, attach: 0 }).unwrap_err();
    let LoadError::Program { said, .. } = &refused else { panic!("{refused:?}") };
    assert!(!said.is_empty() && said.len() <= TOLD, "{said}");
    assert!(matches!(object.program("podnet_other", Kind { kind: 3, attach: 0 }), Err(LoadError::Missing { .. })));
    assert!(matches!(Object::new(b"no object", &[], Vec::new()), Err(LoadError::Object(_))));
}
