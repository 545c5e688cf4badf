//! The cookie of a query (RFC 7873 §4): a number of the client's, and what this server gave it for that.

/// The EDNS option.
pub(crate) const COOKIE: u16 = 10;
/// Size of the option in a response: its code and length, the client's part and ours.
const OPTION: usize = 4 + 8 + 16;

/// A client's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The client's part.
    pub client: [u8; 8],
    /// The server's part: what came, and, once it was judged, what goes back. None where there was none of this server's make.
    pub server: Option<[u8; 16]>,
    /// It is this server's own: who asks has had an answer at that address.
    pub verified: bool,
}

/// A cookie of a length that there is none of (RFC 7873 §5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadCookie;

impl Cookie {
    /// Reads the option's value.
    pub(super) fn parse(value: &[u8]) -> Result<Self, BadCookie> {
        let (client, server) = value.split_first_chunk::<8>().ok_or(BadCookie)?;
        if !server.is_empty() && !(8..=32).contains(&server.len()) {
            return Err(BadCookie);
        }
        Ok(Self { client: *client, server: server.try_into().ok(), verified: false })
    }

    /// The size of the option in a response, in bytes.
    pub(super) fn size(&self) -> usize {
        self.server.map_or(0, |_| OPTION)
    }

    /// Writes the option of a response; nothing where there is no part of the server's.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let Some(server) = self.server else { return };
        out.extend_from_slice(&COOKIE.to_be_bytes());
        out.extend_from_slice(&24_u16.to_be_bytes());
        out.extend_from_slice(&self.client);
        out.extend_from_slice(&server);
    }
}
