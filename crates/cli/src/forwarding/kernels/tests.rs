//! Who is asked for which nodes, and what becomes of what they tell.

use std::cell::RefCell;

use super::*;
use crate::forwarding::lab;

/// Tells of some nodes, and not of others.
struct Teller {
    says: Vec<Answer>,
    asked: RefCell<Vec<Vec<String>>>,
}

impl Teller {
    fn new(says: Vec<Answer>) -> Self {
        Self { says, asked: RefCell::default() }
    }
}

impl Source for Teller {
    fn ask(&self, _: &State, nodes: &BTreeSet<NodeName>) -> Vec<Answer> {
        self.asked.borrow_mut().push(nodes.iter().map(ToString::to_string).collect());
        self.says.iter().filter(|(node, _)| nodes.contains(node)).cloned().collect()
    }
}

fn told(number: u8) -> Answer {
    (lab::node(number), Ok(lab::told(number)))
}

fn silent(number: u8, why: &str) -> Answer {
    (lab::node(number), Err(why.to_owned()))
}

#[test]
fn the_way_is_planned_by_what_its_nodes_tell_each_of_which_is_asked_once() {
    let mut state = lab::state();
    let teller = Teller::new(vec![told(1), told(2)]);
    let devices = |trace: &Trace| -> Vec<String> {
        let hops = trace.paths[0].hops.iter().filter_map(|hop| hop.device.as_ref());
        hops.map(ToString::to_string).collect()
    };
    let before = devices(&lab::follow(&state).unwrap());
    assert!(before.contains(&"eth0".to_owned()) && !state.is_known(&lab::node(1)), "{before:?}");
    let (trace, kernels) = settle(&mut state, &[&teller], lab::follow).unwrap();
    let expected = ["eth0", "pn-node1", "podnet.vxlan", "ens3", "ens3", "podnet.vxlan", "pn-node2", "eth0"];
    assert_eq!(devices(&trace), expected);
    assert_eq!(*teller.asked.borrow(), [["node1", "node2"]]);
    for number in [1, 2] {
        assert!(kernels.of(&lab::node(number)).is_some() && state.is_known(&lab::node(number)));
    }
}

#[test]
fn what_one_cannot_tell_the_next_is_asked_and_the_first_reason_stands() {
    let near = Teller::new(vec![told(1), silent(2, "no such namespace")]);
    for (answer, is_told) in [(silent(2, "refused"), false), (told(2), true)] {
        let (mut state, far) = (lab::state(), Teller::new(vec![answer]));
        let (_, kernels) = settle(&mut state, &[&near, &far], lab::follow).unwrap();
        assert_eq!(*far.asked.borrow(), [["node2"]]);
        assert_eq!(kernels.of(&lab::node(2)).is_some(), is_told);
        assert_eq!(state.is_known(&lab::node(2)), is_told);
        if !is_told {
            assert_eq!(kernels.why_not(&lab::node(2)), "no such namespace");
        }
    }
    let (_, kernels) = settle(&mut lab::state(), &[], lab::follow).unwrap();
    assert_eq!(kernels.why_not(&lab::node(1)), "nobody can tell of it");
}

#[test]
fn of_many_nodes_so_many_are_asked_and_the_others_are_told_so() {
    let (teller, mut kernels) = (Teller::new(Vec::new()), Kernels::default());
    let nodes: BTreeSet<NodeName> = (100..200).map(lab::node).collect();
    kernels.ask(&lab::state(), &nodes, &[&teller]);
    assert_eq!(teller.asked.borrow()[0].len(), MOST);
    let last = kernels.why_not(&lab::node(199));
    assert!(last.contains("more than 64 nodes"), "{last}");
    assert_eq!(kernels.why_not(&lab::node(100)), "nobody can tell of it");
    kernels.ask(&lab::state(), &[lab::node(1)].into(), &[&teller]);
    assert_eq!(teller.asked.borrow()[1].len(), 0);
}
