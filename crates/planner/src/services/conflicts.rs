//! Frontends that several Services ask for.

use podnet_model::ServiceKey;

use super::Services;
use crate::ruleset::FrontendKey;

/// A frontend that several Services ask for. The API server gives each ClusterIP and NodePort once, so of these it is a fault or a
/// moment's overlap; external addresses are anybody's to ask for. One of them has it, the same on every node and after every restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The frontend.
    pub frontend: FrontendKey,
    /// The Service that has it: the first by the sort of the address ([`FrontendKind`](super::FrontendKind)), age, namespace and name.
    pub winner: ServiceKey,
    /// Those that go without.
    pub losers: Vec<ServiceKey>,
}

impl Services {
    /// How many frontends several Services ask for.
    #[must_use]
    pub fn contested(&self) -> usize {
        self.contested.len()
    }

    /// A number that is another one where [`Services::conflicts`] or [`Services::strangers`] may have changed.
    #[must_use]
    pub const fn faults_moved(&self) -> u64 {
        self.contested_moved + self.given.moved()
    }

    /// The conflicts at the moment, by frontend.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Conflict> {
        let conflict = |key: &FrontendKey| {
            let mut claimants = self.frontends.get(key)?.claims.iter().map(|(service, _)| service.clone());
            Some(Conflict { frontend: *key, winner: claimants.next()?, losers: claimants.collect() })
        };
        self.contested.iter().filter_map(conflict).collect()
    }
}
