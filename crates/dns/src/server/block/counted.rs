//! What metrics tell of a server block, and what they call it.

use super::Block;
use crate::{
    chain::Port,
    metrics::{Place, labels},
    name::Name,
    plugin,
};

/// Where the questions for a zone at a port are counted.
pub(super) fn place(zone: &Name, port: &Port, view: &str) -> Place {
    Place { server: port.to_string(), zone: zone.to_string(), view: view.to_owned() }
}

impl Block {
    /// The listeners, zones, view and plugins of the block.
    pub(in crate::server) fn enabled(&self) -> impl Iterator<Item = ([String; 3], &'static str)> + '_ {
        self.keys.iter().flat_map(|(zone, port)| {
            let Place { server, zone, view } = place(zone, port, &self.view);
            let place = [server, zone, view];
            self.plugins.iter().map(move |plugin| (place.clone(), *plugin))
        })
    }

    /// How many answers are kept, those with records and those without, by the labels of the cache at each listener.
    pub(in crate::server) fn kept(&self) -> Vec<(String, (usize, usize))> {
        let Some(cache) = &self.cache else { return Vec::new() };
        let called = |port: &Port| plugin::cache_labels(cache.options(), &port.to_string(), &self.view);
        self.counting.ports.iter().map(|port| (called(port), cache.entries())).collect()
    }

    /// How many sets' signatures are kept, by their labels at each listener.
    pub(in crate::server) fn signatures(&self) -> Vec<(String, usize)> {
        let Some(online) = &self.online else { return Vec::new() };
        let called = |port: &Port| labels(&[("server", port.to_string().as_str()), ("type", "signature")]);
        self.counting.ports.iter().map(|port| (called(port), online.kept())).collect()
    }
}
