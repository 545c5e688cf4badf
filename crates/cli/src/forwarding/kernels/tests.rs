//! Who is asked for which nodes, and what becomes of what they tell.

use std::cell::RefCell;

use super::*;
use crate::forwarding::lab;

/// Tells of some nodes, and not of others.
struct Teller {
    says: Vec<Answer>,
    asked: RefCell<Vec<Vec<String>>>,
    /// The pods that were asked for, each time.
    inside: RefCell<Vec<Vec<PodKey>>>,
}

impl Teller {
    fn new(says: Vec<Answer>) -> Self {
        Self { says, asked: RefCell::default(), inside: RefCell::default() }
    }
}

impl Source for Teller {
    fn ask(&self, _: &State, wanted: &Wanted) -> Vec<Answer> {
        self.asked.borrow_mut().push(wanted.keys().map(ToString::to_string).collect());
        self.inside.borrow_mut().push(wanted.values().flatten().cloned().collect());
        self.says.iter().filter(|(node, _)| wanted.contains_key(node)).cloned().collect()
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
    let nodes: Wanted = (100..200).map(|number| (lab::node(number), BTreeSet::new())).collect();
    kernels.ask(&lab::state(), &nodes, &[&teller]);
    assert_eq!(teller.asked.borrow()[0].len(), MOST);
    let last = kernels.why_not(&lab::node(199));
    assert!(last.contains("more than 64 nodes"), "{last}");
    assert_eq!(kernels.why_not(&lab::node(100)), "nobody can tell of it");
    kernels.ask(&lab::state(), &[(lab::node(1), BTreeSet::new())].into(), &[&teller]);
    assert_eq!(teller.asked.borrow()[1].len(), 0);
}

#[test]
fn pods_are_asked_for_with_their_nodes_of_which_each_is_believed_of_its_own_alone() {
    let ((near, inside), (far, _)) = (lab::inside(1), lab::inside(2));
    let mut first = lab::told(1);
    first.pods = vec![(near.clone(), Ok(inside.clone())), (far.clone(), Ok(inside.clone()))];
    let teller = Teller::new(vec![(lab::node(1), Ok(first)), told(2)]);
    let (_, kernels) = settle(&mut lab::state(), &[&teller], lab::follow).unwrap();
    assert_eq!(*teller.inside.borrow(), [[near.clone(), far.clone()]]);
    assert_eq!((kernels.inside(&near), kernels.inside(&far)), (Ok(&inside), Err(UNTOLD)));
    // Of a node that is not told of its pods are not either, for its reason.
    let teller = Teller::new(vec![told(1), silent(2, "refused")]);
    let (_, kernels) = settle(&mut lab::state(), &[&teller], lab::follow).unwrap();
    assert_eq!((kernels.inside(&near), kernels.inside(&far)), (Err(UNTOLD), Err("refused")));
}

#[test]
fn of_many_pods_so_many_are_asked_for_and_of_the_others_that_is_said() {
    let like = |number| -> Answer { (lab::node(number), Ok(lab::told(1))) };
    let (teller, mut kernels) = (Teller::new([1, 2, 3].map(like).into()), Kernels::default());
    let pod = |node: u8, number: u8| PodKey::new("default", &format!("{node}-{number:02}"));
    let of = |node: u8| (lab::node(node), (0..40).map(|number| pod(node, number)).collect::<BTreeSet<_>>());
    kernels.ask(&lab::state(), &[of(1), of(2), of(3)].into(), &[&teller]);
    let asked = teller.inside.borrow()[0].len();
    assert_eq!((asked, MOST_PODS), (MOST, MOST / 2));
    assert_eq!(kernels.inside(&pod(1, 31)), Err(UNTOLD));
    for left in [pod(1, 32), pod(3, 0)] {
        assert!(kernels.inside(&left).is_err_and(|why| why.contains("no more than 64 pods")), "{left}");
    }
}

#[test]
fn a_pod_that_comes_to_the_way_later_is_asked_for_then_and_what_is_told_of_its_node_stays() {
    let ((near, inside), (far, _)) = (lab::inside(1), lab::inside(2));
    let mut first = lab::told(1);
    first.pods = vec![(near.clone(), Ok(inside.clone()))];
    let (teller, mut kernels) = (Teller::new(vec![(lab::node(1), Ok(first))]), Kernels::default());
    for pods in [BTreeSet::new(), BTreeSet::from([near.clone()])] {
        kernels.ask(&lab::state(), &[(lab::node(1), pods)].into(), &[&teller]);
    }
    assert_eq!((kernels.of(&lab::node(1)), kernels.inside(&near)), (Some(&lab::told(1)), Ok(&inside)));
    let mute = Teller::new(vec![silent(1, "refused")]);
    kernels.ask(&lab::state(), &[(lab::node(1), BTreeSet::from([far.clone()]))].into(), &[&mute]);
    assert!(kernels.of(&lab::node(1)).is_some() && kernels.inside(&far).is_err());
}
