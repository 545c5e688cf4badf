//! Questions and answers of the gateway: keys and values in base64, numbers of 64 bits as strings, what is empty left out.

use std::io;

use data_encoding::BASE64;
use podnet_dns::etcd::Keys;
use serde::Deserialize;
use serde_json::{Value, json};

/// A key that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// The number of its lease; 0: it has none.
    pub(super) lease: i64,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Range {
    kvs: Vec<Pair>,
    more: bool,
}

#[derive(Deserialize)]
struct Pair {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    lease: String,
}

/// The question for keys, for so many at most.
pub(super) fn range(keys: &Keys, most: usize) -> Value {
    match keys {
        Keys::One(key) => json!({ "key": BASE64.encode(key) }),
        Keys::Below(start) => json!({
            "key": BASE64.encode(start),
            "range_end": BASE64.encode(&after(start)),
            "limit": most.to_string(),
        }),
    }
}

/// The first key behind all those that begin with these bytes; a zero byte: there is none.
fn after(start: &[u8]) -> Vec<u8> {
    let mut end = start.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// The keys in an answer.
pub(super) fn found(answer: &Value) -> io::Result<Vec<Found>> {
    let range = Range::deserialize(answer).map_err(io::Error::other)?;
    if range.more {
        return Err(io::Error::other("etcd has more keys below the name than can be told"));
    }
    let bytes = |text: &str| BASE64.decode(text.as_bytes()).map_err(io::Error::other);
    let found = |pair: Pair| {
        let lease = if pair.lease.is_empty() { 0 } else { pair.lease.parse().map_err(io::Error::other)? };
        Ok(Found { key: bytes(&pair.key)?, value: bytes(&pair.value)?, lease })
    };
    range.kvs.into_iter().map(found).collect()
}

/// The question for what a lease has left.
pub(super) fn lease(number: i64) -> Value {
    json!({ "ID": number.to_string() })
}

/// The seconds in an answer to [`lease`]; 0 where the lease is over, which is told as -1.
pub(super) fn left(answer: &Value) -> u32 {
    answer["TTL"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The question for a token.
pub(super) fn credentials(user: &str, password: &str) -> Value {
    json!({ "name": user, "password": password })
}

/// The token in an answer to [`credentials`].
pub(super) fn token(answer: &Value) -> io::Result<&str> {
    answer["token"].as_str().ok_or_else(|| io::Error::other("etcd gave no token for the credentials"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_below_are_those_from_it_to_the_next_one() {
        assert_eq!(after(b"/skydns/"), b"/skydns0");
        assert_eq!(after(&[b'a', 0xff, 0xff]), b"b");
        assert_eq!(after(&[0xff]), [0]);
        let question = range(&Keys::Below(b"/s/".to_vec()), 7);
        assert_eq!(question, json!({ "key": "L3Mv", "range_end": "L3Mw", "limit": "7" }));
        assert_eq!(range(&Keys::One(b"/s".to_vec()), 7), json!({ "key": "L3M=" }));
    }

    #[test]
    fn what_is_left_out_is_empty_and_what_is_cut_is_an_error() {
        assert_eq!(found(&json!({ "header": {} })).unwrap(), []);
        let answer =
            json!({ "kvs": [{ "key": "L3M=", "value": "e30=", "lease": "7587" }, { "key": "YQ==" }], "count": "2" });
        let expected = [
            Found { key: b"/s".to_vec(), value: b"{}".to_vec(), lease: 7587 },
            Found { key: b"a".to_vec(), value: Vec::new(), lease: 0 },
        ];
        assert_eq!(found(&answer).unwrap(), expected);
        assert!(found(&json!({ "kvs": [], "more": true })).is_err());
        assert!(found(&json!({ "kvs": [{ "key": "not base64!" }] })).is_err());
        assert_eq!((left(&json!({ "TTL": "57" })), left(&json!({ "TTL": "-1" })), left(&json!({}))), (57, 0, 0));
    }
}
