//! SCRAM (RFC 5802, RFC 7677), as far as a client without channel binding speaks it: pure, with its nonce as an argument. Names and passwords are taken
//! as they are, without `SASLprep`, which leaves those of ASCII as they are.

use std::num::NonZeroU32;

use data_encoding::BASE64;
use ring::{digest, hmac, pbkdf2};

/// What says that there is no channel binding (section 6), and the same in base64.
const HEADER: &str = "n,,";
const NO_BINDING: &str = "biws";
/// How often hashes are made over and over: no less than Kafka's least, and no more than take half a second.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=500_000;

/// The hash of a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }

    fn key(self, bytes: &[u8]) -> hmac::Key {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(algorithm, bytes)
    }

    /// What the password becomes with its salt.
    fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let (algorithm, length) = match self {
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, digest::SHA256_OUTPUT_LEN),
            Self::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, digest::SHA512_OUTPUT_LEN),
        };
        let mut salted = vec![0; length];
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
        salted
    }
}

/// The other side does not say what SCRAM has it say.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it says what is not SCRAM's, or has it hashed too seldom or too often: {0}")]
pub(super) struct NotScram(String);

/// A conversation that begins.
pub(super) struct Scram {
    hash: Hash,
    /// The first message, without its header.
    first: String,
    nonce: String,
}

/// That we know the password, and that the other side does.
pub(super) struct Proof {
    /// The last message.
    pub(super) message: String,
    key: hmac::Key,
    /// What the other side has to sign with that.
    signed: String,
}

impl Scram {
    /// With a nonce that nobody can guess, of letters and digits.
    pub(super) fn new(hash: Hash, user: &str, nonce: &str) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self { hash, first: format!("n={user},r={nonce}"), nonce: nonce.to_owned() }
    }

    /// The first message.
    pub(super) fn first(&self) -> String {
        format!("{HEADER}{}", self.first)
    }

    /// What answers the other side's challenge.
    pub(super) fn proof(&self, password: &str, challenge: &[u8]) -> Result<Proof, NotScram> {
        let text = String::from_utf8_lossy(challenge).into_owned();
        let wrong = || NotScram(text.clone());
        let value = |name: &str| text.split(',').find_map(|part| part.strip_prefix(name)).ok_or_else(wrong);
        let (nonce, salt, iterations) = (value("r=")?, value("s=")?, value("i=")?);
        let salt = BASE64.decode(salt.as_bytes()).map_err(|_| wrong())?;
        let iterations: u32 = iterations.parse().map_err(|_| wrong())?;
        let repeated = NonZeroU32::new(iterations).filter(|_| ITERATIONS.contains(&iterations)).ok_or_else(wrong)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(wrong());
        }
        let salted = self.hash.key(&self.hash.salted(password, &salt, repeated));
        let client = hmac::sign(&salted, b"Client Key");
        let last = format!("c={NO_BINDING},r={nonce}");
        let signed = format!("{},{text},{last}", self.first);
        let signature = hmac::sign(&self.hash.key(&self.hash.digest(client.as_ref())), signed.as_bytes());
        let proof: Vec<u8> =
            client.as_ref().iter().zip(signature.as_ref()).map(|(key, signature)| key ^ signature).collect();
        let key = self.hash.key(hmac::sign(&salted, b"Server Key").as_ref());
        Ok(Proof { message: format!("{last},p={}", BASE64.encode(&proof)), key, signed })
    }
}

impl Proof {
    /// Whether the other side knows the password as well, by its last message.
    pub(super) fn is_signed(&self, last: &[u8]) -> bool {
        let text = String::from_utf8_lossy(last);
        let signature = text.split(',').find_map(|part| part.strip_prefix("v="));
        let signature = signature.and_then(|signature| BASE64.decode(signature.as_bytes()).ok());
        signature.is_some_and(|signature| hmac::verify(&self.key, self.signed.as_bytes(), &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_conversation_is_that_of_rfc_7677() {
        let scram = Scram::new(Hash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let proof = scram.proof("pencil", CHALLENGE.as_bytes()).unwrap();
        assert_eq!(
            proof.message,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(proof.is_signed(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        for wrong in [&b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="[..], b"e=invalid-proof", b"v=", b""] {
            assert!(!proof.is_signed(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_challenge_that_is_another_ones_or_too_easy_is_not_answered() {
        let scram = Scram::new(Hash::Sha512, "a=b,c", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(scram.first(), "n,,n=a=3Db=2Cc,r=rOprNGfwEbeRWgbNEkqO");
        assert!(scram.proof("pencil", CHALLENGE.as_bytes()).is_ok());
        for (was, is) in [
            ("i=4096", "i=4095"),
            ("i=4096", "i=9999999"),
            ("i=4096", "x=4096"),
            ("s=W22Z", "s=!"),
            ("r=rOpr", "r=xOpr"),
            ("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", ""),
        ] {
            let challenge = CHALLENGE.replace(was, is);
            assert!(scram.proof("pencil", challenge.as_bytes()).is_err(), "{challenge}");
        }
    }
}
