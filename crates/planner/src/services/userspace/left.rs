//! Addresses that are left to rules for a while: virtual servers keep them for connections, and what is the node's own leads nowhere else.

use std::{collections::BTreeSet, net::IpAddr};

use super::Userspace;

impl Userspace {
    /// From now on nothing is led aside or listened at for these addresses, and for those that were left before, and are not any more, what
    /// has to be. That is told by the next [`Userspace::work`].
    pub fn leave_to_rules(&mut self, addrs: &BTreeSet<IpAddr>) {
        let moved: BTreeSet<IpAddr> = self.left.symmetric_difference(addrs).copied().collect();
        if moved.is_empty() {
            return;
        }
        self.pending.frontends.extend(self.servings.keys().filter(|key| moved.contains(&key.addr)));
        self.pending.cluster_ips.extend(moved.intersection(&self.cluster_ips));
        self.left.clone_from(addrs);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{super::packet_table, *};

    fn services() -> Services {
        let mut services = Services::new(packet_table::config("node1").0);
        packet_table::changes().iter().for_each(|change| drop(services.apply(change)));
        services
    }

    /// What is led aside and listened at for these addresses.
    fn at(work: &Work, addrs: &BTreeSet<IpAddr>) -> usize {
        let fronts = work.fronts.iter().filter(|(key, front)| front.is_some() && addrs.contains(&key.addr));
        fronts.count() + work.more.iter().filter(|led| addrs.contains(&led.addr())).count()
    }

    #[test]
    fn nothing_is_led_aside_or_listened_at_for_what_is_left_and_all_of_it_is_when_it_is_not_any_more() {
        let services = services();
        let balanced = packet_table::address("local-ip");
        let node = services.config().primary();
        let addrs: BTreeSet<IpAddr> = services.cluster_ips().take(1).chain(balanced).chain(node).collect();
        let whole = Userspace::new(&services).work(&services);
        assert!(at(&whole, &addrs) > 5, "{}", at(&whole, &addrs));

        let mut userspace = Userspace::new(&services);
        userspace.leave_to_rules(&addrs);
        let others = userspace.work(&services);
        assert_eq!(at(&others, &addrs), 0);
        let of_others = |work: &Work| work.more.iter().filter(|led| !addrs.contains(&led.addr())).count();
        assert_eq!(of_others(&others), of_others(&whole), "all else is led");

        userspace.leave_to_rules(&BTreeSet::new());
        let back = userspace.work(&services);
        assert_eq!((at(&back, &addrs), back.fewer.len()), (at(&whole, &addrs), 0));
        assert_eq!(back.more.len() + others.more.len(), whole.more.len(), "nothing is led twice");
        assert!(userspace.work(&services).is_empty());
    }

    #[test]
    fn what_rules_serve_is_not_lacking_though_the_program_could_not_serve_it() {
        let services = services();
        let mut userspace = Userspace::new(&services);
        userspace.work(&services);
        assert!(userspace.unserved().any(|(_, lack, _)| lack == Lack::Sctp));
        let keep_source =
            services.frontends().filter(|(key, serving)| serving.keeps_source && key.protocol != Protocol::Sctp);
        let keep_source: BTreeSet<&ServiceKey> = keep_source.map(|(_, serving)| &serving.service).collect();
        assert!(!keep_source.is_empty());
        assert_eq!(userspace.hiding(), keep_source);
        userspace.leave_to_rules(&services.frontends().map(|(key, _)| key.addr).collect());
        userspace.work(&services);
        assert_eq!(userspace.unserved().count(), 0);
        assert!(userspace.hiding().is_empty());
    }

    #[test]
    fn what_is_there_already_is_taken_back_when_it_is_left_and_stays_so_for_who_knows_of_nothing() {
        let services = services();
        let addrs: BTreeSet<IpAddr> = services.cluster_ips().take(1).collect();
        let mut userspace = Userspace::new(&services);
        userspace.work(&services);
        userspace.leave_to_rules(&addrs);
        let work = userspace.work(&services);
        assert_eq!(work.fewer, addrs.iter().copied().map(Led::Address).collect::<Vec<_>>());
        assert!(work.more.is_empty() && !work.fronts.is_empty());
        assert!(work.fronts.iter().all(|(key, front)| addrs.contains(&key.addr) && front.is_none()));
        assert_eq!(at(&userspace.whole(&services), &addrs), 0);
    }
}
