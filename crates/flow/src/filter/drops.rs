//! Which of what was dropped at interfaces somebody wants to see: of that less is known than of a flow.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use super::{Filter, Place, Term};
use crate::{
    names::PodIdentity,
    record::{Direction, Drops, End, Verdict},
};

impl Filter {
    /// Whether what was dropped at an interface is wanted: unless what is known of it says otherwise. Of which flows it was nobody knows, so that
    /// it may be of those that are asked for.
    #[must_use]
    pub fn wants_drops(&self, drops: &Drops) -> bool {
        let may_be_chosen = |term: &Term| {
            let mut choices = self.wanted.iter().filter(|other| other.kind() == term.kind());
            choices.any(|other| other.is_met_by(drops) != Some(false))
        };
        self.wanted.iter().all(may_be_chosen) && !self.unwanted.iter().any(|term| term.is_met_by(drops) == Some(true))
    }
}

impl Term {
    /// None where it is not known.
    fn is_met_by(&self, drops: &Drops) -> Option<bool> {
        match (self, drops.direction) {
            (Self::Verdict(verdict), _) => Some(*verdict == Verdict::Dropped),
            (Self::Cause(cause), _) => Some(*cause == drops.cause),
            (Self::From(place), Direction::Egress) | (Self::To(place), Direction::Ingress) => {
                place.is_that(drops.pod.as_ref()?)
            }
            _ => None,
        }
    }
}

impl Place {
    /// Whether it is a pod; none where that depends on more than what the pod is.
    fn is_that(&self, pod: &Arc<PodIdentity>) -> Option<bool> {
        match self {
            Self::Range(_) | Self::Service(..) => None,
            place => {
                let ip = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                Some(place.is(&End { ip, port: 0, pod: Some(Arc::clone(pod)), node: None }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Item, testing};

    #[test]
    fn what_may_be_of_the_flows_that_are_asked_for_is_wanted_and_what_is_known_not_to_be_is_not() {
        let Item::Drops(egress) = testing::drops(0).item else { panic!("no drops") };
        let ingress = Drops { direction: Direction::Ingress, ..egress.clone() };
        let nobodys = Drops { pod: None, ..egress.clone() };
        // From the pod, to the pod, from one that is not known: as a term that is wanted, and as one that is not.
        for (term, wanted, unwanted) in [
            ("cause=limit", [true; 3], [false; 3]),
            ("cause=no-route", [false; 3], [true; 3]),
            ("verdict=dropped", [true; 3], [false; 3]),
            ("verdict=forwarded", [false; 3], [true; 3]),
            ("from=pod/shop/client", [true; 3], [false, true, true]),
            ("from=namespace/bank", [false, true, true], [true; 3]),
            ("from=world", [false, true, true], [true; 3]),
            ("to=namespace/shop", [true; 3], [true, false, true]),
            ("to=pod/shop/web", [true, false, true], [true; 3]),
            ("to=10.0.0.0/8", [true; 3], [true; 3]),
            ("to=service/shop/web", [true; 3], [true; 3]),
            ("port=80", [true; 3], [true; 3]),
            ("protocol=udp", [true; 3], [true; 3]),
            ("class=pod-world", [true; 3], [true; 3]),
        ] {
            let term: Term = term.parse().unwrap();
            let wants = |filter: &Filter| [&egress, &ingress, &nobodys].map(|drops| filter.wants_drops(drops));
            let is = Filter { wanted: vec![term.clone()], ..Filter::default() };
            let not = Filter { unwanted: vec![term.clone()], ..Filter::default() };
            assert_eq!((wants(&is), wants(&not)), (wanted, unwanted), "{term}");
        }
        let either = ["cause=limit", "cause=no-route"].map(|term| term.parse().unwrap()).to_vec();
        assert!(Filter { wanted: either, ..Filter::default() }.wants_drops(&egress), "terms of one kind are choices");
    }
}
