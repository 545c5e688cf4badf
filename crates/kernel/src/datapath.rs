//! The kernel as an agent sees it: a thing that does steps and edits. The real one is here, one for tests is in [`memory`](crate::memory).

use podnet_model::{Family, LinkName};
use podnet_planner::{
    ruleset::{Edit, FrontendKey, RuleSet},
    step::Step,
};

use crate::{
    executor::{self, Applied, Observed, StepFailed},
    monitor::Monitor,
    netlink::{NetlinkError, RtSocket},
    netns::NetNs,
    nft::{NftError, NftSocket, Touched},
};

/// What does the planner's steps and edits. All calls block for as long as the kernel takes: micro- to milliseconds.
pub trait Datapath: Send {
    /// Does the steps in order (see [`executor::apply`]).
    ///
    /// # Errors
    /// The first step that failed.
    fn apply(&mut self, steps: &[Step]) -> Result<Applied, StepFailed>;

    /// What of podnet's is there (see [`executor::observe`]); `vxlans` are the VXLAN devices' names.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    fn observe(&mut self, vxlans: &[&LinkName]) -> Result<Observed, NetlinkError>;

    /// Does the edits to a table, all or none.
    ///
    /// # Errors
    /// The edit that was refused.
    fn edit(&mut self, family: Family, table: &str, edits: &[Edit]) -> Result<(), NftError>;

    /// Makes the table of the rules' family hold exactly these rules, at once.
    ///
    /// # Errors
    /// The part that was refused; the table is then as it was.
    fn replace(&mut self, table: &str, rules: &RuleSet) -> Result<(), NftError>;

    /// The frontends for which the last [`Datapath::replace`] found something that had no place in the table, or something else; none the next
    /// time, and none where nobody but the agent writes.
    fn take_surplus(&mut self) -> Vec<FrontendKey> {
        Vec::new()
    }

    /// Mends elements of a table that others touched: see [`NftSocket::mend_elements`]. Nobody touches what is of no kernel.
    ///
    /// # Errors
    /// What was refused; the table is then as it was.
    fn mend_elements(
        &mut self,
        _family: Family,
        _table: &str,
        _rules: &RuleSet,
        _touched: &[Touched],
    ) -> Result<usize, NftError> {
        Ok(0)
    }

    /// The namespace that it is of; none where it is of no kernel.
    fn netns(&self) -> Option<NetNs> {
        None
    }

    /// Removes a table. Done also where there is none.
    ///
    /// # Errors
    /// What the kernel refused.
    fn delete_table(&mut self, family: Family, table: &str) -> Result<(), NftError>;
}

/// The kernel of this machine, in one namespace.
#[derive(Debug)]
pub struct KernelDatapath {
    route: RtSocket,
    nft: NftSocket,
}

impl KernelDatapath {
    /// Opens the sockets in the calling thread's namespace.
    ///
    /// # Errors
    /// Where a socket cannot be opened.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self { route: RtSocket::open()?, nft: NftSocket::open()? })
    }

    /// Opens the sockets in a namespace.
    ///
    /// # Errors
    /// Where it cannot be entered or a socket cannot be opened.
    pub fn open_in(netns: &NetNs) -> Result<Self, NftError> {
        Ok(Self { route: RtSocket::open_in(netns)?, nft: NftSocket::open_in(netns)? })
    }

    /// The route family's socket, for what is no step: pods' interfaces.
    pub fn route_socket(&mut self) -> &mut RtSocket {
        &mut self.route
    }

    /// Begins to listen to what others do in the namespace: what is done through this datapath, and through the
    /// nf_tables sockets whose ports are `others`, is not told. What others do to nf_tables during a large transaction of this
    /// datapath's is not told either: see [`NftSocket::missed`].
    ///
    /// # Errors
    /// Where a socket cannot be opened.
    pub fn monitor(&mut self, others: &[u32]) -> Result<Monitor, NetlinkError> {
        let monitor = Monitor::open_in(self.route.netns(), &self.route, &self.nft, others)?;
        if let Some(ears) = monitor.ears()? {
            self.nft.cover(ears);
        }
        Ok(monitor)
    }

    /// Both families' sockets, for what is neither step nor edit.
    pub fn sockets(&mut self) -> (&mut RtSocket, &mut NftSocket) {
        (&mut self.route, &mut self.nft)
    }

    /// The netfilter family's socket, for counting.
    pub fn nft_socket(&mut self) -> &mut NftSocket {
        &mut self.nft
    }
}

impl Datapath for KernelDatapath {
    fn apply(&mut self, steps: &[Step]) -> Result<Applied, StepFailed> {
        executor::apply(&mut self.route, steps)
    }

    fn observe(&mut self, vxlans: &[&LinkName]) -> Result<Observed, NetlinkError> {
        executor::observe(&mut self.route, vxlans)
    }

    fn netns(&self) -> Option<NetNs> {
        Some(self.route.netns().clone())
    }

    fn edit(&mut self, family: Family, table: &str, edits: &[Edit]) -> Result<(), NftError> {
        self.nft.apply(family, table, edits)
    }

    fn replace(&mut self, table: &str, rules: &RuleSet) -> Result<(), NftError> {
        self.nft.replace(table, rules).map(drop)
    }

    fn take_surplus(&mut self) -> Vec<FrontendKey> {
        self.nft.take_surplus()
    }

    fn mend_elements(
        &mut self,
        family: Family,
        table: &str,
        rules: &RuleSet,
        touched: &[Touched],
    ) -> Result<usize, NftError> {
        self.nft.mend_elements(family, table, rules, touched)
    }

    fn delete_table(&mut self, family: Family, table: &str) -> Result<(), NftError> {
        self.nft.delete_table(family, table)
    }
}
