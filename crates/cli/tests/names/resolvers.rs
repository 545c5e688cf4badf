//! What resolvers of pods find, and with how many questions: those of glibc, musl and busybox, dig and nslookup.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use podnet_testnet::Cluster;

use super::{RESOLVER, watch::Known};

/// Programs that ask a C library, in the pods.
const LIBRARIES: [&str; 2] = ["/tmp/of-glibc", "/tmp/of-musl"];

/// Two pods that find the same server in their `resolv.conf`.
pub(crate) struct Asking<'a> {
    /// One in the namespace `web`.
    pub(crate) client: &'a str,
    /// One in `default`.
    pub(crate) stranger: &'a str,
    pub(crate) server: &'a str,
}

/// Compiles the programs that ask a C library, and puts them into the pods.
pub(crate) fn put_lookups(cluster: &Cluster, into: &[&Asking<'_>]) {
    for (compiler, place) in [("cc", LIBRARIES[0]), ("musl-gcc", LIBRARIES[1])] {
        let program = compiled(compiler, place);
        for asking in into {
            for (namespace, pod) in [("web", asking.client), ("default", asking.stranger)] {
                let copy = format!("cat > {place} && chmod +x {place}");
                let mut copy = cluster.kubectl_command(&["-n", namespace, "exec", "-i", pod, "--", "sh", "-c", &copy]);
                let mut copy = copy.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
                copy.stdin.take().unwrap().write_all(&program).unwrap();
                assert!(copy.wait().unwrap().success());
            }
        }
    }
}

/// The program that is to be at this place in pods.
fn compiled(compiler: &str, place: &str) -> Vec<u8> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/names/lookup.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(place.trim_start_matches("/tmp/"));
    // musl's is not in the pods' images. glibc's is, and cannot be linked into a program without losing parts of its resolver.
    let linked: &[&str] = if compiler.starts_with("musl") { &["-static"] } else { &[] };
    let made = Command::new(compiler).args(linked).arg("-o").arg(&program).arg(source).output();
    let made = made.unwrap_or_else(|error| panic!("{compiler}: {error}; scripts/setup test installs it"));
    assert!(made.status.success(), "{compiler}: {}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(&program).unwrap()
}

impl Asking<'_> {
    pub(crate) fn every_resolver_finds_the_same(&self, cluster: &Cluster) {
        let Known { web, pods } = Known::of(cluster);
        let one = |addr: &str| BTreeSet::from([addr.to_owned()]);
        let table = [
            ("web", one(&web)),
            ("web.web", one(&web)),
            ("web.web.svc", one(&web)),
            ("web.web.svc.cluster.local", one(&web)),
            ("web.web.svc.cluster.local.", one(&web)),
            ("kubernetes.default", one("10.233.0.1")),
            ("web-headless", pods),
            // An alias to a name outside the cluster.
            ("web-external", one("10.0.0.20")),
            ("harbor.example.com", one("10.0.0.20")),
            ("HARBOR.example.com", one("10.0.0.20")),
            ("10-244-3-64.web.pod", one("10.244.3.64")),
            // Of its own namespace alone.
            ("kubernetes.web.svc.cluster.local.", one("nothing")),
            ("kubernetes.svc.cluster.local", one("nothing")),
        ];
        let (client, stranger) = (("web", self.client), ("default", self.stranger));
        let inside = |pod: (&str, &str), command: &[&str]| cluster.exec(pod.0, pod.1, command);
        let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        for library in LIBRARIES {
            // All at once: a line for each.
            let each = format!("for name; do echo $({library} \"$name\"); done");
            let found = inside(client, &[&["sh", "-c", &each, "sh"][..], &names[..]].concat()).unwrap();
            assert_eq!(found.lines().count(), table.len(), "{library}: {found}");
            for ((name, expected), found) in table.iter().zip(found.lines()) {
                assert_eq!(words(found), *expected, "{library} {name} at {}\n{}", self.server, cluster.logs());
            }
        }
        for tool in [&["nslookup", "web"][..], &["busybox", "nslookup", "web.web.svc.cluster.local"]] {
            let told = inside(client, tool).unwrap();
            assert!(words(&told).contains(&web) && told.contains(self.server), "{tool:?}: {told}");
        }
        // The short name of another namespace's Service: what it becomes by the search path does not exist. (`web.svc.cluster.local` is
        // the namespace, and has no address.)
        for place in ["default.svc.cluster.local", "cluster.local"] {
            let told = inside(stranger, &["dig", "+time=2", &format!("web.{place}")]).unwrap();
            assert!(told.contains("status: NXDOMAIN") && told.contains("SOA"), "{told}");
            assert!(told.contains(&format!("SERVER: {}#53", self.server)), "{told}");
        }
        // So no resolver finds it, by whatever path; with the namespace in it each does.
        for library in LIBRARIES {
            let both = format!("echo $({library} web) && echo $({library} web.web)");
            let found = inside(stranger, &["sh", "-c", &both]).unwrap();
            let found: Vec<_> = found.lines().map(words).collect();
            assert_eq!(found, [one("nothing"), one(&web)], "{library}");
        }
        for tool in [&["nslookup", "web"][..], &["busybox", "nslookup", "web"]] {
            // It ends with an error then.
            let told = inside(stranger, tool).unwrap_or_else(|failed| failed);
            assert!(!words(&told).contains(&web), "{tool:?}: {told}");
            assert!(told.contains(self.server) || told.contains("find"), "{tool:?} did not ask: {told}");
        }
        let reverse = inside(client, &["dig", "+short", "-x", &web]).unwrap();
        assert_eq!(reverse.trim(), "web.web.svc.cluster.local.");
        let alias = inside(client, &["dig", "+short", "web-external.web.svc.cluster.local", "CNAME"]).unwrap();
        assert_eq!(alias.trim(), "harbor.example.com.");
    }

    /// The ndots tax: these have fewer than five dots, so that a resolver walks along a search path of three names; `kubernetes.default` is
    /// found at the second one.
    pub(crate) fn a_name_costs_one_question_for_each_type(&self, cluster: &Cluster) {
        for library in LIBRARIES {
            for name in ["harbor.example.com", "kubernetes.default"] {
                let before = count(cluster, "coredns_dns_requests_total");
                cluster.exec("web", self.client, &[library, name]).unwrap();
                let asked = count(cluster, "coredns_dns_requests_total") - before;
                assert_eq!(asked, 2, "{library} asks for {name} once for each type");
            }
        }
        assert!(count(cluster, "coredns_autopath_success_total") >= 8);
    }
}

/// What was asked of the node's resolver so far is nothing that connection tracking has seen.
pub(crate) fn nothing_to_the_resolver_was_tracked() {
    let list = ["netns", "exec", "podnet-node1", "conntrack", "-L", "-d", RESOLVER];
    let output = Command::new("ip").args(list).output().unwrap();
    // It succeeds where there is none, too.
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A number of the metrics of node1's agent: the sum of what begins so.
fn count(cluster: &Cluster, metric: &str) -> u64 {
    let ask = ["netns", "exec", "podnet-node1", "curl", "-sS", "http://127.0.0.1:9099/metrics"];
    let output = Command::new("ip").args(ask).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let of = text.lines().filter(|line| line.starts_with(metric));
    assert!(text.contains(metric), "{metric}\n{text}\n{}", cluster.logs());
    of.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}
