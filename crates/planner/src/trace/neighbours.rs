//! Who is whose neighbour on a bridge of a node.

use std::net::IpAddr;

use podnet_model::{LinkName, PodKey};

use super::node::{Lookup, Planned};
use crate::step::RouteTarget;

/// Who answers on a bridge for an address (ARP), where it is not the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Neighbourhood<'a> {
    /// A pod, at this port of the bridge. What is sent to it passes neither the bridge's own device nor the node's routes; where `br_netfilter` shows
    /// it to rules, it goes the same way.
    Port(PodKey, &'a LinkName),
    /// Nobody on this bridge.
    Nobody(&'a LinkName),
}

impl Planned {
    /// How a pod comes to an address that it takes for a neighbour's on its bridge; none where its packets go to the node in any case.
    #[must_use]
    pub fn neighbourhood(&self, source: IpAddr, to: IpAddr) -> Option<Neighbourhood<'_>> {
        let link = self.link(source).filter(|link| link.segments.iter().any(|segment| segment.contains(&to)))?;
        let bridge = link.bridge.as_ref()?;
        match self.lookup(to) {
            Lookup::Pod(pod) => {
                let there = self.link(to).filter(|there| there.bridge.as_ref() == Some(bridge))?;
                Some(Neighbourhood::Port(pod, &there.device))
            }
            // To where it routes by another device the node answers itself (`proxy_arp`), and that route leads to nobody.
            Lookup::Route(_, RouteTarget::Blackhole) => Some(Neighbourhood::Nobody(bridge)),
            Lookup::Own | Lookup::Route(..) | Lookup::Underlay => None,
        }
    }
}
