//! The form of data that signatures cover and that sets are ordered by (RFC 4034 §6.2, §6.3).

use std::borrow::Cow;

use super::{Field, fields};
use crate::authority::record::kind;

/// Types whose names are put into lower case (RFC 4034 §6.2, as changed by RFC 6840 §5.1).
fn lowers(rtype: u16) -> bool {
    matches!(rtype, 2..=9 | 12 | 14 | 15 | 17 | 18 | 21 | 24 | 26 | 33 | 35 | 36 | 39 | kind::RRSIG)
}

/// Data in canonical form.
pub(crate) fn canonical(rtype: u16, rdata: &[u8]) -> Cow<'_, [u8]> {
    if !lowers(rtype) {
        return Cow::Borrowed(rdata);
    }
    let mut data = rdata.to_vec();
    for (start, end) in names(rtype, rdata) {
        // Length bytes are below 64, where no letter is.
        data[start..end].make_ascii_lowercase();
    }
    Cow::Owned(data)
}

/// Where the names of data lie.
pub(crate) fn names(rtype: u16, rdata: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    for field in fields(rtype).unwrap_or_default() {
        let size = match field {
            Field::Name => {
                let mut name = Vec::new();
                let Some(end) = super::read_name(rdata, at, &mut name) else { return found };
                found.push((at, end));
                end - at
            }
            Field::U8 | Field::Algorithm => 1,
            Field::U16 | Field::Type => 2,
            Field::U32 | Field::Period | Field::V4 | Field::Time => 4,
            Field::Text => usize::from(rdata.get(at).copied().unwrap_or(0)) + 1,
            // No name follows any of the others.
            _ => return found,
        };
        at += size;
        if at > rdata.len() {
            return found;
        }
    }
    found
}

/// The name in data whose addresses are worth telling with it (RFC 1035 §3.3, RFC 2782, RFC 9460 §4.1).
pub(crate) fn targets(rtype: u16, rdata: &[u8]) -> Option<&[u8]> {
    let at = match rtype {
        crate::message::rtype::NS => 0,
        kind::MX | kind::AFSDB | kind::SVCB | kind::HTTPS => 2,
        crate::message::rtype::SRV => 6,
        _ => return None,
    };
    let (start, end) = names(rtype, rdata).into_iter().find(|(start, _)| *start == at)?;
    Some(&rdata[start..end])
}
