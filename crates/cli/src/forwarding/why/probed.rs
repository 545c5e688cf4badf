//! A probe, which agents send and tell where it passes: in place of a connection that cannot be tried from here, to find out where one fails, and
//! as large as the plan lets packets be.

mod answer;

use podnet_planner::{
    ruleset::BackendAddress,
    trace::{Source, Target, Trace, Verdict},
};

use self::answer::unanswered;
use crate::{
    forwarding::{
        access::Access,
        live,
        operand::{self, Question, StandsIn},
        state::State,
    },
    report::Failure,
};

/// In place of a connection. What kept it from being sent is told in words, as whoever asks why need not be allowed to send.
pub(super) fn along(state: &State, question: &mut Question, access: &Access) -> Result<Option<String>, Failure> {
    if let Some(StandsIn::Somebody(why) | StandsIn::Nobody(why)) = &question.stands_in {
        return Ok(Some(format!("nothing was tried: {why}")));
    }
    if !stays_within(&to_one(state, question)?) {
        return Ok(Some("nothing was tried: who answers is outside of the cluster".to_owned()));
    }
    of_both_sizes(state, question, access)
}

/// Sends a small one, and one of full size where that comes through.
pub(super) fn of_both_sizes(
    state: &State,
    question: &mut Question,
    access: &Access,
) -> Result<Option<String>, Failure> {
    let trace = to_one(state, question)?;
    match tried(state, question, &trace, access, None)? {
        None => of_full_size(state, question, access),
        untried => Ok(untried),
    }
}

/// Sends a small one.
pub(super) fn small(state: &State, question: &mut Question, access: &Access) -> Result<Option<String>, Failure> {
    let trace = to_one(state, question)?;
    tried(state, question, &trace, access, None)
}

/// Where small packets come through: whether those of full size do, too.
pub(super) fn of_full_size(state: &State, question: &mut Question, access: &Access) -> Result<Option<String>, Failure> {
    let trace = to_one(state, question)?;
    let Some(size) = full_size(state, &trace).filter(|_| stays_within(&trace)) else { return Ok(None) };
    let trace = to_one_backend(state, question, trace)?;
    judged(size, |size| tried(state, question, &trace, access, size))
}

/// Whether it is the size that packets are lost by, by what comes of sending one of full size, or a small one. One may be lost by chance: those of full
/// size have to be lost twice, and small ones come through each time.
fn judged(
    size: u16,
    mut send: impl FnMut(Option<u16>) -> Result<Option<String>, Failure>,
) -> Result<Option<String>, Failure> {
    let not_judged = |why: &str| Ok(Some(format!("packets of {size} bytes were not judged: {why}")));
    let mut lost: Option<Failure> = None;
    loop {
        let of_full = match (send(Some(size)), &lost) {
            (Ok(None), None) => return Ok(None),
            (Ok(None), Some(_)) => return not_judged("of two the second came through"),
            (Ok(Some(why)), _) => return not_judged(&why),
            (Err(of_full), _) => of_full,
        };
        match send(None) {
            Ok(None) => {}
            Ok(Some(why)) => return not_judged(&why),
            Err(small) => return not_judged(&format!("a small one is lost, too: {}", small.sentence())),
        }
        if lost.is_some() {
            return Err(too_large(size, &of_full));
        }
        lost = Some(of_full);
    }
}

/// The way to one of several backends: another one may be broken by itself.
fn to_one_backend(state: &State, question: &mut Question, trace: Trace) -> Result<Trace, Failure> {
    if trace.paths.len() < 2 {
        return Ok(trace);
    }
    let BackendAddress { addr, port } = trace.paths[0].destination;
    for (target, share) in &mut question.targets {
        *target = Target { addr, port, ..*target };
        *share = 1.0;
    }
    operand::follow(state, question)
}

/// Who is outside of the cluster is not known, and need not answer.
fn stays_within(trace: &Trace) -> bool {
    trace.paths.iter().all(|path| path.end.verdict == Verdict::Arrives)
}

/// The largest packet that each device on each of the ways takes by plan, in bytes; none where a node's devices are only taken for the usual ones,
/// and on ways that are within one network.
fn full_size(state: &State, trace: &Trace) -> Option<u16> {
    let hops = || trace.paths.iter().flat_map(|path| &path.hops);
    if hops().filter_map(|hop| hop.place.node()).any(|node| !state.is_known(node)) {
        return None;
    }
    u16::try_from(hops().filter_map(|hop| hop.mtu).min()?).ok()
}

fn too_large(size: u16, of_full: &Failure) -> Failure {
    let what = format!("packets of {size} bytes do not come through, and small ones do: {}", of_full.sentence());
    Failure::new(what).remedy(
        "the network between the nodes carries less than the MTU of their devices says, and tells nobody: raise it there, or lower that of the pods (podnet agent --mtu)",
    )
}

fn tried(
    state: &State,
    question: &Question,
    trace: &Trace,
    access: &Access,
    size: Option<u16>,
) -> Result<Option<String>, Failure> {
    if !stays_within(trace) {
        return Ok(None);
    }
    if matches!(question.from, Source::World(..)) {
        // This machine is not the one that is asked about.
        let why = "a probe is sent by a pod or a node; podnet trace world TO --live sends one from this machine";
        return Ok(Some(format!("no probe was sent: {why}")));
    }
    let live = match live::follow(state, question, trace, access, size) {
        Ok(live) => live,
        Err(failure) => return Ok(Some(format!("no probe was sent: {}", failure.sentence()))),
    };
    if let Some(failure) = live.failure(trace) {
        // Who was not heard may have seen it.
        return if live.lost.is_empty() { Err(failure) } else { Ok(Some(failure.sentence())) };
    }
    match trace.paths.get(live.course.way).and_then(|path| unanswered(path, &live)) {
        // Who was not heard may have seen it.
        Some(why) if live.lost.is_empty() => Err(why),
        Some(why) => Ok(Some(format!("{}; not all was heard: {}", why.sentence(), live.lost.join("; ")))),
        None => Ok(None),
    }
}

/// The ways to the first of several addresses, and no other agents need to watch: there is one probe.
fn to_one(state: &State, question: &mut Question) -> Result<Trace, Failure> {
    question.targets.truncate(1);
    operand::follow(state, question)
}

#[cfg(test)]
mod tests {
    use podnet_model::{PodKey, Protocol};

    use super::*;
    use crate::{arguments::forwarding::ClusterOptions, forwarding::lab};

    /// A pod's, by TCP to port 80 of these.
    fn question(addrs: &[[u8; 4]]) -> Question {
        let target = |addr: &[u8; 4]| Target { addr: (*addr).into(), protocol: Protocol::Tcp, port: 80 };
        let share = 1.0 / addrs.len() as f64;
        Question {
            from: Source::Pod(PodKey::new("default", "p1")),
            targets: addrs.iter().map(|addr| (target(addr), share)).collect(),
            title: String::new(),
            names: Vec::new(),
            object: None,
            is_echo: false,
            stands_in: None,
        }
    }

    #[test]
    fn nothing_is_tried_at_who_is_outside_and_less_so_at_an_address_that_stands_for_somebody() {
        let options = ClusterOptions { kubeconfig: None, cluster_domain: "cluster.local".to_owned() };
        let (state, access) = (lab::state(), Access::new(&options, 1));
        let told = |stands_in| {
            let mut question = Question { stands_in, ..question(&[[203, 0, 113, 1]]) };
            along(&state, &mut question, &access).unwrap().unwrap()
        };
        assert_eq!(told(None), "nothing was tried: who answers is outside of the cluster");
        let somebody = StandsIn::Somebody("no address of a.example is known here".to_owned());
        assert_eq!(told(Some(somebody)), "nothing was tried: no address of a.example is known here");
    }

    #[test]
    fn of_several_addresses_the_probe_goes_to_the_first_and_nothing_of_the_others_is_watched() {
        let mut question = question(&[[10, 1, 2, 5], [203, 0, 113, 9]]);
        let first = question.targets[0].0.addr;
        let state = lab::state();
        assert!(operand::follow(&state, &question).unwrap().paths.len() > 1);
        let trace = to_one(&state, &mut question).unwrap();
        let ends: Vec<_> = trace.paths.iter().map(|path| path.destination.addr).collect();
        assert_eq!(ends, [first]);
    }

    #[test]
    fn of_several_backends_both_sizes_go_to_the_first() {
        let mut question = question(&[[10, 1, 2, 5], [10, 1, 1, 5]]);
        let state = lab::state();
        let trace = operand::follow(&state, &question).unwrap();
        assert_eq!(trace.paths.len(), 2);
        let first = trace.paths[0].destination;
        // What was asked for is another address, as that of a Service is.
        question.targets.remove(0);
        let trace = to_one_backend(&state, &mut question, trace).unwrap();
        assert_eq!(trace.paths.iter().map(|path| path.destination).collect::<Vec<_>>(), [first]);
    }

    #[test]
    fn the_size_is_to_blame_where_large_ones_are_lost_twice_and_small_ones_never() {
        let lost = || Err(Failure::new("the probe died"));
        let unsent = || Ok(Some("no probe was sent".to_owned()));
        // What comes of what is sent, in turn: one of full size, a small one, and the same again.
        let told = |comes: Vec<Result<Option<String>, Failure>>| {
            let mut comes = comes.into_iter();
            let mut sizes = Vec::new();
            let told = judged(1450, |size| {
                sizes.push(size);
                comes.next().expect("no more is sent")
            });
            assert!(comes.next().is_none(), "all are sent");
            assert!(sizes.iter().zip([Some(1450), None].iter().cycle()).all(|(size, expected)| size == expected));
            told.map_err(|failure| failure.sentence())
        };
        let not_judged = |why: &str| Ok(Some(format!("packets of 1450 bytes were not judged: {why}")));
        assert_eq!(told(vec![Ok(None)]), Ok(None));
        assert_eq!(told(vec![unsent()]), not_judged("no probe was sent"));
        assert_eq!(told(vec![lost(), unsent()]), not_judged("no probe was sent"));
        assert_eq!(told(vec![lost(), lost()]), not_judged("a small one is lost, too: the probe died"));
        assert_eq!(told(vec![lost(), Ok(None), Ok(None)]), not_judged("of two the second came through"));
        let words = "packets of 1450 bytes do not come through, and small ones do: the probe died";
        assert_eq!(told(vec![lost(), Ok(None), lost(), Ok(None)]), Err(words.to_owned()));
    }

    #[test]
    fn a_probe_is_as_large_as_all_devices_on_the_way_take_where_they_are_known() {
        let mut state = lab::state();
        let trace = lab::follow(&state).unwrap();
        assert_eq!(full_size(&state, &trace), None, "what they are is only taken to be so");
        state.learn([1, 2].map(|number| (lab::node(number), lab::told(number).facts)).into());
        let trace = lab::follow(&state).unwrap();
        // Their underlay takes 9000, of which VXLAN takes 50.
        assert_eq!(full_size(&state, &trace), Some(8950));
        let words = too_large(8950, &Failure::new("the probe died")).sentence();
        assert_eq!(words, "packets of 8950 bytes do not come through, and small ones do: the probe died");
    }
}
