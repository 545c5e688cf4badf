//! That the harness sees what is wrong: rows that say something else, rules that do something else, and no rules at all.

use std::collections::{BTreeMap, BTreeSet};

use podnet_model::{Protocol, proxy};
use podnet_planner::{
    ruleset::{BackendAddress, RuleSet, walk::Direction},
    services::packet_table::{self, Fate, NODES, Row},
};

use crate::{
    counted::Traced,
    judge::{self, OFTEN},
    lab::{BEYOND, Lab},
    modes::{Mode, Nftables, Nothing},
};

/// What a row is made to say instead; none where the change would be none.
type Change = fn(&Row) -> Option<Fate>;

#[test]
fn a_row_that_says_something_else_fails() {
    let lab = Lab::new("table-changed");
    let changes: [(&str, Change); 4] = [
        ("other sources", |row| {
            // What the node itself sends has an address of the node as its source in any case.
            let arrivals = arrivals(row).filter(|_| row.direction != Direction::FromHost)?;
            Some(Fate::Arrives(arrivals.into_iter().map(|(at, masqueraded)| (at, !masqueraded)).collect()))
        }),
        ("a backend less", |row| {
            let mut arrivals = arrivals(row)?;
            arrivals.pop_first();
            (!arrivals.is_empty()).then_some(Fate::Arrives(arrivals))
        }),
        ("a backend more", |row| {
            let mut arrivals = arrivals(row)?;
            arrivals.insert(BackendAddress { addr: packet_table::address("client1")?, port: 1 }, false);
            Some(Fate::Arrives(arrivals))
        }),
        ("refused or not", |row| match &row.fate {
            Fate::Arrives(_) => Some(Fate::Rejected),
            Fate::Rejected => {
                let to = BackendAddress { addr: row.packet.dst, port: row.packet.dport };
                Some(Fate::Arrives(BTreeMap::from([(to, false)])))
            }
            Fate::Answered => Some(Fate::Dropped),
            Fate::Dropped => None,
        }),
    ];
    for (what, change) in changes {
        // Whoever stays with one of several backends meets none of the others.
        let changed = |row: Row| if row.sticks { None } else { Some(Row { fate: change(&row)?, ..row }) };
        let rows: Vec<Row> = packet_table::rows().into_iter().filter_map(changed).collect();
        assert!(rows.len() > 10, "{what}: {} rows", rows.len());
        assert_eq!(failing(&lab, &Nftables::default(), &rows), lines(&rows), "{what}");
    }
}

#[test]
fn without_rules_and_with_wrong_ones_the_rows_fail_that_need_them() {
    let lab = Lab::new("table-broken");
    let mut rows = packet_table::rows();
    // A ping that nobody answers would be waited for long.
    rows.retain(|row| row.fate != Fate::Answered || Some(row.packet.dst) == packet_table::address("web2"));
    let needing = |need: &dyn Fn(&Row) -> bool| {
        let rows: Vec<Row> = rows.iter().filter(|row| need(row)).cloned().collect();
        lines(&rows)
    };
    let untouched = |row: &Row| {
        let to = BackendAddress { addr: row.packet.dst, port: row.packet.dport };
        let is_somebodys = to.addr.is_loopback() || lab.place_of(to.addr).is_some_and(|(name, _)| name != BEYOND);
        match &row.fate {
            // A ping that is passed on has no backend.
            Fate::Arrives(_) if row.packet.is_echo => true,
            Fate::Arrives(at) => *at == BTreeMap::from([(to, false)]),
            Fate::Answered => is_somebodys,
            // There somebody listens for connections alone.
            Fate::Rejected => to.addr.is_loopback() && row.packet.protocol != Protocol::Tcp,
            Fate::Dropped => false,
        }
    };
    assert_eq!(failing(&lab, &Nothing, &rows), needing(&|row| !untouched(row)));

    let no_masquerading: fn(&mut RuleSet) = |rules| {
        rules.chains.get_mut("postrouting").expect("there is one").rules.clear();
    };
    let masqueraded = |row: &Row| {
        row.direction != Direction::FromHost && arrivals(row).is_some_and(|arrivals| arrivals.values().any(|m| *m))
    };
    let mode = Nftables { damage: Some(no_masquerading) };
    // A pod that meets itself, or its own node, would wait for an answer for long.
    let others = |row: &Row| {
        let meets = |arrivals: BTreeMap<BackendAddress, bool>| arrivals.keys().any(|at| at.addr == row.packet.src);
        let is_node = row.packet.src.is_loopback()
            || NODES.iter().any(|node| packet_table::address(node) == Some(row.packet.src));
        !is_node && !arrivals(row).is_some_and(meets)
    };
    let rows_of_others: Vec<Row> = rows.iter().filter(|row| others(row)).cloned().collect();
    assert_eq!(failing(&lab, &mode, &rows_of_others), needing(&|row| masqueraded(row) && others(row)));

    let a_slot_less: fn(&mut RuleSet) = |rules| {
        let web = packet_table::address("web");
        for map in rules.backend_maps.values_mut() {
            map.elements.retain(|key, _| Some(key.frontend.addr) != web || key.frontend.port != 443 || key.slot != 1);
        }
    };
    let to_web = |row: &Row| Some(row.packet.dst) == packet_table::address("web") && row.packet.dport == 443;
    let mode = Nftables { damage: Some(a_slot_less) };
    assert_eq!(failing(&lab, &mode, &rows), needing(&to_web));
}

#[test]
fn a_trace_of_another_mode_differs_from_what_is_counted() {
    let lab = Lab::new("table-traced");
    let mut rows = packet_table::rows();
    // A ping of a ClusterIP is answered by the node itself, or led away like all else.
    let is_answered = |row: &Row| arrivals(row).is_some() || row.fate == Fate::Answered;
    rows.retain(|row| row.node == "node1" && row.direction == Direction::FromPod && is_answered(row));
    let to = |names: &[&str]| -> Vec<Row> {
        let addrs: Vec<_> = names.iter().map(|name| packet_table::address(name)).collect();
        let rows: Vec<Row> = rows.iter().filter(|row| addrs.contains(&Some(row.packet.dst))).cloned().collect();
        assert!(rows.len() > 1, "rows to {names:?}");
        rows
    };
    let differing = |traced_as: proxy::Mode, rows: &[Row]| {
        let (mode, traced) = (Nftables::default(), Traced::new(traced_as));
        judge::on_each_node(&lab, &mode, rows, |own| traced.differences(&lab, &mode, own)).len()
    };
    let (services, pods) = (to(&["web", "dns", "alone"]), to(&["web1", "web2"]));
    assert_eq!(differing(proxy::Mode::Nftables, &services), 0);
    // There a ClusterIP is led away from the node, by a device that no packet passes here.
    assert_eq!(differing(proxy::Mode::Userspace, &services), services.len());
    assert_eq!(differing(proxy::Mode::Userspace, &pods), 0);
}

fn failing(lab: &Lab, mode: &dyn Mode, rows: &[Row]) -> BTreeSet<usize> {
    judge::failures(lab, mode, rows, OFTEN).into_iter().map(|failure| failure.line).collect()
}

fn lines(rows: &[Row]) -> BTreeSet<usize> {
    rows.iter().map(|row| row.line).collect()
}

/// The backends that something comes to; of pings that are passed on nobody is one.
fn arrivals(row: &Row) -> Option<BTreeMap<BackendAddress, bool>> {
    match &row.fate {
        Fate::Arrives(arrivals) if !row.packet.is_echo => Some(arrivals.clone()),
        Fate::Arrives(_) | Fate::Rejected | Fate::Dropped | Fate::Answered => None,
    }
}
