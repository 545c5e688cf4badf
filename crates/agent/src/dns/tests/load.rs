//! Questions without a pause while something changes: dnsperf asks many and counts, others look at what each answer says.

use std::{
    process::Stdio,
    sync::{Arc, atomic::AtomicBool},
};

use tokio::{net::TcpStream, process::Child};

use super::{
    ports::{ask, question},
    *,
};

/// What `a.example.com` has to be; it is all that is asked for.
const ADDRESS: [u8; 4] = [10, 0, 0, 7];

/// Those who ask.
pub(super) struct Load {
    dnsperf: Child,
    ended: Arc<AtomicBool>,
    /// How many questions they asked, over datagrams and over connections.
    watchers: [JoinHandle<u32>; 2],
}

impl Load {
    /// Has a port asked for `a.example.com` in this way, until dnsperf's time is over.
    pub(super) fn start(port: u16, directory: &Directory, how: &[&str]) -> Self {
        let questions = directory.write("questions", "a.example.com A\n");
        let mut dnsperf = Command::new("dnsperf");
        dnsperf.args(["-s", "127.0.0.1", "-p", &port.to_string(), "-t", "20", "-d"]).arg(questions).args(how);
        let dnsperf = dnsperf.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let over_udp = tokio::spawn(watch(Arc::clone(&ended), move |id| told_over_udp(port, id)));
        let over_tcp = tokio::spawn(watch(Arc::clone(&ended), move |id| told_over_tcp(port, id)));
        Self { dnsperf, ended, watchers: [over_udp, over_tcp] }
    }

    /// Waits for the end, and fails where anything was not answered, or in another way than it has to be.
    pub(super) async fn finish(self) {
        let output = self.dnsperf.wait_with_output().await.unwrap();
        self.ended.store(true, Ordering::SeqCst);
        let report = String::from_utf8(output.stdout).unwrap();
        assert_eq!(flaw(&report), None, "{report}{}", String::from_utf8_lossy(&output.stderr));
        for watcher in self.watchers {
            assert!(watcher.await.unwrap() > 0, "nobody looked at an answer");
        }
    }
}

/// What is wrong with what dnsperf tells; none: each question was answered, and no answer is an error.
pub(super) fn flaw(report: &str) -> Option<&'static str> {
    let told = |key: &str| report.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    let count = |key: &str| told(key).and_then(|told| told.split(' ').next()?.parse::<u64>().ok());
    let (Some(sent), Some(completed), Some(lost)) =
        (count("Queries sent:"), count("Queries completed:"), count("Queries lost:"))
    else {
        return Some("it is no report");
    };
    if sent == 0 {
        return Some("nothing was asked");
    }
    if lost > 0 || completed != sent {
        return Some("questions were lost");
    }
    let flawless = format!("NOERROR {sent} (100.00%)");
    (told("Response codes:") != Some(&flawless)).then_some("answers are errors")
}

/// Asks one question after the other, and looks at the answers.
async fn watch<Asked: Future<Output = Vec<u8>>>(ended: Arc<AtomicBool>, ask: impl Fn(u8) -> Asked) -> u32 {
    let mut asked = 0;
    while !ended.load(Ordering::SeqCst) {
        let id = asked as u8;
        let answer = tokio::time::timeout(DEADLINE, ask(id)).await.expect("a question was not answered");
        // Its id, a response without an error, one record and nothing beside it, and the record's data.
        assert_eq!((&answer[..2], answer[2] >> 7, answer[3] & 15), (&[0, id][..], 1, 0), "{answer:?}");
        assert_eq!((&answer[6..12], answer.last_chunk()), (&[0, 1, 0, 0, 0, 0][..], Some(&ADDRESS)), "{answer:?}");
        asked += 1;
    }
    asked
}

/// Each from a port of its own, so that all sockets are asked that share the server's.
async fn told_over_udp(port: u16, id: u8) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(("127.0.0.1", port)).await.unwrap();
    socket.send(&question(id, "a")).await.unwrap();
    let mut answer = vec![0; 512];
    let length = socket.recv(&mut answer).await.unwrap();
    answer.truncate(length);
    answer
}

async fn told_over_tcp(port: u16, id: u8) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    ask(&mut stream, &question(id, "a")).await;
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

#[test]
fn a_report_is_flawless_only_where_each_question_has_an_answer_that_is_no_error() {
    let report = |completed: u32, lost: u32, codes: &str| {
        format!(
            "Statistics:\n\n  Queries sent:         100\n  Queries completed:    {completed} ({completed}.00%)\n  \
             Queries lost:         {lost} ({lost}.00%)\n\n  Response codes:       {codes}\n  Average packet size:  \
             request 31, response 47\n"
        )
    };
    assert_eq!(flaw(&report(100, 0, "NOERROR 100 (100.00%)")), None);
    assert!(flaw(&report(100, 0, "SERVFAIL 100 (100.00%)")).is_some());
    assert!(flaw(&report(100, 0, "NOERROR 99 (99.00%), SERVFAIL 1 (1.00%)")).is_some());
    assert!(flaw(&report(99, 1, "NOERROR 99 (100.00%)")).is_some());
    assert!(flaw(&report(99, 0, "NOERROR 99 (100.00%)")).is_some(), "the end came before an answer");
    assert!(flaw("").is_some());
}
