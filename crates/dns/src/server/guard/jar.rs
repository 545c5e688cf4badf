//! This server's cookies (RFC 7873, in the form of RFC 9018 that servers of all makes share).

use std::{net::IpAddr, sync::Mutex};

use super::siphash::siphash;
use crate::{
    message::Cookie,
    server::{Outside, lock},
};

/// How long a cookie of ours is good, in seconds (RFC 9018 §4.3).
const GOOD: u32 = 3600;
/// How far ahead another server's clock may be, in seconds (the same).
const AHEAD: u32 = 300;
/// From what age on a client gets a new one (the same).
const RENEWED: u32 = 1800;
/// How long a secret of our own making is in use (RFC 7873 §7.1: a day, and never over 26 days).
const ROLLS: u64 = 86_400;

type Secret = [u8; 16];

/// The secrets that cookies are made with.
#[derive(Debug)]
pub(super) struct Jar {
    secrets: Mutex<Secrets>,
}

#[derive(Clone, Copy, Debug)]
struct Secrets {
    /// Cookies are made with it.
    current: Secret,
    /// Cookies that were made with it are good still.
    other: Option<Secret>,
    /// When the present one came into use, in seconds since 1970; none where the Corefile says what they are.
    since: Option<u64>,
}

impl Jar {
    /// Secrets of the Corefile's, the first of which makes cookies; without any, one that chance makes.
    pub(super) fn new(secrets: &[Secret], outside: &dyn Outside) -> Self {
        let secrets = match secrets {
            [current, rest @ ..] => Secrets { current: *current, other: rest.first().copied(), since: None },
            [] => Secrets { current: made(outside), other: None, since: Some(outside.unix()) },
        };
        Self { secrets: Mutex::new(secrets) }
    }

    /// The cookie that goes back for one that came, and whether that was ours.
    pub(super) fn judge(&self, cookie: Cookie, client: IpAddr, outside: &dyn Outside) -> Cookie {
        let time = outside.unix();
        let Secrets { current, other, .. } = self.secrets(time, outside);
        // Serial number arithmetic (RFC 9018 §4.3): the field ends in 2106.
        let now = time as u32;
        let made = |server: &[u8; 16]| u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
        let age = |server: &[u8; 16]| now.wrapping_sub(made(server)) as i32;
        let timely = |server: &[u8; 16]| (-(AHEAD as i32)..=GOOD as i32).contains(&age(server));
        let ours = cookie.server.filter(|server| {
            server[0] == 1
                && timely(server)
                && [Some(current), other].into_iter().flatten().any(|secret| {
                    same(*server, bake(secret, cookie.client, [server[1], server[2], server[3]], made(server), client))
                })
        });
        let keeps = ours.filter(|server| age(server) < RENEWED as i32);
        let server = keeps.unwrap_or_else(|| bake(current, cookie.client, [0; 3], now, client));
        Cookie { server: Some(server), verified: ours.is_some(), ..cookie }
    }

    /// The secrets of now: one that was in use for long enough is replaced.
    fn secrets(&self, time: u64, outside: &dyn Outside) -> Secrets {
        let mut secrets = lock(&self.secrets);
        if secrets.since.is_some_and(|since| time.saturating_sub(since) >= ROLLS) {
            *secrets = Secrets { current: made(outside), other: Some(secrets.current), since: Some(time) };
        }
        *secrets
    }
}

fn made(outside: &dyn Outside) -> Secret {
    let mut secret = [0; 16];
    secret.chunks_exact_mut(8).for_each(|half| half.copy_from_slice(&outside.random().to_be_bytes()));
    secret
}

/// RFC 9018 §4: version, reserved, timestamp, and the hash of them between the client's part and address.
fn bake(secret: Secret, part: [u8; 8], reserved: [u8; 3], time: u32, client: IpAddr) -> [u8; 16] {
    let mut cookie = [0; 16];
    cookie[0] = 1;
    cookie[1..4].copy_from_slice(&reserved);
    cookie[4..8].copy_from_slice(&time.to_be_bytes());
    let mut data = Vec::with_capacity(32);
    data.extend_from_slice(&part);
    data.extend_from_slice(&cookie[..8]);
    match client {
        IpAddr::V4(addr) => data.extend_from_slice(&addr.octets()),
        IpAddr::V6(addr) => data.extend_from_slice(&addr.octets()),
    }
    cookie[8..].copy_from_slice(&siphash(secret, &data).to_le_bytes());
    cookie
}

/// Compares in a time that does not tell where they differ.
fn same(one: [u8; 16], other: [u8; 16]) -> bool {
    one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn rfc_9018_appendix_a_its_examples_are_ours() {
        let secret = hex("e5e973e5a6b2a43f48e7dc849e37bfcf");
        let client: IpAddr = "198.51.100.100".parse().unwrap();
        // A.1: a cookie for a client that has none.
        let cookie: [u8; 16] = bake(secret, hex("2464c4abcf10c957"), [0; 3], 1_559_731_985, client);
        assert_eq!(cookie, hex("010000005cf79f111f8130c3eee29480"));
        // A.2: a newer one for the same client.
        let cookie: [u8; 16] = bake(secret, hex("2464c4abcf10c957"), [0; 3], 1_559_734_385, client);
        assert_eq!(cookie, hex("010000005cf7a871d4a564a1442aca77"));
        // A.3: reserved bits are part of the hash.
        let client: IpAddr = "203.0.113.203".parse().unwrap();
        let cookie: [u8; 16] = bake(secret, hex("fc93fc62807ddb86"), [0xab, 0xcd, 0xef], 1_559_727_985, client);
        assert_eq!(cookie, hex("01abcdef5cf78f71a314227b6679ebf5"));
        // A.4: a client at an IPv6 address.
        let secret = hex("dd3bdf9344b678b185a6f5cb60fca715");
        let client: IpAddr = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let cookie: [u8; 16] = bake(secret, hex("22681ab97d52c298"), [0; 3], 1_559_741_817, client);
        assert_eq!(cookie, hex("010000005cf7c57926556bd0934c72f8"));
    }
}
