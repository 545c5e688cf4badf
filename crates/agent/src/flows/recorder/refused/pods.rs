//! Which pods ask, by their network namespaces.

use std::{
    collections::{HashMap, HashSet},
    mem,
    net::IpAddr,
    time::{Duration, Instant},
};

use podnet_flow::{Entry, Refusal};
use podnet_model::LinkName;

use crate::flows::senders::Asking;

/// Before a pod is looked for again that was not found: one that has an address may have no interface yet.
const AGAIN: Duration = Duration::from_secs(1);
/// So many pods are looked for in one reading, each of which takes about a millisecond.
const AT_ONCE: usize = 32;
/// What is no known pod's, and quiet for so long, is given up: others use Services, too, whose flows nobody records.
const STRANGE: Duration = Duration::from_secs(10);

/// A pod behind a namespace.
#[derive(Debug)]
struct Pod {
    /// The node's end of its link, and that one's index.
    name: LinkName,
    device: u32,
    addrs: Vec<IpAddr>,
}

/// Which pod is in which namespace. They are looked for as they come, since one may be gone before it is read what it was refused.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// By the cookies of namespaces.
    known: HashMap<u64, Pod>,
    /// Those that were looked for; when, where they were not found.
    sought: HashMap<LinkName, Option<Instant>>,
    /// Namespaces of no known pod, and since when they are.
    strange: HashMap<u64, Instant>,
    /// Some pods were never looked for yet: there were too many at once.
    is_behind: bool,
}

impl Pods {
    /// Looks for pods that are new, and while somebody unknown asks for those as well that were not found before.
    pub(super) fn follow(&mut self, holders: &Asking, all: &[Refusal], now: Instant) {
        let ends = holders.ends();
        let asking: HashSet<u64> = all.iter().map(|refusal| refusal.netns).collect();
        self.known.retain(|cookie, pod| ends.contains_key(&pod.name) || asking.contains(cookie));
        self.sought.retain(|name, _| ends.contains_key(name));
        let has_strangers = asking.iter().any(|cookie| !self.known.contains_key(cookie));
        // First those that were never looked for, then those for which that is longest ago.
        let sought = |name: &LinkName| match self.sought.get(name) {
            None => Some(None),
            Some(Some(at)) if has_strangers && now.duration_since(*at) >= AGAIN => Some(Some(*at)),
            Some(_) => None,
        };
        let mut due: Vec<_> =
            ends.into_iter().filter_map(|(name, addrs)| Some((sought(&name)?, name, addrs))).collect();
        due.sort_unstable_by_key(|(at, ..)| *at);
        self.is_behind = due.get(AT_ONCE).is_some_and(|(at, ..)| at.is_none());
        due.truncate(AT_ONCE);
        for (_, name, addrs) in due {
            let found = holders.behind(&name);
            self.sought.insert(name.clone(), found.is_none().then_some(now));
            // Of several interfaces of a pod the oldest counts.
            if let Some((device, cookie)) = found
                && self.known.get(&cookie).is_none_or(|known| device < known.device)
            {
                self.known.insert(cookie, Pod { name, device, addrs });
            }
        }
        let mut before = mem::take(&mut self.strange);
        let strange = asking.into_iter().filter(|cookie| !self.known.contains_key(cookie));
        self.strange = strange.map(|cookie| (cookie, before.remove(&cookie).unwrap_or(now))).collect();
    }

    /// As what a refusal is recorded; none where it is no known pod's.
    pub(super) fn entry(&self, refusal: &Refusal) -> Option<Entry> {
        let pod = self.known.get(&refusal.netns)?;
        refusal.entry(pod.device, &pod.addrs)
    }

    /// Whether it is not known for long whose it is, though all pods were looked for; or it is of a family that its pod has no address of.
    pub(super) fn is_strange(&self, refusal: &Refusal, now: Instant) -> bool {
        let is_old = |since: &Instant| now.duration_since(*since) >= STRANGE;
        self.known.contains_key(&refusal.netns)
            || !self.is_behind && self.strange.get(&refusal.netns).is_some_and(is_old)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use k8s_openapi::jiff::Timestamp;
    use podnet_flow::{Transport, Unserved};

    use super::*;
    use crate::flows::senders::{Holders, Senders};

    /// Ends of links, with the cookies behind those that are found, and which were looked for.
    #[derive(Debug, Default)]
    struct Node {
        ends: HashMap<&'static str, Option<u64>>,
        sought: Vec<LinkName>,
    }

    impl Holders for Arc<Mutex<Node>> {
        fn senders(&self) -> Option<Senders> {
            None
        }

        fn ends(&self) -> HashMap<LinkName, Vec<IpAddr>> {
            let addrs = vec!["10.0.0.1".parse().unwrap()];
            self.lock().unwrap().ends.keys().map(|name| (LinkName::from(*name), addrs.clone())).collect()
        }

        fn behind(&self, name: &LinkName) -> Option<(u32, u64)> {
            let mut node = self.lock().unwrap();
            node.sought.push(name.clone());
            let cookie = (*node.ends.get(name.as_str())?)?;
            Some((u32::try_from(cookie).unwrap() + 100, cookie))
        }
    }

    fn refusal(netns: u64, to: &str) -> Refusal {
        let (at, to) = (Timestamp::UNIX_EPOCH, to.parse().unwrap());
        let (transport, unserved) = (Transport::TCP, Unserved::Nobody);
        Refusal { netns, port: 0, to, transport, count: 1, born: 1, first: at, last: at, unserved }
    }

    #[test]
    fn pods_are_looked_for_once_and_those_that_were_not_found_again_where_somebody_unknown_asks() {
        let node = Arc::new(Mutex::new(Node { ends: [("pn1", Some(1)), ("pn2", None)].into(), ..Node::default() }));
        let (holders, began) = (Asking::new(Box::new(node.clone())), Instant::now());
        let mut pods = Pods::default();
        let at = |seconds| began + Duration::from_secs(seconds);
        let sought = |node: &Mutex<Node>| {
            let mut sought = mem::take(&mut node.lock().unwrap().sought);
            sought.sort();
            sought.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let [known, strange] = [1, 2].map(|netns| refusal(netns, "10.96.0.7:80"));
        pods.follow(&holders, &[], at(0));
        assert_eq!(sought(&node), ["pn1", "pn2"], "before they are refused anything");
        pods.follow(&holders, &[known], at(60));
        assert!(sought(&node).is_empty());
        assert_eq!(pods.entry(&known).map(|entry| entry.key.device), Some(101));
        // The other is found while somebody asks of whom nothing is known.
        node.lock().unwrap().ends.insert("pn2", Some(2));
        pods.follow(&holders, &[strange], at(61));
        assert_eq!(sought(&node), ["pn2"]);
        assert_eq!(pods.entry(&strange).map(|entry| entry.key.device), Some(102));
        assert_eq!(pods.entry(&refusal(1, "[fd00:96::7]:80")), None, "the pod has no such address");
        // A pod that is gone is known as long as what it was refused is not read.
        node.lock().unwrap().ends.clear();
        pods.follow(&holders, &[known], at(62));
        assert!(pods.entry(&known).is_some() && pods.entry(&strange).is_none());
        pods.follow(&holders, &[], at(63));
        assert!(pods.entry(&known).is_none());
    }

    #[test]
    fn what_nobody_is_found_for_is_kept_for_a_while() {
        let node = Arc::new(Mutex::new(Node { ends: [("pn1", None)].into(), ..Node::default() }));
        let (holders, began) = (Asking::new(Box::new(node.clone())), Instant::now());
        let (mut pods, strange) = (Pods::default(), refusal(7, "10.96.0.7:80"));
        let mut is_strange = |seconds, asks: &[Refusal]| {
            let now = began + Duration::from_secs(seconds);
            pods.follow(&holders, asks, now);
            (pods.is_strange(&strange, now), node.lock().unwrap().sought.len())
        };
        assert_eq!(is_strange(0, &[strange]), (false, 1));
        // The pod may have no interface yet.
        assert_eq!(is_strange(1, &[strange]), (false, 2));
        assert_eq!(is_strange(9, &[strange]), (false, 3));
        assert_eq!(is_strange(10, &[strange]), (true, 4));
        // It asks anew.
        assert_eq!(is_strange(11, &[]), (false, 4));
        assert_eq!(is_strange(12, &[strange]), (false, 5));
    }

    #[test]
    fn nobody_is_a_stranger_before_all_pods_were_looked_for() {
        let ends = (0..=2 * AT_ONCE).map(|number| (&*format!("pn{number}").leak(), None));
        let node = Arc::new(Mutex::new(Node { ends: ends.collect(), ..Node::default() }));
        let (holders, began) = (Asking::new(Box::new(node.clone())), Instant::now());
        let (mut pods, strange) = (Pods::default(), refusal(7, "10.96.0.7:80"));
        // Those that are looked for again come after those that never were.
        for (seconds, expected) in [(0, false), (10, false), (20, true)] {
            let now = began + Duration::from_secs(seconds);
            pods.follow(&holders, &[strange], now);
            assert_eq!(pods.is_strange(&strange, now), expected, "{seconds}");
        }
        let sought: HashSet<LinkName> = mem::take(&mut node.lock().unwrap().sought).into_iter().collect();
        assert_eq!(sought.len(), 2 * AT_ONCE + 1);
    }
}
