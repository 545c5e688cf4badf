use super::*;

#[test]
fn a_process_with_several_threads_is_not_forked() {
    // The test runner has its own threads beside this one.
    assert!(matches!(fork(PidNamespace::Same), Err(ForkError::Threads { threads }) if threads > 1));
}

#[test]
fn capabilities_are_known_by_kubernetes_names_and_by_kernel_names() {
    assert_eq!(capability_named("NET_ADMIN"), Some(CapabilitySet::NET_ADMIN));
    assert_eq!(capability_named("cap_sys_ptrace"), Some(CapabilitySet::SYS_PTRACE));
    assert_eq!(capability_named("CHECKPOINT_RESTORE"), Some(CapabilitySet::CHECKPOINT_RESTORE));
    assert_eq!(capability_named("FLY"), None);
}

#[test]
fn sharing_of_descriptors_cannot_be_given_up() {
    assert_eq!(unshare(UnshareFlags::FILES).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_killed_process_has_the_code_that_shells_show() {
    assert_eq!(Ended::Killed(9).code(), 137);
    assert_eq!(Ended::Exited(3).code(), 3);
}
