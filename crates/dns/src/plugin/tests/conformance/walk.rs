//! The walk along a case: what does not hold.

use std::{net::SocketAddr, sync::Arc, task::Poll};

use data_encoding::HEXLOWER;
use domain::base::iana::Rtype;
use futures::{FutureExt as _, future::BoxFuture};

use super::{
    table::{Answer, Case, Kind, Question, Told},
    upstream,
};
use crate::{
    Arrival, Config, Environment, Outcome, Transport,
    message::{flag, u16_at, walk},
    server::fixture::{ARRIVAL, Rig, query, told, with_edns},
    zone::tests::cluster,
};

/// What of a case does not hold, and what is so instead.
pub(super) fn faults(case: &Case) -> Vec<String> {
    let list = |directory: &str| {
        let below = case.files.keys().filter_map(|path| path.strip_prefix(directory)?.strip_prefix('/'));
        // Of a directory in it the name, with a slash behind.
        let mut names: Vec<String> =
            below.map(|path| path.split_inclusive('/').next().unwrap_or_default().to_owned()).collect();
        names.dedup();
        if names.is_empty() { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(names) }
    };
    let environment = Environment {
        variable: &|name| (name == "ZONE").then(|| "example.org".to_owned()),
        file: &|path| case.files.get(path).cloned().ok_or_else(|| std::io::ErrorKind::NotFound.into()),
        list: &list,
        interface: &|name| match name {
            "eth0" => Ok(["10.0.0.1", "10.0.0.2", "fe80::1"].map(|address| address.parse().unwrap()).to_vec()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        },
        // The last of the servers that are asked is the host itself.
        resolve: &|servers, name| match name.to_string().as_str() {
            "dns.example." => Ok(servers.last().map(SocketAddr::ip).into_iter().collect()),
            _ => Err(std::io::ErrorKind::TimedOut.into()),
        },
    };
    let loaded = Config::load("Corefile", &case.corefile, &environment);
    let refused = loaded.as_ref().err().map(ToString::to_string);
    let mut faults = Vec::new();
    if let [row] = &case.rows[..]
        && let Kind::Refused(wanted) = &row.kind
    {
        let found = refused.unwrap_or_else(|| "it is taken".to_owned());
        if !found.contains(wanted.as_str()) {
            faults.push(format!("  {}\n  but {found}", row.text));
        }
        return faults;
    }
    let config = match loaded {
        Ok(config) => config,
        Err(error) => return vec![format!("  the Corefile is refused: {error}")],
    };
    let shown = format!("{:?} {:?} {:?} {:?}", config.process, config.watched, config.listeners(), config.blocks);
    let warnings = config.warnings.join("\n");
    let rig = rig(config);
    for row in &case.rows {
        let fault = match &row.kind {
            Kind::Question { asked, answer, upstreams } => question(&rig, asked, answer, upstreams).err(),
            Kind::At(seconds) => {
                rig.at(*seconds);
                None
            }
            Kind::Check(upstreams) => {
                rig.server.check_upstreams();
                fitting(&settle(&rig), upstreams).err()
            }
            Kind::Told(wanted) => logged(&rig, wanted).err(),
            Kind::Waits(wanted) => {
                let waits = rig.server.waits_for().join(",");
                let waits = if waits.is_empty() { "nothing".to_owned() } else { waits };
                (waits != *wanted).then_some(waits)
            }
            Kind::Counted(line) => counted(&rig, line).err(),
            Kind::Etcd(key, value) => {
                rig.outside.shelf.put(key, value, None);
                None
            }
            Kind::Has(text) => (!shown.contains(text.as_str())).then(|| shown.clone()),
            Kind::Warns(text) => (!warnings.contains(text.as_str())).then(|| warnings.clone()),
            Kind::Refused(_) => Some("the Corefile is taken".to_owned()),
        };
        faults.extend(fault.map(|fault| format!("  {}\n  but {fault}", row.text)));
    }
    faults
}

fn rig(config: Config) -> Rig {
    let mut rig = Rig::new(". {\n whoami\n}\n");
    rig.cluster.keep_pod_labels(config.pod_labels());
    cluster(&mut rig);
    rig.replace(config);
    rig.server.start(None, || ());
    settle(&rig);
    rig.events.lock().unwrap().clear();
    rig
}

/// Has everything that nobody waits for go on, upstreams answering; what they were asked.
fn settle(rig: &Rig) -> Asked {
    let mut asked = Vec::new();
    for _ in 0..8 {
        rig.work();
        asked.extend(answered(rig));
    }
    asked
}

fn answered(rig: &Rig) -> Asked {
    rig.sent().into_iter().map(|sent| (upstream::told(&sent), upstream::answer(sent)).0).collect()
}

fn question(rig: &Rig, asked: &Question, wanted: &Answer, upstreams: &[Vec<String>]) -> Result<(), String> {
    let (packet, arrival) = asking(asked);
    let (response, mut sent) = match rig.handle_from(&packet, &arrival) {
        (Outcome::Answer, response) => (Some(response), Vec::new()),
        (Outcome::Drop, _) => (None, Vec::new()),
        (Outcome::Later(later), _) => finished(rig, Arc::clone(&rig.server).finish(later).boxed())?,
        (Outcome::Transfer(transfer), _) => {
            let mut types = Vec::new();
            transfer.send(|message| {
                types.extend(told(&message).into_iter().skip(1));
                true
            });
            let whole = wanted.as_ref().is_some_and(|wanted| wanted.code == "TRANSFER" && of(wanted, &types));
            return if whole { Ok(()) } else { Err(format!("TRANSFER | {}", types.join(" | "))) };
        }
    };
    sent.extend(settle(rig));
    match (wanted, response) {
        (None, None) => {}
        (None, Some(response)) => return Err(told(&response).join(" | ")),
        (Some(_), None) => return Err("nothing".to_owned()),
        (Some(wanted), Some(response)) => right(wanted, &response, packet.len())?,
    }
    fitting(&sent, upstreams)
}

/// Those who were asked, each with what.
type Asked = Vec<Vec<String>>;

/// Waits for a response while upstreams answer.
fn finished(rig: &Rig, mut response: BoxFuture<'static, Option<Vec<u8>>>) -> Result<(Option<Vec<u8>>, Asked), String> {
    let mut sent = Vec::new();
    for _ in 0..40 {
        let mut context = std::task::Context::from_waker(futures::task::noop_waker_ref());
        if let Poll::Ready(response) = response.poll_unpin(&mut context) {
            return Ok((response, sent));
        }
        rig.work();
        let now = answered(rig);
        if now.is_empty() {
            rig.wake();
        }
        sent.extend(now);
    }
    Err(format!("it is not answered, and asks {sent:?}"))
}

fn asking(asked: &Question) -> (Vec<u8>, Arrival) {
    let qtype: Rtype = asked.qtype.parse().unwrap_or_else(|_| panic!("{} is no type", asked.qtype));
    let mut packet = query(&asked.name, qtype.to_int());
    let mut arrival = ARRIVAL;
    let (mut size, mut signed, mut options) = (None, false, Vec::new());
    let mut words = asked.client.iter();
    let address = |word: Option<&String>| word.unwrap().parse().unwrap();
    while let Some(word) = words.next() {
        match word.as_str() {
            "from" => arrival.from = SocketAddr::new(address(words.next()), 4000),
            "to" => arrival.local = Some(address(words.next())),
            "tcp" => arrival.transport = Transport::Tcp,
            "do" => signed = true,
            "edns" => size = Some(words.next().unwrap().parse().unwrap()),
            "opt" => options = HEXLOWER.decode(words.next().unwrap().as_bytes()).unwrap(),
            "class" => {
                let class: domain::base::iana::Class = words.next().unwrap().parse().unwrap();
                let at = packet.len() - 2;
                packet[at..].copy_from_slice(&class.to_int().to_be_bytes());
            }
            other => panic!("a client cannot ask with {other}"),
        }
    }
    if size.is_some() || signed || !options.is_empty() {
        packet = with_edns(packet, size.unwrap_or(1232), 0, signed);
        let length = packet.len() - 2;
        packet[length..].copy_from_slice(&(options.len() as u16).to_be_bytes());
        packet.extend_from_slice(&options);
    }
    (packet, arrival)
}

/// Whether a response is what a table says.
fn right(wanted: &Told, response: &[u8], asked: usize) -> Result<(), String> {
    let found = told(response);
    let code = match found[0].as_str() {
        "other" => (u16_at(response, 2).unwrap() & flag::RCODE).to_string(),
        code => code.to_owned(),
    };
    let failed = wanted.checks.iter().find(|check| !holds(check, response, asked));
    if code == wanted.code && failed.is_none() && of(wanted, &found[1..]) {
        return Ok(());
    }
    let failed = failed.map(|check| format!(" (not {check})")).unwrap_or_default();
    let ttl = walk(response, asked).next().and_then(Result::ok).map(|record| record.ttl);
    Err(format!("{code}{failed} | {} ttl {ttl:?} flags {:04x}", found[1..].join(" | "), u16_at(response, 2).unwrap()))
}

fn of(wanted: &Told, found: &[String]) -> bool {
    let has = |check: &str| wanted.checks.iter().any(|word| word == check);
    let mut found: Vec<String> = found.iter().map(|record| record.trim().to_owned()).collect();
    let mut wanted = wanted.records.clone();
    if has("some") {
        return wanted.iter().all(|record| found.iter().any(|found| found.contains(record.as_str())));
    }
    if has("unordered") {
        wanted.sort();
        found.sort();
    }
    wanted == found
}

fn holds(check: &str, response: &[u8], asked: usize) -> bool {
    let flags = u16_at(response, 2).unwrap();
    let named = |name: &str| match name {
        "aa" => flag::AA,
        "tc" => flag::TC,
        "ra" => flag::RA,
        "rd" => flag::RD,
        "ad" => flag::AD,
        other => panic!("no check: {other}"),
    };
    if let Some(number) = check.strip_prefix("ttl=") {
        let first = walk(response, asked.min(question_end(response))).next().and_then(Result::ok);
        return first.is_some_and(|record| record.ttl == number.parse::<u32>().unwrap());
    }
    if let Some(most) = check.strip_prefix("size<=") {
        return response.len() <= most.parse::<usize>().unwrap();
    }
    if let Some(bytes) = check.strip_prefix("has=") {
        let bytes = HEXLOWER.decode(bytes.as_bytes()).unwrap();
        return response.windows(bytes.len()).any(|window| window == bytes);
    }
    match check {
        "unordered" | "some" => true,
        _ => match check.strip_prefix('!') {
            Some(name) => flags & named(name) == 0,
            None => flags & named(check) != 0,
        },
    }
}

/// Where the records of a response begin.
fn question_end(response: &[u8]) -> usize {
    crate::name::QueryName::parse(response, 12).map_or(12, |(_, end)| end + 4)
}

/// Whether those were asked whom a table says, each with what it says.
fn fitting(sent: &[Vec<String>], wanted: &[Vec<String>]) -> Result<(), String> {
    let fits = |(sent, wanted): (&Vec<String>, &Vec<String>)| wanted.iter().all(|word| sent.contains(word));
    if sent.len() == wanted.len() && sent.iter().zip(wanted).all(fits) {
        return Ok(());
    }
    let sent: Vec<String> = sent.iter().map(|words| words.join(" ")).collect();
    Err(format!("asked: {}", sent.join(", ")))
}

fn logged(rig: &Rig, wanted: &str) -> Result<(), String> {
    let events = std::mem::take(&mut *rig.events.lock().unwrap());
    let right = if wanted == "nothing" { events.is_empty() } else { events.iter().any(|event| event.contains(wanted)) };
    if right { Ok(()) } else { Err(format!("told: {events:?}")) }
}

fn counted(rig: &Rig, line: &str) -> Result<(), String> {
    let text = rig.server.metrics().render(&rig.server.gauges());
    let name = line.split(['{', ' ']).next().unwrap_or(line);
    let of_name = || text.lines().filter(|found| found.starts_with(name));
    if of_name().any(|found| found == line) { Ok(()) } else { Err(of_name().collect::<Vec<_>>().join("\n  ")) }
}
