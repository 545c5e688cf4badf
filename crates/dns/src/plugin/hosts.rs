//! `hosts`: the names of a hosts file.

use crate::{
    chain::HostsOptions,
    message::rtype,
    server::{Failure, Knowing, Look, Said},
};

/// The plugin.
#[derive(Clone, Debug)]
pub struct Hosts(pub HostsOptions);

impl Hosts {
    /// Whether others are asked for what a hosts file has nothing of, although it knows the name.
    fn passes_on(&self, look: &Look<'_>) -> bool {
        let Self(options) = self;
        let supported = matches!(look.qtype, rtype::A | rtype::AAAA | rtype::PTR);
        !supported && options.fallthrough_unsupported && options.fallthrough.holds(look.name)
    }
}

impl Knowing for Hosts {
    fn say(&self, look: &Look<'_>) -> Said {
        let Self(options) = self;
        if look.qtype != rtype::PTR && !options.zones.iter().any(|zone| look.name.within(zone).is_some()) {
            return Said::Pass;
        }
        match options.table.answer(look.name, look.qtype) {
            Some(_) if self.passes_on(look) => Said::Pass,
            Some(answer) => Said::Answer(answer),
            None if options.fallthrough.holds(look.name) => Said::Pass,
            // As in CoreDNS: addresses that have no name here go on, whatever falls through.
            None if look.qtype == rtype::PTR => Said::Pass,
            // There is no SOA to say NXDOMAIN with; CoreDNS does the same.
            None => Said::Fail(Failure::NoPlugin),
        }
    }
}
