//! The task of a zone that is fetched: it sleeps until the zone is due, or was told of, or expires.

use std::sync::Weak;

use futures::future::{Either, select};

use super::{
    super::{Server, queue::Slot},
    Fetched,
};

/// Keeps a zone as new as its primaries have it, as long as it is served.
pub(super) async fn keep(zone: Weak<Fetched>, server: Weak<Server>) {
    loop {
        let (Some(fetched), Some(at)) = (zone.upgrade(), server.upgrade()) else { return };
        let (time, woken) = fetched.rest(at.parts.outside.now());
        let sleep = at.parts.outside.sleep(time);
        // The zone goes while the task sleeps: then it wakes up and ends.
        drop((fetched, at));
        if !time.is_zero() {
            let (Either::Left(_) | Either::Right(_)) = select(sleep, woken).await;
        }
        let (Some(fetched), Some(at)) = (zone.upgrade(), server.upgrade()) else { return };
        fetched.expire(at.parts.outside.now(), &at);
        if !fetched.is_due(at.parts.outside.now()) {
            continue;
        }
        if fetched.part.is_none() {
            fetched.refresh(&at).await;
            continue;
        }
        drop((fetched, at));
        let Some(_slot) = turn(&zone, &server).await else { return };
        let (Some(fetched), Some(at)) = (zone.upgrade(), server.upgrade()) else { return };
        fetched.refresh(&at).await;
    }
}

/// Waits until it is a zone's turn, which may expire meanwhile; none: it is not served any more.
async fn turn(zone: &Weak<Fetched>, server: &Weak<Server>) -> Option<Slot> {
    let mut slot = server.upgrade()?.parts.fetching.slot();
    loop {
        let (fetched, at) = (zone.upgrade()?, server.upgrade()?);
        let now = at.parts.outside.now();
        fetched.expire(now, &at);
        let expiry = fetched.lasts(now).map(|time| at.parts.outside.sleep(time));
        // The zone goes while it waits, as above.
        drop((fetched, at));
        let Some(expiry) = expiry else { return slot.await.ok() };
        if let Either::Left((slot, _)) = select(&mut slot, expiry).await {
            return slot.ok();
        }
    }
}
