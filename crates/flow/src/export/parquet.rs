//! Parquet files (parquet.apache.org/docs/file-format): one row for each item, one column for each value that an item can have.
//!
//! A column is called as the value's way in the item's JSON, with underscores: `source_pod_service_account` is `source.pod.serviceAccount`. What only gaps
//! have begins with `gap_`, what only drops at interfaces have with `drops_`. Whatever an item does not have is null.

use std::sync::Arc;

use ::parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType, Int64Type},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use jiff::Timestamp;
use serde_json::Value;

use crate::Numbered;

/// Items could not be put into a file.
#[derive(Debug, thiserror::Error)]
#[error("records cannot be put into a Parquet file")]
pub struct NotWritten(#[from] ParquetError);

/// How a column's values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// Several values, as JSON.
    Json,
    /// Of counters that are larger than there is room for (2⁶³) the largest that there is.
    Number,
    /// In microseconds since 1970.
    Time,
}

/// The way to a value in an item's JSON, and how it is kept.
type Place = (&'static str, Kind);

/// Of all items, and what only flows have.
const FIRST: [Place; 9] = [
    ("type", Kind::Text),
    ("record", Kind::Text),
    ("node", Kind::Text),
    ("start", Kind::Time),
    ("end", Kind::Time),
    ("id", Kind::Text),
    ("report", Kind::Text),
    ("reporter", Kind::Text),
    ("protocol", Kind::Text),
];
const ENDS: [&str; 2] = ["source.", "destination."];
const END: [Place; 3] = [("ip", Kind::Text), ("port", Kind::Number), ("node", Kind::Text)];
const POD: [Place; 8] = [
    ("pod.namespace", Kind::Text),
    ("pod.name", Kind::Text),
    ("pod.uid", Kind::Text),
    ("pod.node", Kind::Text),
    ("pod.labels", Kind::Json),
    ("pod.owner.kind", Kind::Text),
    ("pod.owner.name", Kind::Text),
    ("pod.serviceAccount", Kind::Text),
];
const REST: [Place; 10] = [
    ("seenAs", Kind::Text),
    ("service.namespace", Kind::Text),
    ("service.name", Kind::Text),
    ("service.ip", Kind::Text),
    ("service.port", Kind::Number),
    ("class", Kind::Text),
    ("verdict", Kind::Text),
    ("cause", Kind::Text),
    ("handshakeMicros", Kind::Number),
    ("destinationCounts.node", Kind::Text),
];
const WAYS: [&str; 4] = ["sent.", "received.", "destinationCounts.sent.", "destinationCounts.received."];
const WAY: [Place; 5] = [
    ("packets", Kind::Number),
    ("bytes", Kind::Number),
    ("retransmissions", Kind::Number),
    ("resets", Kind::Number),
    ("flags", Kind::Number),
];
const GAP: [Place; 6] = [
    ("at", Kind::Text),
    ("device", Kind::Number),
    ("interface", Kind::Text),
    ("packets", Kind::Number),
    ("bytes", Kind::Number),
    ("flows", Kind::Number),
];

const DROPS: [Place; 4] =
    [("direction", Kind::Text), ("device", Kind::Number), ("interface", Kind::Text), ("packets", Kind::Number)];

struct Column {
    name: String,
    /// The way to the value.
    path: String,
    kind: Kind,
    /// The one kind of items that has it, where there is such a one.
    of: Option<&'static str>,
}

impl Column {
    fn new(of: Option<&'static str>, before: &str, (path, kind): Place) -> Self {
        let path = format!("{before}{path}");
        let mut name = of.map(|of| format!("{of}_")).unwrap_or_default();
        for letter in path.chars() {
            match letter {
                '.' => name.push('_'),
                letter if letter.is_ascii_uppercase() => name.extend(['_', letter.to_ascii_lowercase()]),
                letter => name.push(letter),
            }
        }
        Self { name, path, kind, of }
    }

    /// As the schema has it.
    fn line(&self) -> String {
        let (kind, meaning) = match self.kind {
            Kind::Text => ("BYTE_ARRAY", "(STRING)"),
            Kind::Json => ("BYTE_ARRAY", "(JSON)"),
            Kind::Number => ("INT64", ""),
            Kind::Time => ("INT64", "(TIMESTAMP(MICROS,true))"),
        };
        format!("OPTIONAL {kind} {} {meaning};", self.name)
    }

    /// Its value in a row.
    fn value<'a>(&self, row: &'a Row) -> Option<&'a Value> {
        if self.of.is_some_and(|of| of != row.kind) {
            return None;
        }
        self.path.split('.').try_fold(&row.item, |value, name| value.get(name))
    }

    fn text(&self, row: &Row) -> Option<ByteArray> {
        let value = self.value(row)?;
        let text = if self.kind == Kind::Json { value.to_string() } else { value.as_str()?.to_owned() };
        Some(ByteArray::from(text.into_bytes()))
    }

    fn number(&self, row: &Row) -> Option<i64> {
        let value = self.value(row)?;
        if self.kind == Kind::Time {
            return Some(value.as_str()?.parse::<Timestamp>().ok()?.as_microsecond());
        }
        Some(i64::try_from(value.as_u64()?).unwrap_or(i64::MAX))
    }
}

/// All columns, in their order.
fn columns() -> Vec<Column> {
    let first = FIRST.into_iter().map(|place| Column::new(None, "", place));
    let ends =
        ENDS.into_iter().flat_map(|end| END.into_iter().chain(POD).map(move |place| Column::new(None, end, place)));
    let rest = REST.into_iter().map(|place| Column::new(None, "", place));
    let ways = WAYS.into_iter().flat_map(|way| WAY.into_iter().map(move |place| Column::new(None, way, place)));
    let gaps = GAP.into_iter().chain(POD).map(|place| Column::new(Some("gap"), "", place));
    let drops = DROPS.into_iter().chain(POD).map(|place| Column::new(Some("drops"), "", place));
    first.chain(ends).chain(rest).chain(ways).chain(gaps).chain(drops).collect()
}

struct Row {
    item: Value,
    kind: &'static str,
}

/// A column's values, of its one kind, with levels that say in which rows there is one.
#[derive(Default)]
struct Cells {
    texts: Vec<ByteArray>,
    numbers: Vec<i64>,
    levels: Vec<i16>,
}

impl Cells {
    fn add(&mut self, column: &Column, row: &Row) {
        let before = self.texts.len() + self.numbers.len();
        match column.kind {
            Kind::Text | Kind::Json => self.texts.extend(column.text(row)),
            Kind::Number | Kind::Time => self.numbers.extend(column.number(row)),
        }
        self.levels.push(i16::from(self.texts.len() + self.numbers.len() > before));
    }
}

/// A file with these items, one behind the other, in one row group compressed by Snappy. Of the same items it is the same file.
///
/// # Errors
/// Where the library does not take what it is given.
pub fn file(items: &[Numbered]) -> Result<Vec<u8>, NotWritten> {
    let columns = columns();
    let lines: Vec<String> = columns.iter().map(Column::line).collect();
    let schema = parse_message_type(&format!("message flows {{ {} }}", lines.join(" ")))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(concat!("podnet version ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut cells: Vec<Cells> = columns.iter().map(|_| Cells::default()).collect();
    // One after the other: as JSON all of them would have some ten times as many bytes as their values.
    for item in items {
        // Nothing in it can fail to be JSON.
        let row = Row { item: serde_json::to_value(item).unwrap_or_default(), kind: item.item.kind() };
        for (column, cells) in columns.iter().zip(&mut cells) {
            cells.add(column, &row);
        }
    }
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (column, Cells { texts, numbers, levels }) in columns.iter().zip(cells) {
        let Some(mut writer) = group.next_column()? else { break };
        let levels = Some(levels.as_slice());
        let _written = match column.kind {
            Kind::Text | Kind::Json => writer.typed::<ByteArrayType>().write_batch(texts.as_slice(), levels, None)?,
            Kind::Number | Kind::Time => writer.typed::<Int64Type>().write_batch(numbers.as_slice(), levels, None)?,
        };
        writer.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
