//! Proofs that something does not exist: which, and by NSEC records (RFC 4035 §3.1.3).

use super::{Denial, lookup::Search, lookup::labels};
use crate::{
    answer::Section,
    authority::{
        order::{Labels, compare},
        record::kind,
    },
};

impl<'z> Search<'z> {
    /// The name does not exist, and no wildcard stands for it. `encloser` is the node closest above it.
    pub(super) fn deny_name(&mut self, name: &[u8], encloser: usize) {
        let zone = self.zone;
        let above = zone.nodes[encloser].name.wire();
        match &zone.denial {
            _ if !self.dnssec => {}
            Denial::Plain => {}
            Denial::Nsec(with) => {
                self.nsec_before(with, name);
                self.nsec_before(with, &wildcard(above));
            }
            Denial::Nsec3(chain) => {
                self.nsec3_encloser(chain, name, above);
                self.nsec3_covering(chain, &wildcard(above));
            }
        }
    }

    /// The name itself does not exist: a wildcard below the node `encloser` stands for it.
    pub(super) fn deny_exact(&mut self, name: &[u8], encloser: usize) {
        let zone = self.zone;
        match &zone.denial {
            _ if !self.dnssec => {}
            Denial::Plain => {}
            Denial::Nsec(with) => self.nsec_before(with, name),
            // RFC 5155 §7.2.6: the wildcard's signature tells the encloser.
            Denial::Nsec3(chain) => {
                let above = labels(zone.nodes[encloser].name.wire());
                self.nsec3_covering(chain, Labels::of(name).last(above + 1));
            }
        }
    }

    /// The node has no records of the type. With `encloser` it is the wildcard below that one, and stands for the name.
    pub(super) fn deny_type(&mut self, name: &[u8], index: usize, encloser: Option<usize>) {
        let zone = self.zone;
        let node = &zone.nodes[index];
        match &zone.denial {
            _ if !self.dnssec => {}
            Denial::Plain => {}
            Denial::Nsec(with) => {
                if encloser.is_some() {
                    self.nsec_before(with, name);
                }
                // A name that only has names below it has no NSEC record: the one before spans it.
                self.nsec_before(with, node.name.wire());
            }
            Denial::Nsec3(chain) => match encloser {
                Some(encloser) => {
                    self.nsec3_encloser(chain, name, zone.nodes[encloser].name.wire());
                    self.nsec3_matching(chain, node.name.wire());
                }
                None if self.nsec3_matching(chain, name) => {}
                // RFC 5155 §7.2.4: an unsigned delegation that the chain leaves out.
                None => self.nsec3_encloser(chain, name, name),
            },
        }
    }

    /// The NSEC record of a name, or the last one before it.
    fn nsec_before(&mut self, with: &'z [u32], name: &[u8]) {
        let zone = self.zone;
        let after = with.partition_point(|index| compare(zone.nodes[*index as usize].name.wire(), name).is_le());
        let Some(&index) = after.checked_sub(1).and_then(|at| with.get(at)) else { return };
        let node = &zone.nodes[index as usize];
        if let Some(set) = node.set(kind::NSEC) {
            self.proof(node.name.wire(), set);
        }
    }

    /// Adds a proof unless it is there already.
    pub(super) fn proof(&mut self, owner: &'z [u8], set: &'z super::RrSet) {
        if !self.proofs.contains(&owner) {
            self.proofs.push(owner);
            self.set(Section::Authority, owner, set);
        }
    }
}

/// The wildcard below a name.
fn wildcard(name: &[u8]) -> Vec<u8> {
    [b"\x01*".as_slice(), name].concat()
}
