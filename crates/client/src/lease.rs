//! A Lease (`coordination.k8s.io/v1`) that several would have and one has.

use std::{fmt, sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

/// A Lease by its name. Every write is of the version that was read: who was too late is told so.
#[derive(Clone)]
pub struct Seat {
    api: Api<Lease>,
    name: Arc<str>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Seat {
    /// The Lease of that name, which need not be there.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.into() }
    }

    /// What it says now.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached or refuses.
    pub async fn look(&self) -> kube::Result<Option<Lease>> {
        self.api.get_opt(&self.name).await
    }

    /// Takes it for a new holder, from whom `before` says, and answers what it says then.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached or refuses; [`is_conflict`] where somebody else wrote it meanwhile.
    pub async fn take(&self, before: Option<Lease>, holder: &str, lasts: Duration) -> kube::Result<Lease> {
        let now = Timestamp::now();
        let known = before.as_ref().and_then(|lease| lease.spec.as_ref());
        let transitions = known.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let is_new = known.is_some_and(|spec| spec.holder_identity.as_deref() != Some(holder));
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds(lasts)),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions.saturating_add(i32::from(is_new))),
            ..LeaseSpec::default()
        };
        match before {
            Some(lease) => self.write(Lease { spec: Some(spec), ..lease }).await,
            None => {
                let metadata = ObjectMeta { name: Some(self.name.to_string()), ..ObjectMeta::default() };
                self.api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
            }
        }
    }

    /// Says that its holder is there, and answers what it says then.
    ///
    /// # Errors
    ///
    /// As [`Seat::take`].
    pub async fn renew(&self, held: &Lease) -> kube::Result<Lease> {
        let mut lease = held.clone();
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
        self.write(lease).await
    }

    /// Gives it back, so that nobody has to wait until it expires.
    ///
    /// # Errors
    ///
    /// As [`Seat::take`].
    pub async fn give_back(&self, held: Lease) -> kube::Result<()> {
        let mut lease = held;
        let spec = lease.spec.get_or_insert_default();
        (spec.holder_identity, spec.lease_duration_seconds) = (None, Some(1));
        self.write(lease).await.map(|_| ())
    }

    async fn write(&self, lease: Lease) -> kube::Result<Lease> {
        self.api.replace(&self.name, &PostParams::default(), &lease).await
    }
}

/// Whether somebody else wrote it meanwhile.
#[must_use]
pub fn is_conflict(error: &kube::Error) -> bool {
    // Gone, or there already, is written by somebody else, too.
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
