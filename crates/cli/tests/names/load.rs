//! Questions without a pause, from a pod: dnsperf.

use std::{
    io::Write,
    process::{Child, Stdio},
    time::Duration,
};

use podnet_testnet::{Cluster, eventually};

/// Names that exist, however often the Corefile changes.
const QUESTIONS: &str = "web.web.svc.cluster.local A\nweb.web.svc.cluster.local AAAA\nkubernetes.default.svc.cluster.local A\n\
    web-headless.web.svc.cluster.local A\n10-244-3-64.web.pod.cluster.local A\n";
/// Where the pod has them.
const PLACE: &str = "/tmp/questions";
/// It goes on until it is told to end; this is for a test that fails.
const LONGEST: &str = "90";

/// dnsperf at work in the pod `client`.
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    dnsperf: Option<Child>,
    /// How its command begins, which no other one's does.
    begins: Vec<String>,
    /// The file that ends it, where it is one dnsperf after the other.
    end: Option<String>,
}

/// Puts the questions into the pod, for every [`Load`] in it.
pub(crate) fn put_questions(cluster: &Cluster) {
    let ask = format!("cat > {PLACE}");
    let mut put = cluster.kubectl_command(&["-n", "web", "exec", "-i", "client", "--", "sh", "-c", &ask]);
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(QUESTIONS.as_bytes()).unwrap();
    assert!(put.wait().unwrap().success());
}

impl<'a> Load<'a> {
    /// As many questions are under way at once, at most.
    pub(crate) const IN_HAND: u64 = 20;

    /// Begins, and is under way when it returns.
    pub(crate) fn begin(cluster: &'a Cluster, server: &str) -> Self {
        Self::over(cluster, server, "udp")
    }

    /// As [`Load::begin`], over `udp` or `tcp`.
    pub(crate) fn over(cluster: &'a Cluster, server: &str, transport: &str) -> Self {
        // No shell between: an interrupt is for dnsperf, which then tells what it counted.
        Self::start(cluster, &["dnsperf", "-m", transport, "-s", server], &["-l", LONGEST], None)
    }

    /// As [`Load::begin`], from sockets that are hardly older than a second: each second from 200 others. So do the resolvers of C libraries
    /// ask, who take a socket for each name; a flow of theirs is over when its server ends.
    pub(crate) fn anew(cluster: &'a Cluster, server: &str) -> Self {
        let end = format!("/tmp/end-load-{server}");
        Self::start(cluster, &["dnsperf", "-c", "200", "-s", server], &["-l", "1"], Some(end))
    }

    fn start(cluster: &'a Cluster, begins: &[&str], time: &[&str], end: Option<String>) -> Self {
        let begins: Vec<String> = begins.iter().map(|&word| word.to_owned()).collect();
        let hand = Self::IN_HAND.to_string();
        let mut dnsperf = cluster.kubectl_command(&["-n", "web", "exec", "client", "--"]);
        if let Some(end) = &end {
            // One that cannot ask ends it, too: it says why.
            dnsperf.args(["sh", "-c", "while [ ! -e \"$0\" ]; do \"$@\" || exit; done", end]);
        }
        // What takes longer than 5 s is lost: that is when a client's resolver gives up for the first time.
        dnsperf.args(&begins).args(time).args(["-d", PLACE, "-Q", "400", "-q", &hand, "-t", "5"]);
        let dnsperf = dnsperf.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let load = Self { cluster, dnsperf: Some(dnsperf), begins, end };
        eventually("dnsperf runs", Duration::from_secs(20), || load.signal("-0"));
        load
    }

    fn signal(&self, signal: &str) -> Result<String, String> {
        self.cluster.exec("web", "client", &["pkill", signal, "-f", &format!("^{} ", self.begins.join(" "))])
    }

    /// Ends it: not a question was lost, and each was answered with what exists.
    pub(crate) fn ends_without_loss(self) {
        self.ends_with_at_most_lost(0);
    }

    /// As [`Load::ends_without_loss`], with some that may be lost.
    pub(crate) fn ends_with_at_most_lost(mut self, most: u64) {
        match &self.end {
            Some(end) => self.cluster.exec("web", "client", &["touch", end]).unwrap(),
            None => self.signal("-INT").unwrap(),
        };
        let output = self.dnsperf.take().unwrap().wait_with_output().unwrap();
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // Of all, where it was one after the other.
        let every = |what: &str| -> Vec<&str> {
            let found: Vec<_> = told.lines().filter_map(|line| line.trim().strip_prefix(what)).map(str::trim).collect();
            assert!(!found.is_empty(), "{what}: {told}");
            found
        };
        let number = |what: &str| -> u64 {
            let words = every(what).into_iter().filter_map(|rest| rest.split_whitespace().next());
            words.map(|word| word.parse::<u64>().unwrap()).sum()
        };
        let (sent, lost) = (number("Queries sent:"), number("Queries lost:"));
        eprintln!("{}: {sent} questions, {lost} lost", self.begins.join(" "));
        assert!(sent > 20, "{told}");
        assert!(lost <= most, "{told}\n{}", self.cluster.logs());
        let is_good = |codes: &&str| codes.starts_with("NOERROR") && !codes.contains(',');
        assert!(every("Response codes:").iter().all(is_good), "{told}\n{}", self.cluster.logs());
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        if let Some(mut dnsperf) = self.dnsperf.take() {
            let _ = dnsperf.kill();
            let _ = dnsperf.wait();
        }
    }
}
