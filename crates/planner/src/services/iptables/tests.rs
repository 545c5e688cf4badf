//! The chains as people know them, and that following changes ends where a fresh start does. What they do to packets is tried in a kernel.

use podnet_model::Change;

use super::{
    super::packet_table::{self, NODES},
    *,
};
use crate::iptables::{Saved, Table, difference, is_ours};

fn follow(rules: &mut Rules, rewrite: Rewrite) {
    for key in &rewrite.gone {
        assert!(!rewrite.chains.contains_key(key), "{key} goes and is written");
        assert!(rules.chains.remove(key).is_some(), "{key} goes and was not there");
    }
    rules.chains.extend(rewrite.chains);
}

#[test]
fn following_every_change_ends_where_a_fresh_start_does() {
    for node in NODES {
        let mut services = Services::new(packet_table::config(node).0);
        let mut iptables = Iptables::new(&services);
        let mut rules = iptables.desired(&services);
        let nothing = rules.clone();
        let changes = packet_table::changes();
        let back = packet_table::removals(&changes);
        for (index, change) in changes.iter().chain(&back).enumerate() {
            let plan = services.apply(change);
            iptables.note(&plan);
            let rewrite = iptables.rewrite(&services);
            assert!(!plan.is_empty() || rewrite.is_empty(), "{change:?}");
            follow(&mut rules, rewrite);
            // One node shows each step; the others where they are now and then.
            if node != NODES[0] && index % 16 > 0 {
                continue;
            }
            let fresh = Iptables::new(&services).desired(&services);
            assert_eq!(rules, fresh, "after {change:?}");
            assert_eq!(iptables.desired(&services), fresh);
        }
        assert_eq!(rules, nothing);
    }
}

#[test]
fn changes_that_are_written_together_end_where_they_do_one_by_one() {
    for together in [2, 7, 50, usize::MAX] {
        let mut services = Services::new(packet_table::config(NODES[0]).0);
        let mut iptables = Iptables::new(&services);
        let mut rules = iptables.desired(&services);
        let nothing = rules.clone();
        let changes = packet_table::changes();
        let back = packet_table::removals(&changes);
        // What comes and goes meanwhile is not written.
        let all: Vec<_> = changes.iter().chain(&back).chain(&changes).collect();
        for some in all.chunks(together) {
            some.iter().for_each(|change| iptables.note(&services.apply(change)));
            follow(&mut rules, iptables.rewrite(&services));
            assert!(iptables.rewrite(&services).is_empty());
            assert_eq!(rules, Iptables::new(&services).desired(&services));
        }
        assert_ne!(rules, nothing);
    }
}

fn rules_of(node: &str) -> Rules {
    rules_after(node, packet_table::changes())
}

fn rules_after(node: &str, changes: impl IntoIterator<Item = Change>) -> Rules {
    let mut services = Services::new(packet_table::config(node).0);
    changes.into_iter().for_each(|change| drop(services.apply(&change)));
    Iptables::new(&services).desired(&services)
}

#[test]
fn every_chain_is_ours_and_leads_to_chains_that_are_there() {
    for node in NODES {
        let rules = rules_of(node);
        let hooked = rules.hooks.iter().map(|hook| (hook.at.table, &hook.rule));
        let all = rules.chains.iter().flat_map(|(key, rules)| rules.iter().map(|rule| (key.table, rule)));
        for (table, rule) in all.chain(hooked) {
            let Some(to) = rule.leads_to() else { continue };
            assert!(rules.chains.contains_key(&ChainKey::new(table, to.clone())), "{rule} of table {table}");
        }
        assert!(rules.chains.keys().all(|key| is_ours(&key.name) && key.name.len() <= 28));
    }
}

/// What `iptables-save` would say of them.
fn text(rules: &Rules, table: Table, name: &str) -> Vec<String> {
    rules.chains[&ChainKey::new(table, name)].iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_reads_as_people_expect() {
    // Where pods are in one range alone, as with kube-proxy.
    let changes = packet_table::changes().into_iter().filter(|change| !matches!(change, Change::Pool(..)));
    let pods: IpNet = packet_table::POD_CIDR.parse().unwrap();
    let pool = podnet_model::Pool::new("pods".into(), pods);
    let rules = rules_after("node1", changes.chain([Change::Pool("pods".into(), Some(pool))]));
    let services = text(&rules, Table::Nat, "KUBE-SERVICES");
    let kubernetes = services.iter().find(|rule| rule.contains("default/kubernetes:https")).unwrap();
    let chain = "KUBE-SVC-NPX46M4PTMTKRN6Y";
    let ip = packet_table::address("kubernetes").unwrap();
    let control = packet_table::address("control").unwrap();
    let head =
        format!(r#"-d {ip}/32 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443"#);
    assert_eq!(*kubernetes, format!("{head} -j {chain}"));
    let [mark, to] = &text(&rules, Table::Nat, chain)[..] else { panic!("{services:?}") };
    assert_eq!(*mark, format!("! -s {pods} {head} -j KUBE-MARK-MASQ"));
    let sep = to.rsplit(' ').next().unwrap();
    assert_eq!(*to, format!(r#"-m comment --comment "default/kubernetes:https -> {control}:6443" -j {sep}"#));
    assert_eq!(
        text(&rules, Table::Nat, sep),
        [
            format!(r#"-s {control}/32 -m comment --comment "default/kubernetes:https" -j KUBE-MARK-MASQ"#),
            format!(
                r#"-p tcp -m comment --comment "default/kubernetes:https" -j DNAT --to-destination {control}:6443"#
            ),
        ]
    );
    let last: Vec<_> = services.iter().rev().take_while(|rule| rule.contains("must be the last rule")).collect();
    assert!(last.iter().all(|rule| rule.ends_with("-j KUBE-NODEPORTS")), "{last:?}");
    let [node, loopback] = &last[..] else { panic!("{services:?}") };
    assert!(node.starts_with("-d 172.29.0.11/32 ") && loopback.starts_with("-d 127.0.0.1/32 "), "{last:?}");
}

#[test]
fn where_all_is_masqueraded_pods_are_too() {
    let (mut config, _) = packet_table::config("node1");
    config.masquerade_all = true;
    let mut services = Services::new(config);
    packet_table::changes().iter().for_each(|change| drop(services.apply(change)));
    let rules = Iptables::new(&services).desired(&services);
    let chain = text(&rules, Table::Nat, "KUBE-SVC-NPX46M4PTMTKRN6Y");
    assert!(chain[0].starts_with("-d ") && chain[0].ends_with("-j KUBE-MARK-MASQ"), "{chain:?}");
}

/// As kube-proxy's chain reads.
#[test]
fn what_fits_no_connection_is_dropped_before_anything_passes_unless_tracking_is_liberal() {
    let passes = [
        r#"-m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT"#,
        r#"-m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"#,
    ];
    let forward = |drops_invalid| {
        let config = super::super::ServicesConfig { drops_invalid, ..packet_table::config("node1").0 };
        let services = Services::new(config);
        text(&Iptables::new(&services).desired(&services), Table::Filter, "KUBE-FORWARD")
    };
    assert_eq!(forward(true), [&["-m conntrack --ctstate INVALID -j DROP"], &passes[..]].concat());
    assert_eq!(forward(false), passes);
}

#[test]
fn what_is_wanted_for_some_services_is_their_own_chains_and_those_of_all() {
    let mut services = Services::new(packet_table::config("node1").0);
    packet_table::changes().iter().for_each(|change| drop(services.apply(change)));
    let iptables = Iptables::new(&services);
    let none = iptables.desired_for(&services, |_| false);
    assert!(!none.chains.keys().any(|key| key.name.starts_with("KUBE-SEP-") || key.name.starts_with("KUBE-SVC-")));
    let all: BTreeSet<ServiceKey> = services.frontends().map(|(_, serving)| serving.service.clone()).collect();
    let mut together = none.clone();
    for name in &all {
        let own = iptables.desired_for(&services, |service| service == name);
        assert!(none.chains.keys().all(|key| own.chains.contains_key(key)), "{name}");
        together.chains.extend(own.chains);
    }
    assert_eq!(together, iptables.desired(&services));
}

#[test]
fn what_kube_proxy_counts_by_nfacct_is_counted_by_first_rules_that_no_service_changes() {
    let first = |config: &super::super::ServicesConfig, chain: Option<ChainKey>| {
        let services = Services::new(config.clone());
        chain.map(|chain| Iptables::new(&services).desired(&services).chains[&chain][0].to_string())
    };
    let of = |family, drops_invalid| {
        let config = super::super::ServicesConfig { family, drops_invalid, ..packet_table::config("node1").0 };
        [first(&config, counts_invalid(&config)), first(&config, counts_from_loopback(&config))]
    };
    let invalid = Some("-m conntrack --ctstate INVALID -j DROP".to_owned());
    let comment = r#"-m comment --comment "connections to node ports of the loopback""#;
    let bits = packet_table::config("node1").0.masquerade_mark;
    let marked = format!("-m mark --mark {bits:#x}/{bits:#x}");
    let loopback = Some(format!("{comment} {marked} -m conntrack --ctstate DNAT --ctorigdst 127.0.0.0/8"));
    assert_eq!(of(Family::V4, true), [invalid.clone(), loopback.clone()]);
    assert_eq!(of(Family::V4, false), [None, loopback]);
    assert_eq!(of(Family::V6, true), [invalid, None]);

    // They are not written again while Services come and go: their counts would begin anew.
    let mut services = Services::new(packet_table::config("node1").0);
    let mut iptables = Iptables::new(&services);
    let counting = [counts_invalid(services.config()), counts_from_loopback(services.config())].map(Option::unwrap);
    for change in packet_table::changes() {
        iptables.note(&services.apply(&change));
        // A range of pods has everything written: ClusterIPs' rules depend on it.
        let rewrite = iptables.rewrite(&services);
        let is_of_service = matches!(change, Change::Service(..) | Change::Slice(..));
        assert!(!is_of_service || counting.iter().all(|chain| !rewrite.chains.contains_key(chain)), "{change:?}");
    }
}

#[test]
fn one_changed_endpoint_writes_the_chains_of_its_service_alone() {
    let mut services = Services::new(packet_table::config("node1").0);
    let changes = packet_table::changes();
    changes.iter().for_each(|change| drop(services.apply(change)));
    let mut iptables = Iptables::new(&services);
    let fewer = changes.iter().find_map(|change| match change {
        Change::Slice(key, Some(slice)) if slice.endpoints.len() == 3 => {
            let mut slice = slice.clone();
            slice.endpoints.pop();
            Some(Change::Slice(key.clone(), Some(slice)))
        }
        _ => None,
    });
    let plan = services.apply(&fewer.unwrap());
    iptables.note(&plan);
    let rewrite = iptables.rewrite(&services);
    assert!(!rewrite.chains.is_empty() && !rewrite.gone.is_empty());
    assert!(rewrite.chains.keys().all(|key| key.name.starts_with("KUBE-SVC-")), "{}", rewrite.text());
    assert!(rewrite.gone.iter().all(|key| key.name.starts_with("KUBE-SEP-")), "{}", rewrite.text());
}

/// What is written is what is compared with what is there: read back, nothing is left to do.
#[test]
fn the_text_of_all_rules_reads_back_as_the_rules() {
    let rules = rules_of("node2");
    let text = difference(&rules, &Saved::default(), |_, _| false).text();
    let saved = text.lines().map(|line| match line.strip_prefix("-I ").and_then(|rest| rest.split_once(" 1 ")) {
        Some((chain, rule)) => format!("-A {chain} {rule}\n"),
        None => format!("{line}\n"),
    });
    let saved = Saved::parse(&saved.collect::<String>());
    assert_eq!(difference(&rules, &saved, |_, _| false), Rewrite::default());
}
