//! Two implementations of iptables can be on one host, and see nothing of each other: rules belong where the others' are.

use std::fmt;

use podnet_model::{Dual, Family};

use super::{
    IptablesError,
    command::{Program, run},
};
use crate::{legacy::LegacyChains, netns::NetNs, nft::NftSocket};

/// An implementation of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// By the kernel's `ip_tables`.
    Legacy,
    /// By nf_tables.
    Nft,
}

/// The chains that a kubelet leaves in the table `mangle` of the variant that the host uses: the first for that very purpose (since
/// Kubernetes 1.24).
const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];
const MANGLE: &str = "mangle";

impl Variant {
    /// The one that the host uses: where a kubelet left its hint; where there are more rules; else that of nf_tables, where the kernel has
    /// that. Asking makes no table.
    ///
    /// # Errors
    /// Where neither is installed, or a namespace cannot be entered.
    pub fn of_host(netns: &NetNs) -> Result<Self, IptablesError> {
        let both = [Self::Nft, Self::Legacy];
        let present: Vec<Self> = both.into_iter().filter(|variant| variant.is_installed("restore")).collect();
        match present[..] {
            // The error says what was looked for.
            [] => Self::Nft.program(Family::V4, "restore").map(|_| Self::Nft),
            [only] => Ok(only),
            _ if !nft_is_there(netns)? => Ok(Self::Legacy),
            _ => match Self::hinted(netns)? {
                Some(hinted) => Ok(hinted),
                None => Ok(Self::judge(&Self::Nft.told(netns)?, &Self::Legacy.told(netns)?)),
            },
        }
    }

    /// By the kubelet's hint, which is asked for by its name: to read all rules takes seconds where there are thousands.
    fn hinted(netns: &NetNs) -> Result<Option<Self>, IptablesError> {
        let mut nft = NftSocket::open_in(netns)?;
        let mut legacy = Dual::from_fn(|family| LegacyChains::of(family, MANGLE));
        for family in Family::ALL {
            netns.run(|| legacy[family].look())??;
        }
        for hint in HINTS {
            for family in Family::ALL {
                if nft.has_chain(family, MANGLE, hint)? {
                    return Ok(Some(Self::Nft));
                }
            }
            if Family::ALL.into_iter().any(|family| legacy[family].has(hint)) {
                return Ok(Some(Self::Legacy));
            }
        }
        Ok(None)
    }

    /// Whether the kernel can have rules of it at all, as far as that is known without making any.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub(super) fn may_have_rules(self, netns: &NetNs) -> Result<bool, IptablesError> {
        match self {
            Self::Legacy => Ok(true),
            Self::Nft => nft_is_there(netns),
        }
    }

    /// Tries to translate and masquerade in the calling thread's namespace.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn try_out(self, netns: &NetNs) -> Result<(), IptablesError> {
        let restore = self.program(Family::V4, "restore")?;
        run(
            netns,
            &restore,
            &["--noflush"],
            "*nat\n-A PREROUTING -p tcp -j DNAT --to-destination 192.0.2.1\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n",
        )
        .map(drop)
    }

    /// Whether there is its program for `restore` or `save`, of IPv4.
    pub(crate) fn is_installed(self, task: &'static str) -> bool {
        self.program(Family::V4, task).is_ok()
    }

    /// By what the two tell of both families: the one that has more rules.
    fn judge(nft: &str, legacy: &str) -> Self {
        let rules = |told: &str| told.lines().filter(|line| line.starts_with("-A ")).count();
        if rules(legacy) > rules(nft) { Self::Legacy } else { Self::Nft }
    }

    fn told(self, netns: &NetNs) -> Result<String, IptablesError> {
        let mut told = String::new();
        for family in Family::ALL {
            // A host may lack a family, or the variant's programs for it: then there are no rules of it.
            if let Ok(save) = self.program(family, "save") {
                match run(netns, &save, &[], "") {
                    Ok(text) => told.push_str(&text),
                    Err(IptablesError::Refused { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(told)
    }

    /// The program for `restore` or `save`: by the name that says which variant it is, or else by the plain name, where that is of this
    /// variant.
    pub(super) fn program(self, family: Family, task: &'static str) -> Result<Program, IptablesError> {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let exact = format!("{base}-{self}-{task}");
        let plain =
            || Program::find(&format!("{base}-{task}")).filter(|program| program.version().contains(self.mark()));
        Program::find(&exact).or_else(plain).ok_or(IptablesError::Missing { program: exact })
    }

    /// How a program's version says which variant it is.
    const fn mark(self) -> &'static str {
        match self {
            Self::Legacy => "(legacy)",
            Self::Nft => "(nf_tables)",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::Nft => "nft",
        })
    }
}

fn nft_is_there(netns: &NetNs) -> Result<bool, IptablesError> {
    Ok(NftSocket::open_in(netns).and_then(|mut socket| socket.is_there())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn the_one_with_more_rules_is_the_hosts() {
        let many = "-A A -j B\n-A A -j C\n";
        assert_eq!(Variant::judge("", ""), Variant::Nft);
        assert_eq!(Variant::judge("", many), Variant::Legacy);
        assert_eq!(Variant::judge(many, many), Variant::Nft);
    }

    #[test]
    fn the_kubelets_hint_decides_before_the_number_of_rules_and_its_own_chain_before_its_canary() {
        let ns = TestNs::new("ipt-hinted");
        let hinted = || Variant::hinted(&ns).unwrap();
        assert_eq!(hinted(), None);
        ns.command("iptables-legacy -t mangle -N KUBE-KUBELET-CANARY");
        assert_eq!(hinted(), Some(Variant::Legacy));
        ns.command("iptables-nft -t mangle -A PREROUTING -j RETURN");
        assert_eq!(Variant::of_host(&ns).unwrap(), Variant::Legacy);
        ns.command("ip6tables-nft -t mangle -N KUBE-KUBELET-CANARY");
        assert_eq!(hinted(), Some(Variant::Nft));
        ns.command("ip6tables-legacy -t mangle -N KUBE-IPTABLES-HINT");
        assert_eq!(hinted(), Some(Variant::Legacy));
    }
}
