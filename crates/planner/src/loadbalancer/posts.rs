//! What a node does about the addresses that it announces or stands by for, as time goes by.
//!
//! The standby nodes ask on the network itself, every 0.4 s, who has the address. That is what clients ask, so it tells what counts: a
//! node that is dead, cut off or without its agent does not answer, whatever the API server believes of it, and all goes on while
//! the API server is away. A standby node that hears nobody for long enough announces the address itself, the second one later
//! than the first one; whoever stands in says so again and again, so that the first one, when it is back, hears it and tells
//! everybody that it is itself; and withdraws as soon as it hears another one.
//!
//! Two nodes may both take themselves for the first one: one of them has lost the API server. Neither would withdraw. Who hears another one
//! go on, though it had told it, yields where the other's Ethernet address is lower. It waits as a standby node does then, and tries
//! anew now and then: the other one may know better by then, and withdraws at once.

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

/// How long two nodes that take themselves for the first one both go on: one that only stands in has heard the other one by then.
const DISPUTE: Duration = Duration::from_secs(2);
/// After which silence another one that is heard is heard for the first time. The gaps in a dispute are those of [`CLAIMS`].
const PEACE: Duration = Duration::from_secs(3);
/// How often the first node tells everybody anew while it hears another one, at most.
const AGAIN: Duration = Duration::from_millis(800);
/// How long a first node that has yielded leaves it at that.
const YIELDS: Duration = Duration::from_secs(30);

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
    /// When to ask next, or to say again that this one stands in.
    ask: Instant,
    /// Since when another one goes on though this one is the first.
    disputed: Option<Instant>,
    /// Until when it is left to the other one all the same.
    yields: Option<Instant>,
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
                self.posts.entry(addr).or_insert_with(|| Post::new(rank, now));
            }
            let Some(post) = self.posts.get_mut(&addr) else { continue };
            // Who was heard, and when, is what counts, whatever the rank: ranks may change again and again.
            let is_new = post.rank != rank;
            post.rank = rank;
            if is_new {
                (post.disputed, post.yields) = (None, None);
            }
            if rank == 0 && (post.announced.is_none() && post.yields.is_none() || is_new) {
                post.announce(now);
            }
        }
    }

    /// Another node said that it has the address; `comes_before` where its Ethernet address is lower than this one's. Answers whether
    /// the address is not announced from here any more.
    pub fn heard(&mut self, addr: IpAddr, comes_before: bool, now: Instant) -> bool {
        let Some(post) = self.posts.get_mut(&addr) else { return false };
        let silence = now.saturating_duration_since(std::mem::replace(&mut post.heard, now));
        match (post.rank, post.announced) {
            (0, Some(since)) => {
                // It stood in, or does not know yet; it withdraws when it hears this one.
                let told = post.disputed.filter(|_| silence < PEACE);
                let disputed = *post.disputed.insert(told.unwrap_or(now));
                let goes_on = now.saturating_duration_since(disputed) >= DISPUTE;
                if goes_on && comes_before {
                    (post.announced, post.yields) = (None, Some(now + YIELDS));
                } else if now.saturating_duration_since(since) >= AGAIN {
                    post.announce(now);
                }
                post.announced.is_none()
            }
            (_, announced) => {
                post.announced = None;
                announced.is_some()
            }
        }
    }

    /// What is announced from here is told to everybody anew: they may not have heard it.
    pub fn tell_again(&mut self, addr: IpAddr, now: Instant) {
        if let Some(post) = self.posts.get_mut(&addr).filter(|post| post.announced.is_some()) {
            post.announce(now);
        }
    }

    /// Whether the address is announced from here: questions for it are answered.
    #[must_use]
    pub fn announces(&self, addr: IpAddr) -> bool {
        self.posts.get(&addr).is_some_and(|post| post.announced.is_some())
    }

    /// Whether this node announces the address or stands by for it.
    #[must_use]
    pub fn has(&self, addr: IpAddr) -> bool {
        self.posts.contains_key(&addr)
    }

    /// The addresses that are announced from here.
    pub fn announced(&self) -> impl Iterator<Item = IpAddr> {
        self.posts.iter().filter(|(_, post)| post.announced.is_some()).map(|(addr, _)| *addr)
    }

    /// What is to be sent by now.
    pub fn act(&mut self, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
        for (addr, post) in &mut self.posts {
            if post.takes_over().is_some_and(|at| at <= now) {
                // What was disputed was so with a node that is silent now.
                post.disputed = post.disputed.filter(|_| now < post.heard + post.patience());
                post.announce(now);
            }
            if post.speaks().is_some_and(|at| at <= now) {
                post.ask = now + ASK;
                acts.push(if post.announced.is_some() { Act::Claim(*addr) } else { Act::Ask(*addr) });
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
        let due = |post: &Post| [post.takes_over(), post.speaks(), post.next_claim()].into_iter().flatten().min();
        self.posts.values().filter_map(due).min()
    }
}

impl Post {
    fn new(rank: usize, now: Instant) -> Self {
        Self { rank, announced: None, claims: 0, heard: now, ask: now, disputed: None, yields: None }
    }

    fn announce(&mut self, now: Instant) {
        (self.announced, self.claims, self.yields, self.ask) = (Some(now), 0, None, now);
    }

    /// When to announce what another one announced so far; none where it is announced from here.
    fn takes_over(&self) -> Option<Instant> {
        let silent = self.heard + self.patience();
        self.announced.is_none().then(|| self.yields.map_or(silent, |until| until.min(silent)))
    }

    /// When to ask, or to say that this one stands in; none for the first node, which is not asked to.
    fn speaks(&self) -> Option<Instant> {
        (self.rank > 0 || self.announced.is_none()).then_some(self.ask)
    }

    /// When the first node tells everybody next.
    fn next_claim(&self) -> Option<Instant> {
        let after = CLAIMS.get(self.claims).filter(|_| self.rank == 0)?;
        Some(self.announced? + *after)
    }

    fn patience(&self) -> Duration {
        PATIENCE + LATER * u32::try_from(self.rank.saturating_sub(1)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
