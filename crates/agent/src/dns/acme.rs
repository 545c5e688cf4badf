//! Certificates that this server has issued, and renewed, for ports whose `tls` says `acme` (RFC 8555). A certificate is put where the
//! options say; from there `identity` takes it up, as it does with those that somebody else renews.
//!
//! - `order`: one certificate, from the order to the file
//! - `directory`: HTTP to the authority
//! - `storage`: accounts and certificates in files
//! - `renewal`: when a certificate is renewed, and when what failed is tried again

mod directory;
mod order;
mod renewal;
mod storage;

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use podnet_dns::{Config, chain::AcmeOptions, plugin::Challenges};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use super::keeper::share;
use order::FetchError;
use renewal::Validity;

/// How long an order may take in all: authorities look from several places, one after the other.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is looked at least what there is: files go, and clocks are set.
const LOOK: Duration = Duration::from_secs(3600);

/// A task for each certificate that a Corefile has issued. They end with this.
#[derive(Default)]
pub(super) struct Issuing {
    challenges: Arc<Challenges>,
    tasks: Vec<(AcmeOptions, AbortOnDropHandle<()>)>,
}

impl Issuing {
    /// What authorities are told while they look.
    pub(super) const fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// Has the certificates of this Corefile issued and renewed from now on, and no others. It has to be in force: authorities ask it.
    pub(super) fn follow(&mut self, config: &Config) {
        let wanted = config.acme();
        self.tasks.retain(|(options, _)| wanted.contains(options));
        for options in wanted {
            if !self.tasks.iter().any(|(known, _)| *known == options) {
                let task = tokio::spawn(keep(options.clone(), Arc::clone(&self.challenges)));
                self.tasks.push((options, AbortOnDropHandle::new(task)));
            }
        }
    }
}

/// Keeps a certificate valid, for good.
async fn keep(options: AcmeOptions, challenges: Arc<Challenges>) {
    // Drawn once: replicas that began together do not come together.
    let share = share();
    let mut failures = 0;
    // A certificate that was issued and could not be put into its file.
    let mut unkept = None;
    loop {
        let held = storage::held(&options).await;
        if let Some(left) = held.and_then(|held| held.renewal(share).checked_sub(now())).filter(|left| *left > 0) {
            sleep(Duration::from_secs(left).min(LOOK)).await;
            continue;
        }
        let fetched = match timeout(PATIENCE, order::fetch(&options, &challenges, &mut unkept)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::Silent { seconds: PATIENCE.as_secs() }),
        };
        let certificate = options.certificate();
        match fetched {
            Ok(Validity { end, .. }) => {
                failures = 0;
                let days = end.saturating_sub(now()) / 86_400;
                info!(certificate, days, "a certificate was issued");
            }
            Err(failed) => {
                failures += 1;
                let left = held.map(|held| held.end.saturating_sub(now())).filter(|left| *left > 0);
                let pause = renewal::pause(failures, share, left.map(Duration::from_secs));
                let (cause, seconds) = (causes(&failed), pause.as_secs());
                let serves = if held.is_some() { "the one before" } else { "none" };
                error!(certificate, error = %failed, cause, seconds, serves, "there is no new certificate; it is tried again");
                sleep(pause).await;
            }
        }
    }
}

/// The time, in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What stands behind an error, down to the first cause.
fn causes(error: &dyn Error) -> String {
    let mut all = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        all.push(cause.to_string());
        next = cause.source();
    }
    all.join(": ")
}
