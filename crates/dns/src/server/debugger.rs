//! `debug`: what is of interest to who looks for a fault, told while a server block of the Corefile has it.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use super::{Event, Observer};

/// How many bytes stand on a line of a dump.
const LINE: usize = 16;

/// Tells those who debug; nobody where the Corefile has no `debug`.
#[derive(Clone, Default)]
pub struct Debugger(Option<Arc<Observer>>);

impl Debugger {
    /// Tells this one.
    pub(super) fn new(observer: Option<Arc<Observer>>) -> Self {
        Self(observer)
    }

    /// Whether anybody is told.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells something; it is put into words only where somebody hears it.
    pub fn tell(&self, message: impl FnOnce() -> String) {
        if let Some(observer) = &self.0 {
            observer(&Event::Debug { message: &message() });
        }
    }

    /// Tells something of a message, and what that is byte by byte.
    pub fn dump(&self, what: impl FnOnce() -> String, message: &[u8]) {
        self.tell(|| what() + &dumped(message));
    }
}

impl fmt::Debug for Debugger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Debugger").field(&self.is_on()).finish()
    }
}

/// Who hears of something is no part of what it is.
impl PartialEq for Debugger {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Debugger {}

/// Bytes as CoreDNS dumps them: lines of 16 with their place before them, from which text2pcap(1) makes packets.
fn dumped(message: &[u8]) -> String {
    let mut out = String::new();
    for (line, bytes) in message.chunks(LINE).enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(out, "\ndebug: {:06x}", line * LINE);
        for byte in bytes {
            let _ = write!(out, " {byte:02x}");
        }
    }
    let _ = write!(out, "\ndebug: {:06x}", message.len());
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_message_is_dumped_as_the_documentation_shows_it() {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&told);
        let observer: Observer = Box::new(move |event| heard.lock().unwrap().push(format!("{event:?}")));
        let message: Vec<u8> = (0..42).collect();
        Debugger::default().dump(|| panic!("nobody hears it"), &message);
        Debugger::new(Some(Arc::new(observer))).dump(|| "a query".to_owned(), &message);
        let expected = "a query\n\
             debug: 000000 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f\n\
             debug: 000010 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f\n\
             debug: 000020 20 21 22 23 24 25 26 27 28 29\n\
             debug: 00002a";
        assert_eq!(*told.lock().unwrap(), [format!("{:?}", Event::Debug { message: expected })]);
        assert_eq!(dumped(&[]), "\ndebug: 000000");
    }
}
