//! Log entries become text: pieces are joined to lines, and what was not asked for is left out.

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};

use super::{LogOptions, LogStream, entry::Entry};

/// A line that grows beyond this is handed on in parts, among which the other stream's lines can then get.
const MAX_LINE: usize = 256 * 1024;

/// Turns a file's lines into the text that a client gets.
pub(super) struct Assembler {
    options: LogOptions,
    /// What is left of the client's limit.
    left: u64,
    /// The line that each stream is in the middle of.
    stdout: Line,
    stderr: Line,
    text: BytesMut,
}

#[derive(Default)]
struct Line {
    text: BytesMut,
    /// The time has been written and the line's end has not.
    open: bool,
}

impl Assembler {
    pub(super) fn new(options: LogOptions) -> Assembler {
        let (stdout, stderr) = (Line::default(), Line::default());
        Assembler { options, left: options.limit.unwrap_or(u64::MAX), stdout, stderr, text: BytesMut::new() }
    }

    /// Takes a line of the file, without its newline. What is no log line is passed over.
    pub(super) fn line(&mut self, line: &[u8]) {
        let Some(entry) = Entry::parse(line) else { return };
        if self.options.stream.is_some_and(|wanted| wanted != entry.stream) || !self.is_recent(entry.time) {
            return;
        }
        let timestamps = self.options.timestamps;
        let line = self.stream(entry.stream);
        if timestamps && !line.open {
            line.text.extend_from_slice(entry.time.as_bytes());
            line.text.extend_from_slice(b" ");
        }
        line.open = true;
        line.text.extend_from_slice(entry.text);
        if !entry.partial {
            line.text.extend_from_slice(b"\n");
            line.open = false;
        }
        if !line.open || line.text.len() > MAX_LINE {
            let text = line.text.split();
            self.emit(&text);
        }
    }

    /// There will be no more lines: what is begun is all that there is of it.
    pub(super) fn finish(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let text = self.stream(stream).text.split();
            self.emit(&text);
        }
    }

    /// The text so far.
    pub(super) fn take(&mut self) -> Bytes {
        self.text.split().freeze()
    }

    /// The client's limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.left == 0
    }

    fn stream(&mut self, stream: LogStream) -> &mut Line {
        match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        }
    }

    fn is_recent(&self, time: &str) -> bool {
        let Some(since) = self.options.since else { return true };
        DateTime::parse_from_rfc3339(time).is_ok_and(|time| time.with_timezone(&Utc) >= since)
    }

    fn emit(&mut self, text: &[u8]) {
        let length = text.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.text.extend_from_slice(&text[..length]);
        self.left -= length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-01T00:00:01Z stdout F one
2026-01-01T00:00:02Z stdout P tw
2026-01-01T00:00:02Z stderr F error
2026-01-01T00:00:03Z stdout F o
garbage
2026-01-01T00:00:04Z stdout P three";

    fn text(options: LogOptions) -> String {
        let mut assembler = Assembler::new(options);
        LOG.lines().for_each(|line| assembler.line(line.as_bytes()));
        assembler.finish();
        String::from_utf8(assembler.take().into()).unwrap()
    }

    #[test]
    fn pieces_become_lines_whatever_the_other_stream_does_between_them() {
        assert_eq!(text(LogOptions::default()), "one\nerror\ntwo\nthree");
    }

    #[test]
    fn a_line_has_the_time_of_its_first_piece() {
        let options = LogOptions { timestamps: true, stream: Some(LogStream::Stdout), ..LogOptions::default() };
        let expected = "2026-01-01T00:00:01Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:04Z three";
        assert_eq!(text(options), expected);
    }

    #[test]
    fn older_lines_and_bytes_beyond_the_limit_are_left_out() {
        let since = Some(DateTime::parse_from_rfc3339("2026-01-01T00:00:02Z").unwrap().to_utc());
        assert_eq!(text(LogOptions { since, ..LogOptions::default() }), "error\ntwo\nthree");
        assert_eq!(text(LogOptions { limit: Some(6), ..LogOptions::default() }), "one\ner");
    }

    #[test]
    fn an_endless_line_is_not_kept_in_memory() {
        let mut assembler = Assembler::new(LogOptions::default());
        let mut piece = b"2026-01-01T00:00:01Z stdout P ".to_vec();
        piece.extend(vec![b'x'; 16 * 1024]);
        (0..64).for_each(|_| assembler.line(&piece));
        assert!(assembler.take().len() >= 1024 * 1024 - MAX_LINE - 16 * 1024);
    }
}
