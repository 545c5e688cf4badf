//! Addresses that connections of one mode keep from another one: rules serve there meanwhile.

use podnet_planner::ruleset::Set;

use super::*;

/// Where something lingers.
const WEB: &str = "10.96.0.1";
const OTHER: &str = "10.96.0.2";

/// Rules in force, which will linger once they are left, until they are told not to.
struct Scene {
    kernel: MemoryKernel,
    rules: ClusterRules,
    lingers: Arc<AtomicBool>,
    takes_new: Arc<AtomicBool>,
}

fn other(ip: &str) -> Change {
    let Change::Service(_, Some(web)) = service(Some(ip)) else { unreachable!() };
    let key = ServiceKey::new("default", "other");
    Change::Service(key.clone(), Some(Service { key, ..web }))
}

/// Of a family: what lingers there, also at an address that nobody can take from it.
fn held(family: Family) -> BTreeSet<IpAddr> {
    match family {
        Family::V4 => [WEB, "127.0.0.1"].map(|addr| addr.parse().unwrap()).into(),
        Family::V6 => BTreeSet::new(),
    }
}

/// The ClusterIPs that a table of rules serves; none where there is no table.
fn ruled(kernel: &MemoryKernel) -> Option<Vec<String>> {
    let tables = kernel.state().tables;
    let table = tables.get(&(Family::V4, nftables::TABLE.to_owned()))?;
    let Set::Addresses(addrs) = &table.sets["cluster-ips"] else { unreachable!() };
    let frontends = table.verdict_maps["no-endpoints"].elements.keys().map(|key| key.addr);
    assert!(frontends.eq(addrs.iter().copied()), "{table:?}");
    Some(addrs.iter().map(ToString::to_string).collect())
}

impl Scene {
    fn new(mode: Mode) -> Self {
        let (kernel, mut rules) = (MemoryKernel::new(), rules());
        [service(Some(WEB)), other(OTHER)].iter().for_each(|change| rules.learn(change));
        let lingers = Arc::new(AtomicBool::new(true));
        let takes_new = Arc::new(AtomicBool::new(mode == Mode::Userspace));
        let fakes = Dual::from_fn(|family| -> Box<dyn ServiceRules> {
            let (lingers, takes_new) = (Arc::clone(&lingers), Arc::clone(&takes_new));
            Box::new(Fake { lingers, takes_new, held: held(family), ..Fake::beside(&kernel) })
        });
        rules.put(&mut kernel.clone()).unwrap();
        rules.replace(mode, fakes, &rules.held_beside(mode), &mut kernel.clone()).unwrap();
        rules.mode = mode;
        let scene = Self { kernel, rules, lingers, takes_new };
        assert_eq!((scene.ruled(), scene.stands()), (None, (mode, false, 0)));
        scene
    }

    fn switch(&mut self, mode: Mode) {
        self.rules.switch(mode, &mut self.kernel.clone()).unwrap();
    }

    fn learn(&mut self, change: &Change) {
        self.rules.learn(change);
        self.rules.edit(Tries::All, &mut self.kernel.clone()).unwrap();
    }

    /// When everything is due.
    fn look(&mut self) {
        self.rules.pass(Duration::from_secs(60));
        self.rules.look(&mut self.kernel.clone()).unwrap();
    }

    fn ruled(&self) -> Option<Vec<String>> {
        ruled(&self.kernel)
    }

    /// Whose rules there are, whether those of the mode wait, and how many addresses are left to rules.
    fn stands(&self) -> (Mode, bool, usize) {
        (self.rules.standing(), self.rules.waits(), self.rules.left_to_rules())
    }
}

fn at<const N: usize>(addrs: [&str; N]) -> Option<Vec<String>> {
    Some(addrs.map(str::to_owned).into())
}

#[test]
fn after_virtual_servers_a_program_is_in_force_at_once_but_where_connections_are() {
    for by_way_of in [None, Some(Mode::Nftables), Some(Mode::Ebpf)] {
        let mut scene = Scene::new(Mode::Ipvs);
        by_way_of.into_iter().for_each(|mode| scene.switch(mode));
        scene.switch(Mode::Userspace);
        assert_eq!((scene.stands(), scene.ruled()), ((Mode::Userspace, false, 1), at([WEB])), "{by_way_of:?}");
        // What changes there is followed, and what changes elsewhere is nothing to them.
        for (change, ruled) in
            [(other("10.96.0.3"), at([WEB])), (service(None), at([])), (service(Some(WEB)), at([WEB]))]
        {
            scene.learn(&change);
            assert_eq!(scene.ruled(), ruled, "after {change:?}");
        }
        scene.look();
        assert_eq!((scene.stands(), scene.ruled()), ((Mode::Userspace, false, 1), at([WEB])));
        assert!(scene.rules.is_needed(Family::V4, nftables::TABLE));
        assert!(scene.rules.due().is_some());
        // Somebody takes the table away.
        scene.kernel.clone().delete_table(Family::V4, nftables::TABLE).unwrap();
        scene.rules.put(&mut scene.kernel.clone()).unwrap();
        assert_eq!(scene.ruled(), at([WEB]));

        scene.lingers.store(false, Ordering::Relaxed);
        scene.look();
        assert_eq!((scene.stands(), scene.ruled()), ((Mode::Userspace, false, 0), None));
        assert!(!scene.rules.is_needed(Family::V4, nftables::TABLE));
    }
}

#[test]
fn after_a_program_virtual_servers_are_in_force_once_nobody_connects_to_it_but_where_connections_are() {
    for by_way_of in [None, Some(Mode::Nftables), Some(Mode::Iptables)] {
        let mut scene = Scene::new(Mode::Userspace);
        by_way_of.into_iter().for_each(|mode| scene.switch(mode));
        scene.switch(Mode::Ipvs);
        let waits = ((Mode::Nftables, true, 0), at([WEB, OTHER]));
        assert_eq!((scene.stands(), scene.ruled()), waits, "{by_way_of:?}");
        scene.look();
        assert_eq!((scene.stands(), scene.ruled()), waits, "{by_way_of:?}");
        scene.takes_new.store(false, Ordering::Relaxed);
        for _ in 0..2 {
            scene.look();
            assert_eq!((scene.stands(), scene.ruled()), ((Mode::Ipvs, false, 1), at([WEB])), "{by_way_of:?}");
        }
        scene.lingers.store(false, Ordering::Relaxed);
        scene.look();
        assert_eq!((scene.stands(), scene.ruled()), ((Mode::Ipvs, false, 0), None), "{by_way_of:?}");
    }
}

#[test]
fn a_mode_without_connections_makes_way_at_once_and_who_waits_may_be_called_back() {
    let mut scene = Scene::new(Mode::Userspace);
    for mode in [Mode::Ipvs, Mode::Iptables, Mode::Ipvs, Mode::Ebpf] {
        scene.switch(mode);
        assert_eq!((scene.rules.mode(), scene.rules.waits()), (mode, mode == Mode::Ipvs));
    }
    scene.takes_new.store(false, Ordering::Relaxed);
    scene.lingers.store(false, Ordering::Relaxed);
    scene.switch(Mode::Ipvs);
    assert_eq!((scene.stands(), scene.ruled()), ((Mode::Ipvs, false, 0), None));

    let mut scene = Scene::new(Mode::Ipvs);
    scene.switch(Mode::Userspace);
    // With rules everywhere no address is left to any.
    for (mode, ruled) in [(Mode::Nftables, at([WEB, OTHER])), (Mode::Userspace, at([WEB])), (Mode::Iptables, None)] {
        scene.switch(mode);
        assert_eq!((scene.stands().0, scene.ruled()), (mode, ruled), "{mode}");
        assert_eq!(scene.rules.left_to_rules(), usize::from(mode == Mode::Userspace));
    }
    let mut scene = Scene::new(Mode::Ipvs);
    scene.lingers.store(false, Ordering::Relaxed);
    scene.switch(Mode::Userspace);
    assert_eq!((scene.stands(), scene.ruled()), ((Mode::Userspace, false, 0), None));
}

#[test]
fn rules_that_cannot_become_those_of_some_addresses_serve_everywhere_until_they_can() {
    let mut scene = Scene::new(Mode::Ipvs);
    scene.kernel.fail_transaction(1);
    scene.switch(Mode::Userspace);
    assert_eq!((scene.rules.standing(), scene.ruled()), (Mode::Userspace, at([WEB, OTHER])));
    scene.look();
    assert_eq!((scene.stands(), scene.ruled()), ((Mode::Userspace, false, 1), at([WEB])));
}

#[test]
fn an_agent_that_begins_anew_keeps_the_rules_of_addresses_with_connections_all_the_time() {
    for lingers in [true, false] {
        let kernel = MemoryKernel::new();
        let changes = [service(Some(WEB)), other(OTHER)];
        let mut before = rules();
        let mut after = rules();
        for change in &changes {
            before.learn(change);
            after.learn(change);
        }
        before.put(&mut kernel.clone()).unwrap();
        after.begin_in(Mode::Userspace);
        let fake = Fake { held: held(Family::V4), ..Fake::beside(&kernel) };
        fake.lingers.store(lingers, Ordering::Relaxed);
        let done = Arc::clone(&fake.done);
        after.left.add(Mode::Ipvs, Box::new(fake));
        after.put(&mut kernel.clone()).unwrap();
        assert_eq!(done.lock().unwrap()[0], "gone beside 1", "the earlier agent's table is there as the rest goes");
        assert_eq!(after.left_to_rules(), usize::from(lingers));
        assert_eq!(ruled(&kernel), if lingers { at([WEB]) } else { None });
    }
}

#[test]
fn virtual_servers_of_an_agent_that_begins_anew_wait_for_a_program_that_outlived_the_one_before() {
    for lingers in [true, false] {
        let (kernel, mut rules) = (MemoryKernel::new(), rules());
        [service(Some(WEB)), other(OTHER)].iter().for_each(|change| rules.learn(change));
        let fake = Fake { held: held(Family::V4), ..Fake::beside(&kernel) };
        let (done, takes_new) = (Arc::clone(&fake.done), Arc::clone(&fake.takes_new));
        fake.lingers.store(lingers, Ordering::Relaxed);
        takes_new.store(lingers, Ordering::Relaxed);
        rules.left.add(Mode::Userspace, Box::new(fake));
        rules.begin_in(Mode::Ipvs);
        assert_eq!(*done.lock().unwrap(), ["recalled beside 0"]);
        let first = if lingers { Mode::Nftables } else { Mode::Ipvs };
        assert_eq!((rules.mode(), rules.standing()), (Mode::Ipvs, first));
        if !lingers {
            continue;
        }
        rules.put(&mut kernel.clone()).unwrap();
        let look = |rules: &mut ClusterRules| {
            rules.pass(Duration::from_secs(60));
            rules.look(&mut kernel.clone()).unwrap();
            (rules.standing(), rules.left_to_rules(), ruled(&kernel))
        };
        assert_eq!(look(&mut rules), (Mode::Nftables, 0, at([WEB, OTHER])));
        takes_new.store(false, Ordering::Relaxed);
        assert_eq!(look(&mut rules), (Mode::Ipvs, 1, at([WEB])));
        // What was to wait may be refused: then it is another mode that begins.
        let mut refused = super::rules();
        let fake = Fake::beside(&kernel);
        fake.lingers.store(true, Ordering::Relaxed);
        refused.left.add(Mode::Userspace, Box::new(fake));
        refused.begin_in(Mode::Ipvs);
        assert!(refused.waits());
        refused.begin_in(Mode::Nftables);
        assert_eq!((refused.mode(), refused.waits()), (Mode::Nftables, false));
    }
}

#[test]
fn without_nf_tables_chains_serve_beside_a_program_and_virtual_servers_wait_for_its_connections() {
    let mut scene = Scene::new(Mode::Ipvs);
    scene.kernel.lack_nftables();
    scene.switch(Mode::Userspace);
    assert_eq!((scene.stands(), scene.ruled()), ((Mode::Userspace, false, 1), None));
    scene.look();
    assert_eq!(scene.stands(), (Mode::Userspace, false, 1));

    let mut scene = Scene::new(Mode::Userspace);
    scene.kernel.lack_nftables();
    scene.switch(Mode::Ipvs);
    scene.takes_new.store(false, Ordering::Relaxed);
    scene.look();
    assert_eq!(scene.stands(), (Mode::Iptables, true, 0), "both would have the same chains");
    scene.lingers.store(false, Ordering::Relaxed);
    scene.look();
    assert_eq!(scene.stands(), (Mode::Ipvs, false, 0));
}

#[test]
fn rules_serve_at_an_address_until_the_mode_has_taken_it_back() {
    let mut scene = Scene::new(Mode::Ipvs);
    scene.switch(Mode::Nftables);
    let done = Arc::default();
    let fakes = Dual::from_fn(|_| -> Box<dyn ServiceRules> {
        Box::new(Fake { held: held(Family::V4), done: Arc::clone(&done), ..Fake::beside(&scene.kernel) })
    });
    let heard = || std::mem::take(&mut *done.lock().unwrap());
    let left = scene.rules.held_beside(Mode::Userspace);
    scene.rules.replace(Mode::Userspace, fakes, &left, &mut scene.kernel.clone()).unwrap();
    scene.rules.mode = Mode::Userspace;
    assert_eq!(scene.ruled(), at([WEB]));
    drop(heard());
    scene.lingers.store(false, Ordering::Relaxed);
    scene.look();
    assert_eq!(heard(), ["leaves 0 beside 1"]);
    assert_eq!(scene.ruled(), None);
}

#[test]
fn addresses_whose_connections_end_while_a_mode_is_put_in_force_are_taken_back_by_it() {
    let mut scene = Scene::new(Mode::Userspace);
    scene.switch(Mode::Nftables);
    scene.takes_new.store(false, Ordering::Relaxed);
    let left = scene.rules.held_beside(Mode::Ipvs);
    assert_eq!(left.v4.len(), 1);
    let done = Arc::default();
    let fakes = Dual::from_fn(|_| -> Box<dyn ServiceRules> {
        let (ends, done) = (Arc::clone(&scene.lingers), Arc::clone(&done));
        Box::new(Fake { held: held(Family::V4), ends, done, ..Fake::beside(&scene.kernel) })
    });
    scene.rules.replace(Mode::Ipvs, fakes, &left, &mut scene.kernel.clone()).unwrap();
    scene.rules.mode = Mode::Ipvs;
    assert_eq!(*done.lock().unwrap(), ["put beside 1", "put beside 1", "leaves 0 beside 1"]);
    assert_eq!((scene.stands(), scene.ruled()), ((Mode::Ipvs, false, 0), None));
}

#[test]
fn rules_beside_a_mode_are_there_as_they_were_after_a_mode_with_the_same_rules_was_refused() {
    let mut scene = Scene::new(Mode::Ipvs);
    scene.switch(Mode::Userspace);
    let v4 = mode::rules(Mode::Nftables, &scene.rules.families[Family::V4].services);
    let v6: Box<dyn ServiceRules> = Box::new(Fake { refuses: true, ..Fake::beside(&scene.kernel) });
    let refused = Dual { v4, v6 };
    scene.rules.replace(Mode::Nftables, refused, &Dual::default(), &mut scene.kernel.clone()).unwrap_err();
    assert_eq!((scene.stands(), scene.ruled()), ((Mode::Userspace, false, 1), at([WEB])));
    scene.look();
    assert_eq!(scene.ruled(), at([WEB]));
}

#[test]
fn rules_beside_a_mode_follow_what_changes_though_its_own_were_refused() {
    let mut scene = Scene::new(Mode::Ipvs);
    scene.switch(Mode::Userspace);
    scene.rules.families[Family::V4].refused = true;
    scene.rules.learn(&service(None));
    scene.rules.edit(Tries::ButRefused, &mut scene.kernel.clone()).unwrap();
    assert!(scene.rules.is_refused());
    assert_eq!(scene.ruled(), at([]));
}
