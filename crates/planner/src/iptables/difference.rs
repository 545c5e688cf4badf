//! From what is there to what ought to be.

use super::{
    ChainKey, Hook, Rewrite, Rules, Saved, is_ours,
    saved::{is_built_in, leads_to},
};

/// What makes of the rules that are there those that ought to be: chains that are right are left alone, those that are podnet's and not
/// wanted go, and what leads into podnet's chains stands once. `known` tells of a chain that is not told word for word, or of one rule of
/// the kernel's own chains, whether it is known to be right: another version of iptables may say the same in other words.
#[must_use]
pub fn difference(wanted: &Rules, saved: &Saved, known: impl Fn(&ChainKey, &[String]) -> bool) -> Rewrite {
    let mut rewrite = Rewrite::default();
    for (key, rules) in &wanted.chains {
        let there = saved.chains.get(key);
        let right = there.is_some_and(|there| is_told(rules, there) || known(key, there));
        if !right {
            rewrite.chains.insert(key.clone(), rules.clone());
        }
    }
    drop_chains(saved, |key| !wanted.chains.contains_key(key), &mut rewrite);
    (rewrite.unhooked, rewrite.hooks) = hooks(saved, &wanted.hooks, known);
    rewrite
}

/// What takes all of podnet's away and nothing else. Chains that others lead to stay, as they are.
#[must_use]
pub fn removal(saved: &Saved) -> Rewrite {
    let mut rewrite = Rewrite { unhooked: hooks(saved, &[], |_, _| false).0, ..Rewrite::default() };
    drop_chains(saved, |_| true, &mut rewrite);
    rewrite
}

fn drop_chains(saved: &Saved, unwanted: impl Fn(&ChainKey) -> bool, rewrite: &mut Rewrite) {
    let kept = saved.used_by_others();
    let gone = saved.chains.keys().filter(|key| is_ours(&key.name) && unwanted(key) && !kept.contains(key));
    rewrite.gone = gone.cloned().collect();
}

/// Rules of the kernel's own chains that lead into podnet's and are not wanted there, or stand there once more; and what is wanted and not
/// there.
fn hooks(
    saved: &Saved,
    wanted: &[Hook],
    known: impl Fn(&ChainKey, &[String]) -> bool,
) -> (Vec<(ChainKey, String)>, Vec<Hook>) {
    let mut strays = Vec::new();
    let mut missing: Vec<_> = wanted.iter().map(|hook| (hook, hook.rule.to_string())).collect();
    for (key, rules) in saved.chains.iter().filter(|(key, _)| is_built_in(&key.name)) {
        for rule in rules.iter().filter(|rule| leads_to(rule).is_some_and(is_ours)) {
            let is_it = |(hook, words): &(&Hook, String)| {
                hook.is_like(key, rule) && (words == rule || known(key, std::slice::from_ref(rule)))
            };
            match missing.iter().position(is_it) {
                Some(place) => drop(missing.remove(place)),
                None => strays.push((key.clone(), rule.clone())),
            }
        }
    }
    (strays, missing.into_iter().map(|(hook, _)| hook.clone()).collect())
}

fn is_told(rules: &[super::Rule], there: &[String]) -> bool {
    rules.len() == there.len() && rules.iter().zip(there).all(|(rule, told)| rule.to_string() == *told)
}
