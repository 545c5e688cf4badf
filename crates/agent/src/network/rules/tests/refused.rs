use super::*;

#[test]
fn what_another_mode_left_and_could_not_be_taken_away_is_tried_again_until_it_is_gone() {
    let kernel = MemoryKernel::new();
    let mut rules = rules();
    rules.put(&mut kernel.clone()).unwrap();
    assert_eq!(rules.due(), None);
    let done = std::sync::Arc::default();
    let fakes = Dual::from_fn(|family| -> Box<dyn ServiceRules> {
        let stays = if family == Family::V4 { 2 } else { 0 };
        Box::new(Fake { stays, done: Arc::clone(&done), ..Fake::beside(&kernel) })
    });
    rules.replace(Mode::Iptables, fakes, &Dual::default(), &mut kernel.clone()).unwrap();
    let back = |rules: &ClusterRules| Dual::from_fn(|of| mode::rules(Mode::Nftables, &rules.families[of].services));
    let taken = || std::mem::take(&mut *done.lock().unwrap()).iter().filter(|what| what.starts_with("gone")).count();
    rules.mode = Mode::Iptables;
    rules.replace(Mode::Nftables, back(&rules), &Dual::default(), &mut kernel.clone()).unwrap();
    rules.mode = Mode::Nftables;
    assert_eq!(taken(), 2, "one stays");
    rules.look(&mut kernel.clone()).unwrap();
    assert_eq!(taken(), 0, "it waits a while");
    let due = rules.due().unwrap();
    for left in [true, false] {
        rules.left.pass(std::time::Duration::from_secs(60));
        rules.look(&mut kernel.clone()).unwrap();
        assert_eq!(taken(), 1);
        assert_eq!(rules.due().is_some_and(|again| again > due), left);
    }
    assert!(kernel.state().tables.contains_key(&(Family::V4, nftables::TABLE.to_owned())));
}

#[test]
fn rules_that_are_wanted_once_more_stay_though_they_could_not_be_taken_away() {
    let kernel = MemoryKernel::new();
    let mut rules = rules();
    rules.put(&mut kernel.clone()).unwrap();
    let done = std::sync::Arc::default();
    let fakes = |stays| {
        Dual::from_fn(|_| -> Box<dyn ServiceRules> {
            Box::new(Fake { stays, done: Arc::clone(&done), ..Fake::beside(&kernel) })
        })
    };
    rules.replace(Mode::Iptables, fakes(usize::MAX), &Dual::default(), &mut kernel.clone()).unwrap();
    rules.mode = Mode::Iptables;
    let back = Dual::from_fn(|family| mode::rules(Mode::Nftables, &rules.families[family].services));
    rules.replace(Mode::Nftables, back, &Dual::default(), &mut kernel.clone()).unwrap();
    rules.mode = Mode::Nftables;
    assert!(rules.due().is_some());
    rules.replace(Mode::Iptables, fakes(0), &Dual::default(), &mut kernel.clone()).unwrap();
    rules.mode = Mode::Iptables;
    done.lock().unwrap().clear();
    rules.left.pass(std::time::Duration::from_secs(1000));
    rules.look(&mut kernel.clone()).unwrap();
    assert_eq!(*done.lock().unwrap(), [""; 0]);
}

#[test]
fn what_is_refused_keeps_no_other_table_from_being_in_force_and_is_made_as_a_whole_later() {
    let (kernel, afresh) = (MemoryKernel::new(), MemoryKernel::new());
    let (mut first, mut other) = (rules(), rules());
    for change in [pool("six", Some("fd00::/64")), service(Some("fd96::1"))] {
        first.learn(&change);
        other.learn(&change);
    }
    other.put(&mut afresh.clone()).unwrap();
    kernel.fail_transaction(0);
    first.put(&mut kernel.clone()).unwrap_err();
    assert!(first.is_refused());
    assert_eq!(kernel.state().tables.len(), 3, "all but the one that was refused");
    assert_eq!(first.edit(Tries::ButRefused, &mut kernel.clone()).unwrap(), 0);
    assert_eq!(kernel.state().tables.len(), 3, "it waits");
    first.edit(Tries::All, &mut kernel.clone()).unwrap();
    assert!(!first.is_refused());
    assert_eq!(kernel.state().tables, afresh.state().tables);
    // And so do changes.
    for rules in [&mut first, &mut other] {
        rules.learn(&service(Some("fd96::2")));
        rules.learn(&pool("more", Some("10.7.0.0/16")));
    }
    other.edit(Tries::All, &mut afresh.clone()).unwrap();
    kernel.fail_transaction(0);
    first.edit(Tries::All, &mut kernel.clone()).unwrap_err();
    assert!(first.is_refused());
    let of_v6 = |kernel: &MemoryKernel| kernel.state().tables.remove(&(Family::V6, nftables::TABLE.to_owned()));
    assert_eq!(of_v6(&kernel), of_v6(&afresh));
    first.edit(Tries::All, &mut kernel.clone()).unwrap();
    assert_eq!(kernel.state().tables, afresh.state().tables);
}

#[test]
fn what_another_agent_left_goes_once_the_rules_are_in_force_though_they_were_refused_first() {
    let kernel = MemoryKernel::new();
    let mut rules = rules();
    rules.left = Left::default();
    let left = Fake::beside(&kernel);
    let done = Arc::clone(&left.done);
    rules.left.add(Mode::Iptables, Box::new(left));
    kernel.fail_transaction(0);
    rules.put(&mut kernel.clone()).unwrap_err();
    rules.look(&mut kernel.clone()).unwrap();
    assert_eq!((rules.due(), &*done.lock().unwrap()), (None, &Vec::new()), "it may be what serves Services");
    rules.edit(Tries::All, &mut kernel.clone()).unwrap();
    assert!(rules.due().is_some_and(|due| due <= Instant::now()));
    rules.look(&mut kernel.clone()).unwrap();
    assert_eq!(*done.lock().unwrap(), ["gone beside 1"]);
    assert_eq!(rules.due().filter(|due| *due <= Instant::now()), None);
}

#[test]
fn a_mode_that_waited_and_is_refused_then_is_tried_again_after_growing_pauses_and_is_no_failure() {
    let kernel = MemoryKernel::new();
    let mut rules = rules();
    rules.put(&mut kernel.clone()).unwrap();
    let fakes = Dual::from_fn(|_| -> Box<dyn ServiceRules> { Box::new(Fake::beside(&kernel)) });
    rules.replace(Mode::Iptables, fakes, &Dual::default(), &mut kernel.clone()).unwrap();
    assert!(rules.waits() && rules.mode() == Mode::Nftables);
    let look = |rules: &mut ClusterRules| {
        rules.look(&mut kernel.clone()).unwrap();
        rules.waits()
    };
    for pause in [10, 20, 40] {
        kernel.fail_transaction(0);
        assert!(look(&mut rules), "it is refused");
        assert!(rules.due().is_some_and(|due| due <= Instant::now() + Duration::from_secs(pause)));
        rules.pass(Duration::from_secs(pause - 1));
        assert!(look(&mut rules), "it would not be refused, but has to wait for {pause} s");
        rules.pass(Duration::from_secs(1));
    }
    assert!(!look(&mut rules) && rules.arrival_due().is_none());
}
