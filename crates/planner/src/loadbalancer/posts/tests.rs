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
        assert!(!posts.heard(ADDR, false, start + millis(at)));
    }
    assert!(!posts.announces(ADDR));
    posts.act(start + millis(4700));
    assert!(!posts.announces(ADDR), "two answers may be lost");
    assert!(posts.act(start + millis(4800)).contains(&Act::Claim(ADDR)) && posts.announces(ADDR));
    assert!(posts.heard(ADDR, false, start + millis(9000)) && !posts.announces(ADDR));
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
    assert!(posts.heard(ADDR, false, start + millis(20)) && !posts.announces(ADDR));
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
    assert!(!posts.heard(ADDR, false, start + millis(6000)) && posts.announces(ADDR));
    assert_eq!(posts.act(start + millis(6000)), [Act::Claim(ADDR)]);
    posts.heard(ADDR, false, start + millis(6001));
    assert!(posts.act(start + millis(6001)).is_empty(), "not for each time that it hears another");
}

#[test]
fn ranks_that_change_again_and_again_do_not_put_off_who_stands_in() {
    let (mut posts, start) = (Posts::default(), Instant::now());
    for (at, rank) in (0..20).map(|step| millis(100 * step)).zip([1, 2].into_iter().cycle()) {
        posts.assign(&duty(rank), start + at);
        posts.act(start + at);
    }
    assert!(posts.announces(ADDR), "the first node is silent for 1.9 s");
}

#[test]
fn what_nobody_may_have_heard_is_told_again() {
    let (mut posts, start) = (Posts::default(), Instant::now());
    posts.assign(&duty(0), start);
    posts.act(start + millis(5000));
    posts.tell_again(ADDR, start + millis(6000));
    assert_eq!(posts.act(start + millis(6000)), [Act::Claim(ADDR)]);
}

/// Nodes on one network, in the order of their Ethernet addresses.
struct Lan {
    nodes: Vec<Posts>,
    start: Instant,
    /// Milliseconds since.
    now: u64,
    /// Who is cut off.
    cut: Option<usize>,
    /// Whose claim clients heard last.
    believed: Option<usize>,
}

impl Lan {
    fn new(ranks: &[usize]) -> Self {
        let nodes = ranks.iter().map(|_| Posts::default()).collect();
        let mut lan = Self { nodes, start: Instant::now(), now: 0, cut: None, believed: None };
        ranks.iter().enumerate().for_each(|(node, rank)| lan.assign(node, *rank));
        lan
    }

    fn assign(&mut self, node: usize, rank: usize) {
        self.nodes[node].assign(&duty(rank), self.start + millis(self.now));
    }

    fn run(&mut self, duration: u64) {
        for _ in 0..duration / 50 {
            self.now += 50;
            let now = self.start + millis(self.now);
            for from in 0..self.nodes.len() {
                for act in self.nodes[from].act(now) {
                    self.deliver(from, act, now);
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, act: Act, now: Instant) {
        let others: Vec<usize> = (0..self.nodes.len()).filter(|node| *node != from).collect();
        let reached = others.into_iter().filter(|node| self.cut.is_none_or(|cut| cut != *node && cut != from));
        let claims = matches!(act, Act::Claim(_));
        if claims && self.cut != Some(from) {
            self.believed = Some(from);
        }
        for to in reached.collect::<Vec<_>>() {
            if claims {
                self.nodes[to].heard(ADDR, from < to, now);
            } else if self.nodes[to].announces(ADDR) {
                self.nodes[from].heard(ADDR, to < from, now);
            }
        }
    }

    fn announcers(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].announces(ADDR)).collect()
    }
}

#[test]
fn of_two_first_nodes_one_yields_until_the_other_is_silent_or_knows_better() {
    for apart in [0, 10_000] {
        let mut lan = Lan::new(&[1, 0]);
        lan.run(apart);
        lan.assign(0, 0);
        lan.run(4000);
        assert_eq!((lan.announcers(), lan.believed), (vec![0], Some(0)), "{apart}");
        for _ in 0..400 {
            lan.run(500);
            assert_eq!(lan.announcers()[0], 0, "who has won goes on");
        }
        lan.run(2000);
        let believed = lan.believed;
        assert_eq!(believed, Some(0), "who has yielded tries anew in vain");

        lan.assign(0, 1);
        lan.run(31_000);
        assert_eq!((lan.announcers(), lan.believed), (vec![1], Some(1)), "the other one knows better");
    }
    let mut lan = Lan::new(&[0, 0]);
    lan.run(4000);
    lan.cut = Some(0);
    lan.run(1300);
    assert!(lan.announcers().contains(&1), "the other one is silent");
}

#[test]
fn of_three_first_nodes_one_is_left() {
    let mut lan = Lan::new(&[0, 0, 0]);
    lan.run(8000);
    assert_eq!((lan.announcers(), lan.believed), (vec![0], Some(0)));
}

#[test]
fn when_a_cut_link_is_whole_again_everybody_hears_of_the_first_node() {
    for first in [0, 1] {
        let mut lan = Lan::new(if first == 0 { &[0, 1] } else { &[1, 0] });
        lan.run(5000);
        assert_eq!((lan.announcers(), lan.believed), (vec![first], Some(first)));
        lan.cut = Some(first);
        lan.run(10_000);
        assert_eq!(lan.believed, Some(1 - first));
        lan.cut = None;
        lan.run(1000);
        assert_eq!((lan.announcers(), lan.believed), (vec![first], Some(first)));
    }
}
