//! The document, field by field.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    ConntrackConfig, Fault, IpvsConfig, Mode, NodePortAddresses, ProxyConfig, RulesConfig, SCHEDULERS, lenient,
    section::{Given, Section},
    told_at, unused,
};
use crate::{Dual, Family};

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";
const RANGE: &str = "a range, for example 10.244.0.0/16 or fd00::/64";
/// The highest number of a bit, and what `i32` holds.
const BITS: std::ops::RangeInclusive<i64> = 0..=31;
const NATURAL: std::ops::RangeInclusive<i64> = 0..=i32::MAX as i64;

pub(super) fn parse(text: &str) -> Result<ProxyConfig, Fault> {
    let (document, twice) = lenient::read(text).map_err(|error| Fault {
        field: "the document".to_owned(),
        value: first_line(text, error.location().map_or(1, |place| place.line())),
        allowed: format!("YAML: {error}"),
    })?;
    let given = Given::default();
    let mut top = Section::whole(&document, &given)?;
    exactly(&mut top, "apiVersion", API_VERSION)?;
    exactly(&mut top, "kind", KIND)?;
    let config = fields(&mut top)?;
    top.end();
    Ok(ProxyConfig { unused: unused::of(given, twice), ..config })
}

fn fields(top: &mut Section<'_>) -> Result<ProxyConfig, Fault> {
    let default = ProxyConfig::default();
    top.flags("featureGates")?;
    client_connection(top.section("clientConnection")?)?;
    // Nothing of it applies, and its fields differ between versions.
    top.anything("logging");
    top.text("hostnameOverride")?;
    let bound = top.read("bindAddress", "an IP address", |text| text.parse::<IpAddr>().ok())?;
    let (healthz, metrics) = told_at(bound.map_or(Family::V4, |addr| Family::of(&addr.to_canonical())));
    let healthz = endpoint(top, "healthzBindAddress", healthz)?;
    let metrics = endpoint(top, "metricsBindAddress", metrics)?;
    top.flag("bindAddressHardFail")?;
    top.flag("enableProfiling")?;
    top.text("showHiddenMetricsForVersion")?;
    let mode = mode(top)?;
    let (iptables, localhost_node_ports) = iptables(top.section("iptables")?, &default.iptables)?;
    let ipvs = ipvs(top.section("ipvs")?, &default.ipvs)?;
    let mut section = top.section("nftables")?;
    let nftables = rules(&mut section, &default.nftables)?;
    section.end();
    top.anything("winkernel");
    detect_local(top)?;
    let cluster_cidrs = cluster_cidrs(top)?;
    let node_port_addresses = node_port_addresses(top)?;
    top.number("oomScoreAdj", -1000..=1000)?;
    let conntrack = conntrack(top.section("conntrack")?, &default.conntrack)?;
    top.duration("configSyncPeriod")?;
    port_range(top)?;
    top.flag("windowsRunAsService")?;
    Ok(ProxyConfig {
        mode,
        cluster_cidrs,
        node_port_addresses,
        iptables,
        localhost_node_ports,
        nftables,
        ipvs,
        conntrack,
        healthz,
        metrics,
        unused: Vec::new(),
    })
}

fn exactly(top: &mut Section<'_>, name: &'static str, wanted: &str) -> Result<(), Fault> {
    match top.text(name)? {
        Some(text) if text == wanted => Ok(()),
        other => Err(top.fault(name, other.unwrap_or_default(), wanted)),
    }
}

fn mode(top: &mut Section<'_>) -> Result<Option<Mode>, Fault> {
    let names = Mode::ALL.map(Mode::name).join(", ");
    let allowed = format!("empty (the best that the kernel has) or one of {names}");
    top.read("mode", &allowed, |text| Mode::ALL.into_iter().find(|mode| mode.name() == text))
}

/// `ADDRESS:PORT`, or an address alone.
fn endpoint(top: &mut Section<'_>, name: &'static str, default: SocketAddr) -> Result<SocketAddr, Fault> {
    let allowed = format!("ADDRESS:PORT, for example {default}");
    let read = top.read(name, &allowed, |text| {
        let alone = || text.parse().ok().map(|address: IpAddr| SocketAddr::new(address, default.port()));
        text.parse().ok().or_else(alone).filter(|endpoint| endpoint.port() != 0)
    })?;
    Ok(read.unwrap_or(default))
}

fn client_connection(mut section: Section<'_>) -> Result<(), Fault> {
    section.text("kubeconfig")?;
    section.text("acceptContentTypes")?;
    section.text("contentType")?;
    section.anything("qps");
    section.number("burst", NATURAL)?;
    section.end();
    Ok(())
}

fn iptables(mut section: Section<'_>, default: &RulesConfig) -> Result<(RulesConfig, bool), Fault> {
    let rules = rules(&mut section, default)?;
    let localhost_node_ports = section.flag("localhostNodePorts")?.unwrap_or(true);
    section.end();
    Ok((rules, localhost_node_ports))
}

fn rules(section: &mut Section<'_>, default: &RulesConfig) -> Result<RulesConfig, Fault> {
    let bit = section.number("masqueradeBit", BITS)?.and_then(|bit| u8::try_from(bit).ok());
    let masquerade_all = section.flag("masqueradeAll")?.unwrap_or(false);
    let (sync_period, min_sync_period) = periods(section, default.sync_period, default.min_sync_period)?;
    let masquerade_bit = bit.unwrap_or(default.masquerade_bit);
    Ok(RulesConfig { masquerade_bit, masquerade_all, sync_period, min_sync_period })
}

fn periods(section: &mut Section<'_>, all: Duration, min: Duration) -> Result<(Duration, Duration), Fault> {
    let all = given(section.duration("syncPeriod")?).unwrap_or(all);
    let asked = given(section.duration("minSyncPeriod")?);
    if let Some(asked) = asked.filter(|asked| *asked > all) {
        let value = format!("{asked:?}");
        return Err(section.fault("minSyncPeriod", &value, &format!("no longer than syncPeriod, which is {all:?}")));
    }
    Ok((all, asked.unwrap_or(min).min(all)))
}

fn ipvs(mut section: Section<'_>, default: &IpvsConfig) -> Result<IpvsConfig, Fault> {
    let known = |text: &str| SCHEDULERS.into_iter().find(|scheduler| *scheduler == text);
    let scheduler = section.read("scheduler", &format!("one of {}", SCHEDULERS.join(", ")), known)?;
    let strict_arp = section.flag("strictARP")?.unwrap_or(false);
    let exclude_cidrs = ranges(section.texts("excludeCIDRs")?)?;
    let tcp_timeout = given(section.duration("tcpTimeout")?);
    let tcp_fin_timeout = given(section.duration("tcpFinTimeout")?);
    let udp_timeout = given(section.duration("udpTimeout")?);
    let (sync_period, min_sync_period) = periods(&mut section, default.sync_period, default.min_sync_period)?;
    section.end();
    let scheduler = scheduler.unwrap_or(default.scheduler);
    Ok(IpvsConfig {
        scheduler,
        strict_arp,
        exclude_cidrs,
        tcp_timeout,
        tcp_fin_timeout,
        udp_timeout,
        sync_period,
        min_sync_period,
    })
}

fn conntrack(mut section: Section<'_>, default: &ConntrackConfig) -> Result<ConntrackConfig, Fault> {
    // Where these are zero the kernel's value stands; where they are absent kube-proxy's default counts.
    let count = |asked: Option<i64>, default| match asked {
        None => default,
        Some(number) => u32::try_from(number).ok().filter(|number| *number != 0),
    };
    let timeout = |asked: Option<Duration>, default| asked.map_or(default, |asked| given(Some(asked)));
    let max_per_core = count(section.number("maxPerCore", NATURAL)?, default.max_per_core);
    let min = count(section.number("min", NATURAL)?, default.min);
    let tcp_established_timeout = timeout(section.duration("tcpEstablishedTimeout")?, default.tcp_established_timeout);
    let tcp_close_wait_timeout = timeout(section.duration("tcpCloseWaitTimeout")?, default.tcp_close_wait_timeout);
    let tcp_be_liberal = section.flag("tcpBeLiberal")?.unwrap_or(false);
    let udp_timeout = given(section.duration("udpTimeout")?);
    let udp_stream_timeout = given(section.duration("udpStreamTimeout")?);
    section.end();
    Ok(ConntrackConfig {
        max_per_core,
        min,
        tcp_established_timeout,
        tcp_close_wait_timeout,
        tcp_be_liberal,
        udp_timeout,
        udp_stream_timeout,
    })
}

fn detect_local(top: &mut Section<'_>) -> Result<(), Fault> {
    const MODES: [&str; 4] = ["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"];
    let allowed = format!("empty or one of {}", MODES.join(", "));
    let mode = top.read("detectLocalMode", &allowed, |text| MODES.into_iter().find(|mode| *mode == text))?;
    let mut section = top.section("detectLocal")?;
    let bridge = section.text("bridgeInterface")?;
    let prefix = section.text("interfaceNamePrefix")?;
    for (needed, name, text) in
        [("BridgeInterface", "bridgeInterface", bridge), ("InterfaceNamePrefix", "interfaceNamePrefix", prefix)]
    {
        if mode == Some(needed) && text.is_none() {
            let allowed = format!("an interface's name or its beginning, as detectLocalMode is {needed}");
            return Err(section.fault(name, "", &allowed));
        }
    }
    section.end();
    Ok(())
}

/// One range, or one of each family.
fn cluster_cidrs(top: &mut Section<'_>) -> Result<Dual<Option<IpNet>>, Fault> {
    let allowed = "a range, or one of IPv4 and one of IPv6 separated by a comma";
    let read = top.read("clusterCIDR", allowed, |text| {
        let mut ranges = Dual::<Option<IpNet>>::default();
        for part in text.split(',') {
            let range: IpNet = part.trim().parse().ok()?;
            if ranges[Family::of_net(&range)].replace(range.trunc()).is_some() {
                return None;
            }
        }
        Some(ranges)
    })?;
    Ok(read.unwrap_or_default())
}

fn node_port_addresses(top: &mut Section<'_>) -> Result<NodePortAddresses, Fault> {
    let texts = top.texts("nodePortAddresses")?;
    match &texts[..] {
        [] => Ok(NodePortAddresses::Unsaid),
        [(_, "primary")] => Ok(NodePortAddresses::Primary),
        _ => match texts.iter().find(|(_, text)| *text == "primary") {
            Some((field, text)) => Err(Fault {
                field: field.clone(),
                value: (*text).to_owned(),
                allowed: "a range; \"primary\" stands alone".to_owned(),
            }),
            None => Ok(NodePortAddresses::Within(ranges(texts)?)),
        },
    }
}

fn ranges(texts: Vec<(String, &str)>) -> Result<Vec<IpNet>, Fault> {
    let range = |(field, text): (String, &str)| {
        let fault = || Fault { field, value: text.to_owned(), allowed: RANGE.to_owned() };
        text.parse::<IpNet>().map(|range| range.trunc()).map_err(|_| fault())
    };
    texts.into_iter().map(range).collect()
}

/// `BEGIN-END`, `BEGIN+MORE` or one port; nothing is done with it.
fn port_range(top: &mut Section<'_>) -> Result<(), Fault> {
    let port = |text: &str| text.trim().parse::<u16>().ok();
    let allowed = "ports, for example 30000-32767";
    top.read("portRange", allowed, |text| match (text.split_once('-'), text.split_once('+')) {
        (Some((from, to)), _) => (port(from)? <= port(to)?).then_some(()),
        (None, Some((from, more))) => port(from)?.checked_add(port(more)?).map(drop),
        (None, None) => port(text).map(drop),
    })?;
    Ok(())
}

fn given(duration: Option<Duration>) -> Option<Duration> {
    duration.filter(|duration| !duration.is_zero())
}

fn first_line(text: &str, number: usize) -> String {
    text.lines().nth(number.saturating_sub(1)).unwrap_or_default().trim().to_owned()
}
