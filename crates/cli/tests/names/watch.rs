//! Whether what is answered is right, all the time: dig in a pod, with a socket of its own for each question.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Stdio},
};

use podnet_testnet::Cluster;

/// Asks until the file is there that its first argument names, and tells each round in which something else was answered than its second one
/// says. It ends by itself where nobody ends it.
const ROUNDS: &str = r#"
end=$1 expected=$2 rounds=0
shift 2
while [ ! -e "$end" ] && [ $rounds -lt 5000 ]; do
    told=$(dig "$@" 2>&1 | LC_ALL=C sort)
    [ "$told" = "$expected" ] || printf 'wrong: %s\n' "$told"
    rounds=$((rounds + 1))
    [ $rounds -gt 1 ] || echo begun
    sleep 0.02
done
echo "rounds: $rounds"
"#;

/// What names have that no change of a test touches.
pub(crate) struct Known {
    /// The address of the Service `web`.
    pub(crate) web: String,
    /// The addresses of its pods.
    pub(crate) pods: BTreeSet<String>,
}

impl Known {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let pods = cluster.json(&["-n", "web", "pods", "-l", "app=web"]);
        let pods = pods["items"].as_array().unwrap().iter();
        Self {
            web: cluster.json(&["-n", "web", "service", "web"])["spec"]["clusterIP"].as_str().unwrap().to_owned(),
            pods: pods.map(|pod| pod["status"]["podIP"].as_str().unwrap().to_owned()).collect(),
        }
    }
}

/// dig at work in the pod `client`.
pub(crate) struct Watch<'a> {
    cluster: &'a Cluster,
    shell: Child,
    told: BufReader<ChildStdout>,
    /// What was wrong before it was under way.
    wrong: String,
    end: String,
}

impl<'a> Watch<'a> {
    /// Begins to ask a server over `udp` or `tcp`, and has been answered when it returns.
    pub(crate) fn begin(cluster: &'a Cluster, known: &Known, server: &str, transport: &str) -> Self {
        let end = format!("/tmp/end-watch-{server}-{transport}");
        // A watch before this one left it.
        cluster.exec("web", "client", &["rm", "-f", &end]).unwrap();
        let one = ["10.233.0.1", "10.244.3.64", "web.web.svc.cluster.local.", &known.web];
        let mut expected: Vec<&str> = known.pods.iter().map(String::as_str).chain(one).collect();
        expected.sort_unstable();
        let (at, over) = (format!("@{server}"), if transport == "tcp" { "+tcp" } else { "+notcp" });
        let mut shell = cluster.kubectl_command(&["-n", "web", "exec", "client", "--", "sh", "-c", ROUNDS, "sh", &end]);
        shell.arg(expected.join("\n")).args([at.as_str(), "+short", "+tries=1", "+time=5", over]);
        for name in ["web.web.svc", "kubernetes.default.svc", "web-headless.web.svc", "10-244-3-64.web.pod"] {
            shell.arg(format!("{name}.cluster.local")).arg("A");
        }
        shell.args(["-x", known.web.as_str()]);
        let mut shell = shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(shell.stdout.take().unwrap());
        let mut wrong = String::new();
        let mut line = String::new();
        while line != "begun\n" {
            wrong.push_str(&line);
            line.clear();
            assert!(told.read_line(&mut line).unwrap() > 0, "dig does not begin: {wrong}");
        }
        Self { cluster, shell, told, wrong, end }
    }

    /// Ends it: each question was answered, and with what there is.
    pub(crate) fn ends_with_nothing_wrong(self) {
        self.ends_with_at_most_wrong(0);
    }

    /// As [`Watch::ends_with_nothing_wrong`], with rounds that may have been.
    pub(crate) fn ends_with_at_most_wrong(mut self, most: usize) {
        self.cluster.exec("web", "client", &["touch", &self.end]).unwrap();
        self.told.read_to_string(&mut self.wrong).unwrap();
        assert!(self.shell.wait().unwrap().success());
        let told = &self.wrong;
        let rounds = told.lines().find_map(|line| line.strip_prefix("rounds: ")?.parse::<usize>().ok());
        let rounds = rounds.unwrap_or_else(|| panic!("it does not say how often it asked: {told}"));
        let wrong = told.lines().filter(|line| line.starts_with("wrong: ")).count();
        eprintln!("{}: {rounds} rounds, {wrong} wrong", self.end);
        assert!(rounds > most + 1 && wrong <= most, "{told}\n{}", self.cluster.logs());
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
