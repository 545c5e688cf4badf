//! Clients that ask by datagrams all the time: one that keeps its socket, and one that takes a new one for each question.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use podnet_kernel::conntrack;
use podnet_model::Family;
use podnet_planner::services::{Plan, Vanished, packet_table::NodeRules};

use super::{
    cluster::{ASK_PORT, Random, TALKING, TARGET_ASK_PORT, candidates, cluster_ip, is_fickle},
    load::{Network, enter},
};
use crate::group::Group;

/// How long a client waits for an answer before it asks once more, as resolvers do.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two questions of a client.
const PAUSE: Duration = Duration::from_millis(2);
/// Connection tracking is gone through so often at most.
const FORGET: Duration = Duration::from_millis(200);
/// As much as whoever only answers needs.
const STACK: usize = 64 * 1024;

/// A question, and who answered it.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) service: u32,
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    /// None where nobody did, though it was asked twice.
    pub(super) answered: Option<Ipv4Addr>,
    /// By a client that keeps its socket.
    pub(super) lasting: bool,
}

/// Clients at work.
pub(super) struct Questions {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Question>>>,
}

impl Questions {
    pub(super) fn start(network: &Network, group: Option<&Arc<Group>>) -> Self {
        (0..TALKING).flat_map(candidates).for_each(|addr| answer(network, addr));
        let stop = Arc::new(AtomicBool::new(false));
        let clients = [true, false].map(|lasting| {
            let (netns, group, stop) = (network.client.netns.clone(), group.cloned(), Arc::clone(&stop));
            thread::spawn(move || {
                netns.enter_current_thread().unwrap();
                enter(group.as_ref());
                ask_all_the_time(lasting, &stop)
            })
        });
        Self { stop, clients: clients.into() }
    }

    pub(super) fn stop(self) -> Vec<Question> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

/// Says who it is, until the end of the test's process.
fn answer(network: &Network, addr: Ipv4Addr) {
    let socket = network.backends.netns.run(|| UdpSocket::bind((addr, TARGET_ASK_PORT))).unwrap().unwrap();
    let serve = move || {
        let mut question = [0; 8];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(&[&question[..length], &addr.octets()].concat(), from);
        }
    };
    thread::Builder::new().stack_size(STACK).spawn(serve).unwrap();
}

fn ask_all_the_time(lasting: bool, stop: &AtomicBool) -> Vec<Question> {
    let (mut random, mut questions, mut socket) = (Random(7), Vec::new(), bound());
    while !stop.load(Ordering::Relaxed) {
        if !lasting {
            socket = bound();
        }
        let service = match random.below(TALKING) {
            // To ask where nobody answers takes long.
            fickle if is_fickle(fickle) && random.below(10) > 0 => fickle + 1,
            service => service,
        };
        let begun = Instant::now();
        let number = u64::try_from(questions.len()).unwrap();
        let answered = (0..2).find_map(|_| ask(&socket, service, number));
        questions.push(Question { service, begun, ended: Instant::now(), answered, lasting });
        thread::sleep(PAUSE);
    }
    questions
}

fn bound() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()
}

fn ask(socket: &UdpSocket, service: u32, number: u64) -> Option<Ipv4Addr> {
    let to = SocketAddr::from((cluster_ip(service), ASK_PORT));
    let begun = Instant::now();
    // An error that an earlier question met may be told now.
    let _ = socket.send_to(&number.to_be_bytes(), to).or_else(|_| socket.send_to(&number.to_be_bytes(), to));
    let mut heard = [0; 12];
    loop {
        let left = PATIENCE.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())?;
        socket.set_read_timeout(Some(left)).unwrap();
        match socket.recv_from(&mut heard) {
            Ok((12, from)) if heard[..8] == number.to_be_bytes() && from == to => {
                return Some(Ipv4Addr::new(heard[8], heard[9], heard[10], heard[11]));
            }
            // Of an earlier question.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// What an agent does beside the rules: connection tracking forgets datagrams' connections to backends that are gone.
#[derive(Default)]
pub(super) struct Forgetting {
    vanished: BTreeSet<Vanished>,
    last: Option<Instant>,
}

impl Forgetting {
    pub(super) fn follow(&mut self, network: &Network, rules: &NodeRules, plan: &Plan) {
        self.vanished.extend(plan.vanished.iter().copied());
        if self.vanished.is_empty() || self.last.is_some_and(|last| last.elapsed() < FORGET) {
            return;
        }
        let astray = |one: &Vanished| {
            self.vanished.contains(one)
                && (rules.services.serving(&one.0).is_none() || rules.services.leads_astray(one))
        };
        let forget = || conntrack::forget_astray(Family::V4, |to, by| astray(&(to, by)));
        network.node.netns.run(forget).unwrap().unwrap();
        self.vanished.clear();
        self.last = Some(Instant::now());
    }
}
