//! How records are printed.

use std::fmt::Write as _;

use crate::{
    names::PodIdentity,
    record::{Asked, Direction, Drops, End, Gap, GapAt, Interface, Item, Record},
};

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Columns for people.
    Table,
    /// A line of words for each.
    Compact,
    /// A JSON object in each line.
    JsonLines,
    /// Values with commas between them (RFC 4180), with a line of names first.
    Csv,
}

/// The columns of [`Form::Csv`].
const COLUMNS: &str = "id,report,start,end,protocol,source_ip,source_port,source,destination_ip,destination_port,destination,\
service,service_ip,service_port,class,verdict,node,reporter,sent_packets,sent_bytes,received_packets,received_bytes,handshake_micros,cause";

/// What stands before the first item, if anything.
#[must_use]
pub fn heading(form: Form) -> Option<String> {
    match form {
        Form::Table => Some(row(&[
            "END",
            "SECONDS",
            "PROTO",
            "SOURCE",
            "DESTINATION",
            "SERVICE",
            "CLASS",
            "VERDICT",
            "CAUSE",
            "SENT",
            "RECEIVED",
        ])),
        Form::Csv => Some(COLUMNS.to_owned()),
        Form::Compact | Form::JsonLines => None,
    }
}

/// One item as a line, without its end.
#[must_use]
pub fn line(form: Form, item: &Item) -> String {
    match (form, item) {
        // Nothing in it can fail to be JSON.
        (Form::JsonLines, item) => serde_json::to_string(item).unwrap_or_default(),
        (Form::Csv, Item::Flow(record)) => csv(record),
        (Form::Csv, Item::Gap(gap)) => format!("# {}", missing(gap)),
        (Form::Csv, Item::Drops(drops)) => format!("# {}", dropped(drops)),
        (_, Item::Gap(gap)) => missing(gap),
        (_, Item::Drops(drops)) => dropped(drops),
        (Form::Table, Item::Flow(record)) => table(record),
        (Form::Compact, Item::Flow(record)) => compact(record),
    }
}

fn row<T: AsRef<str>>(cells: &[T; 11]) -> String {
    const WIDTHS: [usize; 11] = [15, 8, 6, 44, 44, 28, 19, 11, 15, 16, 0];
    let mut row = String::new();
    for (cell, width) in cells.iter().zip(WIDTHS) {
        // Writing to a String cannot fail.
        let _ = write!(row, "{:<width$} ", cell.as_ref());
    }
    row.truncate(row.trim_end().len());
    row
}

fn table(record: &Record) -> String {
    let seconds = record.end.duration_since(record.start).as_secs_f64();
    let way = |way: &crate::Way| format!("{}p {}B", way.packets, way.bytes);
    // The day is not told: the past that is kept is short.
    let end = record.end.to_string();
    let time: String = end.chars().skip_while(|character| *character != 'T').skip(1).take(15).collect();
    row(&[
        time,
        format!("{seconds:.3}"),
        record.protocol.to_string(),
        called(&record.source),
        called(&record.destination),
        record.service.as_ref().map(|asked| asked.service.to_string()).unwrap_or_default(),
        record.class.to_string(),
        record.verdict.to_string(),
        cause(record),
        way(&record.sent),
        way(&record.received),
    ])
}

fn compact(record: &Record) -> String {
    let service = record.service.as_ref().map(|asked| format!(" by {}", asked_text(asked))).unwrap_or_default();
    let cause = record.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    format!(
        "{} {} {} > {}{service} {}{cause} sent {}/{} received {}/{}",
        record.end,
        record.protocol,
        called(&record.source),
        called(&record.destination),
        record.verdict,
        record.sent.packets,
        record.sent.bytes,
        record.received.packets,
        record.received.bytes,
    )
}

fn cause(record: &Record) -> String {
    record.cause.map(|cause| cause.to_string()).unwrap_or_default()
}

fn asked_text(asked: &Asked) -> String {
    format!("{} ({})", asked.service, asked.at())
}

fn name(end: &End) -> Option<String> {
    let pod = end.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name));
    pod.or_else(|| end.node.as_ref().map(|node| format!("node/{node}")))
}

fn called(end: &End) -> String {
    name(end).map_or_else(|| end.at().to_string(), |name| format!("{name}:{}", end.port))
}

fn csv(record: &Record) -> String {
    let asked = record.service.as_ref();
    let values = [
        record.id.to_string(),
        word(&record.report),
        record.start.to_string(),
        record.end.to_string(),
        record.protocol.to_string(),
        record.source.ip.to_string(),
        record.source.port.to_string(),
        name(&record.source).unwrap_or_default(),
        record.destination.ip.to_string(),
        record.destination.port.to_string(),
        name(&record.destination).unwrap_or_default(),
        asked.map(|asked| asked.service.to_string()).unwrap_or_default(),
        asked.map(|asked| asked.ip.to_string()).unwrap_or_default(),
        asked.map(|asked| asked.port.to_string()).unwrap_or_default(),
        record.class.to_string(),
        record.verdict.to_string(),
        record.node.to_string(),
        word(&record.reporter),
        record.sent.packets.to_string(),
        record.sent.bytes.to_string(),
        record.received.packets.to_string(),
        record.received.bytes.to_string(),
        record.handshake_micros.map(|micros| micros.to_string()).unwrap_or_default(),
        cause(record),
    ];
    // Names of Kubernetes have neither commas nor quotes.
    values.join(",")
}

/// As serde calls it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn missing(gap: &Gap) -> String {
    let Gap { start, end, node, packets, bytes, flows, .. } = gap;
    let whose = whose(gap.pod.as_deref(), gap.device.as_ref());
    match gap.at {
        GapAt::Kernel => format!(
            "GAP {start} to {end} at {node}{whose}: the kernel had no room; {packets} packets with {bytes} bytes are in no flow, \
             {flows} flows (connections exactly, others about) in none of their own"
        ),
        GapAt::Reader => {
            format!("GAP {start} to {end} at {node}{whose}: this reader was too slow for {flows} records")
        }
        GapAt::Store => format!(
            "GAP {start} to {end} at {node}: of what was recorded then some is not kept any more, and nobody knows how much that was"
        ),
        GapAt::Collector => format!("GAP {start} to {end} at {node}: {flows} records did not come to this collector"),
        GapAt::Log => format!("GAP {start} to {end} at {node}: this log could not take {flows} records"),
        GapAt::Agent => format!(
            "GAP {start} to {end} at {node}: the agent did not end by itself; what it had read and not told is lost, and nobody knows how \
             much that was"
        ),
    }
}

fn dropped(drops: &Drops) -> String {
    let Drops { start, end, node, cause, packets, .. } = drops;
    let whose = whose(drops.pod.as_deref(), drops.device.as_ref());
    let way = match drops.direction {
        Direction::Ingress => "to",
        Direction::Egress => "from",
    };
    format!(
        "DROPS {start} to {end} at {node}{whose}: {packets} packets {way} the pod ({cause}), nobody knows of which \
         flows"
    )
}

/// The pod and its interface, as far as they are known.
fn whose(pod: Option<&PodIdentity>, device: Option<&Interface>) -> String {
    let pod = pod.map(|pod| format!(" of {}/{}", pod.namespace, pod.name)).unwrap_or_default();
    let interface = match device {
        Some(Interface { name: Some(name), .. }) => format!(" by interface {name}"),
        Some(Interface { index, name: None }) => format!(" by interface number {index}"),
        None => String::new(),
    };
    pod + &interface
}

#[cfg(test)]
mod tests;
