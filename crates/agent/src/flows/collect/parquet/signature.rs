//! Signatures of requests to AWS (Signature Version 4), as S3 has them: pure, with the time as an argument.

use data_encoding::HEXLOWER;
use ring::{digest, hmac};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";
/// What ends a scope.
const END: &str = "aws4_request";
/// How many characters of a time are its day.
const DAY: usize = 8;

/// Who asks.
pub(super) struct Keys {
    pub(super) access: String,
    pub(super) secret: String,
    /// Of keys that hold for a while only.
    pub(super) token: Option<String>,
}

/// A request without a query.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// As it stands in the request: of characters that mean themselves, and `%` with two digits.
    pub(super) path: &'a str,
    /// Those that are signed, in small letters and in the order of the alphabet; the host has to be among them.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// Of its content.
    pub(super) hash: &'a str,
    /// When it is made: `20260131T235959Z`.
    pub(super) at: &'a str,
}

/// Of a request's content.
pub(super) fn hash(content: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, content).as_ref())
}

impl Unsigned<'_> {
    /// The value of `Authorization` that it has to have.
    pub(super) fn authorization(&self, keys: &Keys, region: &str) -> String {
        let names = self.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        // Between the path and the headers stands the query, of which there is none.
        let canonical = format!("{}\n{}\n\n{lines}\n{names}\n{}", self.method, self.path, self.hash);
        let day = self.at.get(..DAY).unwrap_or(self.at);
        let scope = format!("{day}/{region}/{SERVICE}/{END}");
        let text = format!("{ALGORITHM}\n{}\n{scope}\n{}", self.at, hash(canonical.as_bytes()));
        let first = format!("AWS4{}", keys.secret).into_bytes();
        let key = [day, region, SERVICE, END].iter().fold(first, |key, part| sign(&key, part));
        let signature = HEXLOWER.encode(&sign(&key, &text));
        format!("{ALGORITHM} Credential={}/{scope},SignedHeaders={names},Signature={signature}", keys.access)
    }
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_example_in_amazons_manual() {
        // Amazon S3 API Reference, "Signature Calculations: Transferring Payload in a Single Chunk", "Example: PUT Object".
        let hash = hash(b"Welcome to Amazon S3.");
        assert_eq!(hash, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
        let at = "20130524T000000Z";
        let headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", hash.as_str()),
            ("x-amz-date", at),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let unsigned = Unsigned { method: "PUT", path: "/test%24file.text", headers: &headers, hash: &hash, at };
        let keys = Keys {
            access: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            token: None,
        };
        assert_eq!(
            unsigned.authorization(&keys, "us-east-1"),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,\
             Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
    }
}
