//! Mode `ipvs`.

use std::any::Any;

use podnet_kernel::{
    iptables::{Iptables, Variant},
    ipvs::{self, Ipvs, Settings},
    netns::NetNs,
    nft::NftSocket,
    route::attraction::{Attraction, attract},
};
use podnet_model::{Family, proxy};
use podnet_planner::{
    border,
    iptables::Rewrite,
    ipvs::{PRIORITY, ROUTES, Scheduler, State, difference},
    services::{
        ipvs::{Ipvs as Renderer, names},
        packet_table::NodeRules,
    },
};

use super::Mode;

/// Virtual servers, and rules of iptables beside them.
pub(crate) struct IpvsMode {
    /// Which variant of iptables.
    pub(crate) variant: Variant,
}

/// No packets are led to the node.
const NOTHING: Attraction = Attraction::nothing(ROUTES, PRIORITY);

/// What is in force on a node.
struct InForce {
    node: NetNs,
    families: Vec<OfFamily>,
}

struct OfFamily {
    family: Family,
    servers: Ipvs,
    iptables: Iptables,
}

impl Mode for IpvsMode {
    fn name(&self) -> &'static str {
        "ipvs"
    }

    fn traced_as(&self) -> proxy::Mode {
        proxy::Mode::Ipvs
    }

    fn put(&self, node: &NetNs, rules: &[NodeRules]) -> Box<dyn Any> {
        let mut border = NftSocket::open_in(node).unwrap();
        ipvs::configure(node, &Settings::default()).unwrap();
        let families = rules.iter().map(|rules| {
            border.replace(border::TABLE, &rules.border.desired()).unwrap();
            self.put_family(node, rules)
        });
        Box::new(InForce { node: node.clone(), families: families.collect() })
    }

    fn serves_loopback(&self) -> bool {
        false
    }

    fn takes_turns(&self) -> bool {
        true
    }

    /// A virtual server remembers its own clients.
    fn shares_affinity(&self) -> bool {
        false
    }
}

impl IpvsMode {
    fn put_family(&self, node: &NetNs, rules: &NodeRules) -> OfFamily {
        let family = rules.services.config().family;
        let renderer = Renderer::new(&rules.services, Scheduler::RoundRobin);
        let mut servers = Ipvs::open(node, family).unwrap();
        let there = servers.read(&names(family)).unwrap();
        servers.apply(&difference(renderer.state(), &there)).unwrap();
        assert_eq!(servers.read(&names(family)).unwrap(), *renderer.state());
        let (bits, addrs) = (renderer.attraction(), renderer.attracted());
        attract(node, family, &Attraction { bits, addrs, ..NOTHING }).unwrap();
        let mut iptables = Iptables::new(node.clone(), family, self.variant).unwrap();
        let chains = renderer.rules(&rules.services);
        iptables.put(&chains).unwrap();
        assert_eq!(iptables.put(&chains).unwrap(), Rewrite::default());
        OfFamily { family, servers, iptables }
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        let mut border = NftSocket::open_in(&self.node).unwrap();
        for OfFamily { family, servers, iptables } in &mut self.families {
            border.delete_table(*family, border::TABLE).unwrap();
            iptables.remove_ipvs().unwrap();
            attract(&self.node, *family, &NOTHING).unwrap();
            let there = servers.read(&names(*family)).unwrap();
            servers.apply_when_free(&difference(&State::default(), &there)).unwrap();
            servers.remove_device().unwrap();
        }
    }
}
