//! Where load balancers' addresses come from, where nobody says anything else: a part of the first subnet, so that this machine
//! reaches them without a route.

use std::fmt;

use podnet_model::balancer::{NoSpan, Span};
use serde::{Deserialize, Serialize};

use super::{Cluster, nth};

/// What `--lb-pool` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct LbPool(Option<Vec<String>>);

impl LbPool {
    /// `none`, or ranges with commas between them.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Some(Vec::new())));
        }
        let range = |range: &str| {
            let range = range.trim();
            let wrong = |error: NoSpan| format!("{range:?} is {error}, nor is it none");
            range.parse::<Span>().map(|_| range.to_owned()).map_err(wrong)
        };
        Ok(Self(Some(text.split(',').map(range).collect::<Result<_, _>>()?)))
    }
}

impl fmt::Display for LbPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("the default"),
            Some(ranges) if ranges.is_empty() => f.write_str("none"),
            Some(ranges) => f.write_str(&ranges.join(",")),
        }
    }
}

impl Cluster {
    /// The ranges of the pool `default`; none where there is to be none. Nodes have addresses from 11 on, at most a hundred of them.
    pub(crate) fn lb_ranges(&self) -> Vec<String> {
        match &self.lb_pool.0 {
            Some(ranges) => ranges.clone(),
            None => {
                let (first, last) =
                    (self.addresses(nth(self.subnet(0), 200)), self.addresses(nth(self.subnet(0), 250)));
                first.iter().zip(last).map(|(first, last)| format!("{first}-{last}")).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_ranges_or_none() {
        for text in ["none", "192.0.2.0/28", "192.0.2.1-192.0.2.9,2001:db8::/120"] {
            assert_eq!(LbPool::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "all", "192.0.2.1", "192.0.2.0/28,"] {
            assert!(LbPool::parse(text).unwrap_err().contains("192.0.2.0/28"), "{text}");
        }
    }
}
