//! A conformance table for each plugin: Corefile, question, client ⇒ answer, a row for everything that its documentation says it does.
//!
//! `conformance/PLUGIN.txt` has the tables; `conformance/README.txt` says how they are read. What a row cannot show since it needs
//! sockets (`tls`, `timeouts`, `bind`) is shown as it is understood here and at work in `agent::dns::tests`.

mod table;
mod upstream;
mod walk;

use std::fmt::Write as _;

use table::Table;

use crate::{
    Config, Environment,
    chain::{NOT_SERVED, PLUGINS},
    corefile::Fault,
};

macro_rules! tables {
    ($($plugin:ident)*) => {
        [$((stringify!($plugin), include_str!(concat!("conformance/", stringify!($plugin), ".txt"))),)*]
    };
}

const TABLES: [(&str, &str); 51] = tables! {
    acl any auto autopath bind bufsize cache cancel chaos cookies debug dns64 dnssec erratic errors etcd file forward grpc
    grpc_server header health hosts https import k8s_external kubernetes loadbalance local log loop metadata minimal
    multisocket nsid prometheus ready reload rewrite root rrl searchpath secondary sign template timeouts tls transfer tsig
    view whoami
};

fn tables() -> impl Iterator<Item = Table> {
    TABLES.into_iter().map(|(plugin, text)| Table::read(plugin, text))
}

#[test]
fn every_row_of_every_plugin_s_table_holds() {
    let mut wrong = String::new();
    let mut rows = 0;
    for table in tables() {
        for case in &table.cases {
            rows += case.rows.len();
            for fault in walk::faults(case) {
                let _ = writeln!(wrong, "{} == {}\n{fault}", table.plugin, case.title);
            }
        }
    }
    assert!(wrong.is_empty(), "of {rows} rows these do not hold:\n{wrong}");
}

#[test]
fn every_plugin_has_a_table() {
    for plugin in PLUGINS {
        assert!(TABLES.iter().any(|(table, _)| *table == plugin), "{plugin} has no table");
    }
}

/// The options that the server knows of a plugin, as it tells them to who uses another one.
fn known(table: &Table) -> Vec<&'static str> {
    let corefile = format!(". {{\n{} {} {{\nno-such-option\n}}\n}}\n", table.plugin, table.arguments);
    let checked = Config::check("Corefile", &corefile, &Environment::EMPTY);
    let of_option = |fault| if let Fault::UnknownOption { known, .. } = fault { Some(known) } else { None };
    checked.errors.into_iter().find_map(|error| of_option(error.fault)).unwrap_or_default()
}

#[test]
fn every_option_that_a_plugin_knows_stands_in_its_table() {
    let mut missing = String::new();
    for table in tables() {
        let known = known(&table);
        let mut wanted = table.options.clone();
        if !known.is_empty() {
            wanted = known.iter().map(|option| option.split(' ').next().unwrap_or(option).to_owned()).collect();
        }
        // Of `hosts` an entry is told as an option, too.
        wanted.retain(|option| !option.starts_with('<'));
        for option in wanted {
            let name = format!("{}/{option}", table.plugin);
            if !table.uses(&option) && !NOT_SERVED.contains(&name.as_str()) {
                let _ = writeln!(missing, "{name}");
            }
        }
    }
    assert!(missing.is_empty(), "no row has\n{missing}");
}
