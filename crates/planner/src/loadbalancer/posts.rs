//! What a node does about the addresses that it announces or stands by for, as time goes by.
//!
//! The standby nodes ask on the network itself, every 0.4 s, who has the address. That is what clients ask, so it tells what counts: a
//! node that is dead, cut off or without its agent does not answer, whatever the API server believes of it, and all goes on while
//! the API server is away. A standby node that hears nobody for long enough announces the address itself, the second one later
//! than the first one; whoever stands in withdraws as soon as it hears another one.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::announcer::Duty;

/// How often a standby node asks.
const ASK: Duration = Duration::from_millis(400);
/// How long the first standby node waits for an answer: two that are lost count for nothing.
const PATIENCE: Duration = Duration::from_millis(1200);
/// How much longer each further one waits, so that it hears who stands in before it.
const LATER: Duration = Duration::from_millis(700);
/// How many nodes stand by.
const STANDBY: usize = 2;
/// When, after it begins to announce, a node tells everybody: several times, since nobody acknowledges it.
const CLAIMS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// Something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Ask who has the address.
    Ask(IpAddr),
    /// Tell everybody that it is here.
    Claim(IpAddr),
}

/// The addresses of one node.
#[derive(Debug, Default)]
pub struct Posts {
    posts: BTreeMap<IpAddr, Post>,
}

#[derive(Debug)]
struct Post {
    rank: usize,
    /// Since when it is announced from here.
    announced: Option<Instant>,
    /// How often that was told.
    claims: usize,
    /// When another node was heard, or since when this one listens.
    heard: Instant,
    /// When to ask next.
    ask: Instant,
}

impl Posts {
    /// These are the node's duties from now on.
    pub fn assign(&mut self, duties: &[Duty], now: Instant) {
        let ranks: BTreeMap<IpAddr, usize> = duties.iter().map(|duty| (duty.addr, duty.rank)).collect();
        // Who announces goes on until it hears another one, whatever its rank, so that there is no moment without.
        self.posts
            .retain(|addr, post| ranks.get(addr).is_some_and(|rank| *rank <= STANDBY || post.announced.is_some()));
        for (addr, rank) in ranks {
            if rank <= STANDBY {
                let new = Post { rank, announced: None, claims: 0, heard: now, ask: now };
                self.posts.entry(addr).or_insert(new);
            }
            let Some(post) = self.posts.get_mut(&addr) else { continue };
            if post.rank != rank {
                (post.rank, post.heard) = (rank, now);
            }
            if rank == 0 && post.announced.is_none() {
                post.announce(now);
            }
        }
    }

    /// Another node said that it has the address. Answers whether it is not announced from here any more.
    pub fn heard(&mut self, addr: IpAddr, now: Instant) -> bool {
        let Some(post) = self.posts.get_mut(&addr) else { return false };
        post.heard = now;
        match (post.rank, post.announced) {
            (0, Some(since)) => {
                // It stood in, or does not know yet; it withdraws when it hears this one.
                if post.claims >= CLAIMS.len() && now.duration_since(since) > PATIENCE {
                    post.announce(now);
                }
                false
            }
            (_, announced) => {
                post.announced = None;
                announced.is_some()
            }
        }
    }

    /// Whether the address is announced from here: questions for it are answered.
    #[must_use]
    pub fn announces(&self, addr: IpAddr) -> bool {
        self.posts.get(&addr).is_some_and(|post| post.announced.is_some())
    }

    /// The addresses that are announced from here.
    pub fn announced(&self) -> impl Iterator<Item = IpAddr> {
        self.posts.iter().filter(|(_, post)| post.announced.is_some()).map(|(addr, _)| *addr)
    }

    /// What is to be sent by now.
    pub fn act(&mut self, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
        for (addr, post) in &mut self.posts {
            if post.rank > 0 {
                if post.announced.is_none() && now >= post.heard + post.patience() {
                    post.announce(now);
                }
                if now >= post.ask {
                    post.ask = now + ASK;
                    acts.push(Act::Ask(*addr));
                }
            }
            while post.next_claim().is_some_and(|at| at <= now) {
                post.claims += 1;
                acts.push(Act::Claim(*addr));
            }
        }
        acts
    }

    /// When there is something to do next; none: not before something changes.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let due = |post: &Post| {
            let takes_over = (post.rank > 0 && post.announced.is_none()).then(|| post.heard + post.patience());
            let asks = (post.rank > 0).then_some(post.ask);
            takes_over.into_iter().chain(asks).chain(post.next_claim()).min()
        };
        self.posts.values().filter_map(due).min()
    }
}

impl Post {
    fn announce(&mut self, now: Instant) {
        (self.announced, self.claims) = (Some(now), 0);
    }

    fn next_claim(&self) -> Option<Instant> {
        Some(self.announced? + *CLAIMS.get(self.claims)?)
    }

    fn patience(&self) -> Duration {
        PATIENCE + LATER * u32::try_from(self.rank.saturating_sub(1)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ADDR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn duty(rank: usize) -> [Duty; 1] {
        [Duty { addr: ADDR, rank, interfaces: BTreeSet::new() }]
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_first_node_announces_at_once_and_tells_it_several_times() {
        let (mut posts, start) = (Posts::default(), Instant::now());
        posts.assign(&duty(0), start);
        assert!(posts.announces(ADDR));
        for (at, count) in [(0, 1), (0, 0), (300, 1), (3000, 2), (60_000, 0)] {
            assert_eq!(posts.act(start + millis(at)), vec![Act::Claim(ADDR); count], "{at} ms");
        }
        assert_eq!(posts.due(), None);
        posts.assign(&[], start);
        assert!(!posts.announces(ADDR));
    }

    #[test]
    fn a_standby_node_asks_and_stands_in_when_nobody_answers_until_it_hears_another() {
        let (mut posts, start) = (Posts::default(), Instant::now());
        posts.assign(&duty(1), start);
        for at in (0..4000).step_by(400) {
            assert_eq!(posts.act(start + millis(at)), [Act::Ask(ADDR)], "{at} ms");
            assert!(!posts.heard(ADDR, start + millis(at)));
        }
        assert!(!posts.announces(ADDR));
        posts.act(start + millis(4700));
        assert!(!posts.announces(ADDR), "two answers may be lost");
        assert!(posts.act(start + millis(4800)).contains(&Act::Claim(ADDR)) && posts.announces(ADDR));
        assert!(posts.heard(ADDR, start + millis(9000)) && !posts.announces(ADDR));
    }

    #[test]
    fn of_two_standby_nodes_the_second_waits_longer_but_not_2_seconds() {
        let start = Instant::now();
        let stands_in_after = |rank: usize| {
            let mut posts = Posts::default();
            posts.assign(&duty(rank), start);
            (0..30).map(|step| millis(step * 100)).find(|after| {
                posts.act(start + *after);
                posts.announces(ADDR)
            })
        };
        assert_eq!(
            [stands_in_after(1), stands_in_after(2), stands_in_after(3)],
            [Some(millis(1200)), Some(millis(1900)), None]
        );
    }

    #[test]
    fn who_is_not_first_any_more_goes_on_until_the_first_is_heard_and_who_may_not_stops_at_once() {
        let (mut posts, start) = (Posts::default(), Instant::now());
        posts.assign(&duty(0), start);
        posts.assign(&duty(7), start + millis(10));
        assert!(posts.announces(ADDR));
        assert!(posts.heard(ADDR, start + millis(20)) && !posts.announces(ADDR));
        posts.assign(&duty(0), start + millis(30));
        assert!(posts.announces(ADDR));
        posts.assign(&[], start + millis(40));
        assert!(!posts.announces(ADDR));
    }

    #[test]
    fn the_first_node_stays_when_it_hears_another_and_says_so_again() {
        let (mut posts, start) = (Posts::default(), Instant::now());
        posts.assign(&duty(0), start);
        posts.act(start + millis(5000));
        assert!(!posts.heard(ADDR, start + millis(6000)) && posts.announces(ADDR));
        assert_eq!(posts.act(start + millis(6000)), [Act::Claim(ADDR)]);
        posts.heard(ADDR, start + millis(6001));
        assert!(posts.act(start + millis(6001)).is_empty(), "not for each time that it hears another");
    }
}
