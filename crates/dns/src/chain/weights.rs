//! The weights of `loadbalance weighted`.

use std::{collections::HashMap, net::IpAddr};

use super::{read, scope::Scope};
use crate::{
    corefile::{CorefileError, Word},
    name::Name,
};

/// Weights of names' addresses; those that are not listed weigh 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(HashMap<Name, Vec<(IpAddr, u8)>>);

impl Weights {
    /// What an address of a name weighs.
    #[must_use]
    pub fn of(&self, name: &Name, addr: IpAddr) -> u8 {
        let listed = self.0.get(name).into_iter().flatten().find(|(listed, _)| *listed == addr);
        listed.map_or(1, |(_, weight)| *weight)
    }

    /// Reads lines of names, each followed by lines of addresses with their weights (1 to 255); `#` begins a comment. The error is
    /// the number of the line that is none of these, from 1.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut weights = Self::default();
        let mut name = None;
        for (index, line) in text.lines().enumerate() {
            let bad = || index + 1;
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [word] => name = Some(Name::parse(word).map_err(|_| bad())?),
                [addr, weight] => {
                    let addr: IpAddr = addr.parse().map_err(|_| bad())?;
                    let weight = weight.parse().ok().filter(|weight| *weight > 0).ok_or_else(bad)?;
                    let listed = weights.0.entry(name.clone().ok_or_else(bad)?).or_default();
                    if listed.iter().any(|(known, _)| *known == addr) {
                        return Err(bad());
                    }
                    listed.push((addr, weight));
                }
                _ => return Err(bad()),
            }
        }
        Ok(weights)
    }
}

pub(super) fn read(word: &Word, scope: &mut Scope<'_>) -> Result<Weights, CorefileError> {
    Weights::parse(&read::text(word, scope)?).map_err(|line| {
        let reason = format!("line {line} is neither a name, nor one of its addresses with a weight from 1 to 255");
        word.malformed("the file of weights", &reason)
    })
}
