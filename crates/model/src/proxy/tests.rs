use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::*;

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn parse(fields: &str) -> Result<ProxyConfig, String> {
    ProxyConfig::parse(&format!("{HEAD}{fields}")).map_err(|fault| fault.to_string())
}

fn unused(fields: &str) -> Vec<String> {
    parse(fields).unwrap().unused().iter().map(|unused| unused.field.clone()).collect()
}

#[test]
fn an_empty_configuration_has_kube_proxys_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config, ProxyConfig::default());
    assert_eq!(config.rules(Mode::Nftables).masquerade_mark(), 0x4000);
    assert_eq!(config.conntrack.max(2), Some(131_072));
    assert_eq!(config.conntrack.max(64), Some(2_097_152));
    assert_eq!(
        (config.healthz.to_string(), config.metrics.to_string()),
        ("0.0.0.0:10256".into(), "127.0.0.1:10249".into())
    );
}

/// kube-proxy's defaults follow the family of `bindAddress`.
#[test]
fn health_and_metrics_are_told_in_the_family_that_is_bound_unless_they_say_where() {
    let at = |fields: &str| {
        let config = parse(fields).unwrap();
        [config.healthz, config.metrics].map(|at| at.to_string())
    };
    assert_eq!(at("bindAddress: '::'"), ["[::]:10256", "[::1]:10249"]);
    assert_eq!(at("bindAddress: 2001:db8::1"), ["[::]:10256", "[::1]:10249"]);
    assert_eq!(at("bindAddress: 192.0.2.1"), ["0.0.0.0:10256", "127.0.0.1:10249"]);
    assert_eq!(at("bindAddress: '::ffff:192.0.2.1'"), ["0.0.0.0:10256", "127.0.0.1:10249"]);
    let said = "bindAddress: '::'\nhealthzBindAddress: 0.0.0.0:1\nmetricsBindAddress: '::'";
    assert_eq!(at(said), ["0.0.0.0:1", "[::]:10249"]);
    // What `::` says is done; an address would be the node's.
    assert_eq!(unused("bindAddress: '::'"), [""; 0]);
    assert_eq!(unused("bindAddress: 2001:db8::1"), ["bindAddress"]);
}

/// Installers write every field, with zeros.
#[test]
fn zeros_count_as_not_given() {
    let config = parse(
        "bindAddress: 0.0.0.0\nbindAddressHardFail: false\n\
         clientConnection: {acceptContentTypes: '', burst: 0, contentType: '', kubeconfig: /k/kubeconfig.conf, qps: 0}\n\
         clusterCIDR: ''\nconfigSyncPeriod: 0s\n\
         conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, \
           tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}\n\
         detectLocal: {bridgeInterface: '', interfaceNamePrefix: ''}\ndetectLocalMode: ''\nenableProfiling: false\n\
         healthzBindAddress: ''\nhostnameOverride: ''\n\
         iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}\n\
         ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: '', strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s, \
           tcpTimeout: 0s, udpTimeout: 0s}\n\
         logging: {flushFrequency: 0, options: {json: {infoBufferSize: '0'}, text: {infoBufferSize: '0'}}, verbosity: 0}\n\
         metricsBindAddress: ''\nmode: ''\n\
         nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}\n\
         nodePortAddresses: null\noomScoreAdj: null\nportRange: ''\nshowHiddenMetricsForVersion: ''\n\
         winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: '', rootHnsEndpointName: '', sourceVip: ''}\n",
    )
    .unwrap();
    assert_eq!(
        config.unused().iter().map(|unused| &*unused.field).collect::<Vec<_>>(),
        ["clientConnection.kubeconfig"]
    );
    assert_eq!(ProxyConfig { unused: Vec::new(), ..config }, ProxyConfig::default());
}

#[test]
fn what_is_given_is_taken() {
    let config = parse(
        "mode: ipvs\nclusterCIDR: 10.244.0.0/16,fd00::/64\nnodePortAddresses: [172.29.240.7/24, 'fd01::/64']\n\
         iptables: {masqueradeAll: true, masqueradeBit: 0, localhostNodePorts: false, minSyncPeriod: 500ms}\n\
         nftables: {masqueradeBit: 31}\n\
         ipvs: {scheduler: mh, strictARP: true, excludeCIDRs: [192.0.2.0/24], tcpTimeout: 15m, udpTimeout: 1m30s}\n\
         conntrack: {maxPerCore: 0, min: 5, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 2h, tcpBeLiberal: true, udpTimeout: 20s}\n\
         healthzBindAddress: '[::1]:1'\nmetricsBindAddress: 0.0.0.0\n",
    )
    .unwrap();
    assert_eq!(config.mode, Some(Mode::Ipvs));
    let shown = |range: Option<IpNet>| range.unwrap().to_string();
    assert_eq!(
        (shown(config.cluster_cidrs.v4), shown(config.cluster_cidrs.v6)),
        ("10.244.0.0/16".into(), "fd00::/64".into())
    );
    let within = vec!["172.29.240.0/24".parse().unwrap(), "fd01::/64".parse().unwrap()];
    assert_eq!(config.node_port_addresses, NodePortAddresses::Within(within));
    assert!(config.rules(Mode::Ipvs).masquerade_all && !config.localhost_node_ports);
    assert_eq!(config.rules(Mode::Iptables).masquerade_mark(), 1);
    assert_eq!(config.rules(Mode::Iptables).min_sync_period, Duration::from_millis(500));
    assert_eq!(config.rules(Mode::Ebpf).masquerade_mark(), 0x8000_0000);
    assert_eq!((config.ipvs.scheduler, config.ipvs.strict_arp), ("mh", true));
    assert_eq!(config.ipvs.tcp_timeout, Some(Duration::from_secs(900)));
    assert_eq!((config.ipvs.tcp_fin_timeout, config.ipvs.udp_timeout), (None, Some(Duration::from_secs(90))));
    let conntrack = &config.conntrack;
    assert_eq!((conntrack.max(64), conntrack.tcp_established_timeout), (None, None));
    assert_eq!(conntrack.tcp_close_wait_timeout, Some(Duration::from_secs(7200)));
    assert!(conntrack.tcp_be_liberal && conntrack.udp_timeout == Some(Duration::from_secs(20)));
    assert_eq!((config.healthz.to_string(), config.metrics.to_string()), ("[::1]:1".into(), "0.0.0.0:10249".into()));
    let told: Vec<_> = config.unused().iter().map(|unused| &*unused.field).collect();
    assert_eq!(told, ["iptables.minSyncPeriod"]);
}

#[test]
fn json_is_read_too() {
    let text =
        r#"{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables"}"#;
    assert_eq!(ProxyConfig::parse(text).unwrap().mode, Some(Mode::Nftables));
}

#[test]
fn a_fault_names_the_path_the_value_and_what_is_allowed() {
    for (fields, error) in [
        (
            "mode: ipset",
            "mode is \"ipset\"; it must be empty (the best that the kernel has) or one of ebpf, nftables, iptables, ipvs, userspace",
        ),
        ("mode: 5", "mode is \"5\"; it must be a text"),
        (
            "ipvs: {scheduler: fast}",
            "ipvs.scheduler is \"fast\"; it must be one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh",
        ),
        (
            "ipvs: {excludeCIDRs: [10.0.0.0/8, x]}",
            "ipvs.excludeCIDRs[1] is \"x\"; it must be a range, for example 10.244.0.0/16 or fd00::/64",
        ),
        ("ipvs: [a]", "ipvs is \"- a\"; it must be a mapping"),
        (
            "nodePortAddresses: [primary, 10.0.0.0/8]",
            "nodePortAddresses[0] is \"primary\"; it must be a range; \"primary\" stands alone",
        ),
        ("nodePortAddresses: 10.0.0.0/8", "nodePortAddresses is \"10.0.0.0/8\"; it must be a list of texts"),
        (
            "clusterCIDR: 10.0.0.0/8,11.0.0.0/8",
            "clusterCIDR is \"10.0.0.0/8,11.0.0.0/8\"; it must be a range, or one of IPv4 and one of IPv6 separated by a comma",
        ),
        ("nftables: {masqueradeBit: 32}", "nftables.masqueradeBit is \"32\"; it must be a whole number, 0 to 31"),
        ("iptables: {masqueradeAll: maybe}", "iptables.masqueradeAll is \"maybe\"; it must be true or false"),
        (
            "iptables: {syncPeriod: 30}",
            "iptables.syncPeriod is \"30\"; it must be a duration of zero or more with units, for example 30s or 1h0m0s",
        ),
        (
            "iptables: {syncPeriod: 5s, minSyncPeriod: 6s}",
            "iptables.minSyncPeriod is \"6s\"; it must be no longer than syncPeriod, which is 5s",
        ),
        (
            "healthzBindAddress: everywhere",
            "healthzBindAddress is \"everywhere\"; it must be ADDRESS:PORT, for example 0.0.0.0:10256",
        ),
        (
            "detectLocalMode: BridgeInterface",
            "detectLocal.bridgeInterface is \"\"; it must be an interface's name or its beginning, as detectLocalMode is BridgeInterface",
        ),
        ("oomScoreAdj: 1001", "oomScoreAdj is \"1001\"; it must be a whole number, -1000 to 1000"),
        ("portRange: 5-4", "portRange is \"5-4\"; it must be ports, for example 30000-32767"),
        ("featureGates: {AllAlpha: 1}", "featureGates.AllAlpha is \"1\"; it must be true or false"),
        ("conntrack: {maxPerCore: -1}", "conntrack.maxPerCore is \"-1\"; it must be a whole number, 0 to 2147483647"),
    ] {
        assert_eq!(parse(fields).unwrap_err(), error);
    }
}

/// kube-proxy reads such a document leniently: what is known of it counts.
#[test]
fn a_field_that_is_not_known_or_stands_twice_is_told_by_name_and_the_rest_counts() {
    let config = parse(
        "mode: ipvs\nudpIdleTimeout: 250ms\nipvs: {schedular: lc, strictARP: true, strictARP: true}\n\
         conntrack: {max: 0}\nmode: iptables\nscheduler: [rr, {rr: rr, rr: rr}]\n",
    )
    .unwrap();
    assert_eq!((config.mode, config.ipvs.scheduler, config.ipvs.strict_arp), (Some(Mode::Iptables), "rr", true));
    let told: Vec<_> = config.unused().iter().map(ToString::to_string).collect();
    let fields: Vec<_> = told.iter().filter_map(|told| Some(told.split_once(": ")?.0)).collect();
    assert_eq!(
        fields,
        [
            "ipvs.schedular",
            "conntrack.max",
            "udpIdleTimeout",
            "scheduler",
            "ipvs.strictARP",
            "mode",
            "scheduler.[1].rr"
        ]
    );
    assert!(told[0].contains("has no such field: it is misspelt"), "{}", told[0]);
    assert!(told[5].contains("twice; the last one counts"), "{}", told[5]);
}

/// Every field of `v1alpha1` either does something or is told.
#[test]
fn no_field_is_passed_over_in_silence() {
    let mut silent = Vec::new();
    for field in [
        "featureGates: {AllAlpha: true}",
        "clientConnection: {kubeconfig: x}",
        "clientConnection: {acceptContentTypes: x}",
        "clientConnection: {contentType: x}",
        "clientConnection: {qps: 1}",
        "clientConnection: {burst: 1}",
        "logging: {format: json}",
        "hostnameOverride: x",
        "bindAddress: 192.0.2.1",
        "healthzBindAddress: 192.0.2.1",
        "metricsBindAddress: 192.0.2.1",
        "bindAddressHardFail: true",
        "enableProfiling: true",
        "showHiddenMetricsForVersion: '1.36'",
        "mode: iptables",
        "iptables: {masqueradeBit: 15}",
        "iptables: {masqueradeAll: true}",
        "iptables: {localhostNodePorts: false}",
        "iptables: {syncPeriod: 10s}",
        "iptables: {minSyncPeriod: 2s}",
        "ipvs: {syncPeriod: 10s}",
        "ipvs: {minSyncPeriod: 2s}",
        "ipvs: {scheduler: lc}",
        "ipvs: {excludeCIDRs: [192.0.2.0/24]}",
        "ipvs: {strictARP: true}",
        "ipvs: {tcpTimeout: 1m}",
        "ipvs: {tcpFinTimeout: 1m}",
        "ipvs: {udpTimeout: 1m}",
        "nftables: {masqueradeBit: 15}",
        "nftables: {masqueradeAll: true}",
        "nftables: {syncPeriod: 10s}",
        "nftables: {minSyncPeriod: 2s}",
        "winkernel: {networkName: x}",
        "detectLocalMode: NodeCIDR",
        "detectLocal: {bridgeInterface: x}",
        "detectLocal: {interfaceNamePrefix: x}",
        "clusterCIDR: 192.0.2.0/24",
        "nodePortAddresses: [primary]",
        "oomScoreAdj: -1",
        "conntrack: {maxPerCore: 1}",
        "conntrack: {min: 1}",
        "conntrack: {tcpEstablishedTimeout: 1m}",
        "conntrack: {tcpCloseWaitTimeout: 1m}",
        "conntrack: {tcpBeLiberal: true}",
        "conntrack: {udpTimeout: 1m}",
        "conntrack: {udpStreamTimeout: 1m}",
        "configSyncPeriod: 1m",
        "portRange: 1-2",
        "windowsRunAsService: true",
    ] {
        let config = parse(field).unwrap();
        let is_told = !config.unused().is_empty();
        assert!(config.unused().iter().all(|unused| !unused.why.contains("no such field")), "{field} is known");
        // The least time between changes is kept for whoever asks what counts, and does nothing.
        let does_something =
            ProxyConfig { unused: Vec::new(), ..config } != ProxyConfig::default() && !field.contains("minSyncPeriod");
        if !is_told && !does_something {
            silent.push(field);
        }
    }
    assert_eq!(silent, [""; 0]);
}

#[test]
fn another_document_is_refused() {
    for (text, error) in [
        ("", "the document is \"null\"; it must be a mapping: fields of a KubeProxyConfiguration"),
        ("kind: KubeProxyConfiguration\n", "apiVersion is \"\"; it must be kubeproxy.config.k8s.io/v1alpha1"),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: Policy\n",
            "kind is \"Policy\"; it must be KubeProxyConfiguration",
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1beta9\n",
            "apiVersion is \"kubeproxy.config.k8s.io/v1beta9\"; it must be kubeproxy.config.k8s.io/v1alpha1",
        ),
    ] {
        assert_eq!(ProxyConfig::parse(text).unwrap_err().to_string(), error);
    }
    let error = ProxyConfig::parse("mode: [\n").unwrap_err();
    assert!(error.allowed.starts_with("YAML: ") && error.allowed.contains("line"), "{error}");
}

#[test]
fn what_cannot_apply_is_told_by_name() {
    assert_eq!(
        unused(
            "featureGates: {AllAlpha: true}\nhostnameOverride: other\nclientConnection: {qps: 7.5, burst: 10}\n\
             logging: {verbosity: 4}\nbindAddress: 192.0.2.1\nwinkernel: {enableDSR: true}\ndetectLocalMode: NodeCIDR\n\
             oomScoreAdj: -5\nconfigSyncPeriod: 1m\nnftables: {syncPeriod: 1m}\nportRange: 1-5\n"
        ),
        [
            "featureGates.AllAlpha",
            "clientConnection.qps",
            "clientConnection.burst",
            "logging",
            "hostnameOverride",
            "bindAddress",
            "nftables.syncPeriod",
            "winkernel",
            "detectLocalMode",
            "oomScoreAdj",
            "configSyncPeriod",
            "portRange",
        ]
    );
    assert_eq!(
        unused(
            "bindAddress: 0.0.0.0\noomScoreAdj: -999\nconfigSyncPeriod: 15m0s\nnftables: {syncPeriod: 30s, minSyncPeriod: 1s}\n\
             iptables: {syncPeriod: 30s, minSyncPeriod: 1s}\n"
        ),
        [""; 0]
    );
    for unused in parse("portRange: '0-0'\n").unwrap().unused() {
        assert!(unused.to_string().starts_with("portRange: no port"), "{unused}");
    }
}

#[test]
fn in_the_configmap_a_fault_names_the_key_as_well() {
    let convert = |data: serde_json::Value| {
        let map = json!({"metadata": {"namespace": "kube-system", "name": "kube-proxy"}, "data": data});
        let map: ConfigMap = serde_json::from_value(map).unwrap();
        ProxyConfig::try_from(&map).map_err(|error| error.to_string())
    };
    assert_eq!(convert(json!({"config.conf": HEAD})), Ok(ProxyConfig::default()));
    assert_eq!(
        convert(json!({"config.conf": format!("{HEAD}ipvs: {{scheduler: no}}\n")})).unwrap_err(),
        "ConfigMap kube-system/kube-proxy: data[config.conf]: ipvs.scheduler is \"no\"; it must be one of \
         rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh"
    );
    assert_eq!(
        convert(json!({"kubeconfig.conf": ""})).unwrap_err(),
        "ConfigMap kube-system/kube-proxy: data[config.conf] is missing; it must be a KubeProxyConfiguration"
    );
}
