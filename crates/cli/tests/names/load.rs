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
/// It goes on until it is told to end; this is for a test that fails.
const LONGEST: &str = "90";

/// dnsperf at work in the pod `client`.
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    dnsperf: Option<Child>,
    /// How its command begins, which no other one's does.
    begins: [String; 5],
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
        let questions = format!("/tmp/questions-{server}-{transport}");
        let ask = format!("cat > {questions}");
        let mut put = cluster.kubectl_command(&["-n", "web", "exec", "-i", "client", "--", "sh", "-c", &ask]);
        let mut put = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        put.stdin.take().unwrap().write_all(QUESTIONS.as_bytes()).unwrap();
        assert!(put.wait().unwrap().success());
        // No shell between: an interrupt is for dnsperf, which then tells what it counted.
        let hand = Self::IN_HAND.to_string();
        let mut dnsperf = cluster.kubectl_command(&["-n", "web", "exec", "client", "--"]);
        // What takes longer than 5 s is lost: that is when a client's resolver gives up for the first time.
        let begins = ["dnsperf", "-m", transport, "-s", server].map(str::to_owned);
        dnsperf.args(&begins).args(["-d", &questions, "-l", LONGEST, "-Q", "400", "-q", &hand, "-t", "5"]);
        let dnsperf = dnsperf.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let load = Self { cluster, dnsperf: Some(dnsperf), begins };
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
        self.signal("-INT").unwrap();
        let output = self.dnsperf.take().unwrap().wait_with_output().unwrap();
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let number = |what: &str| -> u64 {
            let line = told.lines().find_map(|line| line.trim().strip_prefix(what));
            let word = line.and_then(|line| line.split_whitespace().next()).unwrap_or_else(|| panic!("{what}: {told}"));
            word.parse().unwrap()
        };
        let (sent, lost) = (number("Queries sent:"), number("Queries lost:"));
        eprintln!("{}: {sent} questions, {lost} lost", self.begins.join(" "));
        assert!(sent > 20, "{told}");
        assert!(lost <= most, "{told}\n{}", self.cluster.logs());
        let codes =
            told.lines().find_map(|line| line.trim().strip_prefix("Response codes:")).unwrap_or_default().trim();
        assert!(codes.starts_with("NOERROR") && !codes.contains(','), "{told}\n{}", self.cluster.logs());
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
