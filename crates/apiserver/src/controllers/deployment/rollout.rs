//! Sizes: how many pods each ReplicaSet should have now.

use k8s_openapi::{api::apps::v1::DeploymentSpec, apimachinery::pkg::util::intstr::IntOrString};

use super::{
    members::Member,
    plan::{MAXIMUM, Members},
};

/// The numbers that a rollout keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Pods wanted.
    pub(super) desired: i32,
    /// Pods above that number during a rollout.
    pub(super) surge: i32,
    /// Pods below that number during a rollout.
    pub(super) unavailable: i32,
}

impl Limits {
    /// The limits of a Deployment: percentages of the wanted number, the surge rounded up and the rest rounded down, and never
    /// both zero, since then nothing could move.
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        let desired = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")) {
            return Self { desired, surge: 0, unavailable: desired };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), desired, true);
        let unavailable = share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), desired, false);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { desired, surge, unavailable: unavailable.min(desired) }
    }

    /// The most pods there may be.
    pub(super) fn maximum(&self) -> i32 {
        if self.desired == 0 { 0 } else { self.desired.saturating_add(self.surge) }
    }

    /// The fewest available pods there should be.
    pub(super) fn minimum(&self) -> i32 {
        self.desired - self.unavailable
    }
}

/// A number, or a percentage of the whole; a quarter where nothing is said.
fn share(value: Option<&IntOrString>, whole: i32, round_up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or(0),
        None => 25,
    };
    let hundredfold = i64::from(whole) * i64::from(percent.max(0));
    let rounded = if round_up { (hundredfold + 99) / 100 } else { hundredfold / 100 };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// One step of a rolling update, as far as the limits and the pods that are available now allow.
pub(super) fn roll(limits: &Limits, members: &mut Members) {
    let Members { current: Some(current), old } = members else { return };
    let total = |current: &Member, old: &[Member]| current.replicas() + old.iter().map(Member::replicas).sum::<i32>();
    let room = limits.maximum() - total(current, old);
    let missing = limits.desired - current.replicas();
    if missing < 0 {
        current.scale(limits.desired);
    } else if room > 0 {
        current.scale(current.replicas() + room.min(missing));
    }

    // What may go without leaving too few, if every pod of the current set that is not yet available never becomes so.
    let unproven = current.replicas() - current.available();
    let mut budget = total(current, old) - limits.minimum() - unproven;
    for member in old.iter_mut() {
        let broken = member.replicas() - member.available();
        budget -= shrink(member, broken.min(budget));
    }
    let available = current.available() + old.iter().map(Member::available).sum::<i32>();
    let mut budget = budget.min(available - limits.minimum());
    for member in old.iter_mut() {
        budget -= shrink(member, budget);
    }
}

/// Takes up to that many pods from a set; answers how many.
fn shrink(member: &mut Member, by: i32) -> i32 {
    let by = by.min(member.replicas()).max(0);
    member.scale(member.replicas() - by);
    by
}

/// Makes the sets fit a new size of the Deployment. In the middle of a rollout each keeps its share.
pub(super) fn scale_proportionally(limits: &Limits, members: &mut Members) {
    let active = members.old.iter().chain(&members.current).filter(|member| member.replicas() > 0).count();
    if active <= 1 {
        let old_active = members.old.iter_mut().rfind(|old| old.replicas() > 0);
        if let Some(only) = old_active.or(members.current.as_mut()) {
            only.scale(limits.desired);
        }
        return;
    }
    let saturated = members
        .current
        .as_ref()
        .is_some_and(|current| current.replicas() == limits.desired && current.available() == limits.desired);
    if saturated {
        members.old.iter_mut().for_each(|old| old.scale(0));
        return;
    }
    share_out(limits, members);
}

fn share_out(limits: &Limits, members: &mut Members) {
    let mut all: Vec<_> = members.old.iter_mut().chain(members.current.as_mut()).filter(|m| m.replicas() > 0).collect();
    let total: i32 = all.iter().map(|member| member.replicas()).sum();
    let mut change = limits.maximum() - total;
    // The largest first; among equals the youngest grows and the oldest shrinks first.
    all.reverse();
    if change < 0 {
        all.reverse();
    }
    all.sort_by_key(|member| std::cmp::Reverse(member.replicas()));
    for member in &mut all {
        let before = i64::from(member.replicas());
        let whole = member.number(MAXIMUM).filter(|maximum| *maximum > 0).unwrap_or(i64::from(total.max(1)));
        let scaled = (2 * before * i64::from(limits.maximum()) + whole) / (2 * whole);
        let wanted = i32::try_from(scaled - before).unwrap_or_default();
        let by = if change > 0 { wanted.clamp(0, change) } else { wanted.clamp(change, 0) };
        member.scale(member.replicas() + by);
        change -= by;
    }
    // What rounding left goes to the first that can take it.
    for member in &mut all {
        let by = change.max(-member.replicas());
        member.scale(member.replicas() + by);
        change -= by;
    }
}
