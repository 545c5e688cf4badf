//! The node's loopback addresses as addresses from which rules lead connections to elsewhere.
//!
//! Such a connection leaves with another source. Its answers come in by a link, and are for a loopback address once they are translated
//! back: this makes the kernel take them, by whatever link they come. Of IPv4 that is a setting, with which it would take as well what
//! neighbours send to 127.0.0.0/8; so there is a [guard] before it. Of IPv6 it is a local route for each device, with which the
//! kernel still takes nothing that a neighbour sends to ::1.
//!
//! [guard]: podnet_planner::services::loopback::guard

use std::collections::BTreeSet;

use podnet_model::Family;
use podnet_planner::services::loopback::{OPENED, TABLE, guard};
use tracing::debug;

use crate::{
    link,
    netlink::{NetlinkError, RtSocket},
    nft::{Mended, NftError, NftSocket},
    route,
    sysctl::{self, SysctlError},
};

/// Of all devices, those to come too.
const SETTING: &str = "net.ipv4.conf.all.route_localnet";

/// Why answers to loopback addresses are not taken.
#[derive(Debug, thiserror::Error)]
pub enum LocalhostError {
    /// The guard is refused.
    #[error("cannot keep others from the node's loopback")]
    Guard(#[from] NftError),
    /// The setting of IPv4 is.
    #[error(transparent)]
    Setting(#[from] SysctlError),
    /// Devices cannot be asked for.
    #[error(transparent)]
    Devices(#[from] NetlinkError),
}

/// The loopback of one namespace.
#[derive(Debug, Default)]
pub struct Localhost {
    /// Whether the setting was made by podnet, as the guard notes; none where nobody looked yet.
    is_ours: Option<bool>,
    /// The guard is in force, as far as is known.
    is_guarded: bool,
    /// Devices by which answers to ::1 are taken.
    devices: BTreeSet<u32>,
}

impl Localhost {
    /// Makes sure that answers to the loopback addresses of a family are taken. What is known to be in force is not looked at, but for
    /// the setting and for devices that are new. Answers what was not as it was made, in words.
    ///
    /// # Errors
    /// What the kernel refused; nothing is taken then that is not guarded.
    pub fn open(
        &mut self,
        family: Family,
        host: &mut RtSocket,
        rules: &mut NftSocket,
    ) -> Result<Option<&'static str>, LocalhostError> {
        match family {
            Family::V4 => self.open_v4(host, rules),
            Family::V6 => self.open_v6(host).map(|()| None),
        }
    }

    fn open_v4(&mut self, host: &RtSocket, rules: &mut NftSocket) -> Result<Option<&'static str>, LocalhostError> {
        let is_open = is_open(host)?;
        let known = self.is_ours;
        let is_ours = match known {
            _ if !is_open => true,
            Some(is_ours) => is_ours,
            None => is_noted(rules)?,
        };
        let mut wrong = None;
        if self.guard(rules, is_ours)? && known == Some(is_ours) {
            wrong = Some("the rules that keep others from the node's loopback were gone");
        }
        if !is_open {
            sysctl::set(host.netns(), SETTING, "1")?;
            wrong = wrong.or(Some("the setting route_localnet was off"));
        }
        Ok(wrong.filter(|_| known.is_some()))
    }

    /// Makes sure that the guard is in force, and notes whose the setting is; answers whether it was otherwise. That the table is there is
    /// looked at each time: what it guards against would be noticed by nobody.
    fn guard(&mut self, rules: &mut NftSocket, is_ours: bool) -> Result<bool, LocalhostError> {
        if self.is_guarded && self.is_ours == Some(is_ours) && is_there(rules)? {
            return Ok(false);
        }
        self.is_guarded = false;
        let mended = rules.replace(TABLE, &guard(is_ours))?;
        (self.is_guarded, self.is_ours) = (true, Some(is_ours));
        Ok(mended != Mended::default())
    }

    fn open_v6(&mut self, host: &mut RtSocket) -> Result<(), LocalhostError> {
        let links = link::list(host)?;
        let up: BTreeSet<u32> =
            links.iter().filter(|link| link.is_up && link.name.as_str() != "lo").map(|link| link.index).collect();
        self.devices.retain(|device| up.contains(device));
        let new: Vec<u32> = up.difference(&self.devices).copied().collect();
        let requests: Vec<_> = new.iter().map(|device| route::to_loopback(*device)).collect();
        for (device, outcome) in new.into_iter().zip(host.outcomes(&requests).map_err(|error| error.source)?) {
            match outcome {
                Ok(_) => drop(self.devices.insert(device)),
                // One without IPv6 needs none, but may have it one day: it is tried again at the next look.
                Err(error) => debug!(device, %error, "a device does not take answers to ::1"),
            }
        }
        Ok(())
    }

    /// Others may have changed the rules: the guard is looked at the next time.
    pub fn suspect_guard(&mut self) {
        self.is_guarded = false;
    }

    /// The routes of a device may be gone, as they go with its being up.
    pub fn suspect_device(&mut self, device: u32) {
        self.devices.remove(&device);
    }

    /// Undoes what was opened of IPv4, by this value or another before it, and the guard. A setting that others made, or of which it is not
    /// known, stays and is guarded for as long as it is on: whether it is, is answered. The routes of IPv6 stay, too: nothing that a neighbour
    /// sends can use them.
    ///
    /// # Errors
    /// What the kernel refused; what podnet opened is guarded still.
    pub fn close(&mut self, host: &RtSocket, rules: &mut NftSocket) -> Result<bool, LocalhostError> {
        if is_open(host)? {
            if self.is_ours != Some(true) && !is_noted(rules)? {
                self.guard(rules, false)?;
                return Ok(true);
            }
            sysctl::set(host.netns(), SETTING, "0")?;
        }
        if is_there(rules)? {
            rules.delete_table(Family::V4, TABLE)?;
        }
        *self = Self { devices: std::mem::take(&mut self.devices), ..Self::default() };
        Ok(false)
    }
}

fn is_open(host: &RtSocket) -> Result<bool, SysctlError> {
    Ok(sysctl::read(host.netns(), SETTING)? != "0")
}

/// Whether the guard says that podnet made the setting.
fn is_noted(rules: &mut NftSocket) -> Result<bool, NftError> {
    rules.has_chain(Family::V4, TABLE, OPENED)
}

fn is_there(rules: &mut NftSocket) -> Result<bool, NftError> {
    rules.has_table(Family::V4, TABLE)
}

#[cfg(test)]
mod tests;
