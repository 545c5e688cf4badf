//! What was in force when, and whether a connection fits it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    cluster::{Cluster, SERVICES},
    here,
    load::{Connection, End},
    questions::Question,
};

/// Datagrams of a client that goes on from the same port may be answered for so long by a backend that is gone.
const LINGERS: Duration = Duration::from_secs(1);

/// The endpoints of each Service at each time.
pub(super) struct History {
    states: BTreeMap<u32, Vec<State>>,
}

/// The endpoints that a Service had.
struct State {
    ready: BTreeSet<Ipv4Addr>,
    /// Not in force before.
    from: Option<Instant>,
    /// Not in force after; none while it is the last one.
    until: Option<Instant>,
}

impl History {
    /// Begins with what is in force.
    pub(super) fn new(cluster: &Cluster) -> Self {
        let first = |ready: &BTreeSet<Ipv4Addr>| vec![State { ready: ready.clone(), from: None, until: None }];
        Self { states: cluster.ready.iter().map(|(service, ready)| (*service, first(ready))).collect() }
    }

    /// Between these times the Service got these endpoints. In between, both the old and the new may be met.
    pub(super) fn changed(&mut self, service: u32, begun: Instant, done: Instant, ready: &BTreeSet<Ipv4Addr>) {
        let states = self.states.get_mut(&service).expect("a Service of the cluster");
        states.last_mut().expect("there is a first one").until = Some(done);
        states.push(State { ready: ready.clone(), from: Some(begun), until: None });
    }

    /// What is wrong with a connection: it met nothing that was in force at any time while it was made. This is stricter than what is
    /// asked for: a second after a backend is gone.
    pub(super) fn judge(&self, connection: &Connection) -> Option<String> {
        let states = &self.states[&connection.service];
        let first = states.partition_point(|state| state.until.is_some_and(|until| until < connection.begun));
        let of_the_time = |state: &&State| state.from.is_none_or(|from| from <= connection.ended);
        let mut states = states[first..].iter().take_while(of_the_time);
        let right = match &connection.end {
            End::Answered(backend) => states.any(|state| state.ready.contains(backend)),
            End::Refused => states.any(|state| state.ready.is_empty()),
            End::Failed(_) => false,
        };
        (!right).then(|| self.report(connection))
    }

    /// What is wrong with a question: who answered had been gone for too long, or nobody did while there was somebody all the time.
    pub(super) fn judge_question(&self, question: &Question) -> Option<String> {
        let Question { service, begun, ended, answered, lasting } = question;
        let states = &self.states[service];
        let within = |state: &&State, linger: Duration| {
            state.until.is_none_or(|until| until + linger >= *begun) && state.from.is_none_or(|from| from <= *ended)
        };
        let lingers = here(LINGERS);
        let right = match answered {
            Some(by) => states.iter().filter(|state| within(state, lingers)).any(|state| state.ready.contains(by)),
            None => states.iter().filter(|state| within(state, Duration::ZERO)).any(|state| state.ready.is_empty()),
        };
        let socket = if *lasting { "a socket that lasts" } else { "a new socket" };
        (!right).then(|| format!("Service {service}, by {socket}: {answered:?} after {:?}", *ended - *begun))
    }

    fn report(&self, connection: &Connection) -> String {
        let Connection { service, end, begun, ended } = connection;
        let how = match end {
            End::Answered(backend) => format!("{backend} answered"),
            End::Refused => "refused while there was a backend,".to_owned(),
            End::Failed(why) => why.clone(),
        };
        let mut report = format!("Service {service}: {how} after {:?}", *ended - *begun);
        if let End::Answered(backend) = end {
            let states = &self.states[service];
            let gone = states.iter().rfind(|state| state.ready.contains(backend)).and_then(|state| state.until);
            report += &match gone.and_then(|gone| begun.checked_duration_since(gone)) {
                Some(for_so_long) => format!(", which had been gone for {for_so_long:?}"),
                None => ", which it has not yet, or never".to_owned(),
            };
        }
        report
    }
}

#[test]
fn a_connection_fits_if_what_it_met_was_in_force_while_it_was_made() {
    let mut cluster = Cluster::new(SERVICES);
    let start = Instant::now();
    let at = |ms| start + std::time::Duration::from_millis(ms);
    let mut history = History::new(&cluster);
    let first = *cluster.ready[&0].first().expect("ten");
    cluster.ready.get_mut(&0).expect("there").remove(&first);
    history.changed(0, at(10), at(12), &cluster.ready[&0]);
    cluster.ready.get_mut(&0).expect("there").clear();
    history.changed(0, at(20), at(22), &cluster.ready[&0]);
    let judge = |begun, ended, end| {
        history.judge(&Connection { service: 0, begun: at(begun), ended: at(ended), end }).is_none()
    };
    for (begun, ended, fits) in [(0, 5, true), (11, 15, true), (13, 15, false), (23, 25, false)] {
        assert_eq!(judge(begun, ended, End::Answered(first)), fits, "answered from {begun} to {ended} ms");
    }
    for (begun, ended, fits) in [(0, 15, false), (15, 21, true), (23, 25, true)] {
        assert_eq!(judge(begun, ended, End::Refused), fits, "refused from {begun} to {ended} ms");
    }
    assert!(!judge(15, 25, End::Failed("no answer".into())));
    let judge = |begun, ended, answered| {
        let question = Question { service: 0, begun: at(begun), ended: at(ended), answered, lasting: true };
        history.judge_question(&question).is_none()
    };
    let lingers = u64::try_from(here(LINGERS).as_millis()).unwrap();
    for (begun, ended, fits) in [(13, 15, true), (lingers, lingers + 1, true), (lingers + 13, lingers + 15, false)] {
        assert_eq!(judge(begun, ended, Some(first)), fits, "answered from {begun} to {ended} ms");
    }
    for (begun, ended, fits) in [(0, 15, false), (15, 21, true), (23, 25, true)] {
        assert_eq!(judge(begun, ended, None), fits, "nobody answered from {begun} to {ended} ms");
    }
}
