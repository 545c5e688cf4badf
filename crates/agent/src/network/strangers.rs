//! Rules that kube-proxy left: tables of its mode `nftables`, chains of its modes `iptables` and `ipvs`. They are another program's, and go
//! on translating to the endpoints of the time when it ended. podnet in mode `iptables` or `ipvs` takes chains of the same names over, in the
//! variant of iptables that the host uses; what is left beside its own rules is not podnet's to take away, so that is told with the remedy.

use std::{
    io,
    time::{Duration, Instant},
};

use podnet_client::events::{About, Complaints};
use podnet_kernel::{
    iptables::Variant,
    legacy::LegacyChains,
    nft::{NftError, NftSocket},
};
use podnet_model::{Dual, Family, NodeName};
use podnet_planner::iptables::{Table, nat_is_of_kube_proxy};
use tracing::{debug, info, warn};

/// kube-proxy's table of each family.
const TABLE: &str = "kube-proxy";

/// A look asks for some names; the table of the legacy variant is read only when its size is another one.
const INTERVAL: Duration = Duration::from_secs(10);
/// Where a look takes long, so many times as long goes by before the next one: the thread that looks has more to do.
const REST: u32 = 1000;

/// What of kube-proxy's is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranger {
    /// The table of a family.
    Table(Family),
    /// The chains of a family, in a variant of iptables.
    Chains(Family, Variant),
}

#[derive(Debug)]
pub(super) struct Strangers {
    complaints: Complaints,
    node: NodeName,
    next: Instant,
    legacy: Dual<LegacyChains>,
    told: Vec<Stranger>,
}

impl Strangers {
    pub(super) fn new(complaints: Complaints, node: NodeName) -> Self {
        Self { complaints, node, next: Instant::now(), legacy: legacy_chains(), told: Vec::new() }
    }

    /// When it is to be looked at again.
    pub(super) const fn due(&self) -> Instant {
        self.next
    }

    /// Tells what is there, once, and when it is gone; where a look is due.
    pub(super) fn look(&mut self, nft: &mut NftSocket) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let found = self.found(nft);
        self.next = Instant::now() + INTERVAL.max(now.elapsed() * REST);
        if found == self.told {
            return;
        }
        if found.is_empty() {
            info!("kube-proxy's rules are gone");
        } else {
            let message = complaint(&found);
            warn!("{message}");
            let message = format!("on node {}: {message}", self.node);
            self.complaints.tell(About::node(&self.node), "KubeProxyRules", message);
        }
        self.told = found;
    }

    /// Where one of the two cannot be asked, the other one counts all the same.
    fn found(&mut self, nft: &mut NftSocket) -> Vec<Stranger> {
        let of_nft = found_in_nft(nft);
        let of_nft =
            of_nft.inspect_err(|error| debug!(%error, "the names of other programs' tables cannot be asked for"));
        let of_legacy = found_in_legacy(&mut self.legacy);
        let of_legacy = of_legacy.inspect_err(|error| debug!(%error, "chains of iptables-legacy cannot be looked at"));
        known(of_nft.ok(), of_legacy.ok(), &self.told)
    }
}

/// What is there; of what could not be asked for, what was told of it before.
fn known(of_nft: Option<Vec<Stranger>>, of_legacy: Option<Vec<Stranger>>, told: &[Stranger]) -> Vec<Stranger> {
    let is_legacy = |stranger: &Stranger| matches!(stranger, Stranger::Chains(_, Variant::Legacy));
    let (legacy, nft): (Vec<_>, Vec<_>) = told.iter().copied().partition(is_legacy);
    [of_nft.unwrap_or(nft), of_legacy.unwrap_or(legacy)].concat()
}

fn legacy_chains() -> Dual<LegacyChains> {
    Dual::from_fn(|family| LegacyChains::of(family, Table::Nat.name()))
}

/// The tables, and the chains of the variant that is of nf_tables too.
fn found_in_nft(nft: &mut NftSocket) -> Result<Vec<Stranger>, NftError> {
    let mut found = Vec::new();
    for family in Family::ALL {
        if nft.tables(family)?.iter().any(|table| table == TABLE) {
            found.push(Stranger::Table(family));
        }
    }
    for family in Family::ALL {
        if nat_is_of_kube_proxy(|chain| nft.has_chain(family, Table::Nat.name(), chain))? {
            found.push(Stranger::Chains(family, Variant::Nft));
        }
    }
    Ok(found)
}

/// The chains of the legacy variant in the calling thread's namespace.
fn found_in_legacy(chains: &mut Dual<LegacyChains>) -> io::Result<Vec<Stranger>> {
    let mut found = Vec::new();
    for family in Family::ALL {
        let chains = &mut chains[family];
        chains.look()?;
        if nat_is_of_kube_proxy(|chain| Ok::<_, io::Error>(chains.has(chain)))? {
            found.push(Stranger::Chains(family, Variant::Legacy));
        }
    }
    Ok(found)
}

fn complaint(found: &[Stranger]) -> String {
    let names: Vec<_> = found.iter().map(|stranger| stranger.name()).collect();
    let remedies: Vec<_> = found.iter().map(|stranger| stranger.remedy()).collect();
    let cleanup = found.iter().any(|stranger| matches!(stranger, Stranger::Chains(..)));
    format!(
        "{} of kube-proxy translate Services beside podnet, without a running kube-proxy to endpoints of old; podnet takes no rules of \
         other programs away. End kube-proxy here and take them away{}: {}",
        names.join(" and "),
        if cleanup { ", with kube-proxy --cleanup or by hand" } else { "" },
        remedies.join("; ")
    )
}

impl Stranger {
    fn name(self) -> String {
        match self {
            Self::Table(_) => self.words(),
            Self::Chains(..) => format!("the chains KUBE-SERVICES and others of {}", self.words()),
        }
    }

    fn remedy(self) -> String {
        let words = self.words();
        match self {
            Self::Table(_) => format!("nft delete {words}"),
            // kubelets make theirs again, whose names begin so too.
            Self::Chains(..) => format!("{words}-save | grep -v KUBE- | {words}-restore"),
        }
    }

    /// The table, or the program that shows the chains.
    fn words(self) -> String {
        match self {
            Self::Table(Family::V4) => format!("table ip {TABLE}"),
            Self::Table(Family::V6) => format!("table ip6 {TABLE}"),
            Self::Chains(Family::V4, variant) => format!("iptables-{variant}"),
            Self::Chains(Family::V6, variant) => format!("ip6tables-{variant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command};

    use podnet_kernel::netns::NetNs;

    use super::{
        Stranger::{Chains, Table},
        *,
    };

    /// A namespace that goes with the value.
    struct Space {
        netns: NetNs,
        path: String,
    }

    impl Space {
        fn new(tag: &str) -> Self {
            let path = format!("/run/netns/podnet-test-strangers-{tag}-{}", process::id());
            Self { netns: NetNs::create(&path).unwrap(), path }
        }

        fn command(&self, line: &str) {
            let (program, arguments) = line.split_once(' ').unwrap();
            let mut command = Command::new(program);
            command.args(arguments.split(' '));
            assert!(self.netns.run(move || command.status()).unwrap().unwrap().success(), "{line}");
        }
    }

    impl Drop for Space {
        fn drop(&mut self) {
            let _ = NetNs::remove(&self.path);
        }
    }

    #[test]
    fn kube_proxys_tables_are_found_told_with_the_remedy_and_not_touched() {
        let space = Space::new("tables");
        let mut socket = NftSocket::open_in(&space.netns).unwrap();
        let mut look = || found_in_nft(&mut socket).unwrap();
        space.command("nft add table ip kube-proxy-not");
        space.command("nft add table inet kube-proxy");
        assert_eq!(look(), []);
        space.command("nft add table ip6 kube-proxy");
        assert_eq!(look(), [Table(Family::V6)]);
        space.command("nft add table ip kube-proxy");
        let both = look();
        assert_eq!(both, [Table(Family::V4), Table(Family::V6)]);
        let told = complaint(&both);
        assert!(
            told.ends_with(" take them away: nft delete table ip kube-proxy; nft delete table ip6 kube-proxy"),
            "{told}"
        );
        assert!(complaint(&[Table(Family::V6)]).ends_with(": nft delete table ip6 kube-proxy"));
    }

    #[test]
    fn what_cannot_be_asked_for_stays_as_it_was_told_and_hides_nothing_else() {
        let (table, legacy) = (Table(Family::V4), Chains(Family::V6, Variant::Legacy));
        assert_eq!(known(Some(vec![table]), None, &[]), [table]);
        assert_eq!(known(Some(Vec::new()), None, &[table, legacy]), [legacy]);
        assert_eq!(known(None, Some(Vec::new()), &[table, legacy]), [table]);
        assert_eq!(known(None, None, &[table, legacy]), [table, legacy]);
        assert_eq!(known(Some(Vec::new()), Some(Vec::new()), &[table, legacy]), []);
    }

    /// The remedy that is told is what takes them away, and it leaves what is not Services'.
    #[test]
    fn kube_proxys_chains_are_found_in_both_variants_and_podnets_are_not_taken_for_them() {
        let space = Space::new("chains");
        let mut socket = NftSocket::open_in(&space.netns).unwrap();
        let mut legacy = legacy_chains();
        let mut look = || {
            let of_legacy = space.netns.run(|| found_in_legacy(&mut legacy)).unwrap().unwrap();
            [found_in_nft(&mut socket).unwrap(), of_legacy].concat()
        };
        for (family, tool) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
            for variant in [Variant::Nft, Variant::Legacy] {
                let nat = |line: &str| space.command(&format!("{tool}-{variant} -t nat {line}"));
                nat("-N OTHERS");
                assert_eq!(look(), []);
                nat("-N KUBE-SERVICES");
                nat("-A PREROUTING -j KUBE-SERVICES");
                let found = look();
                assert_eq!(found, [Chains(family, variant)]);
                nat("-N KUBE-PING");
                assert_eq!(look(), [], "as podnet's are");
                nat("-X KUBE-PING");
                assert_eq!(look(), found);
                let told = complaint(&found);
                let (_, remedy) = told.rsplit_once(": ").unwrap();
                let mut shell = Command::new("sh");
                shell.args(["-c", remedy]);
                assert!(space.netns.run(move || shell.status()).unwrap().unwrap().success(), "{remedy}");
                assert_eq!(look(), [], "{remedy}");
                nat("-X OTHERS");
            }
        }
    }
}
