//! The cluster's zones as they are given away (`transfer`): put together once for all who fetch the same version.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use crate::{
    authority::held::Version,
    message::rtype,
    name::{Name, QueryName},
    server::{Outside, lock},
    zone::{Found, Names},
};

/// How long a zone is kept after somebody fetched it: secondaries that hear of a version come within seconds of each other.
const KEEP: Duration = Duration::from_secs(30);

/// The zones that were given away last: the last version of each.
#[derive(Debug, Default)]
pub(super) struct Giving(Mutex<BTreeMap<Name, Arc<Mutex<Slot>>>>);

#[derive(Debug, Default)]
struct Slot {
    kept: Option<(Version, Instant)>,
    /// Somebody sees to it that it is forgotten.
    watched: bool,
}

/// Puts a zone together, or takes it as it was put together before.
type Make = Box<dyn FnOnce() -> Option<Version> + Send>;

impl Giving {
    /// How `zone` is put together. Who wants it while that is being done waits for it.
    pub(super) fn made<Z: Names + Send + Sync + 'static>(
        &self,
        all: Arc<Z>,
        zone: Name,
        outside: Arc<dyn Outside>,
    ) -> Make {
        let slot = Arc::clone(lock(&self.0).entry(zone.clone()).or_default());
        Box::new(move || {
            let mut held = lock(&slot);
            let now = outside.now();
            if let Some((version, used)) = &mut held.kept
                && Some(version.zone.soa().serial) == serial(&*all, &zone)
            {
                *used = now;
                return Some(version.clone());
            }
            // There are not two of them while the new one is made.
            held.kept = None;
            let version = all.given(&zone).map(Version::alone)?;
            held.kept = Some((version.clone(), outside.now()));
            if !std::mem::replace(&mut held.watched, true) {
                outside.spawn(Box::pin(forget(Arc::downgrade(&slot), Arc::clone(&outside))));
            }
            Some(version)
        })
    }
}

/// The serial number that a zone has now.
fn serial(all: &impl Names, zone: &Name) -> Option<u32> {
    all.find(&QueryName::from(zone), rtype::SOA, |found| match found {
        Some(Found::Authority(authority)) => Some(authority.serial),
        _ => None,
    })
}

/// Forgets a zone that nobody fetched for some time.
async fn forget(slot: Weak<Mutex<Slot>>, outside: Arc<dyn Outside>) {
    loop {
        outside.sleep(KEEP).await;
        let Some(slot) = slot.upgrade() else { return };
        // Who holds it puts the zone together, which takes long.
        let Ok(mut held) = slot.try_lock() else { continue };
        if held.kept.as_ref().is_none_or(|(_, used)| outside.now().saturating_duration_since(*used) >= KEEP) {
            *held = Slot::default();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{
        Config, Environment, authority,
        chain::Fallthrough,
        server::fixture::{Rig, name},
        zone::{
            Zone,
            tests::{cluster, endpoint, slice},
        },
    };

    /// Zones that count how often they are put together.
    struct Counted(Zone, AtomicUsize);

    impl Names for Counted {
        fn find<R>(&self, name: &QueryName, qtype: u16, then: impl FnOnce(Option<Found<'_>>) -> R) -> R {
            self.0.find(name, qtype, then)
        }

        fn fallthrough(&self) -> &Fallthrough {
            self.0.fallthrough()
        }

        fn ttl(&self) -> u32 {
            self.0.ttl()
        }

        fn given(&self, zone: &Name) -> Option<authority::Zone> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.given(zone)
        }
    }

    #[test]
    fn a_version_is_put_together_once_and_forgotten_when_nobody_fetches_it() {
        let corefile = ". {\n kubernetes cluster.local\n}\n";
        let mut rig = Rig::new(corefile);
        cluster(&mut rig);
        let config = Config::load("Corefile", corefile, &Environment::EMPTY).unwrap();
        let options = config.kubernetes().next().unwrap().clone();
        let all = Arc::new(Counted(Zone::new(options, &rig.cluster, 1), AtomicUsize::new(0)));
        let (giving, outside) = (Giving::default(), Arc::clone(&rig.outside) as Arc<dyn Outside>);
        let fetch = || giving.made(Arc::clone(&all), name("cluster.local"), Arc::clone(&outside))().unwrap().zone;
        let made = || all.1.load(Ordering::Relaxed);
        let first = fetch();
        assert!(Arc::ptr_eq(&first, &fetch()));
        assert_eq!(made(), 1);
        rig.apply(&slice("web", "headless", &[("http", 80)], vec![endpoint("10.244.9.9", true, None)]));
        let second = fetch();
        assert!(second.soa().serial > first.soa().serial && made() == 2, "it changed");
        drop((first, second));
        // It was fetched a moment before.
        rig.at(29);
        fetch();
        rig.work();
        rig.at(31);
        rig.wake();
        rig.work();
        fetch();
        assert_eq!(made(), 2);
        rig.at(100);
        rig.wake();
        rig.work();
        let kept = || lock(&giving.0).values().filter(|slot| lock(slot).kept.is_some()).count();
        assert_eq!(kept(), 0, "nobody fetched it for long");
        fetch();
        assert_eq!((made(), kept()), (3, 1));
    }
}
