#![allow(clippy::needless_pass_by_value, reason = "json!(…) as an argument reads best by value")]

use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:10:00Z";

/// A Deployment with its ReplicaSets, stepped through a rollout as the cluster would.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    pods: Vec<Arc<Pod>>,
    now: Timestamp,
}

impl World {
    fn new(replicas: i32, strategy: Value) -> Self {
        let deployment = json!({
            "metadata": { "name": "web", "namespace": "shop", "uid": "d", "generation": 1,
                          "annotations": { "kubernetes.io/change-cause": "first", "kubectl.kubernetes.io/last-applied-configuration": "{}" } },
            "spec": {
                "replicas": replicas, "progressDeadlineSeconds": 600, "strategy": strategy,
                "selector": { "matchLabels": { "app": "web" } },
                "template": { "metadata": { "labels": { "app": "web" } },
                              "spec": { "containers": [{ "name": "c", "image": "v1" }] } },
            },
        });
        let deployment = serde_json::from_value(deployment).unwrap();
        Self { deployment, sets: Vec::new(), pods: Vec::new(), now: NOW.parse().unwrap() }
    }

    fn spec(&mut self) -> &mut DeploymentSpec {
        let generation = self.deployment.metadata.generation.get_or_insert(0);
        *generation += 1;
        self.deployment.spec.as_mut().unwrap()
    }

    fn image(&mut self, image: &str) {
        self.spec().template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    }

    fn plan(&self) -> Plan {
        plan(&View { deployment: &self.deployment, sets: &self.sets, pods: &self.pods, now: self.now })
    }

    /// Performs what the plan says.
    fn step(&mut self) -> Plan {
        let plan = self.plan();
        for action in &plan.actions {
            match action {
                Action::Create(set) => {
                    let mut set = (**set).clone();
                    set.metadata.uid = set.metadata.name.clone();
                    self.sets.push(Arc::new(set));
                }
                Action::Update { set, .. } => {
                    let at = self.sets.iter().position(|known| known.metadata.name == set.metadata.name).unwrap();
                    self.sets[at] = Arc::new((**set).clone());
                }
                Action::Delete { name, .. } => self.sets.retain(|set| set.metadata.name.as_deref() != Some(name)),
            }
        }
        if let Some(revision) = &plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(REVISION.to_owned(), revision.clone());
        }
        self.deployment.status = Some(plan.status.clone());
        plan
    }

    /// All pods that the sets want are there; those of the sets whose image is not broken are available.
    fn settle(&mut self) {
        for set in &mut self.sets {
            let replicas = crate::controllers::deployment::members::replicas(set);
            let image = |set: &ReplicaSet| set.spec.clone()?.template?.spec?.containers[0].image.clone();
            let available = if image(set).as_deref() == Some("broken") { 0 } else { replicas };
            let generation = set.metadata.generation;
            Arc::make_mut(set).status = Some(
                serde_json::from_value(json!({
                    "replicas": replicas, "readyReplicas": available, "availableReplicas": available,
                    "observedGeneration": generation,
                }))
                .unwrap(),
            );
        }
    }

    /// Sizes by image.
    fn sizes(&self) -> Vec<(String, i32)> {
        let sizes = self.sets.iter().map(|set| {
            let spec = set.spec.clone().unwrap();
            (spec.template.unwrap().spec.unwrap().containers[0].image.clone().unwrap(), spec.replicas.unwrap())
        });
        sizes.collect()
    }

    fn run(&mut self) {
        for _ in 0..100 {
            let plan = self.step();
            self.settle();
            if plan.actions.is_empty() && self.plan().actions.is_empty() {
                self.step();
                return;
            }
        }
        panic!("no end in sight: {:?}", self.sizes());
    }

    fn condition(&self, type_: &str) -> (String, String) {
        let conditions = self.deployment.status.clone().unwrap().conditions.unwrap();
        let condition = conditions.into_iter().find(|condition| condition.type_ == type_).unwrap();
        (condition.status, condition.reason.unwrap())
    }
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } })
}

fn sizes(of: &[(&str, i32)]) -> Vec<(String, i32)> {
    of.iter().map(|(image, size)| ((*image).to_owned(), *size)).collect()
}

#[test]
fn percentages_round_the_surge_up_and_the_unavailable_down_and_never_both_to_nothing() {
    for (replicas, surge, unavailable, wanted) in [
        (10, json!("25%"), json!("25%"), (3, 2)),
        (1, json!("25%"), json!("25%"), (1, 0)),
        (3, json!(0), json!("25%"), (0, 1)),
        (3, json!(2), json!(5), (2, 3)),
    ] {
        let world = World::new(replicas, rolling(surge.clone(), unavailable.clone()));
        let limits = Limits::of(world.deployment.spec.as_ref().unwrap());
        assert_eq!((limits.surge, limits.unavailable), wanted, "{surge} and {unavailable} of {replicas}");
    }
}

#[test]
fn a_new_deployment_gets_its_set_at_once_at_full_size() {
    let mut world = World::new(3, rolling(json!(1), json!(0)));
    let plan = world.step();
    let [Action::Create(set)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    assert_eq!(set.spec.as_ref().unwrap().replicas, Some(3));
    let hash = &set.metadata.labels.as_ref().unwrap()[HASH_LABEL];
    assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
    assert_eq!(set.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap()[HASH_LABEL], *hash);
    let annotations = set.metadata.annotations.as_ref().unwrap();
    assert_eq!((annotations[REVISION].as_str(), annotations["kubernetes.io/change-cause"].as_str()), ("1", "first"));
    assert!(!annotations.contains_key("kubectl.kubernetes.io/last-applied-configuration"));
    assert_eq!(world.condition("Progressing"), ("True".to_owned(), "NewReplicaSetCreated".to_owned()));
    assert_eq!(world.condition("Available").0, "False");
}

#[test]
fn a_rollout_ends_with_the_new_set_alone_and_says_so() {
    let mut world = World::new(3, rolling(json!(1), json!(0)));
    world.run();
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    world.image("v2");
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 0), ("v2", 3)]));
    let status = world.deployment.status.clone().unwrap();
    assert_eq!((status.replicas, status.updated_replicas, status.available_replicas), (Some(3), Some(3), Some(3)));
    assert_eq!((status.unavailable_replicas, status.observed_generation), (None, Some(2)));
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    assert_eq!(world.deployment.metadata.annotations.unwrap()[REVISION], "2");
}

#[test]
fn a_rollout_never_exceeds_its_surge_nor_falls_below_its_minimum() {
    for (surge, unavailable) in [(1, 0), (0, 1), (2, 2), (3, 0)] {
        let mut world = World::new(5, rolling(json!(surge), json!(unavailable)));
        world.run();
        world.image("v2");
        for _ in 0..40 {
            world.step();
            let wanted: i32 = world.sizes().iter().map(|(_, size)| size).sum();
            assert!(wanted <= 5 + surge, "{:?}", world.sizes());
            let available: i32 = world
                .sets
                .iter()
                .map(|set| {
                    let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
                    available.min(set.spec.as_ref().unwrap().replicas.unwrap())
                })
                .sum();
            assert!(available >= 5 - unavailable, "{:?}", world.sizes());
            world.settle();
        }
        assert_eq!(world.sizes(), sizes(&[("v1", 0), ("v2", 5)]));
    }
}

#[test]
fn pods_of_a_broken_template_do_not_displace_good_ones_and_the_deadline_tells() {
    let mut world = World::new(4, rolling(json!(1), json!(1)));
    world.run();
    world.image("broken");
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 3), ("broken", 2)]));
    assert_eq!(world.plan().wake, Some(Duration::from_secs(600)));
    world.now = world.now.checked_add(Duration::from_secs(600)).unwrap();
    world.step();
    assert_eq!(world.condition("Progressing"), ("False".to_owned(), "ProgressDeadlineExceeded".to_owned()));
    world.image("v1");
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 4), ("broken", 0)]));
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    assert_eq!(world.deployment.metadata.annotations.unwrap()[REVISION], "3", "a rollback is a new revision");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = World::new(2, json!({ "type": "Recreate" }));
    world.run();
    let pod = json!({
        "metadata": { "name": "p", "namespace": "shop", "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": world.sets[0].metadata.uid, "controller": true }] },
        "status": { "phase": "Running" },
    });
    world.pods = vec![Arc::new(serde_json::from_value(pod).unwrap())];
    world.image("v2");
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 0)]));
    world.pods.clear();
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 0), ("v2", 2)]));
}

#[test]
fn a_new_size_in_the_middle_of_a_rollout_is_shared_out() {
    let mut world = World::new(10, rolling(json!(3), json!(2)));
    world.run();
    world.image("broken");
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 8), ("broken", 5)]));
    world.spec().replicas = Some(15);
    world.step();
    assert_eq!(world.sizes(), sizes(&[("v1", 11), ("broken", 7)]));
}

#[test]
fn a_paused_deployment_can_be_scaled_but_does_not_roll() {
    let mut world = World::new(2, rolling(json!(1), json!(0)));
    world.run();
    world.image("v2");
    world.spec().paused = Some(true);
    world.spec().replicas = Some(4);
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 4)]));
    assert_eq!(world.condition("Progressing").1, "DeploymentPaused");
    world.spec().paused = Some(false);
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 0), ("v2", 4)]));
}

#[test]
fn old_sets_beyond_the_history_limit_are_deleted_oldest_first() {
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    world.spec().revision_history_limit = Some(1);
    for image in ["v1", "v2", "v3", "v4"] {
        world.image(image);
        world.run();
    }
    assert_eq!(world.sizes(), sizes(&[("v3", 0), ("v4", 1)]));
}

#[test]
fn a_deployment_of_nothing_is_complete() {
    let mut world = World::new(0, rolling(json!("25%"), json!("25%")));
    world.run();
    assert_eq!(world.sizes(), sizes(&[("v1", 0)]));
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    assert_eq!(world.condition("Available").0, "True");
}
