//! Every order of changes leads to the same plan, and every plan to the state that it says.

use podnet_model::{
    Dual,
    flannel::{Backend, Lease},
};
use proptest::{collection, prelude::*, sample::Index};

use super::*;

/// A small world in which objects collide often: pools nest, nodes share addresses, blocks change hands.
fn changes() -> impl Strategy<Value = Change> {
    let nodes = (1..5, 11..15, 0..3_usize, 0..4_u8, 0..6_u8, 0..4_u8, 0..6_usize).prop_map(
        |(name, addr, net, secret, part, said, six)| {
            // The last of these is in a block.
            let addr = format!("{}.{addr}", ["172.29.0", "172.29.1", "10.0.0"][net]);
            with(node(&format!("node{name}"), &addr), |node| {
                // The last of these is in a block, and before it is a node without IPv4.
                let addr6 = ["", "fd00::11", "fd00::12", "fd01::11", "fd00::11", "fd10::1"][six].parse().ok();
                node.addr6 = addr6.map(NodeAddr);
                node.subnet6 = addr6.and_then(|addr| IpNet::new(addr, 64).ok());
                if let (4, Some(addr)) = (six, node.addr6) {
                    (node.addr, node.subnet) = (addr, None);
                }
                node.wireguard_key = (secret > 0).then(|| key(secret).public);
                node.pod_cidrs
                    .extend((part < 4).then(|| format!("10.0.{}.0/24", part / 2 + 1).parse::<IpNet>().unwrap()));
                node.pod_cidrs.extend((part % 2 == 0).then(|| format!("fd10::{part}00/120").parse::<IpNet>().unwrap()));
                node.lease = (said > 0).then(|| Lease {
                    backend: ["vxlan", "wireguard", "host-gw"][usize::from(said) - 1].into(),
                    public_ip: "172.29.0.15".parse().ok().filter(|_| six != 3),
                    public_ipv6: "fd00::15".parse().ok().filter(|_| six > 2),
                    vtep_macs: Dual {
                        v4: (said == 1).then_some(Mac([2, 0, 0, 0, 0, secret])),
                        v6: (said == 1).then_some(Mac([2, 0, 0, 0, 6, secret / 2])),
                    },
                });
            })
        },
    );
    let backends = prop_oneof![
        Just(Backend::Vxlan { vni: 1, port: 8472, direct_routing: true }),
        Just(Backend::HostGw),
        Just(Backend::Ipip { direct_routing: false }),
        Just(Backend::WireGuard { port: 51821 }),
        Just(Backend::Udp { port: 8285 }),
        Just(Backend::Alloc),
    ];
    let confs = (0..2, backends, 0..3_usize, 0..2_usize).prop_map(|(namespace, backend, network, six)| {
        let v4 = ["10.0.0.0/16", "10.0.2.0/24", ""][network].parse().ok();
        let v6 = ["fd10::/64", ""][six].parse().ok();
        let namespace = format!("ns{namespace}").as_str().into();
        Change::NetConf(namespace, Some(NetConf { networks: Dual { v4, v6 }, subnet_len: 24, backend }))
    });
    let felixes = any::<bool>().prop_map(|wireguard| Change::Felix(Some(Felix { wireguard, ..Felix::default() })));
    let modes = prop_oneof![Just(EncapMode::Always), Just(EncapMode::CrossSubnet), Just(EncapMode::Never)];
    let pools = (0..5_usize, modes, any::<bool>()).prop_map(|(name, mode, is_ipip)| {
        let cidrs = ["10.0.0.0/24", "10.0.0.0/25", "10.0.1.0/24", "fd10::/120", "fd10::/121"];
        (if is_ipip { ipip_pool } else { pool })(&format!("pool{name}"), cidrs[name], mode)
    });
    let blocks = (0..12, 0..5).prop_map(|(index, owner)| {
        let owner = format!("node{owner}");
        let v6 = || format!("fd10::{:x}/122", index % 4 * 64);
        block(
            &if index < 8 { format!("10.0.{}.{}/26", index / 4, index % 4 * 64) } else { v6() },
            Some(&owner).filter(|name| *name != "node0").map(String::as_str),
        )
    });
    let made = prop_oneof![4 => nodes, 2 => pools, 4 => blocks, 1 => confs, 1 => felixes];
    (made, prop::bool::weighted(0.25)).prop_map(|(change, removed)| if removed { gone(&change) } else { change })
}

/// What of each object is left in the end.
fn last_words(changes: &[Change]) -> Vec<Change> {
    let key = |change: &Change| match change {
        Change::Node(name, _) => format!("node {name}"),
        Change::Pool(name, _) => format!("pool {name}"),
        Change::Block(cidr, _) => format!("block {cidr}"),
        Change::NetConf(namespace, _) => format!("net-conf {namespace}"),
        Change::Felix(_) => "felix".into(),
        Change::Proxy(_) => "proxy".into(),
        other => format!("{other:?}"),
    };
    let last: BTreeMap<_, _> = changes.iter().map(|change| (key(change), change.clone())).collect();
    last.into_values().collect()
}

fn keyed(changes: &[Change]) -> Overlay {
    let mut overlay = overlay();
    overlay.set_keys(vec![key(1), key(2)]);
    overlay.config.underlay.addr6 = "fd00::11".parse().ok();
    for change in changes {
        overlay.apply(change);
    }
    overlay
}

proptest! {
    #[test]
    fn the_plan_depends_on_the_objects_and_not_on_how_they_came(
        changes in collection::vec(changes(), 0..60),
        repeats in collection::vec(any::<Index>(), 0..5),
        shuffle in any::<u64>(),
    ) {
        let mut overlay = keyed(&[]);
        let mut kernel = State::default();
        for change in &changes {
            for step in overlay.apply(change) {
                kernel.apply(&step);
            }
            prop_assert_eq!(&kernel, overlay.desired());
        }
        let mut direct = last_words(&changes);
        for repeat in repeats {
            if !direct.is_empty() {
                direct.push(direct[repeat.index(direct.len())].clone());
            }
        }
        // A cheap deterministic shuffle: by a keyed hash of the position.
        let mut order: Vec<_> = (0..direct.len()).collect();
        order.sort_by_key(|index| (*index as u64 ^ shuffle).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let direct: Vec<_> = order.into_iter().map(|index| direct[index].clone()).collect();
        let fresh = keyed(&direct);
        prop_assert_eq!(fresh.desired(), overlay.desired());
        prop_assert_eq!(fresh.problems().collect::<Vec<_>>(), overlay.problems().collect::<Vec<_>>());
        prop_assert_eq!(overlay.repair(&State::default()).len(), diff(overlay.desired(), &State::default()).len());
        prop_assert_eq!(overlay.repair(&kernel), vec![]);
    }
}
