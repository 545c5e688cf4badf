//! The capture as it is written, and what is told of it.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufWriter, ErrorKind, IsTerminal, Write},
    ops::ControlFlow,
    path::Path,
};

use podnet_flow::pcapng::{Block, Interface, Packet, Statistics};

use super::{agents::Told, pods::Place};
use crate::report::{Doing, Failure};

/// Where it goes.
pub(super) struct Out {
    to: Box<dyn Write>,
    name: String,
}

/// Opens it; the output only where it is no terminal.
pub(super) fn open(file: Option<&Path>) -> Result<Out, Failure> {
    match file.filter(|file| *file != "-") {
        Some(file) => {
            let name = file.display().to_string();
            let to = File::create(file).doing(|| format!("cannot write to {name}"))?;
            Ok(Out { to: Box::new(to), name })
        }
        None if file.is_none() && io::stdout().is_terminal() => {
            Err(Failure::usage("a capture is nothing for a terminal")
                .remedy("-w FILE, or lead it somewhere: podnet capture … | tcpdump -nr -"))
        }
        None => Ok(Out { to: Box::new(io::stdout()), name: "the output".to_owned() }),
    }
}

/// A capture that is being written.
pub(super) struct Written {
    to: BufWriter<Box<dyn Write>>,
    name: String,
    buffer: Vec<u8>,
    interfaces: Vec<Shown>,
    count: u64,
    failure: Option<Failure>,
}

/// An interface of it.
struct Shown {
    name: String,
    last: Statistics,
    written: u64,
    /// Its agent goes on telling of it.
    is_alive: bool,
}

/// What is to be put in order, and of which interfaces it was told how many packets there were.
pub(super) struct News {
    pub(super) packets: Vec<Packet>,
    pub(super) counted: Vec<u32>,
}

impl Written {
    /// Begins with who is who.
    pub(super) fn begin(out: Out, pods: &[Place], interfaces: Vec<Interface>) -> Result<Self, Failure> {
        let mut buffer = Vec::new();
        let each = |place: &Place| format!("{}/{} on {}", place.pod.namespace, place.pod.name, place.node);
        let comment = format!("packets of {}", pods.iter().map(each).collect::<Vec<_>>().join(", "));
        let program = format!("podnet {}", env!("CARGO_PKG_VERSION"));
        Block::Section { program, comment }.write(&mut buffer);
        for interface in &interfaces {
            Block::Interface(interface.clone()).write(&mut buffer);
        }
        let named = |place: &Place| {
            let name = format!("{}.{}", place.pod.name, place.pod.namespace);
            place.addrs.iter().map(|addr| (*addr, name.clone())).collect::<Vec<_>>()
        };
        Block::Names(pods.iter().flat_map(named).collect()).write(&mut buffer);
        let shown = (0..).zip(interfaces).map(|(number, interface)| Shown {
            name: interface.name,
            last: Statistics { interface: number, ..Statistics::default() },
            written: 0,
            is_alive: true,
        });
        let to = BufWriter::new(out.to);
        let mut written = Self { to, name: out.name, buffer, interfaces: shown.collect(), count: 0, failure: None };
        // Whoever has gone already is noticed at the first packet.
        written.flush().map(|_| written)
    }

    /// Takes in what an agent said, and answers what there is to be written of it. That it says nothing more is told at once.
    pub(super) fn hear(&mut self, interfaces: &[u32], told: Told) -> Option<News> {
        let gone = match told {
            Told::Packets(packets, counted) => {
                for statistics in &counted {
                    if let Some(shown) = self.shown(statistics.interface) {
                        shown.last = *statistics;
                    }
                }
                let counted = counted.into_iter().map(|statistics| statistics.interface).collect();
                return Some(News { packets, counted });
            }
            Told::Ended(node) => format!("no pod of this capture is on {node} any more"),
            Told::Lost(why) => {
                let what = format!("packets are missing from here on: {why}");
                self.failure = Some(Failure::new("packets of some pods are missing").remedy("begin anew"));
                what
            }
        };
        eprintln!("podnet: {gone}");
        for number in interfaces {
            if let Some(shown) = self.shown(*number) {
                shown.is_alive = false;
            }
        }
        None
    }

    /// Interfaces that packets may still come of.
    pub(super) fn alive(&self) -> BTreeSet<u32> {
        self.interfaces.iter().filter(|shown| shown.is_alive).map(|shown| shown.last.interface).collect()
    }

    /// How many packets were written.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn packet(&mut self, packet: Packet) {
        self.count += 1;
        if let Some(shown) = self.shown(packet.interface) {
            shown.written += 1;
        }
        Block::Packet(packet).write(&mut self.buffer);
    }

    /// Whether somebody goes on reading.
    pub(super) fn flush(&mut self) -> Result<ControlFlow<()>, Failure> {
        if self.buffer.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let written = self.to.write_all(&self.buffer).and_then(|()| self.to.flush());
        self.buffer.clear();
        match written {
            // Who reads this has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            written => written.map(ControlFlow::Continue).doing(|| format!("cannot write to {}", self.name)),
        }
    }

    /// Writes how many packets there were.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        for shown in &self.interfaces {
            Block::Statistics(shown.counted()).write(&mut self.buffer);
        }
        let _whoever_reads = self.flush()?;
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Tells how it was.
    pub(super) fn tell(&self) {
        let dropped = |shown: &Shown| shown.counted().dropped;
        let all: u64 = self.interfaces.iter().map(dropped).sum();
        eprintln!("podnet: {} packets; {all} dropped", self.count);
        for shown in self.interfaces.iter().filter(|shown| dropped(shown) > 0) {
            eprintln!("podnet: {} of {} dropped: they came faster than they were read", dropped(shown), shown.name);
        }
    }

    fn shown(&mut self, number: u32) -> Option<&mut Shown> {
        self.interfaces.get_mut(usize::try_from(number).ok()?)
    }
}

impl Shown {
    /// What was told last may be a second old.
    fn counted(&self) -> Statistics {
        Statistics { received: self.last.received.max(self.written + self.last.dropped), ..self.last }
    }
}
