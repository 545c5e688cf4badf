//! From what is there to what ought to be.

use super::{
    ChainKey, Hook, Rewrite, Rules, Saved, is_ours,
    saved::{is_built_in, leads_to},
};

/// What makes of the rules that are there those that ought to be: chains that are right are left alone, those that are podnet's and not
/// wanted go, and what leads into podnet's chains stands once. `known` tells of a chain that is not told word for word whether it is
/// known to be right: another version of iptables may say the same in other words.
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
    rewrite.unhooked = strays(saved, &wanted.hooks);
    let missing = |hook: &&Hook| !there(saved, hook);
    rewrite.hooks = wanted.hooks.iter().filter(missing).cloned().collect();
    rewrite
}

/// What takes all of podnet's away and nothing else. Chains that others lead to stay, as they are.
#[must_use]
pub fn removal(saved: &Saved) -> Rewrite {
    let mut rewrite = Rewrite { unhooked: strays(saved, &[]), ..Rewrite::default() };
    drop_chains(saved, |_| true, &mut rewrite);
    rewrite
}

fn drop_chains(saved: &Saved, unwanted: impl Fn(&ChainKey) -> bool, rewrite: &mut Rewrite) {
    let kept = saved.used_by_others();
    let gone = saved.chains.keys().filter(|key| is_ours(&key.name) && unwanted(key) && !kept.contains(key));
    rewrite.gone = gone.cloned().collect();
}

/// Rules of the kernel's own chains that lead into podnet's and are not wanted there, or stand there once more.
fn strays(saved: &Saved, hooks: &[Hook]) -> Vec<(ChainKey, String)> {
    let mut strays = Vec::new();
    for (key, rules) in saved.chains.iter().filter(|(key, _)| is_built_in(&key.name)) {
        let mut wanted: Vec<_> =
            hooks.iter().filter(|hook| hook.at == *key).filter_map(|hook| hook.rule.leads_to()).collect();
        for rule in rules {
            let Some(to) = leads_to(rule).filter(|to| is_ours(to)) else { continue };
            match wanted.iter().position(|chain| chain.as_ref() == to) {
                Some(place) => drop(wanted.swap_remove(place)),
                None => strays.push((key.clone(), rule.clone())),
            }
        }
    }
    strays
}

fn there(saved: &Saved, hook: &Hook) -> bool {
    let to = hook.rule.leads_to().map(|chain| &**chain);
    saved.chains.get(&hook.at).is_some_and(|rules| rules.iter().any(|rule| leads_to(rule) == to))
}

fn is_told(rules: &[super::Rule], there: &[String]) -> bool {
    rules.len() == there.len() && rules.iter().zip(there).all(|(rule, told)| rule.to_string() == *told)
}
