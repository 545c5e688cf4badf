//! Who passes on for the Services of one family: this process, or a program of its own (`away`).

use std::{collections::BTreeSet, fmt::Debug, net::IpAddr};

use podnet_kernel::{apart, netns::NetNs};
use podnet_model::Family;
use podnet_planner::{ruleset::FrontendKey, services::userspace::Work};
use tracing::info;

use super::program::{self, Program, Remaining, Remains};
use crate::proxy::mode::{RulesError, Unserved};

/// Does what is planned for one family. What it says it has done is in force.
pub(super) trait Server: Debug + Send {
    /// Serves exactly this in a node's namespace, whatever was served before; what is right already stays, with its connections. `source` is what
    /// the node's own connections to Services come from.
    ///
    /// # Errors
    /// Where nobody can serve, or something cannot be led there.
    fn be(&mut self, netns: &NetNs, work: Work, source: Option<IpAddr>) -> Result<(), RulesError>;

    /// Whether it was told what to be, and was not left since then.
    fn serves(&self) -> bool;

    /// Does what is to be done, where it serves.
    ///
    /// # Errors
    /// As [`Server::be`].
    fn follow(&mut self, work: Work) -> Result<(), RulesError>;

    /// Tries what could not be listened at, and tells what others damaged, in words.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    fn look(&mut self) -> Result<Option<String>, RulesError>;

    /// Whether there is anything that cannot be listened at.
    fn is_refused(&self) -> bool;

    /// What cannot be listened at, and why.
    fn refused(&self) -> BTreeSet<Unserved>;

    /// Leaves it to another mode, which serves: what listens is closed after a while, and all goes with the last connection. Done also where
    /// nothing serves: addresses without connections are led there no more then, and what leads nowhere is removed.
    ///
    /// # Errors
    /// What cannot be removed.
    fn leave(&mut self, netns: Option<&NetNs>) -> Result<(), RulesError>;

    /// What is there of what was left, as was heard last; none where nothing is. Who cannot be asked may have connections anywhere.
    fn remains(&self) -> Option<Remains>;

    /// Asks what is there of what another process left, or serves still, which nobody here told to.
    fn recall(&mut self);

    /// Closes what listens of what was left for frontends that are not served any more.
    ///
    /// # Errors
    /// Where that cannot be told to whom it has to be.
    fn withdraw(&mut self, is_served: &dyn Fn(&FrontendKey) -> bool) -> Result<(), RulesError>;
}

/// This process. Connections end with it.
#[derive(Debug)]
pub(super) struct Here {
    family: Family,
    program: Option<Program>,
    /// What goes on since then, where the mode is left.
    remaining: Option<Remaining>,
}

impl Here {
    pub(super) const fn new(family: Family) -> Self {
        Self { family, program: None, remaining: None }
    }

    /// Begins, or begins anew where the namespace is not what it was.
    fn program(&mut self, netns: &NetNs) -> Result<&mut Program, RulesError> {
        if let Some(damaged) = self.program.take_if(|program| !program.is_whole()) {
            damaged.close();
        }
        match &mut self.program {
            Some(program) => Ok(program),
            none => Ok(none.insert(Program::start(netns, self.family)?)),
        }
    }

    /// What is there of what is served or was left, for another agent than the one that it is served for.
    pub(super) fn there(&self) -> Option<Remains> {
        if self.serves() { Some(Remains::anywhere()) } else { self.remains() }
    }

    /// Where it is listened at of what was left.
    pub(super) fn left(&self) -> Vec<FrontendKey> {
        self.remaining.as_ref().map_or_else(Vec::new, Remaining::frontends)
    }

    /// Closes what listens at once, for another program that takes its place. Connections go on.
    pub(super) fn close(&mut self) {
        if let Some(program) = self.program.take() {
            self.remaining = Some(program.close());
        }
    }
}

impl Server for Here {
    fn be(&mut self, netns: &NetNs, work: Work, source: Option<IpAddr>) -> Result<(), RulesError> {
        Ok(self.program(netns)?.be(work, source)?)
    }

    fn serves(&self) -> bool {
        self.program.is_some()
    }

    fn follow(&mut self, work: Work) -> Result<(), RulesError> {
        match &mut self.program {
            Some(program) => Ok(program.follow(work)?),
            None => Ok(()),
        }
    }

    fn look(&mut self) -> Result<Option<String>, RulesError> {
        let Some(program) = &mut self.program else { return Ok(None) };
        program.try_again();
        Ok(program.damage()?)
    }

    fn is_refused(&self) -> bool {
        self.program.as_ref().is_some_and(Program::is_refused)
    }

    fn refused(&self) -> BTreeSet<Unserved> {
        self.program.as_ref().map(Program::refused).unwrap_or_default()
    }

    fn leave(&mut self, netns: Option<&NetNs>) -> Result<(), RulesError> {
        if let Some(program) = self.program.take() {
            self.remaining = Some(program.leave());
        } else if let Some(remaining) = self.remaining.as_ref().filter(|remaining| remaining.is_there()) {
            remaining.narrow();
        } else if let Some(netns) = netns
            && !program::is_left(netns, self.family)
        {
            apart::remove(netns, self.family)?;
        }
        Ok(())
    }

    fn remains(&self) -> Option<Remains> {
        self.remaining.as_ref().and_then(Remaining::remains)
    }

    fn recall(&mut self) {
        // What another process served by itself ended with it.
    }

    fn withdraw(&mut self, is_served: &dyn Fn(&FrontendKey) -> bool) -> Result<(), RulesError> {
        if let Some(remaining) = &self.remaining {
            remaining.close(is_served);
        }
        Ok(())
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if let Some(program) = self.program.take() {
            info!(family = ?self.family, "Services are passed on no more");
            program.end();
        }
    }
}
