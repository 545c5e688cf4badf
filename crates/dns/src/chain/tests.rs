use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use super::{Config, Environment, Plugin};
use crate::{corefile::Fault, name::Name};

mod made;
mod order;
mod rewriting;
mod secrets;
mod tables;
mod upstreams;

fn file(path: &str) -> io::Result<String> {
    match path {
        "/etc/resolv.conf" | "resolv.conf" => {
            Ok("nameserver 192.0.2.53\nsearch a.example.org example.org\n".to_owned())
        }
        "/keys" => {
            Ok("# keys\nkey \"a.key.\" { algorithm hmac-sha512; secret \"c2VjcmV0\"; };\nkey b { secret \"//8=\"; };"
                .to_owned())
        }
        "w" => Ok("# weights\nexample.org\n10.0.0.1 3 # more\n\n10.0.0.2 1\n".to_owned()),
        "w.bad" => Ok("example.org\n10.0.0.1 0\n".to_owned()),
        "Kp256.key" => Ok(include_str!("../../testdata/p256.key").to_owned()),
        "Kp256.private" => Ok(include_str!("../../testdata/p256.private").to_owned()),
        "Kzsk.key" | "Kbad.key" => Ok(include_str!("../../testdata/ed25519-zsk.key").to_owned()),
        "Kzsk.private" => Ok(include_str!("../../testdata/ed25519-zsk.private").to_owned()),
        "Kbad.private" => Ok(include_str!("../../testdata/p256.private").to_owned()),
        "/keys.bad" => Ok("key a { secret \"not base64\"; };".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn variable(name: &str) -> Option<String> {
    (name == "HOSTNAME").then(|| "here".to_owned())
}

/// The addresses of hosts; those of `asked.example` are those of the servers that are asked.
fn resolve(servers: &[SocketAddr], name: &Name) -> io::Result<Vec<IpAddr>> {
    let (v4, v6) = (IpAddr::from([192, 0, 2, 7]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]));
    match name.to_string().as_str() {
        "one.example." => Ok(vec![v4]),
        "two.example." => Ok(vec![v4, v6]),
        "asked.example." => Ok(servers.iter().map(SocketAddr::ip).collect()),
        "none.example." => Ok(Vec::new()),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Reads a Corefile; what is only not served yet is no error here.
pub(super) fn check(text: &str) -> Result<Config, String> {
    let interface = |name: &str| match name {
        "eth0" => Ok(["10.0.0.1", "10.0.0.2", "fe80::1"].map(|address| address.parse().unwrap()).to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let environment = Environment {
        variable: &variable,
        file: &file,
        interface: &interface,
        resolve: &resolve,
        ..Environment::EMPTY
    };
    let checked = Config::check("Corefile", text, &environment);
    let errors = checked.errors.into_iter().filter(|error| !matches!(error.fault, Fault::NotServed { .. }));
    let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
    if errors.is_empty() { Ok(checked.config) } else { Err(errors.join("\n")) }
}

/// The plugins of a server block for `example.org` with these lines.
pub(super) fn plugins(lines: &str) -> Result<Vec<Plugin>, String> {
    check(&format!("example.org {{\n{lines}\n}}\n")).map(|mut config| config.blocks.remove(0).plugins)
}

macro_rules! options {
    ($kind:ident, $text:expr) => {
        match super::plugin($text) {
            crate::chain::Plugin::$kind(options) => options,
            other => panic!("{other:?}"),
        }
    };
}
use options;

/// That these texts are refused with these words, first of all.
pub(super) fn refused(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let errors = plugins(text).map(|plugins| format!("{plugins:?}")).expect_err(text);
        let first = errors.lines().next().unwrap_or_default();
        assert!(first.starts_with(&format!("Corefile:{expected}")), "{text:?}\n   says: {first}\n wanted: {expected}");
    }
}

/// The one plugin of such a block.
pub(super) fn plugin(lines: &str) -> Plugin {
    let plugins = plugins(lines);
    match plugins.as_deref() {
        Ok([plugin]) => plugin.clone(),
        other => panic!("{lines}: {other:?}"),
    }
}

#[test]
fn plugins_act_in_their_own_order_and_several_of_one_kind_in_the_files() {
    let plugins = plugins(
        "whoami\nforward b.example.org 192.0.2.1\nerrors\nacl {\n block\n}\nforward . 192.0.2.2\nreload\nroot /etc",
    );
    let told: Vec<String> = plugins
        .unwrap()
        .iter()
        .map(|plugin| match plugin {
            Plugin::Forward(options) => format!("forward {}", options.from),
            other => format!("{other:?}").chars().take_while(|c| c.is_alphanumeric()).collect(),
        })
        .collect();
    assert_eq!(told, ["Root", "Reload", "Errors", "Acl", "forward b.example.org.", "forward .", "Whoami"]);
}

#[test]
fn all_that_is_wrong_is_told_in_the_order_of_the_text() {
    let text =
        ". {\n whoami x\n kubernetes c.local {\n  pods maybe\n  zoom\n  ttl 5000\n }\n bogus\n errors\n errors\n}\n";
    let checked = Config::check("Corefile", text, &Environment::EMPTY);
    let places: Vec<u32> = checked.errors.iter().map(|error| error.place.line).collect();
    assert_eq!(places, [2, 4, 5, 6, 8, 10]);
    assert!(checked.config.blocks[0].errors());
}

#[test]
fn what_is_not_served_yet_is_refused_with_its_place_and_read_in_full() {
    let refused = |text: &str| Config::load("Corefile", text, &Environment::EMPTY).unwrap_err().to_string();
    assert_eq!(
        refused("https3://. {\n whoami\n}"),
        "Corefile:1:1: \"https3://\" is understood, but not served by this server yet"
    );
    let both = "quic://. {\n kubernetes cluster.local {\n  ttl never\n }\n}";
    let both = Config::check("Corefile", both, &Environment::EMPTY).errors;
    assert_eq!(both.len(), 2, "{both:?}");
}

#[test]
fn multicluster_without_zones_has_no_effect_and_that_is_said() {
    let config = check(". {\n kubernetes cluster.local {\n  multicluster\n }\n}").unwrap();
    assert!(config.warnings.iter().any(|warning| warning.contains("multicluster without zones")), "{config:?}");
    assert!(config.kubernetes().all(|options| options.multicluster.is_empty()));
}

#[test]
fn what_is_accepted_without_effect_is_said() {
    let config = check(". {\n prometheus {\n  runtime_metrics\n }\n log . {\n  class error\n }\n}").unwrap();
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings.iter().any(|warning| warning.starts_with("Corefile:3:3: \"prometheus runtime_metrics\"")));
}

#[test]
fn blocks_meet_where_they_listen_on_one_address() {
    let two = |one: &str, other: &str| check(&format!(". {{\n {one}\n whoami\n}}\n. {{\n {other}\n whoami\n}}\n"));
    let config = two("bind 10.0.0.1", "bind 127.0.0.1\n timeouts {\n  idle 3s\n }").unwrap();
    let told: Vec<String> = config.listeners().iter().map(|listener| listener.port.to_string()).collect();
    assert_eq!(told, ["dns://10.0.0.1:53", "dns://127.0.0.1:53"]);
    assert_eq!(config.listeners()[1].timeouts.idle.unwrap().as_secs(), 3);
    assert!(two("bind 10.0.0.1", "bind eth0").unwrap_err().contains("already served"));
    two("bind 10.0.0.1", "bind eth0 {\n except 10.0.0.1\n}").unwrap();
}

#[test]
fn blocks_at_one_place_agree_on_whom_they_let_in() {
    let of = |zone: &str, tls: &str| format!("tls://{zone}:853 {{\n tls c k {tls}\n whoami\n}}\n");
    let open = of("a", "ca");
    for (other, allowed) in [
        (of("b", ""), true),
        (of("b", "ca {\n client_auth require_and_verify\n }"), false),
        (of("b", "ca {\n client_auth request\n }"), false),
        (of("b", "ca {\n client_auth require_and_verify\n }").replace(":853", ":854"), true),
        (of("b", "ca {\n client_auth require_and_verify\n }").replace("whoami", "bind 127.0.0.1"), true),
        ("tls://b:853 {\n whoami\n}\n".to_owned(), true),
    ] {
        let loaded = check(&(open.clone() + &other));
        assert_eq!(loaded.is_ok(), allowed, "{other}: {loaded:?}");
        if let Err(error) = loaded {
            assert!(error.starts_with("Corefile:5:1: ") && error.contains("block at Corefile:1:1"), "{error}");
        }
    }
    // Of another authority, where it counts.
    let verifies = |zone: &str, ca: &str| of(zone, &format!("{ca} {{\n client_auth verify_if_given\n }}"));
    assert!(check(&(verifies("a", "one") + &verifies("b", "other"))).is_err());
    assert!(check(&(verifies("a", "one") + &verifies("b", "one"))).unwrap().warnings.is_empty());
}

#[test]
fn what_another_block_decided_for_a_place_is_said() {
    let block = |zone: &str, idle: u8| {
        format!("{zone} {{\n timeouts {{\n  idle {idle}s\n }}\n multisocket {idle}\n whoami\n}}\n")
    };
    assert!(check(&(block("a", 3) + &block("b", 3))).unwrap().warnings.is_empty());
    let warnings = check(&(block("a", 3) + &block("b", 4))).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.starts_with("Corefile:8:1: timeouts of ")), "{warnings:?}");
    let tls = |zone: &str, file: &str| format!("tls://{zone} {{\n tls {file} k\n}}\n");
    let warnings = check(&(tls("a", "one") + &tls("b", "other"))).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("tls of "), "{warnings:?}");
}

#[test]
fn files_are_below_the_root() {
    let config = check(". {\n file db.example.org example.org\n root /zones/\n}").unwrap();
    let Some(Plugin::File(options)) = config.blocks[0].plugins.get(1) else { panic!("{config:?}") };
    assert_eq!(options.path, "/zones/db.example.org");
}
