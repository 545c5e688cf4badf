//! Which chains a table has beside the kernel's own.

use std::{collections::BTreeSet, io, iter::successors};

use podnet_model::Family;

use super::{TARGET, half, table::Table};

/// `XT_FUNCTION_MAXNAMELEN`: a chain's name with its end.
const LONGEST: usize = 30;
/// The name of the error that is the last entry of a table.
const END: &[u8] = b"ERROR";

/// The chains of a table of `iptables-legacy`, as they were when it was looked at.
#[derive(Debug)]
pub struct LegacyChains {
    family: Family,
    table: &'static str,
    /// What the kernel said of the table's size then.
    info: Vec<u8>,
    names: BTreeSet<String>,
}

impl LegacyChains {
    /// Those of this table (`filter`, `nat`, …). Nothing is asked yet.
    #[must_use]
    pub const fn of(family: Family, table: &'static str) -> Self {
        Self { family, table, info: Vec::new(), names: BTreeSet::new() }
    }

    /// Looks at the table as it is in the calling thread's namespace. It is read where its size is another one than the last time: a chain
    /// that somebody exchanged for one just as large does not show.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn look(&mut self) -> io::Result<()> {
        let Some(table) = Table::open(self.family, self.table)? else {
            self.info.clear();
            self.names.clear();
            return Ok(());
        };
        if table.info()? != self.info {
            let (info, entries) = table.read()?;
            self.names = names(self.family, &entries);
            self.info = info;
        }
        Ok(())
    }

    /// Whether the table had a chain of this name; it had none where there was no such table.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// The chains that begin somewhere in the table's bytes; what does not fit is none.
fn names(family: Family, entries: &[u8]) -> BTreeSet<String> {
    let begun = |at| error(family, entries, at).filter(|name| *name != END);
    places(family, entries).filter_map(begun).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

/// Where each entry begins in the table's bytes.
pub(super) fn places(family: Family, entries: &[u8]) -> impl Iterator<Item = usize> {
    let (_, next) = offsets(family);
    let length = move |at: usize| half(entries, at + next).filter(|length| *length > 0).map(usize::from);
    successors(Some(0), move |at| Some(at + length(*at)?)).take_while(move |at| length(*at).is_some())
}

/// By what the entry at that place is an error: the name of the chain that begins with it, or [`END`].
pub(super) fn error(family: Family, entries: &[u8], at: usize) -> Option<&[u8]> {
    let target = at + usize::from(half(entries, at + offsets(family).0)?);
    let kind = until_zero(entries.get(target + 2..target + TARGET - 1)?);
    let name = until_zero(entries.get(target + TARGET..target + TARGET + LONGEST)?);
    (kind == b"ERROR").then_some(name)
}

/// `target_offset` and `next_offset` of `struct ipt_entry` and `struct ip6t_entry`.
const fn offsets(family: Family) -> (usize, usize) {
    match family {
        Family::V4 => (88, 90),
        Family::V6 => (140, 142),
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn chains_are_seen_as_they_come_and_go_and_looking_makes_no_table() {
        for (family, tool) in [(Family::V4, "iptables-legacy"), (Family::V6, "ip6tables-legacy")] {
            let namespace = TestNs::new(&format!("legacy-chains-{family:?}").to_lowercase());
            let mut chains = LegacyChains::of(family, "nat");
            let mut has = |names: [&str; 3]| {
                namespace.run(|| chains.look()).unwrap().unwrap();
                names.map(|name| chains.has(name))
            };
            let asked = ["KUBE-SERVICES", "AN-OTHER", "PREROUTING"];
            assert_eq!(has(asked), [false; 3]);
            assert!(namespace.run(|| Table::open(family, "nat")).unwrap().unwrap().is_none());
            namespace.command(&format!("{tool} -t nat -N KUBE-SERVICES"));
            namespace.command(&format!("{tool} -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j KUBE-SERVICES"));
            assert_eq!(has(asked), [true, false, false]);
            // As long as the longest that there can be.
            let longest = "A-NAME-OF-TWENTY-EIGHT-BYTES";
            namespace.command(&format!("{tool} -t nat -N {longest}"));
            namespace.command(&format!("{tool} -t nat -N AN-OTHER"));
            assert_eq!(has(["KUBE-SERVICES", "AN-OTHER", longest]), [true; 3]);
            namespace.command(&format!("{tool} -t nat -F"));
            namespace.command(&format!("{tool} -t nat -X KUBE-SERVICES"));
            assert_eq!(has(["KUBE-SERVICES", "AN-OTHER", longest]), [false, true, true]);
        }
    }
}
