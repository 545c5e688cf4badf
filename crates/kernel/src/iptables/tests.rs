//! Against the real programs, in both variants and families, in namespaces.

mod affinity;
mod counted;

use podnet_model::{Protocol, ServiceKey};
use podnet_planner::{
    iptables::{ChainName, Hook, Match, Rule, Table, Target, Transport, endpoint_chain, port_chain},
    ruleset::{BackendAddress, FrontendKey},
};

use super::*;
use crate::{
    monitor::{Monitor, Notice},
    netlink::RtSocket,
    nft::NftSocket,
    testing::TestNs,
};

fn each(tag: &str, test: impl Fn(&TestNs, &mut Iptables, Family)) {
    for variant in [Variant::Legacy, Variant::Nft] {
        for family in Family::ALL {
            let ns = TestNs::new(&format!("{tag}-{variant}-{family:?}").to_lowercase());
            let mut iptables = Iptables::new(ns.clone(), family, variant).unwrap();
            test(&ns, &mut iptables, family);
        }
    }
}

fn program(variant: Variant, family: Family, task: &str) -> String {
    let base = if family == Family::V4 { "iptables" } else { "ip6tables" };
    format!("{base}-{variant}{task}")
}

fn svc() -> ChainName {
    port_chain("KUBE-SVC-", &ServiceKey::new("a", "b"), &"c".into(), Protocol::Tcp)
}

/// One rule of every kind that podnet has.
fn rules(family: Family) -> Rules {
    let (addr, range, everywhere) = match family {
        Family::V4 => ("10.0.0.1", "10.0.0.0/16", "0.0.0.0/0"),
        Family::V6 => ("fd00::1", "fd00::/64", "::/0"),
    };
    let at = BackendAddress { addr: addr.parse().unwrap(), port: 80 };
    let service = ServiceKey::new("a", "b");
    let sep = endpoint_chain(&service, &"c".into(), Protocol::Tcp, at);
    let (services, mark): (ChainName, ChainName) = ("KUBE-SERVICES".into(), "KUBE-MARK-MASQ".into());
    let key = FrontendKey { addr: at.addr, protocol: Protocol::Tcp, port: 80 };
    let range = range.parse().unwrap();
    let all = [
        Rule::jump(&svc()).to_frontend(&key, "a/b:c cluster IP"),
        Rule::jump(&svc()).to_frontend(&FrontendKey { protocol: Protocol::Udp, ..key }, "plain"),
        Rule::jump(&svc()).to_frontend(&FrontendKey { protocol: Protocol::Sctp, ..key }, "a-b"),
        Rule::new(Target::DnatAddress(at.addr))
            .to(at.addr.into())
            .of(Transport::Icmp(family))
            .when(Match::EchoRequest(family)),
        Rule::jump(&mark).not_from(range).because("masquerade traffic for a/b:c external destinations"),
        Rule::new(Target::Return).from(range),
        Rule::new(Target::Return).from(everywhere.parse().unwrap()),
        Rule::new(Target::Goto(svc())).when(Match::SourceLocal),
        Rule::new(Target::Return).when(Match::Mark { bits: 0x4000, set: false }),
        Rule::new(Target::FlipMark(0x4000)),
        Rule::new(Target::SetMark(0x4000)),
    ];
    let service_rules = vec![
        Rule::jump(&sep).when(Match::Remembered { list: sep.clone(), seconds: 10800, family }),
        Rule::jump(&sep).because("a/b:c -> x").when(Match::OneIn(3)),
    ];
    let tcp = Transport::Ports(Protocol::Tcp);
    let endpoint = Rule::new(Target::Dnat(at)).of(tcp).when(Match::Remember { list: sep.clone(), family });
    let filter = vec![
        Rule::new(Target::Reject(family)).to_frontend(&key, "a/b:c has no endpoints"),
        Rule::new(Target::Reset).to_frontend(&key, "a/b:c has no endpoints"),
        Rule::new(Target::Drop).when(Match::Untranslated),
        Rule::new(Target::Drop).when(Match::ConnectionInvalid),
        Rule::new(Target::Accept).because("x y").when(Match::ConnectionKnown),
        Rule::new(Target::Accept).when(Match::Mark { bits: 0x4000, set: true }),
    ];
    let marked = Rule::new(Target::GoOn).because("x y").when(Match::Mark { bits: 0x4000, set: true });
    let counting = marked.when(Match::TranslatedFrom(range));
    let chain = |table, name: &ChainName, rules| (ChainKey::new(table, name.clone()), rules);
    Rules {
        chains: [
            chain(Table::Nat, &services, all.into()),
            chain(Table::Nat, &mark, Vec::new()),
            chain(Table::Nat, &"KUBE-PING".into(), Vec::new()),
            chain(Table::Nat, &svc(), service_rules),
            chain(Table::Nat, &sep, vec![endpoint]),
            chain(Table::Nat, &"KUBE-POSTROUTING".into(), vec![counting, Rule::new(Target::Masquerade)]),
            chain(Table::Filter, &services, filter),
        ]
        .into(),
        hooks: vec![
            Hook {
                at: ChainKey::new(Table::Nat, "PREROUTING"),
                rule: Rule::jump(&services).because("kubernetes service portals"),
            },
            Hook {
                at: ChainKey::new(Table::Filter, "FORWARD"),
                rule: Rule::jump(&services).when(Match::ConnectionNew),
            },
        ],
    }
}

#[test]
fn what_was_written_is_told_in_our_words_so_that_nothing_is_written_twice() {
    each("ipt-same", |_, iptables, family| {
        let wanted = rules(family);
        let written = iptables.put(&wanted).unwrap();
        assert_eq!(written.chains.len(), wanted.chains.len());
        assert_eq!(iptables.known, HashMap::new(), "{:#?}", iptables.saved());
        // An agent that starts again.
        iptables.known.clear();
        assert_eq!(iptables.put(&wanted).unwrap(), Rewrite::default());
    });
}

#[test]
fn a_change_writes_its_chains_alone_and_removal_leaves_other_peoples_rules() {
    each("ipt-others", |ns, iptables, family| {
        let tool = program(iptables.variant(), family, "");
        for line in
            ["-t nat -N OTHERS", "-t nat -A PREROUTING -j OTHERS", "-t nat -A OTHERS -j RETURN", "-A FORWARD -j ACCEPT"]
        {
            ns.command(&format!("{tool} {line}"));
        }
        // As kube-proxy has it.
        ns.command(&format!("{tool} -N KUBE-FORWARD"));
        let kube_proxys = iptables.saved().unwrap();
        iptables.remove().unwrap();
        assert_eq!(iptables.saved().unwrap(), kube_proxys);
        ns.command(&format!("{tool} -X KUBE-FORWARD"));
        let before = iptables.saved().unwrap();
        let mut wanted = rules(family);
        iptables.put(&wanted).unwrap();
        wanted.chains.insert(ChainKey::new(Table::Nat, svc()), Vec::new());
        let change = iptables.put(&wanted).unwrap();
        assert_eq!(change.chains.keys().map(|key| key.name.clone()).collect::<Vec<_>>(), [svc()]);
        assert!(change.gone.is_empty() && change.hooks.is_empty());
        iptables.remove().unwrap();
        assert_eq!(iptables.saved().unwrap(), before);
        iptables.remove().unwrap();
    });
}

#[test]
fn what_others_damaged_is_mended_and_nothing_else_is_written() {
    each("ipt-mend", |ns, iptables, family| {
        let wanted = rules(family);
        iptables.put(&wanted).unwrap();
        let right = iptables.saved().unwrap();
        let fingerprint = iptables.fingerprint().unwrap();
        assert_eq!(fingerprint.is_some(), iptables.variant() == Variant::Legacy);
        let tool = program(iptables.variant(), family, "");
        ns.command(&format!("{tool} -t nat -D PREROUTING 1"));
        ns.command(&format!("{tool} -t nat -F KUBE-POSTROUTING"));
        if fingerprint.is_some() {
            assert_ne!(iptables.fingerprint().unwrap(), fingerprint);
        }
        let mended = iptables.put(&wanted).unwrap();
        assert_eq!((mended.chains.len(), mended.hooks.len()), (1, 1));
        assert_eq!(iptables.saved().unwrap(), right);
        assert_eq!(iptables.fingerprint().unwrap(), fingerprint);
        // A rule that leads to the same chain for a few packets alone.
        ns.command(&format!("{tool} -R FORWARD 1 -i lo -j KUBE-SERVICES"));
        let mended = iptables.put(&wanted).unwrap();
        assert_eq!((mended.chains.len(), mended.hooks.len(), mended.unhooked.len()), (0, 1, 1));
        assert_eq!(iptables.saved().unwrap(), right);
    });
}

#[test]
fn a_refused_line_is_named_and_its_table_is_as_it_was() {
    each("ipt-refused", |_, iptables, family| {
        iptables.put(&rules(family)).unwrap();
        let before = iptables.saved().unwrap();
        let mut wrong = Rewrite::default();
        let nowhere = Rule::jump(&"KUBE-NOWHERE".into());
        wrong.chains.insert(ChainKey::new(Table::Nat, svc()), vec![nowhere]);
        let error = iptables.rewrite(&wrong).unwrap_err().to_string();
        assert!(error.contains("KUBE-NOWHERE") || error.contains("`COMMIT`"), "{error}");
        assert_eq!(iptables.saved().unwrap(), before);
    });
}

/// Each table is a transaction of its own: whoever writes them may be killed between two.
#[test]
fn whoever_begins_anew_after_one_of_the_tables_ends_where_a_fresh_start_does() {
    each("ipt-half", |ns, iptables, family| {
        let wanted = rules(family);
        let whole = iptables.put(&wanted).unwrap();
        let right = iptables.saved().unwrap();
        for table in [Table::Filter, Table::Nat] {
            iptables.rewrite(&removal(&right)).unwrap();
            let chains = whole.chains.iter().filter(|(key, _)| key.table == table);
            let half = Rewrite {
                chains: chains.map(|(key, rules)| (key.clone(), rules.clone())).collect(),
                hooks: whole.hooks.iter().filter(|hook| hook.at.table == table).cloned().collect(),
                ..Rewrite::default()
            };
            iptables.rewrite(&half).unwrap();
            assert_ne!(iptables.saved().unwrap(), right);
            let mut anew = Iptables::new((**ns).clone(), family, iptables.variant()).unwrap();
            let rest = anew.put(&wanted).unwrap();
            assert!(rest.chains.keys().all(|key| key.table != table), "{rest:?}");
            assert_eq!(anew.saved().unwrap(), right);
        }
    });
}

#[test]
fn rules_go_where_the_kubelets_hint_is() {
    for variant in [Variant::Legacy, Variant::Nft] {
        let ns = TestNs::new(&format!("ipt-hint-{variant}"));
        assert_eq!(Variant::of_host(&ns).unwrap(), Variant::Nft);
        ns.command(&format!("{} -t mangle -N KUBE-IPTABLES-HINT", program(variant, Family::V6, "")));
        assert_eq!(Variant::of_host(&ns).unwrap(), variant);
    }
}

#[test]
fn what_nf_tables_tells_of_is_known_to_be_ones_own_or_somebody_elses() {
    let ns = TestNs::new("ipt-own");
    let mut iptables = Iptables::new(ns.clone(), Family::V4, Variant::Nft).unwrap();
    let (route, nft) = (RtSocket::open_in(&ns).unwrap(), NftSocket::open_in(&ns).unwrap());
    let mut monitor = Monitor::open_in(&ns, &route, &nft, &[]).unwrap();
    let mut told = || {
        let notices = monitor.wait().unwrap();
        let rules = |notice| if let Notice::Rules(transaction) = notice { Some(transaction) } else { None };
        notices.into_iter().filter_map(rules).collect::<Vec<_>>()
    };
    iptables.put(&rules(Family::V4)).unwrap();
    let own = told();
    assert!(!own.is_empty() && own.iter().all(|transaction| iptables.is_own(transaction)), "{own:?}");
    // In a namespace of its own a process has another number than the one that is told.
    iptables.writers.iter_mut().for_each(|writer| writer.process = u32::MAX);
    assert!(own.iter().all(|transaction| iptables.is_own(transaction)), "{own:?}, {:?}", iptables.writers);
    ns.command("iptables-nft -t nat -F KUBE-POSTROUTING");
    let others = told();
    assert!(!others.is_empty() && !others.iter().any(|transaction| iptables.is_own(transaction)), "{others:?}");
}
