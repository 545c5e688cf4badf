//! Questions: a load of them by dnsperf, and single ones.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    Result,
    lab::{Place, Running},
};

const SECONDS: &str = "3";
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Load {
    /// Addresses of Services.
    Names,
    /// Addresses of headless Services: those of their endpoints.
    Headless,
    /// Named ports of Services.
    Ports,
    /// Names of endpoints' addresses.
    Reverse,
    /// Names of the cluster that do not exist.
    Missing,
    /// Addresses of Services, over connections.
    Tcp,
    /// Names of the outside world, which are in the cache after the first time.
    Cached,
}

pub(super) const LOADS: [Load; 7] =
    [Load::Names, Load::Headless, Load::Ports, Load::Reverse, Load::Missing, Load::Tcp, Load::Cached];

impl Load {
    /// The file that has the questions.
    pub(super) const fn questions(self) -> &'static str {
        match self {
            Self::Names | Self::Tcp => "names",
            Self::Headless => "headless",
            Self::Ports => "ports",
            Self::Reverse => "addresses",
            Self::Missing => "missing",
            Self::Cached => "outside",
        }
    }

    /// The code that every answer has.
    const fn code(self) -> &'static str {
        if matches!(self, Self::Missing) { "NXDOMAIN" } else { "NOERROR" }
    }
}

/// How a server did.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Rate {
    /// Questions answered in a second. Where the server is the faster one, it is dnsperf's rate.
    pub(super) per_second: f64,
    /// Questions answered in a second of the server's on its processor, however long it had it.
    pub(super) per_processor_second: f64,
    /// Questions that it did not answer.
    pub(super) lost: u64,
}

pub(super) type Figure = fn(&Rate) -> f64;

/// The median of each figure, and all that was lost.
pub(super) fn median(rates: &[Rate]) -> Rate {
    let of = |figure: Figure| {
        let mut all: Vec<f64> = rates.iter().map(figure).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    Rate {
        per_second: of(|rate| rate.per_second),
        per_processor_second: of(|rate| rate.per_processor_second),
        lost: rates.iter().map(|rate| rate.lost).sum(),
    }
}

/// How a server does. One that answers anything but what there is has no rate.
pub(super) fn ask(place: &Place, server: &Running, port: u16, load: Load) -> Result<Rate> {
    let mut command = Command::new("taskset");
    command.args(["-c", "1", "dnsperf", "-s", "127.0.0.1", "-p", &port.to_string(), "-l", SECONDS, "-c", "16"]);
    command.args(["-T", "1", "-q", "200", "-m", if load == Load::Tcp { "tcp" } else { "udp" }, "-d"]);
    command.arg(place.path(load.questions()));
    let before = server.processor()?;
    let output = place.netns.run(move || command.output())??;
    let spent = server.processor()?.saturating_sub(before);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    let figure = |key: &str| told(key)?.split_whitespace().next()?.parse::<f64>().ok();
    let of_dnsperf =
        |key| figure(key).ok_or_else(|| format!("dnsperf tells no {key} {}", String::from_utf8_lossy(&output.stderr)));
    let codes = told("Response codes:").unwrap_or_default();
    if codes.split(',').any(|one| one.split_whitespace().next() != Some(load.code())) {
        return Err(
            format!("the server at port {port} answers {load:?} with {codes:?}, not with {}", load.code()).into()
        );
    }
    Ok(Rate {
        per_second: of_dnsperf("Queries per second:")?,
        per_processor_second: of_dnsperf("Queries completed:")? / spent.as_secs_f64(),
        lost: of_dnsperf("Queries lost:")? as u64,
    })
}

/// Waits until a server tells an address of a name.
pub(super) fn until_answered(place: &Place, port: u16, name: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while place.netns.run(|| addresses(port, name))?.is_ok_and(|found| found.is_empty()) {
        if Instant::now() > deadline {
            return Err(format!("the server at port {port} does not answer for {name}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The addresses that a server tells for a name; none where it knows none. Only the sections' sizes and the ends of records are read.
pub(super) fn addresses(port: u16, name: &str) -> std::io::Result<Vec<Ipv4Addr>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut answer = [0; 4096];
    let length = socket
        .send_to(&query, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .and_then(|_| socket.recv(&mut answer))
        .unwrap_or(0);
    let count = usize::from(answer[7]);
    // A pointer, type, class, time to live, length, address.
    let records = answer.get(query.len()..length).unwrap_or_default().chunks_exact(16).take(count);
    let mut found: Vec<Ipv4Addr> =
        records.map(|record| Ipv4Addr::new(record[12], record[13], record[14], record[15])).collect();
    found.sort_unstable();
    Ok(found)
}
