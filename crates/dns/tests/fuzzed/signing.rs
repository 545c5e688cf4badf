//! An upstream that has the key of the zone `example`, and signs what an input has for it: no chance makes a signature that is right, and
//! all that lies behind one would never be reached.

use std::sync::{Arc, LazyLock};

use podnet_dns::{
    answer::{Answer, Section, composed},
    authority::sign::{Online, SigningKey},
    message::{Expanded, HEADER, Upstream, expand, rtype},
    name::{Name, QueryName},
};

use super::{
    outside::{KEY, NOW, PRIVATE_KEY, behind_question},
    question_end,
};

const DS: u16 = 43;
const DNSKEY: u16 = 48;

/// Of answers with more records nothing is signed: a denial needs few, and signatures cost most of an input's time.
const MOST_RECORDS: usize = 16;
/// The sets whose signatures are kept, so that they are made once for an input.
const KEPT: usize = 64;

/// The zone's key. Those below it have the same.
static SIGNER: LazyLock<Arc<SigningKey>> =
    LazyLock::new(|| Arc::new(SigningKey::from_bind(KEY, PRIVATE_KEY).expect("both halves are of one key")));

/// What signs.
#[derive(Debug)]
pub struct Signing {
    online: Online,
    /// The answer to each question for DS records.
    delegations: Vec<u8>,
}

impl Signing {
    /// Signs answers; questions for DS records have one of their own.
    #[must_use]
    pub fn new(delegations: &[u8]) -> Self {
        Self { online: Online::new(vec![Arc::clone(&SIGNER)], KEPT), delegations: delegations.to_vec() }
    }

    /// The data of the DS record that vouches for a zone's key.
    #[must_use]
    pub fn digest(zone: &Name) -> Vec<u8> {
        SIGNER.ds(zone)
    }

    /// The response to a query. Every zone has the key; what an input has for other questions is signed where it bears no signature of
    /// its own, which may be right or wrong.
    #[must_use]
    pub fn answer(&self, query: &[u8], told: &[u8]) -> Vec<u8> {
        let Ok((asked, end)) = QueryName::parse(query, HEADER) else { return told.to_vec() };
        let name = Name::from_query(&asked);
        let qtype = match query.get(end..) {
            Some([high, low, ..]) => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        if qtype == DNSKEY {
            let keys = self.online.keys(&name, true, NOW as u32, &|_| {}).expect("the key signs");
            return response(query, &[0, 0, 0x84, 0], &keys);
        }
        let told = if qtype == DS { self.delegations.as_slice() } else { told };
        let mut raw = behind_question(query, told);
        raw[2] |= 0x80;
        self.signed(query, &name, qtype, &raw).unwrap_or(raw)
    }

    /// A response with signatures; none where it has too much to sign, or cannot be read.
    fn signed(&self, query: &[u8], name: &Name, qtype: u16, raw: &[u8]) -> Option<Vec<u8>> {
        let question = query.get(HEADER..question_end(query))?;
        let told = Upstream::parse(raw, question).ok()?.answer;
        let records = expand(name, &told);
        let all: usize = told.counts.iter().map(|count| usize::from(*count)).sum();
        if records.len() != all || all > MOST_RECORDS {
            return None;
        }
        // As if it were the root's own word, of which the signer denies nothing: it would add records for the name that was asked for.
        let root = Name::root();
        let plain = Answer { authoritative: true, ..composed(&root, told.rcode, &records) };
        let zone = zone(&records, name, qtype);
        let signed = self.online.sign(&zone, &QueryName::from(&root), qtype, &plain, NOW as u32, &|_| {});
        let signed = signed.expect("the key signs");
        Some(response(query, raw.first_chunk()?, &composed(name, told.rcode, &expand(&root, &signed))))
    }
}

/// The zone whose word an answer is: the one whose SOA record it has, where that is trusted, or else `example`. A zone itself says
/// nothing of its DS records.
fn zone(records: &[Expanded], name: &Name, qtype: u16) -> Name {
    let begins = |record: &&Expanded| {
        record.section == Section::Authority
            && record.rtype == rtype::SOA
            && record.owner.within(SIGNER.owner())
            && (qtype != DS || record.owner != *name)
    };
    records.iter().find(begins).map_or_else(|| SIGNER.owner().clone(), |soa| soa.owner.clone())
}

/// The response to a query with this id and these flags.
fn response(query: &[u8], head: &[u8; 4], answer: &Answer) -> Vec<u8> {
    let counts = answer.counts.map(u16::to_be_bytes).concat();
    let question = &query[HEADER..question_end(query)];
    [&head[..], &[0, 1], counts.as_slice(), question, &*answer.body].concat()
}
