//! NSEC3 records (RFC 5155 §3).

use crate::{authority::Nsec3Hash, message::u16_at, name::Name};

/// The flag of a span in which there may be delegations that it does not tell (RFC 5155 §3.1.2.1).
const OPT_OUT: u8 = 1;

/// What an NSEC3 record of a zone says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nsec3<'a> {
    /// The hash of the name that it is for.
    pub(crate) owner: Nsec3Hash,
    /// Up to this one there is no other.
    pub(crate) next: Nsec3Hash,
    /// There may be unsigned delegations between both.
    pub(crate) opt_out: bool,
    /// Names are hashed so many times more than once, …
    pub(crate) iterations: u16,
    /// … with this.
    pub(crate) salt: &'a [u8],
    /// Where in its data the name's types begin.
    pub(crate) types: usize,
}

impl<'a> Nsec3<'a> {
    /// Reads the record with this owner and data; none where it is none of the zone's, or of a kind that nobody knows (RFC 5155 §8.1
    /// and §8.2).
    pub(crate) fn read(owner: &Name, zone: &Name, rdata: &'a [u8]) -> Option<Self> {
        if owner.labels() != zone.labels() + 1 || !owner.within(zone) {
            return None;
        }
        let label = owner.wire().get(1..=usize::from(*owner.wire().first()?))?.to_ascii_uppercase();
        let owner = Nsec3Hash::try_from(data_encoding::BASE32HEX_NOPAD.decode(&label).ok()?).ok()?;
        // Algorithm, flags, iterations, salt, next hash, types.
        let (&[algorithm, flags], iterations) = (rdata.first_chunk::<2>()?, u16_at(rdata, 2)?);
        let end = 5 + usize::from(*rdata.get(4)?);
        let next = Nsec3Hash::try_from(rdata.get(end + 1..end + 21)?).ok()?;
        let is_known = algorithm == 1 && flags & !OPT_OUT == 0 && rdata.get(end) == Some(&20);
        let (opt_out, salt) = (flags & OPT_OUT != 0, rdata.get(5..end)?);
        is_known.then_some(Self { owner, next, opt_out, iterations, salt, types: end + 21 })
    }

    /// Whether a hash lies between both. The last record's span goes round to the first.
    pub(crate) fn covers(&self, hash: &Nsec3Hash) -> bool {
        let (behind, before) = (self.owner < *hash, *hash < self.next);
        if self.owner < self.next { behind && before } else { behind || before }
    }
}
