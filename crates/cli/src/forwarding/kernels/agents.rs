//! The agents, each of its node.

use std::{collections::BTreeSet, time::Duration};

use futures::{AsyncReadExt, StreamExt, stream};
use http::Request;
use podnet_flow::capture::Captured;
use podnet_kernel::snapshot::{MOST_BYTES, Told};
use podnet_model::{NodeName, PodKey, errors::chain};
use podnet_planner::trace::Cluster;
use tokio::time::timeout;

use super::{Answer, Source, Wanted};
use crate::{
    flows::agents::escaped,
    forwarding::{
        access::{self, Access},
        live::captured,
        state::State,
    },
};

/// How long one may take to tell all.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many are asked at once.
const AT_ONCE: usize = 8;

/// Those of the cluster.
pub(super) struct Agents<'a> {
    access: &'a Access,
}

impl<'a> Agents<'a> {
    pub(super) const fn new(access: &'a Access) -> Self {
        Self { access }
    }

    async fn answer(&self, cluster: &Cluster, node: &NodeName, pods: &BTreeSet<PodKey>) -> Answer {
        let told = timeout(PATIENCE, self.told(cluster, node, pods)).await;
        let silence = |_| Err(format!("its agent does not answer within {} s", PATIENCE.as_secs()));
        (node.clone(), told.unwrap_or_else(silence))
    }

    async fn told(&self, cluster: &Cluster, node: &NodeName, pods: &BTreeSet<PodKey>) -> Result<Told, String> {
        let (client, address) = self.access.agent(cluster, node).await.map_err(|failure| failure.sentence())?;
        let wrong = |why: String| format!("its agent at {address}: {why}");
        let question = Request::get(path(cluster, pods)).body(Vec::new()).map_err(|error| wrong(error.to_string()))?;
        let answer = client.request_stream(question).await.map_err(|error| wrong(access::said(&error)))?;
        let mut text = Vec::new();
        // One byte more would be too much.
        let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        answer.take(most).read_to_end(&mut text).await.map_err(|error| wrong(error.to_string()))?;
        if text.len() > MOST_BYTES {
            return Err(wrong(format!("it tells more than {MOST_BYTES} bytes")));
        }
        Told::read(&text).map_err(|error| wrong(chain(&error)))
    }
}

impl Source for Agents<'_> {
    fn ask(&self, state: &State, wanted: &Wanted) -> Vec<Answer> {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let why = format!("its agent cannot be asked: {error}");
                return wanted.keys().map(|node| (node.clone(), Err(why.clone()))).collect();
            }
        };
        let answers = stream::iter(wanted).map(|(node, pods)| self.answer(&state.cluster, node, pods));
        runtime.block_on(answers.buffer_unordered(AT_ONCE).collect())
    }
}

/// What an agent is asked for: its node, and these of its pods. One that tells nothing of pods does not read which.
fn path(cluster: &Cluster, pods: &BTreeSet<PodKey>) -> String {
    let term = |Captured { namespace, name, uid }| format!("pod={}", escaped(&format!("{namespace}/{name}/{uid}")));
    let terms: Vec<String> = pods.iter().filter_map(|pod| captured(cluster, pod)).map(term).collect();
    if terms.is_empty() { "/forwarding".to_owned() } else { format!("/forwarding?{}", terms.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::lab;

    #[test]
    fn an_agent_is_asked_for_its_node_and_for_pods_by_the_uids_that_they_have_now() {
        let cluster = lab::state().cluster;
        let path = |pods: &[&str]| path(&cluster, &pods.iter().map(|name| PodKey::new("default", name)).collect());
        assert_eq!(path(&[]), "/forwarding");
        assert_eq!(path(&["p2", "p1"]), "/forwarding?pod=default%2Fp1%2Fu&pod=default%2Fp2%2Fu");
        assert_eq!(path(&["gone"]), "/forwarding");
    }
}
