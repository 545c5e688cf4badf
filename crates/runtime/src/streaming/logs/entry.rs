//! A line of a log file: `RFC3339NANO stdout|stderr F|P text`, as the CRI has container runtimes write it.

/// Where a process wrote something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::streaming) enum LogStream {
    Stdout,
    Stderr,
}

/// A line, or with `partial` a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) time: &'a str,
    pub(super) stream: LogStream,
    pub(super) partial: bool,
    pub(super) text: &'a [u8],
}

/// How much of a line [`Entry::parse`] needs for everything but the text.
pub(super) const HEAD: usize = 64;

impl<'a> Entry<'a> {
    /// None for what is no log line, such as one that a crash cut short.
    pub(super) fn parse(line: &'a [u8]) -> Option<Entry<'a>> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok().filter(|time| !time.is_empty())?;
        let stream = match fields.next()? {
            b"stdout" => LogStream::Stdout,
            b"stderr" => LogStream::Stderr,
            _ => return None,
        };
        // More tags may follow after colons.
        let partial = match fields.next()?.split(|byte| *byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Entry { time, stream, partial, text: fields.next().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_stream_tag_and_text() {
        let time = "2026-01-02T03:04:05.000000006Z";
        let full = Entry { time, stream: LogStream::Stdout, partial: false, text: b"hello  world" };
        assert_eq!(Entry::parse(b"2026-01-02T03:04:05.000000006Z stdout F hello  world"), Some(full));
        let piece = Entry { stream: LogStream::Stderr, partial: true, text: b"", ..full };
        assert_eq!(Entry::parse(b"2026-01-02T03:04:05.000000006Z stderr P "), Some(piece));
    }

    #[test]
    fn what_is_no_log_line_is_none() {
        for line in [
            &b""[..],
            b"plain text",
            b"2026-01-02T03:04:05Z stdin F x",
            b"2026-01-02T03:04:05Z stdout",
            b"T stdout X y",
        ] {
            assert_eq!(Entry::parse(line), None, "{}", String::from_utf8_lossy(line));
        }
    }
}
