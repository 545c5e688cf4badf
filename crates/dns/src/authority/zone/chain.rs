//! The NSEC3 records of a zone, by hash (RFC 5155).

use ring::digest;

use super::{Defect, RrSet};
use crate::{message::u16_at, name::Name};

/// More iterations than this are refused: RFC 9276 §3.2 lets validators treat more than 100 as bogus, and each of a client's
/// questions would cost that many hashes several times over.
const MAX_ITERATIONS: u16 = 500;

/// A SHA-1 digest, the only hash that NSEC3 has (RFC 5155 §11).
pub(crate) type Hash = [u8; 20];

/// A zone's chain of hashes.
#[derive(Debug)]
pub(super) struct Chain {
    iterations: u16,
    salt: Box<[u8]>,
    /// In the order of the hashes.
    links: Vec<Link>,
}

/// One NSEC3 record, by its place among the zone's.
#[derive(Debug)]
struct Link {
    hash: Hash,
    at: usize,
}

impl Chain {
    /// The chain that the data of an NSEC3PARAM record describes. Records with other parameters are left out (RFC 5155 §7.3).
    pub(super) fn new(origin: &Name, parameters: &[u8], records: &[(Name, RrSet)]) -> Result<Self, Defect> {
        let iterations = u16_at(parameters, 2).unwrap_or(0);
        let salt: Box<[u8]> = parameters.get(5..).unwrap_or_default().into();
        if iterations > MAX_ITERATIONS {
            return Err(Defect::Iterations { found: iterations, limit: MAX_ITERATIONS });
        }
        let mut links = Vec::new();
        for (at, (owner, set)) in records.iter().enumerate() {
            let data = set.data.first();
            let same = data.get(4).is_some_and(|size| data.get(5..5 + usize::from(*size)) == Some(&salt[..]));
            let label = owner.wire().get(1..=usize::from(owner.wire()[0])).unwrap_or_default().to_ascii_uppercase();
            let hash = data_encoding::BASE32HEX_NOPAD.decode(&label).ok().and_then(|hash| Hash::try_from(hash).ok());
            let (Some(hash), true) = (hash, same && u16_at(data, 2) == Some(iterations)) else { continue };
            if owner.labels() == origin.labels() + 1 {
                links.push(Link { hash, at });
            }
        }
        links.sort_by_key(|link| link.hash);
        Ok(Self { iterations, salt, links })
    }

    /// The hash of a lower-case name (RFC 5155 §5).
    pub(super) fn hash(&self, name: &[u8]) -> Hash {
        hash(name, self.iterations, &self.salt)
    }

    /// The record of exactly this name.
    pub(super) fn matching(&self, name: &[u8]) -> Option<usize> {
        let found = self.links.binary_search_by_key(&self.hash(name), |link| link.hash).ok()?;
        Some(self.links[found].at)
    }

    /// The record whose span the name's hash falls into; the last one's span goes round to the first.
    pub(super) fn covering(&self, name: &[u8]) -> Option<usize> {
        let below = match self.links.binary_search_by_key(&self.hash(name), |link| link.hash) {
            Ok(_) => return None,
            Err(0) => self.links.len().checked_sub(1)?,
            Err(above) => above - 1,
        };
        Some(self.links[below].at)
    }
}

/// `iterations` hashes beyond the first, each over the last one and the salt.
pub(crate) fn hash(name: &[u8], iterations: u16, salt: &[u8]) -> Hash {
    let mut out: Hash = [0; 20];
    for round in 0..=iterations {
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(if round == 0 { name } else { &out });
        context.update(salt);
        out.copy_from_slice(context.finish().as_ref());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5155_a_the_examples_hashes() {
        let salt = [0xaa, 0xbb, 0xcc, 0xdd];
        for (name, expected) in [
            ("example", "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom"),
            ("a.example", "35mthgpgcu1qg68fab165klnsnk3dpvl"),
            ("*.w.example", "r53bq7cc2uvmubfu5ocmm6pers9tk9en"),
        ] {
            let hash = hash(Name::parse(name).unwrap().wire(), 12, &salt);
            assert_eq!(data_encoding::BASE32HEX_NOPAD.encode(&hash).to_ascii_lowercase(), expected);
        }
    }
}
