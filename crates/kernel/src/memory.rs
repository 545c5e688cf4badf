//! A kernel in memory: what agents are tested against. It refuses what the real one would refuse, and fails where a test says so.

mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use podnet_model::{Family, LinkName};
use podnet_planner::{
    ruleset::{Edit, RuleSet},
    step::Step,
};
use rustix::io::Errno;

use crate::{
    datapath::Datapath,
    executor::{Applied, Observed, StepFailed},
    netlink::{NetlinkError, Operation},
    nft::NftError,
};

pub use state::State;

/// A kernel in memory. Clones are handles on the same one, so that a test can look at what an agent did.
#[derive(Clone, Debug, Default)]
pub struct MemoryKernel {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    steps: Fault,
    transactions: Fault,
    lacks_nftables: bool,
}

/// Fails one of the calls to come.
#[derive(Clone, Copy, Debug, Default)]
struct Fault {
    in_how_many: Option<usize>,
}

impl Fault {
    fn strikes(&mut self) -> bool {
        self.in_how_many = match self.in_how_many {
            Some(0) => {
                self.in_how_many = None;
                return true;
            }
            other => other.map(|left| left - 1),
        };
        false
    }
}

impl MemoryKernel {
    /// A kernel without devices and tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a device with the subnets that are on its link, as an underlay's interface has them.
    pub fn add_device(&self, name: &LinkName, subnets: impl IntoIterator<Item = IpNet>) {
        self.lock().state.devices.insert(name.clone(), subnets.into_iter().collect());
    }

    /// What it holds now.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Changes what it holds behind the agent's back, as a foreign process would.
    pub fn tamper(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock().state);
    }

    /// Fails one step of those to come: 0 is the next.
    pub fn fail_step(&self, in_how_many: usize) {
        self.lock().steps.in_how_many = Some(in_how_many);
    }

    /// Fails one transaction ([`Datapath::edit`] or [`Datapath::replace`]) of those to come: 0 is the next.
    pub fn fail_transaction(&self, in_how_many: usize) {
        self.lock().transactions.in_how_many = Some(in_how_many);
    }

    /// From now on it has no nf_tables: nothing is written there any more.
    pub fn lack_nftables(&self) {
        self.lock().lacks_nftables = true;
    }

    /// A test that panicked elsewhere does not make this one's state wrong.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn step(&mut self, step: &Step) -> Result<bool, NetlinkError> {
        if self.steps.strikes() {
            let operation = Operation::new("do step", format_args!("{step:?}"));
            return Err(NetlinkError::Refused { operation, hint: Some("a test wants it so".into()), errno: Errno::IO });
        }
        self.state.apply(step)
    }

    fn transaction(&mut self, table: &str) -> Result<(), NftError> {
        if self.lacks_nftables {
            return Err(NftError::Absent);
        }
        if !self.transactions.strikes() {
            return Ok(());
        }
        let hint = Some("a test wants it so".into());
        Err(refused(table, "commit the changes", hint, Errno::NOMEM))
    }
}

impl Datapath for MemoryKernel {
    fn apply(&mut self, steps: &[Step]) -> Result<Applied, StepFailed> {
        let mut inner = self.lock();
        let mut applied = Applied::default();
        for (index, step) in steps.iter().enumerate() {
            let remade = inner.step(step).map_err(|source| StepFailed {
                index,
                step: Box::new(step.clone()),
                source: Box::new(source),
            })?;
            match step {
                Step::SetVxlan(vxlan) if remade => applied.remade.push(vxlan.name.clone()),
                Step::SetTunnel(tunnel) if remade => applied.remade.push(tunnel.name().clone()),
                _ => {}
            }
        }
        Ok(applied)
    }

    fn observe(&mut self, vxlans: &[&LinkName]) -> Result<Observed, NetlinkError> {
        Ok(self.lock().state.observe(vxlans))
    }

    fn edit(&mut self, family: Family, table: &str, edits: &[Edit]) -> Result<(), NftError> {
        let mut inner = self.lock();
        inner.transaction(table)?;
        if edits.is_empty() {
            return Ok(());
        }
        let Some(rules) = inner.state.tables.get_mut(&(family, table.to_owned())) else {
            return Err(refused(table, "begin", None, Errno::NOENT));
        };
        rules.apply(edits).map_err(|source| NftError::Unfit { table: table.to_owned(), source })
    }

    fn replace(&mut self, table: &str, rules: &RuleSet) -> Result<(), NftError> {
        let mut inner = self.lock();
        inner.transaction(table)?;
        rules.validate().map_err(|source| NftError::Unfit { table: table.to_owned(), source: source.into() })?;
        inner.state.tables.insert((rules.family, table.to_owned()), rules.clone());
        Ok(())
    }

    fn delete_table(&mut self, family: Family, table: &str) -> Result<(), NftError> {
        self.lock().state.tables.remove(&(family, table.to_owned()));
        Ok(())
    }
}

fn refused(table: &str, part: &str, hint: Option<String>, errno: Errno) -> NftError {
    NftError::Refused { table: table.to_owned(), part: part.to_owned(), edit: None, hint, errno }
}

#[cfg(test)]
mod tests;
