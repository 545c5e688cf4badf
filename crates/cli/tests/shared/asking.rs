//! Names of what `manifests/04-services.yaml` makes, asked for all at once.

use std::collections::BTreeSet;

/// Of cluster DNS: the tenth of the Services' addresses.
const CLUSTER_DNS: &str = "10.233.0.10";

/// By the pod's own resolver and search path, then of cluster DNS at its address. Full answers, as their status counts, too.
const ASK: &str = "dig +search +time=5 +tries=2 +noall +comments +question +answer";

/// An answer: the question's name, the status, and the records' data.
type Answer = (String, String, BTreeSet<String>);

/// Asks from a pod of the namespace `web`, in which a command is run by a shell: what is at its ClusterIP, what is headless and at these pods, what
/// is an alias, what is not there, and the name of an address.
pub(crate) fn names_are_answered(
    in_pod: impl FnOnce(&str) -> Result<String, String>,
    cluster_ip: &str,
    pods: &BTreeSet<String>,
) -> Result<(), String> {
    let questions = "web web.web.svc.cluster.local. web-headless web-external.web.svc.cluster.local. CNAME web.default.svc.cluster.local. -x 10.233.0.1";
    let at_its_address = format!("@{CLUSTER_DNS} web.web.svc.cluster.local.");
    let text = in_pod(&format!("{ASK} {questions} && {ASK} {at_its_address}"))?;
    let answer = |name: &str, status: &str, data: BTreeSet<String>| -> Answer { (name.into(), status.into(), data) };
    let one = |data: &str| BTreeSet::from([data.to_owned()]);
    let web = || answer("web.web.svc.cluster.local.", "NOERROR", one(cluster_ip));
    let expected = [
        web(),
        web(),
        answer("web-headless.web.svc.cluster.local.", "NOERROR", pods.clone()),
        answer("web-external.web.svc.cluster.local.", "NOERROR", one("harbor.example.com.")),
        // What the short name becomes by the search path of another namespace.
        answer("web.default.svc.cluster.local.", "NXDOMAIN", BTreeSet::new()),
        answer("1.0.233.10.in-addr.arpa.", "NOERROR", one("kubernetes.default.svc.cluster.local.")),
        web(),
    ];
    let found = answers(&text);
    if found == expected { Ok(()) } else { Err(format!("{found:?} instead of {expected:?}, from\n{text}")) }
}

/// What dig says, in the order in which it asked.
fn answers(text: &str) -> Vec<Answer> {
    let mut found: Vec<Answer> = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("->>HEADER<<-") {
            let status = rest.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
            found.push((String::new(), status.unwrap_or_default().to_owned(), BTreeSet::new()));
        }
        let Some((name, _, data)) = found.last_mut() else { continue };
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match (line.strip_prefix(';'), words.as_slice()) {
            // ";NAME CLASS TYPE"; comments and what else is told begin otherwise.
            (Some(question), [_, "IN", _]) if !question.starts_with([' ', ';']) => {
                *name = words[0].trim_start_matches(';').to_owned();
            }
            (None, [_, _, "IN", _, last]) => {
                data.insert((*last).to_owned());
            }
            _ => {}
        }
    }
    found
}
