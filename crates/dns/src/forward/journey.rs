//! One question, asked until somebody answers it or it was asked often enough.
//!
//! An upstream that is silent for longer than it usually takes is passed by: the next one is asked besides, and the first answer
//! counts. So a dead upstream costs a fraction of a second, not a client's patience. Where many questions are being asked that is done
//! for few of them ([`super::budget`]); the others ask the next one once it is late for all.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt as _,
    future::{Either, select},
    stream::FuturesUnordered,
};

use super::{ATTEMPT_TIMEOUT, ATTEMPTS, Landed, PATIENCE, Upstreams, ask, ask::Attempt, bailiwick, budget::Asking};
use crate::{
    cache::Key,
    message::Upstream,
    server::{Failure, Parts},
};

/// An attempt that is not answered yet.
struct Flying {
    number: usize,
    index: usize,
    since: Instant,
}

pub(super) async fn journey(upstreams: Arc<Upstreams>, parts: Parts, key: Key, tcp: bool) -> Landed {
    let options = upstreams.options();
    let order = upstreams.order(parts.outside.random());
    if order.is_empty() {
        return Err(Failure::AllLoop);
    }
    if order.iter().all(|&index| upstreams.down(index)) {
        parts.metrics.upstreams.all_down(upstreams.asker());
        if options.fail_fast {
            return Err(Failure::AllDown);
        }
    }
    let asking = upstreams.begin();
    let until = parts.outside.now() + PATIENCE;
    let most = options.max_attempts.map_or(ATTEMPTS.max(order.len()), |most| most as usize);
    let mut attempts = FuturesUnordered::new();
    let mut flying: Vec<Flying> = Vec::new();
    let mut started = 0;
    let mut last: Option<Upstream> = None;
    loop {
        let now = parts.outside.now();
        // An answer that is no good is better than another one from the same upstream.
        let may = |started| started < if last.is_some() { most.min(order.len()) } else { most };
        if may(started) && now < until {
            let index = order[started % order.len()];
            // Who asked over TCP is asked for over TCP once; after that what is quickest will do.
            let tcp = options.force_tcp || (tcp && started == 0);
            let attempt = Attempt { index, tcp, again: started >= order.len(), until };
            flying.push(Flying { number: started, index, since: now });
            let (number, upstreams, parts, key) = (started, &upstreams, &parts, &key);
            attempts.push(async move { (number, index, ask::ask(upstreams, parts, key, attempt).await) });
            started += 1;
        }
        let Some(latest) = flying.last() else { break };
        let landed = if may(started) {
            let Some(landed) = heard(&mut attempts, upstreams.pause(latest.index), &asking, &parts).await else {
                continue;
            };
            landed
        } else {
            attempts.next().await
        };
        let Some((number, index, answered)) = landed else { break };
        let took = flying.iter().position(|one| one.number == number).map(|at| flying.remove(at).since);
        let took = took.map_or(PATIENCE, |since| parts.outside.now().saturating_duration_since(since));
        let result = answered.as_ref().map_or("failed", |upstream| upstream.answer.rcode.mnemonic());
        let took = answered.is_some().then_some(took);
        parts.metrics.upstreams.asked(upstreams.asker(), &upstreams.addrs()[index], result, took);
        let Some(mut answered) = answered else {
            upstreams.suspected(index);
            continue;
        };
        upstreams.succeeded(index);
        answered.vouched = upstreams.vouched(index);
        answered.from = upstreams.addrs().get(index).cloned();
        if options.failover.contains(&answered.answer.rcode) {
            last = Some(answered);
            continue;
        }
        pass_by(&upstreams, &flying, index, parts.outside.now());
        return Ok(Arc::new(bailiwick::within(&options.from, &key, answered)));
    }
    last.map(|last| Arc::new(bailiwick::within(&options.from, &key, last))).ok_or(Failure::NoAnswer)
}

/// The attempt that ends next; none: the latest was silent for so long that somebody is to be asked besides. That is after its usual
/// `pause`, or later where too much is being asked.
async fn heard<A: Future>(
    attempts: &mut FuturesUnordered<A>,
    pause: Duration,
    asking: &Asking<'_>,
    parts: &Parts,
) -> Option<Option<A::Output>> {
    if let Either::Left((landed, _)) = select(attempts.next(), parts.outside.sleep(pause)).await {
        return Some(landed);
    }
    let left = ATTEMPT_TIMEOUT.saturating_sub(pause);
    if left.is_zero() || asking.may_hurry() {
        return None;
    }
    match select(attempts.next(), parts.outside.sleep(left)).await {
        Either::Left((landed, _)) => Some(landed),
        Either::Right(_) => None,
    }
}

/// Those who were silent for longer than they usually are while another one answered.
fn pass_by(upstreams: &Upstreams, flying: &[Flying], answered: usize, now: Instant) {
    for one in flying.iter().filter(|one| one.index != answered) {
        let silent = now.saturating_duration_since(one.since);
        if silent >= upstreams.pause(one.index) {
            upstreams.heard(one.index, silent);
            upstreams.suspected(one.index);
        }
    }
}
