//! What the cluster has, as zones for the others: the same records that podnet makes of its Services and their endpoints, by the DNS
//! specification of Kubernetes (1.1.0); and the questions that dnsperf asks.

use std::{fmt::Write as _, fs, net::Ipv4Addr, path::Path};

use serde_json::{Value, json};

use crate::{Result, programming};

const HEAD: &str =
    "$TTL 5\n@ SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5\n@ NS ns.dns.cluster.local.\n";

/// Services by number: every second one is headless, so that its endpoints are its addresses.
pub(super) fn service(number: usize) -> Value {
    let mut service = programming::service(number);
    if is_headless(number) {
        service["spec"]["clusterIP"] = json!("None");
        service["spec"]["clusterIPs"] = json!(["None"]);
    }
    service
}

pub(super) fn is_headless(number: usize) -> bool {
    number.is_multiple_of(2) && number > 0
}

pub(super) fn name(number: usize) -> String {
    format!("service-{number:05}.default.svc.cluster.local")
}

pub(super) fn outside(number: usize) -> String {
    format!("host-{number:05}.example.org")
}

/// The addresses of a Service's endpoints.
pub(super) fn endpoints(number: usize) -> Vec<Ipv4Addr> {
    let slice = programming::slice(number, 0);
    let endpoints = slice["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    let addr = |endpoint: &Value| endpoint["addresses"][0].as_str()?.parse::<Ipv4Addr>().ok();
    endpoints.iter().filter_map(addr).collect()
}

/// What a Service's name has as addresses, in order.
pub(super) fn addresses(number: usize) -> Vec<Ipv4Addr> {
    if !is_headless(number) {
        return vec![programming::cluster_ip(number)];
    }
    let mut addrs = endpoints(number);
    addrs.sort_unstable();
    addrs
}

/// An address as a label: what an endpoint without a hostname is called.
pub(super) fn dashed(addr: Ipv4Addr) -> String {
    addr.to_string().replace('.', "-")
}

/// The texts that grow Service by Service.
#[derive(Default)]
struct Texts {
    zone: String,
    reverse: String,
    names: String,
    headless: String,
    ports: String,
    addresses: String,
    missing: String,
}

/// Writes the zones, and the questions.
pub(super) fn write(directory: &Path, services: usize, hosts: usize) -> Result<()> {
    let mut texts = Texts::default();
    writeln!(texts.zone, "{HEAD}ns.dns A 127.0.0.1\ndns-version TXT \"1.1.0\"")?;
    texts.reverse.push_str(HEAD);
    for number in 0..services {
        texts.add(number)?;
    }
    let (mut world, mut questions) = (HEAD.to_owned(), String::new());
    for number in 0..hosts {
        writeln!(world, "host-{number:05} A 192.0.2.{}", number % 250 + 1)?;
        writeln!(questions, "{} A", outside(number))?;
    }
    let Texts { zone, reverse, names, headless, ports, addresses, missing } = texts;
    let files = [
        ("zone", zone),
        ("reverse", reverse),
        ("world", world),
        ("names", names),
        ("headless", headless),
        ("ports", ports),
        ("addresses", addresses),
        ("missing", missing),
        ("outside", questions),
    ];
    for (file, text) in files {
        fs::write(directory.join(file), text)?;
    }
    Ok(())
}

impl Texts {
    fn add(&mut self, number: usize) -> Result<()> {
        let base = format!("service-{number:05}.default.svc");
        let all = endpoints(number);
        for addr in &all {
            writeln!(self.zone, "{}.{base} A {addr}", dashed(*addr))?;
            self.add_reverse(*addr, &format!("{}.{base}.cluster.local.", dashed(*addr)))?;
        }
        for addr in addresses(number) {
            writeln!(self.zone, "{base} A {addr}")?;
        }
        for owner in [base.clone(), format!("_http._tcp.{base}")] {
            if !is_headless(number) {
                writeln!(self.zone, "{owner} SRV 0 100 80 {base}")?;
                continue;
            }
            for addr in &all {
                writeln!(
                    self.zone,
                    "{owner} SRV 0 {} {} {}.{base}",
                    100 / all.len(),
                    programming::PORT,
                    dashed(*addr)
                )?;
            }
        }
        if is_headless(number) {
            writeln!(self.headless, "{} A", name(number))?;
            let [a, b, c, d] = all.first().map(Ipv4Addr::octets).unwrap_or_default();
            writeln!(self.addresses, "{d}.{c}.{b}.{a}.in-addr.arpa PTR")?;
            return Ok(());
        }
        self.add_reverse(programming::cluster_ip(number), &format!("{}.", name(number)))?;
        writeln!(self.names, "{} A", name(number))?;
        writeln!(self.ports, "_http._tcp.{} SRV", name(number))?;
        writeln!(self.missing, "no-{} A", name(number))?;
        Ok(())
    }

    fn add_reverse(&mut self, addr: Ipv4Addr, name: &str) -> Result<()> {
        let [a, b, c, d] = addr.octets();
        writeln!(self.reverse, "{d}.{c}.{b}.{a} PTR {name}")?;
        Ok(())
    }
}
