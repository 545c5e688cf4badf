//! Mode `ebpf`: who connects to a Service connects to one of its backends.

use super::{super::Kind, Hop, Path, Place, Planned, Traveller, Verdict, at, objects};
use podnet_model::{Family, proxy::Mode};

use crate::{
    ruleset::FrontendKey,
    services::ebpf::{Ebpf, Serves, Slot, Tables},
};

/// Chooses at the socket, where the node does: those that go on, and those that have met their end.
pub(super) fn choose(planned: &Planned, place: &Place, traveller: Traveller) -> (Vec<Traveller>, Vec<Path>) {
    let target = traveller.target;
    let key = FrontendKey { addr: target.addr, protocol: target.protocol, port: target.port };
    let services = &planned.services[Family::of(&key.addr)];
    let serving = services.serving(&key).filter(|_| planned.facts.mode == Mode::Ebpf);
    let tables = serving.map(|serving| Ebpf::default().desired([(&key, serving)], &Tables::default()));
    let entry = tables.as_ref().and_then(|tables| Some((tables, *tables.frontends.get(&key)?)));
    let (Some(serving), Some((tables, entry))) = (serving, entry) else { return (vec![traveller], Vec::new()) };
    let what = |text: String| {
        let hop = Hop::new(place.clone(), Kind::Chosen, text).of(objects::service(&serving.service));
        hop.by(format!("program at the socket, frontend {key}"))
    };
    match entry.serves {
        Serves::Backends(count) => {
            let slots = (0..count).filter_map(|number| tables.backends.get(&Slot { list: entry.list, number }));
            let towards = |to: &crate::services::ebpf::Target| {
                let hop = what(format!("connect({}) becomes connect({})", at(key.addr, key.port), to.at));
                let hop = hop.costing("once for each connection; no packet is translated");
                let mut way = traveller.clone().hop(hop);
                (way.target.addr, way.target.port) = (to.at.addr, to.at.port);
                way.share /= f64::from(count.max(1));
                way
            };
            (slots.map(towards).collect(), Vec::new())
        }
        Serves::Nobody => {
            let why = format!("nobody serves {}: service {} has no ready endpoint", key, serving.service);
            (Vec::new(), vec![traveller.clone().hop(what("connect fails".into())).ends(Verdict::Refused, why)])
        }
        Serves::NobodyHere => {
            let why = format!("policy Local of service {} leaves no endpoint on this node", serving.service);
            (Vec::new(), vec![traveller.clone().hop(what("connect fails".into())).ends(Verdict::Lost, why)])
        }
    }
}
