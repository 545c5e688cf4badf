//! Who wants flows to be recorded: the agent's settings, and whoever follows them at the moment.

use std::sync::Arc;

use tokio::sync::watch;

use super::past::Past;

/// Which flows somebody wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// None.
    #[default]
    Nothing,
    /// Those between pods.
    PodToPod,
    /// All.
    All,
}

#[derive(Clone, Copy, Debug, Default)]
struct Followers {
    pod_to_pod: usize,
    all: usize,
}

/// What is wanted by all together, and what there is of it.
#[derive(Debug)]
pub(crate) struct Demand {
    /// Whether somebody follows or not.
    always: Scope,
    followers: watch::Sender<Followers>,
    past: watch::Sender<Option<Arc<Past>>>,
}

impl Demand {
    /// Of the settings; nobody follows yet.
    pub(super) fn new(always: Scope) -> Arc<Self> {
        Arc::new(Self { always, followers: watch::Sender::default(), past: watch::Sender::new(None) })
    }

    /// What is to be recorded.
    pub(super) fn scope(&self) -> Scope {
        self.scope_of(*self.followers.borrow())
    }

    fn scope_of(&self, followers: Followers) -> Scope {
        let followed = match followers {
            Followers { all: 1.., .. } => Scope::All,
            Followers { pod_to_pod: 1.., .. } => Scope::PodToPod,
            _ => Scope::Nothing,
        };
        followed.max(self.always)
    }

    /// Waits until something else than `scope` is to be recorded.
    pub(super) async fn changed_from(&self, scope: Scope) {
        // The sender is this value's own.
        let _ = self.followers.subscribe().wait_for(|followers| self.scope_of(*followers) != scope).await;
    }

    /// Waits until nobody follows any more.
    pub(super) async fn unfollowed(&self) {
        let is_nobody = |followers: &Followers| followers.pod_to_pod == 0 && followers.all == 0;
        // The sender is this value's own.
        let _ = self.followers.subscribe().wait_for(is_nobody).await;
    }

    /// Somebody follows until the value goes.
    pub(super) fn follow(self: &Arc<Self>, scope: Scope) -> Following {
        self.followers.send_modify(|followers| *followers.of(scope) += 1);
        Following { demand: Arc::clone(self), scope }
    }

    /// What is recorded, and where it can be read; none while nothing is.
    pub(super) fn past(&self) -> Option<Arc<Past>> {
        self.past.borrow().clone()
    }

    /// Waits until flows are recorded.
    pub(super) async fn recorded(&self) {
        // The sender is this value's own.
        let _ = self.past.subscribe().wait_for(Option::is_some).await;
    }

    pub(super) fn set_past(&self, past: Arc<Past>) {
        self.past.send_replace(Some(past));
    }

    /// Takes away what is read, unless somebody wants flows by now. Whether it did: who comes from then on waits for the next.
    pub(super) fn close(&self) -> bool {
        let past = self.past.send_replace(None);
        let is_wanted = self.scope() != Scope::Nothing;
        if is_wanted {
            self.past.send_replace(past);
        }
        !is_wanted
    }
}

impl Followers {
    const fn of(&mut self, scope: Scope) -> &mut usize {
        match scope {
            Scope::All => &mut self.all,
            Scope::PodToPod | Scope::Nothing => &mut self.pod_to_pod,
        }
    }
}

/// Somebody who follows.
#[derive(Debug)]
pub(super) struct Following {
    demand: Arc<Demand>,
    scope: Scope,
}

impl Following {
    /// Waits until flows are recorded.
    pub(super) async fn past(&self) -> Arc<Past> {
        let mut past = self.demand.past.subscribe();
        loop {
            if let Some(past) = past.borrow_and_update().clone() {
                return past;
            }
            if past.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.demand.followers.send_modify(|followers| *followers.of(self.scope) -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use k8s_openapi::jiff::SignedDuration;
    use podnet_flow::store::Retention;

    use super::*;

    #[test]
    fn who_comes_as_recording_ends_keeps_it_going_or_waits_for_the_next() {
        let demand = Demand::new(Scope::Nothing);
        let past = Past::new(Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 }, None);
        demand.set_past(past.clone());
        let following = demand.follow(Scope::All);
        assert!(!demand.close());
        let found = following.past().now_or_never().unwrap();
        assert!(Arc::ptr_eq(&found, &past));
        drop(following);
        assert!(demand.close() && demand.past().is_none());
        assert!(demand.follow(Scope::All).past().now_or_never().is_none());
    }

    #[test]
    fn what_is_recorded_is_what_the_most_demanding_of_those_who_follow_wants_and_no_less_than_the_settings_say() {
        let demand = Demand::new(Scope::Nothing);
        assert_eq!(demand.scope(), Scope::Nothing);
        let narrow = demand.follow(Scope::PodToPod);
        assert_eq!(demand.scope(), Scope::PodToPod);
        let wide = [demand.follow(Scope::All), demand.follow(Scope::All)];
        drop(narrow);
        assert_eq!(demand.scope(), Scope::All);
        let [first, second] = wide;
        drop(first);
        assert_eq!(demand.scope(), Scope::All);
        drop(second);
        assert_eq!(demand.scope(), Scope::Nothing);
        let always = Demand::new(Scope::PodToPod);
        assert_eq!(always.scope(), Scope::PodToPod);
        let _wide = always.follow(Scope::All);
        assert_eq!(always.scope(), Scope::All);
    }
}
