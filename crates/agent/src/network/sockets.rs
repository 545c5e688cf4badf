//! Services at the sockets of this node's pods: mode `ebpf`.
//!
//! The programs choose the backend of what is connected from inside. The rules stay as they are: what comes from outside needs them, and so does
//! what the programs leave alone. So nothing is without its Service while programs are loaded, replaced or missing.

mod lost;

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_kernel::{
    cgroup::Cgroup,
    sockets::{self, Sizes, Sockets, SocketsError},
};
use podnet_model::{Change, proxy::Mode};
use podnet_planner::{
    repair::{Damage, Object},
    ruleset::FrontendKey,
    services::{
        FrontendChange,
        ebpf::{self, Ebpf, Remembered},
    },
};
use tracing::{debug, info, warn};

use super::rules::ClusterRules;
use crate::proxy::mode::RulesError;
use lost::LostConnections;

/// How often it is looked whether the programs are there and know as much as they should, and everything that they know is compared: nothing
/// tells of a change.
const LOOK: Duration = Duration::from_millis(400);
/// As many times as long as a comparison took the next one waits: the thread that does it has more to do. Of 10,000 Services that is seconds.
const REST: u32 = 100;
/// The same after a count, by which it shows much sooner that something is gone: that of 10,000 Services takes some ms.
const REST_OF_COUNT: u32 = 20;

/// Where the programs are in mode `ebpf`, and are not in others.
#[derive(Debug)]
pub(super) struct SocketsPlace {
    cgroup: PathBuf,
    /// Programs for which the mode is about to be taken. The rules may refuse it still.
    ready: Option<AtSockets>,
    /// In mode `ebpf`.
    at: Option<AtSockets>,
    /// In another mode: the connections that were opened in this one, as long as there are any.
    left: Option<LostConnections>,
    /// An earlier agent may have left some.
    suspected: bool,
    mended: Vec<Damage>,
    /// As last counted: see [`Sockets::unfollowed`].
    unfollowed: u64,
}

impl SocketsPlace {
    /// For the processes of the cgroup of this path. Nothing is done yet, and what an earlier agent left is as it is.
    pub(super) const fn new(cgroup: PathBuf) -> Self {
        Self { cgroup, ready: None, at: None, left: None, suspected: true, mended: Vec::new(), unfollowed: 0 }
    }

    /// Makes sure that the mode can be had. Nothing is in force before [`SocketsPlace::follow`].
    ///
    /// # Errors
    ///
    /// When the kernel cannot have the programs that it needs.
    pub(super) fn prepare(&mut self, mode: Mode) -> Result<(), RulesError> {
        let known = self.ready.take();
        if mode == Mode::Ebpf && self.at.is_none() {
            let open = || AtSockets::open(Cgroup::v2(&self.cgroup).map_err(refused)?).map_err(refused);
            self.ready = Some(known.map_or_else(open, Ok)?);
        }
        Ok(())
    }

    /// Puts the programs in force or takes them away, as the mode asks that Services are served in.
    ///
    /// # Errors
    ///
    /// When the kernel refuses them; then they are taken away.
    pub(super) fn follow(&mut self, mode: Mode, rules: &mut ClusterRules) -> Result<(), RulesError> {
        let ready = self.ready.take();
        if mode == Mode::Ebpf {
            self.at = self.at.take().or(ready);
            if let Some(Err(error)) = self.at.as_mut().filter(|at| !at.in_force).map(|at| at.put(rules)) {
                self.leave(rules);
                return Err(refused(error));
            }
            self.left = None;
        } else if self.at.is_some() || self.suspected {
            self.leave(rules);
        }
        self.suspected = false;
        Ok(())
    }

    /// To how many backends virtual servers remember connections: what leads to these is left to the rules in mode `ebpf`.
    pub(super) fn left_to_rules(&self) -> usize {
        self.at.as_ref().map_or(0, |at| at.ebpf.left_to_rules().len())
    }

    /// How many sockets were connected, in mode `ebpf`, that are not ended when their backend goes.
    pub(super) const fn unfollowed(&self) -> u64 {
        self.unfollowed
    }

    fn leave(&mut self, rules: &mut ClusterRules) {
        self.at = None;
        rules.follow(false);
        match Cgroup::v2(&self.cgroup) {
            Ok(cgroup) => {
                AtSockets::take_away(&cgroup);
                // Neither a rule nor connection tracking knows of these: nobody else leads them away from a backend that goes.
                self.left = LostConnections::left(&cgroup).unwrap_or_else(|error| {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "connections opened before the mode changed are not looked after"
                    );
                    None
                });
            }
            // Where there are none there are no programs at them.
            Err(error) => debug!(%error, "no cgroups"),
        }
    }

    /// See [`AtSockets::put`].
    pub(super) fn put(&mut self, rules: &mut ClusterRules) -> Result<(), SocketsError> {
        self.at.as_mut().map_or(Ok(()), |at| at.put(rules))
    }

    /// See [`AtSockets::edit`].
    pub(super) fn edit(&mut self, rules: &mut ClusterRules) -> Result<usize, SocketsError> {
        self.at.as_mut().map_or(Ok(0), |at| at.edit(rules))
    }

    /// See [`LostConnections::heard`].
    pub(super) fn heard(&mut self, change: &Change) {
        let lost = self.at.iter_mut().map(|at| &mut at.lost).chain(&mut self.left);
        lost.for_each(|lost| lost.heard(change));
    }

    /// When [`SocketsPlace::look`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let left = self.left.as_ref().and_then(LostConnections::due);
        self.at.as_ref().and_then(AtSockets::due).into_iter().chain(left).min()
    }

    /// Mends what others damaged, and ends connections that have lost their backend, where that is due.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the next time everything is compared.
    pub(super) fn look(&mut self, rules: &mut ClusterRules) -> Result<(), SocketsError> {
        if let Some(left) = &mut self.left {
            left.look(rules);
            self.left.take_if(|left| left.are_over());
        }
        if let Some(at) = self.at.as_mut().filter(|at| at.in_force && at.leaves_otherwise(rules.remembered())) {
            at.put(rules)?;
        }
        let Some(at) = self.at.as_mut().filter(|at| at.due().is_some_and(|due| due <= Instant::now())) else {
            return Ok(());
        };
        if let Some(programs) = &at.programs {
            self.unfollowed = programs.unfollowed()?;
        }
        if let Some(what) = at.look(rules)? {
            warn!(what, "mended what somebody else damaged");
            self.mended.push(Damage::new(Object::Programs, what));
        }
        Ok(())
    }

    /// What was mended since the last time.
    pub(super) fn mended(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.mended)
    }
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> RulesError {
    RulesError::Other(Box::new(error))
}

/// The programs at the sockets, and what of the plan they know.
#[derive(Debug)]
struct AtSockets {
    cgroup: Cgroup,
    programs: Option<Sockets>,
    ebpf: Ebpf,
    in_force: bool,
    lost: LostConnections,
    next_look: Instant,
    next_count: Instant,
    next_compare: Instant,
}

impl AtSockets {
    /// For the processes of this cgroup. Nothing is in force yet.
    ///
    /// # Errors
    ///
    /// When this kernel cannot have the programs.
    fn open(cgroup: Cgroup) -> Result<Self, SocketsError> {
        let programs = Sockets::open(&cgroup, Sizes::LEAST)?;
        let lost = LostConnections::start(programs.connections()?)?;
        let (ebpf, now) = (Ebpf::default(), Instant::now());
        let programs = Some(programs);
        let (next_look, next_count, next_compare) = (now, now, now);
        Ok(Self { cgroup, programs, ebpf, in_force: false, lost, next_look, next_count, next_compare })
    }

    /// Takes away what an agent in this mode left.
    fn take_away(cgroup: &Cgroup) {
        match sockets::detach(cgroup, false) {
            Ok(true) => info!("Services are not at the sockets any more, but in the rules alone"),
            Ok(false) => {}
            // Where there are no such programs there is nothing to take away.
            Err(error) => debug!(error = &error as &dyn std::error::Error, "no programs for sockets to take away"),
        }
    }

    /// Puts everything in force, whatever there is.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn put(&mut self, rules: &mut ClusterRules) -> Result<(), SocketsError> {
        let started = Instant::now();
        self.in_force = false;
        rules.follow(true);
        self.leave_to_rules(rules.remembered());
        let (frontends, backends) = rules.servings().fold((0, 0), |(frontends, backends), (key, serving)| {
            (frontends + 1, backends + ebpf::slots(key, serving))
        });
        let edits = self.bring(rules, (frontends, backends))?;
        self.in_force = true;
        self.next_compare = Instant::now() + started.elapsed() * REST;
        self.lost.suspect();
        debug!(frontends, backends, edits, elapsed = ?started.elapsed(), "Services are at the sockets");
        Ok(())
    }

    /// Whether everything is to be put in force as virtual servers remember connections to other backends: at once where they do to more,
    /// and when everything would be compared anyway where they do to fewer, as these become fewer in many steps.
    fn leaves_otherwise(&self, remembered: &Remembered) -> bool {
        let left: &Remembered = self.ebpf.left_to_rules();
        !remembered.is_subset(left) || (left != remembered && self.next_compare <= Instant::now())
    }

    /// Virtual servers remember connections to these backends. What leads there is not at the sockets, where connections would be to the
    /// backends themselves.
    fn leave_to_rules(&mut self, remembered: &Arc<Remembered>) {
        let before = self.ebpf.left_to_rules();
        if before == remembered {
            return;
        }
        let (before, now) = (before.len(), remembered.len());
        if before == 0 || now == 0 {
            info!(before, now, "backends to which virtual servers remember connections: rules serve what leads there");
        } else {
            debug!(before, now, "virtual servers remember connections to other backends");
        }
        self.ebpf.leave_to_rules(Arc::clone(remembered));
    }

    /// Compares, does what differs, and sees to it that the programs are there. Answers with the number of edits.
    fn bring(&mut self, rules: &ClusterRules, (frontends, backends): (usize, usize)) -> Result<usize, SocketsError> {
        loop {
            let programs = match self.programs.take().filter(|programs| programs.sizes().hold(frontends, backends)) {
                Some(programs) => programs,
                None => self.open_larger(frontends, backends)?,
            };
            let there = programs.tables()?;
            let desired = self.ebpf.desired(rules.servings(), &there);
            let edits = desired.edits_from(&there);
            let most = (there.frontends.len() + edits.point.len(), there.backends.len() + edits.fill.len());
            // What is there too much takes room until it is gone.
            if !programs.sizes().hold(most.0, most.1)
                && programs.sizes().hold(desired.frontends.len(), desired.backends.len())
            {
                self.programs = Some(self.open_larger(most.0, most.1)?);
                continue;
            }
            programs.apply(&edits)?;
            programs.attach()?;
            self.programs = Some(programs);
            return Ok(edits.len());
        }
    }

    /// Other programs, for so much. Where none were in force yet they know of no connection of the former ones, nor those of theirs.
    fn open_larger(&mut self, frontends: usize, backends: usize) -> Result<Sockets, SocketsError> {
        let programs = Sockets::open(&self.cgroup, Sizes::for_twice(frontends, backends))?;
        self.lost = LostConnections::start(programs.connections()?)?;
        Ok(programs)
    }

    /// Does what changed since the last time. Answers with the number of edits.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the next time everything is compared.
    fn edit(&mut self, rules: &mut ClusterRules) -> Result<usize, SocketsError> {
        let changes = settled(rules.changed());
        let Some(programs) = self.programs.as_ref().filter(|_| self.in_force) else {
            self.put(rules)?;
            return Ok(0);
        };
        if changes.is_empty() {
            return Ok(0);
        }
        let edits = self.ebpf.edits(changes.values());
        let (frontends, backends) = self.ebpf.count();
        if !programs.sizes().hold(frontends + edits.forget.len(), backends + edits.empty.len()) {
            self.put(rules)?;
            return Ok(edits.len());
        }
        self.in_force = false;
        programs.apply(&edits)?;
        self.in_force = true;
        Ok(edits.len())
    }

    /// When [`AtSockets::look`] is due. What is not in force has to be put in force first.
    fn due(&self) -> Option<Instant> {
        let look = self.in_force.then_some(self.next_look);
        self.lost.due().into_iter().chain(look).min()
    }

    /// Mends what others damaged, and ends connections that have lost their backend. Answers what was mended, in words.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the next time everything is compared.
    fn look(&mut self, rules: &mut ClusterRules) -> Result<Option<String>, SocketsError> {
        self.lost.look(rules);
        if self.next_look > Instant::now() || !self.in_force {
            return Ok(None);
        }
        let started = Instant::now();
        self.next_look = started + LOOK;
        let Some(programs) = &self.programs else { return Ok(None) };
        let put = programs.attach()?;
        if put > 0 {
            return Ok(Some(format!("{put} programs for sockets were taken away")));
        }
        let count = self.ebpf.count();
        if started < self.next_compare {
            if started < self.next_count {
                return Ok(None);
            }
            let there = programs.count()?;
            self.next_count = Instant::now() + started.elapsed() * REST_OF_COUNT;
            if there == count {
                return Ok(None);
            }
        }
        self.in_force = false;
        let edits = self.bring(rules, count)?;
        self.in_force = true;
        self.next_count = Instant::now() + started.elapsed() * REST_OF_COUNT;
        self.next_compare = Instant::now() + started.elapsed() * REST;
        Ok((edits > 0).then(|| format!("{edits} elements of the programs for sockets were changed")))
    }
}

/// Of a frontend that changed several times, what was first and what is last.
fn settled(changes: Vec<FrontendChange>) -> HashMap<FrontendKey, FrontendChange> {
    let mut settled = HashMap::with_capacity(changes.len());
    for change in changes {
        match settled.entry(change.key) {
            Entry::Vacant(new) => drop(new.insert(change)),
            Entry::Occupied(mut known) => known.get_mut().after = change.after,
        }
    }
    settled
}

#[cfg(test)]
mod tests;
