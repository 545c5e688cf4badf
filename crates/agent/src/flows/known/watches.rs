//! What is watched in the cluster, so that it is known.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::watcher::{self, Event, watcher},
};
use podnet_client::watch::{Interest, Update, paging_ahead, steadily, watch};
use podnet_model::excerpt;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::info;

use super::Known;

/// What tells [`Known`], as long as the value is there.
pub(in crate::flows) struct Watches {
    tasks: JoinSet<()>,
    listed: mpsc::Receiver<()>,
}

impl Watches {
    /// Begins to watch all pods, nodes and Services.
    pub(in crate::flows) fn start(client: &Client, known: &Arc<Known>) -> Self {
        let mut tasks = JoinSet::new();
        let (all_listed, listed) = mpsc::channel(1);
        tasks.spawn(watch_pods(client.clone(), Arc::clone(known), all_listed.clone()));
        tasks.spawn(watch_others(client.clone(), Arc::clone(known), all_listed));
        Self { tasks, listed }
    }

    /// Whether all were listed once.
    pub(in crate::flows) fn are_listed(&self) -> bool {
        self.listed.is_closed()
    }

    /// Waits until all were listed once.
    pub(in crate::flows) async fn listed(&mut self) {
        debug_assert!(!self.tasks.is_empty());
        // Nobody sends anything: who has listed lets go.
        while self.listed.recv().await.is_some() {}
    }
}

async fn watch_pods(client: Client, known: Arc<Known>, unlisted: mpsc::Sender<()>) {
    let mut unlisted = Some(unlisted);
    let pods = Api::<excerpt::Pod>::all(paging_ahead(client));
    let mut events = steadily(watcher(pods, watcher::Config::default())).boxed();
    let mut listed = Vec::new();
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                let is_listed = matches!(event, Event::InitDone);
                known.event(of_objects(event), &mut listed);
                if is_listed {
                    unlisted = None;
                }
            }
            Ok(None) => return drop(unlisted),
            // What is known goes on to be used.
            Err(error) => info!(%error, "watch of pods for the names of flows interrupted"),
        }
    }
}

/// Of the whole objects that the excerpts are of: as much of them is there as an identity is made of.
fn of_objects(event: Event<excerpt::Pod>) -> Event<Pod> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(pod) => Event::InitApply(pod.into()),
        Event::InitDone => Event::InitDone,
        Event::Apply(pod) => Event::Apply(pod.into()),
        Event::Delete(pod) => Event::Delete(pod.into()),
    }
}

async fn watch_others(client: Client, known: Arc<Known>, unlisted: mpsc::Sender<()>) {
    let mut unlisted = Some(unlisted);
    let mut updates = watch(
        client,
        Interest { nodes: true, services: true, slices: true, pools: true, ways: true, ..Interest::default() },
    );
    while let Some(update) = updates.recv().await {
        match update {
            Update::Change(change) => known.learn(&change),
            Update::Synced => {
                known.listed();
                unlisted = None;
            }
        }
    }
    drop(unlisted);
}
