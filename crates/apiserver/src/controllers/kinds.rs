//! Which kinds of objects there are now, built in and custom.

use std::{collections::BTreeSet, time::Duration};

use kube::{
    Client,
    core::{ApiResource, DynamicObject, PartialObjectMeta},
    discovery::{Discovery, Scope, verbs},
};

/// The metadata of an object of any kind.
pub(crate) type AnyMeta = PartialObjectMeta<DynamicObject>;

/// How long to wait for the end of a burst of changed definitions.
pub(crate) const SETTLING: Duration = Duration::from_millis(50);

/// A kind whose objects come and go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// Where its objects are.
    pub(crate) resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Whether its objects can be deleted all at once.
    pub(crate) collectively: bool,
}

impl Kind {
    /// Whether an owner reference to this group and kind means it, in whatever version.
    pub(crate) fn is(&self, api_version: &str, kind: &str) -> bool {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.resource.kind == kind && self.resource.group == group
    }
}

/// Asks the API which kinds it serves, each in its preferred version. Events are left out: they own nothing and are owned by nothing.
pub(crate) async fn discover(client: &Client) -> kube::Result<Vec<Kind>> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut seen = BTreeSet::new();
    let mut kinds = Vec::new();
    for group in discovery.groups_alphabetical() {
        for (resource, capabilities) in group.resources_by_stability() {
            let can = |verb| capabilities.supports_operation(verb);
            if resource.kind == "Event" || !(can(verbs::LIST) && can(verbs::WATCH) && can(verbs::DELETE)) {
                continue;
            }
            if seen.insert((resource.group.clone(), resource.plural.clone())) {
                let namespaced = capabilities.scope == Scope::Namespaced;
                kinds.push(Kind { resource, namespaced, collectively: can(verbs::DELETE_COLLECTION) });
            }
        }
    }
    Ok(kinds)
}
