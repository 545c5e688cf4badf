//! What of the ways to serve Services this kernel can do. It is tried, in a network namespace that is gone afterwards with all that was made
//! in it; configuration files of kernels say little about modules that are missing or forbidden.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use aya::{programs::ProgramType, sys::is_program_supported};
use podnet_model::{Family, Protocol, errors::chain, proxy::Mode};
use podnet_planner::{
    ipvs::{Edit, Scheduler, Scheduling, ServerKey, SetKind, SetType},
    proxy::Capabilities,
    ruleset::{
        Action, BackendAddress, BackendKey, BackendMap, Chain, ChainKind, FrontendKey, Hook, HookPoint, Rule, RuleSet,
    },
};

use crate::{
    cgroup::Cgroup,
    iptables::Variant,
    ipvs::Ipvs,
    netns::NetNs,
    nft::{NftError, NftSocket},
};

/// Types of the running kernel.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Tries everything.
#[must_use]
pub fn probe() -> Capabilities {
    let nftables = nftables();
    let ebpf = nftables.clone().map_err(|lack| format!("what comes from outside needs nftables: {lack}")).and(ebpf());
    let (iptables, ipvs) = (iptables(nftables.is_ok()), ipvs(nftables.is_ok()));
    let tried = [(Mode::Nftables, nftables), (Mode::Ebpf, ebpf), (Mode::Iptables, iptables), (Mode::Ipvs, ipvs)];
    let lacks: BTreeMap<Mode, String> =
        tried.into_iter().filter_map(|(mode, tried)| Some((mode, tried.err()?))).collect();
    Capabilities { lacks }
}

/// Translation to a random one of several backends, and masquerading.
fn nftables() -> Result<(), String> {
    let tried = NetNs::with_scratch(|| NftSocket::open()?.replace("podnet-probe", &translation()));
    match tried {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(lack_of_nftables(&error)),
        Err(error) => Err(chain(&error)),
    }
}

fn lack_of_nftables(error: &NftError) -> String {
    format!(
        "nf_tables with nat, numgen and masq (CONFIG_NF_TABLES_INET, NFT_NAT, NFT_NUMGEN, NFT_MASQ): {}",
        chain(error)
    )
}

fn translation() -> RuleSet {
    let rule = |action| Rule { matches: Vec::new(), action, comment: "tried" };
    let chain = |point, priority, action| {
        let hook = Some(Hook { kind: ChainKind::Nat, point, priority });
        Chain { hook, rules: vec![rule(action)] }
    };
    let addr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let frontend = FrontendKey { addr, protocol: Protocol::Tcp, port: 1 };
    let elements = [0, 1].map(|slot| (BackendKey { frontend, slot }, BackendAddress { addr, port: 2 })).into();
    RuleSet {
        chains: [
            (
                "prerouting".into(),
                chain(HookPoint::Prerouting, -100, Action::Dnat { map: "backends".into(), slots: 2 }),
            ),
            ("postrouting".into(), chain(HookPoint::Postrouting, 100, Action::Masquerade)),
        ]
        .into(),
        backend_maps: [("backends".into(), BackendMap { elements })].into(),
        ..RuleSet::empty(Family::V4)
    }
}

/// Programs at connect(2), and types of the kernel to relocate them by.
fn ebpf() -> Result<(), String> {
    match is_program_supported(ProgramType::CgroupSockAddr) {
        Ok(true) => {}
        Ok(false) => return Err("no eBPF programs at connect(2) (CONFIG_CGROUP_BPF)".to_owned()),
        Err(error) => return Err(format!("eBPF programs at connect(2) (CONFIG_CGROUP_BPF): {}", chain(&error))),
    }
    if !Path::new(BTF).exists() {
        return Err(format!("no {BTF} (CONFIG_DEBUG_INFO_BTF)"));
    }
    Cgroup::v2("").map(drop).map_err(|error| chain(&error))
}

/// The tools that write tables, and tables that they can write.
fn iptables(has_nftables: bool) -> Result<(), String> {
    let has = |task| [Variant::Nft, Variant::Legacy].into_iter().any(|variant| variant.is_installed(task));
    if let Some(task) = ["restore", "save"].into_iter().find(|task| !has(task)) {
        return Err(format!("no iptables-{task} is installed"));
    }
    // Where the kernel has nf_tables, it has what iptables needs of it.
    if has_nftables {
        return Ok(());
    }
    let tried = NetNs::current().and_then(|host| {
        let host = &host;
        NetNs::with_scratch(move || Variant::of_host(host)?.try_out(&NetNs::current()?))
    });
    match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the kernel takes no rules of iptables: {}", chain(&error))),
        Err(error) => Err(chain(&error)),
    }
}

/// Virtual servers, the device of their addresses, and sets for the rules of iptables that go with them. The kernel loads its modules when
/// they are asked for.
fn ipvs(has_nftables: bool) -> Result<(), String> {
    iptables(has_nftables)?;
    let tried = NetNs::with_scratch(|| Ipvs::open(&NetNs::current()?, Family::V4)?.apply(&with_virtual_servers()));
    let lack = |error: &dyn std::error::Error| {
        format!(
            "virtual servers, sets, dummy devices (CONFIG_IP_VS, IP_VS_RR, IP_SET and its types, DUMMY): {}",
            chain(error)
        )
    };
    tried.map_err(|error| lack(&error))?.map(drop).map_err(|error| lack(&error))
}

/// One of everything that the mode makes.
fn with_virtual_servers() -> Vec<Edit> {
    let addr = IpAddr::from([192, 0, 2, 1]);
    let types = [
        SetType::Address,
        SetType::Range,
        SetType::Port,
        SetType::PortFrom,
        SetType::PortFromRange,
        SetType::PortAlone,
    ];
    let set = |of: SetType| Edit::MakeSet(of.name().into(), SetKind { of, marks: of == SetType::Port });
    let server = ServerKey::Address(FrontendKey { addr, protocol: Protocol::Tcp, port: 1 });
    let scheduling = Scheduling { scheduler: Scheduler::RoundRobin, fallback: false, port: false, persistence: None };
    let real = BackendAddress { addr, port: 2 };
    // A namespace without any address takes no real server.
    let servers = [Edit::AddAddress(addr), Edit::AddServer(server, scheduling), Edit::AddReal(server, real, 1)];
    types.into_iter().map(set).chain(servers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{netlink::generic::GenericSocket, testing::TestNs};

    #[test]
    fn what_this_machine_has_is_found_and_nothing_is_left_behind() {
        let namespace = TestNs::new("capable");
        let look = || ["nft list tables", "ip link"].map(|line| namespace.command(line));
        let before = look();
        let found = namespace.run(probe).unwrap();
        assert_eq!(look(), before);
        let has = |mode| !found.lacks.contains_key(&mode);
        assert!(has(Mode::Nftables) && has(Mode::Ebpf) && has(Mode::Userspace) && has(Mode::Iptables), "{found:?}");
    }

    #[test]
    fn a_family_that_is_not_there_is_lacking_and_one_that_is_is_not() {
        GenericSocket::open("nlctrl").unwrap();
        let error = GenericSocket::open("podnet-no-such").unwrap_err();
        assert!(error.is_missing(), "{error}");
    }

    /// Whoever may not is told so, and the agent goes on.
    #[test]
    fn without_the_right_to_it_everything_is_lacking() {
        let lacks = std::thread::scope(|scope| {
            let probed = scope.spawn(|| {
                let mut sets = rustix::thread::capabilities(None).unwrap();
                sets.effective = rustix::thread::CapabilitySet::empty();
                rustix::thread::set_capabilities(None, sets).unwrap();
                nftables().and(ipvs(true)).unwrap_err()
            });
            probed.join().unwrap()
        });
        assert!(lacks.contains("namespace"), "{lacks}");
    }
}
