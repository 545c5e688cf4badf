//! From the command line and the cluster that is there to the settings that hold.

use std::{
    fmt::Display,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Cluster;
use crate::{
    arguments::{IpFamily, UpOptions},
    layout,
    report::{Doing, Failure},
};

const NODES: u8 = 3;
const SUBNETS: u8 = 1;
const POD_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 233, 64, 0), 18);
const POD_CIDR_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x233, 0, 0, 0, 0, 0), 56);
const SERVICE_CIDR_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 108);
const SERVICE_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 233, 0, 0), 18);

impl Cluster {
    /// What was asked for; what was not is as it is in the cluster that is there, or else the default.
    ///
    /// It fails where settings do not go together, and where the cluster that is there has others.
    pub(crate) fn from_options(options: &UpOptions, present: Option<&Self>) -> Result<Self, Failure> {
        let nodes = options.nodes.or(present.map(|cluster| cluster.nodes)).unwrap_or(NODES);
        let datastore = options.datastore.as_deref().map(outside_our_directories).transpose()?;
        let ranges_v6 = ranges_v6(options, present)?;
        let cluster = Self {
            nodes,
            subnets: match present {
                Some(cluster) if options.subnets.is_none() => cluster.subnets,
                _ => options.subnets.unwrap_or(SUBNETS).min(nodes),
            },
            pod_cidr: options.pod_cidr.or(present.map(|cluster| cluster.pod_cidr)).unwrap_or(POD_CIDR),
            pod_cidr_v6: ranges_v6.map(|(pods, _)| pods),
            service_cidr: options.service_cidr.or(present.map(|cluster| cluster.service_cidr)).unwrap_or(SERVICE_CIDR),
            service_cidr_v6: ranges_v6.map(|(_, services)| services),
            pod_link: options.pod_link.or(present.map(|cluster| cluster.pod_link)).unwrap_or_default(),
            lb_pool: options
                .lb_pool
                .clone()
                .or_else(|| present.map(|cluster| cluster.lb_pool.clone()))
                .unwrap_or_default(),
            proxy_mode: options.proxy_mode.or(present.and_then(|cluster| cluster.proxy_mode)),
            node_local_dns: options.node_local_dns.or(present.and_then(|cluster| cluster.node_local_dns)),
            flows: options.flows || present.is_some_and(|cluster| cluster.flows),
            flow_retention: options.flow_retention.or(present.and_then(|cluster| cluster.flow_retention)),
            flow_retention_bytes: options
                .flow_retention_bytes
                .or(present.and_then(|cluster| cluster.flow_retention_bytes)),
            flow_entries: options.flow_entries.or(present.and_then(|cluster| cluster.flow_entries)),
            datastore: datastore.or_else(|| present.and_then(|cluster| cluster.datastore.clone())),
            binary: std::env::current_exe().doing(|| "cannot find the podnet binary itself".into())?,
        };
        cluster.refuse_overlaps()?;
        if cluster.pod_cidr_v6.is_none() && cluster.node_local_dns.is_some_and(|addr| addr.is_ipv6()) {
            return Err(Failure::usage("--node-local-dns is an IPv6 address, and pods have none")
                .remedy("choose one such as 169.254.20.10, or add --ip-family dual"));
        }
        match present.map(|present| present.differences(&cluster)) {
            Some(differences) if !differences.is_empty() => {
                Err(Failure::new(format!("a cluster with other settings is up: {}", differences.join("; ")))
                    .remedy("heal and use it as it is with plain `podnet up`, or remove it first with `podnet down`"))
            }
            _ => Ok(cluster),
        }
    }

    /// The ranges of pods, Services and the underlay are routed side by side on every node.
    fn refuse_overlaps(&self) -> Result<(), Failure> {
        let subnets = (0..usize::from(self.subnets)).flat_map(|index| self.ranges(index));
        let pods6 = self.pod_cidr_v6.map(|range| ("--pod-cidr-v6", IpNet::V6(range)));
        let services6 = self.service_cidr_v6.map(|range| ("--service-cidr-v6", IpNet::V6(range)));
        let resolver = self.node_local_dns.map(|addr| ("--node-local-dns", IpNet::from(addr)));
        let ranges: Vec<(&str, IpNet)> =
            [("--pod-cidr", IpNet::V4(self.pod_cidr)), ("--service-cidr", IpNet::V4(self.service_cidr))]
                .into_iter()
                .chain(pods6)
                .chain(services6)
                .chain(resolver)
                .chain(subnets.map(|range| ("the underlay's range", range)))
                .collect();
        for (index, (name, range)) in ranges.iter().enumerate() {
            if let Some((other, taken)) = ranges[..index].iter().find(|(_, taken)| overlap(range, taken)) {
                return Err(Failure::usage(format!("{other} {taken} and {name} {range} overlap"))
                    .remedy("give pods and Services ranges of their own"));
            }
        }
        Ok(())
    }

    /// Each setting in which `asked` is another cluster. The binary is none: it may be a newer one.
    fn differences(&self, asked: &Self) -> Vec<String> {
        let settings = [
            difference("--nodes", &self.nodes, &asked.nodes),
            difference("--subnets", &self.subnets, &asked.subnets),
            difference("--pod-cidr", &self.pod_cidr, &asked.pod_cidr),
            difference("--ip-family", &self.ip_family(), &asked.ip_family()),
            self.pod_cidr_v6.zip(asked.pod_cidr_v6).and_then(|(is, asked)| difference("--pod-cidr-v6", &is, &asked)),
            difference("--service-cidr", &self.service_cidr, &asked.service_cidr),
            self.service_cidr_v6
                .zip(asked.service_cidr_v6)
                .and_then(|(is, asked)| difference("--service-cidr-v6", &is, &asked)),
            difference("--pod-link", &self.pod_link, &asked.pod_link),
            difference("--lb-pool", &self.lb_pool, &asked.lb_pool),
            self.proxy_mode.zip(asked.proxy_mode).and_then(|(is, asked)| difference("--proxy-mode", &is, &asked)),
            difference("--node-local-dns", &told(self.node_local_dns), &told(asked.node_local_dns)),
            difference("--flows", &self.flows, &asked.flows),
            difference("--flow-retention", &told(self.flow_retention), &told(asked.flow_retention)),
            difference("--flow-retention-bytes", &told(self.flow_retention_bytes), &told(asked.flow_retention_bytes)),
            difference("--flow-entries", &told(self.flow_entries), &told(asked.flow_entries)),
            difference("--datastore", &self.store().display(), &asked.store().display()),
        ];
        settings.into_iter().flatten().collect()
    }
}

/// Where pods' and Services' IPv6 addresses come from, where they have some.
fn ranges_v6(options: &UpOptions, present: Option<&Cluster>) -> Result<Option<(Ipv6Net, Ipv6Net)>, Failure> {
    let present_family = present.map_or(IpFamily::Ipv4, Cluster::ip_family);
    match options.ip_family.unwrap_or(present_family) {
        IpFamily::Dual => {
            let pods = present.and_then(|cluster| cluster.pod_cidr_v6);
            let services = present.and_then(|cluster| cluster.service_cidr_v6);
            Ok(Some((
                options.pod_cidr_v6.or(pods).unwrap_or(POD_CIDR_V6),
                options.service_cidr_v6.or(services).unwrap_or(SERVICE_CIDR_V6),
            )))
        }
        IpFamily::Ipv4 if options.pod_cidr_v6.is_some() => {
            Err(Failure::usage("--pod-cidr-v6 is for pods that have IPv6 addresses").remedy("add --ip-family dual"))
        }
        IpFamily::Ipv4 if options.service_cidr_v6.is_some() => {
            Err(Failure::usage("--service-cidr-v6 is for clusters whose pods have IPv6 addresses")
                .remedy("add --ip-family dual"))
        }
        IpFamily::Ipv4 => Ok(None),
    }
}

fn told(setting: Option<impl Display>) -> String {
    setting.map_or_else(|| "none".to_owned(), |setting| setting.to_string())
}

fn difference(option: &str, present: &impl Display, asked: &impl Display) -> Option<String> {
    let (present, asked) = (present.to_string(), asked.to_string());
    (present != asked).then(|| format!("{option} is {present} there, asked for was {asked}"))
}

pub(crate) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The datastore's path without symbolic links. `podnet down` keeps it, so it must not lie where `down` removes everything.
fn outside_our_directories(path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path).doing(|| "cannot make --datastore an absolute path".into())?;
    let real = resolved(&path);
    let within = |directory: &&str| real.starts_with(directory) || real.starts_with(resolved(Path::new(directory)));
    match [layout::DATA_DIR, layout::RUN_DIR].into_iter().find(within) {
        Some(directory) => Err(Failure::usage(format!(
            "--datastore {} lies below {directory}, which `podnet down` removes",
            path.display()
        ))
        .remedy("name a file elsewhere; without --datastore the objects go with `podnet down`")),
        None => Ok(real),
    }
}

/// As far as the path exists, what it really is.
fn resolved(path: &Path) -> PathBuf {
    let real = path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        let real = ancestor.canonicalize().ok()?;
        Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    });
    real.unwrap_or_else(|| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(options: &UpOptions, present: Option<&Cluster>) -> Result<Cluster, String> {
        Cluster::from_options(options, present).map_err(|failure| failure.to_string())
    }

    fn five_nodes() -> UpOptions {
        UpOptions { nodes: Some(5), subnets: Some(2), ..UpOptions::default() }
    }

    #[test]
    fn what_is_not_asked_for_is_as_it_is_in_the_cluster_that_is_there() {
        let present = settle(&five_nodes(), None).unwrap();
        assert_eq!((present.nodes, present.subnets), (5, 2));
        assert_eq!(settle(&UpOptions::default(), Some(&present)).unwrap(), present);
        assert_eq!(settle(&five_nodes(), Some(&present)).unwrap(), present);
    }

    #[test]
    fn each_setting_that_differs_is_named_with_both_values() {
        let present = settle(&five_nodes(), None).unwrap();
        let pod_cidr = Some("10.1.0.0/16".parse().unwrap());
        let asked = UpOptions { nodes: Some(2), pod_cidr, ..UpOptions::default() };
        let message = settle(&asked, Some(&present)).unwrap_err();
        for part in
            ["--nodes is 5 there, asked for was 2", "--pod-cidr is 10.233.64.0/18 there, asked for was 10.1.0.0/16"]
        {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("--subnets") && message.contains("podnet down"), "{message}");
    }

    #[test]
    fn the_past_of_flows_stays_as_long_as_it_was_asked_for_first() {
        let kept = |flow_retention, flow_retention_bytes| UpOptions {
            flows: true,
            flow_retention,
            flow_retention_bytes,
            ..UpOptions::default()
        };
        let present = settle(&kept(Some(7200), Some(1 << 24)), None).unwrap();
        assert_eq!((present.flow_retention, present.flow_retention_bytes), (Some(7200), Some(1 << 24)));
        assert_eq!(settle(&kept(None, None), Some(&present)).unwrap(), present);
        let message = settle(&kept(Some(90), None), Some(&present)).unwrap_err();
        assert!(message.contains("--flow-retention is 7200 there, asked for was 90"), "{message}");
        let roomy = UpOptions { flow_entries: Some(1 << 20), ..UpOptions::default() };
        assert_eq!(settle(&roomy, None).unwrap().flow_entries, Some(1 << 20));
        let message = settle(&roomy, Some(&present)).unwrap_err();
        assert!(message.contains("--flow-entries is"), "{message}");
    }

    #[test]
    fn pods_have_ipv6_where_that_is_asked_for_and_then_they_keep_it() {
        assert_eq!(settle(&UpOptions::default(), None).unwrap().pod_cidr_v6, None);
        let dual = UpOptions { ip_family: Some(IpFamily::Dual), ..UpOptions::default() };
        let present = settle(&dual, None).unwrap();
        assert_eq!(present.pod_cidr_v6, Some(POD_CIDR_V6));
        assert_eq!(present.pod_ranges(), "10.233.64.0/18 and fd00:10:233::/56");
        assert_eq!(settle(&UpOptions::default(), Some(&present)).unwrap(), present);
        let other = UpOptions { pod_cidr_v6: Some("fd00:1::/64".parse().unwrap()), ..UpOptions::default() };
        assert!(settle(&other, None).unwrap_err().contains("--pod-cidr-v6 is for pods that have IPv6"));
        let message = settle(&other, Some(&present)).unwrap_err();
        assert!(message.contains("--pod-cidr-v6 is fd00:10:233::/56 there, asked for was fd00:1::/64"), "{message}");
        let single = UpOptions { ip_family: Some(IpFamily::Ipv4), ..UpOptions::default() };
        let message = settle(&single, Some(&present)).unwrap_err();
        assert!(message.contains("--ip-family is dual there, asked for was ipv4"), "{message}");
        let before = r#"{"nodes":1,"subnets":1,"pod_cidr":"10.0.0.0/16","service_cidr":"10.1.0.0/16","datastore":null,"binary":""}"#;
        assert_eq!(
            serde_json::from_str::<Cluster>(before).unwrap().pod_cidr_v6,
            None,
            "settings of an earlier version"
        );
    }

    #[test]
    fn ranges_of_pods_services_and_underlay_must_not_overlap() {
        let with = |pods: &str, services: &str| UpOptions {
            pod_cidr: Some(pods.parse().unwrap()),
            service_cidr: Some(services.parse().unwrap()),
            ..UpOptions::default()
        };
        assert!(settle(&with("10.0.0.0/8", "10.96.0.0/12"), None).unwrap_err().contains("--service-cidr 10.96.0.0/12"));
        assert!(settle(&with("172.16.0.0/12", "10.96.0.0/12"), None).unwrap_err().contains("underlay's range"));
        assert!(settle(&with("10.1.0.0/16", "172.29.240.0/28"), None).unwrap_err().contains("underlay's range"));
        assert!(settle(&with("10.1.0.0/16", "10.2.0.0/16"), None).is_ok());
        let pods6 = |cidr: &str| UpOptions {
            ip_family: Some(IpFamily::Dual),
            pod_cidr_v6: Some(cidr.parse().unwrap()),
            ..UpOptions::default()
        };
        let message = settle(&pods6("fd00:172:29::/48"), None).unwrap_err();
        assert!(
            message.contains("--pod-cidr-v6 fd00:172:29::/48 and the underlay's range fd00:172:29:240::/64"),
            "{message}"
        );
    }

    #[test]
    fn a_datastore_that_down_would_remove_is_refused_however_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/run", &link).unwrap();
        let paths = ["/var/lib/podnet/x.redb", "/run/podnet/lab/x.redb", "/var/lib/../lib/podnet/x"].map(PathBuf::from);
        for path in paths.into_iter().chain([link.join("podnet/x")]) {
            let message = outside_our_directories(&path).unwrap_err().to_string();
            assert!(message.contains("`podnet down` removes"), "{message}");
        }
        assert!(outside_our_directories(&directory.path().join("x")).is_ok());
    }
}
