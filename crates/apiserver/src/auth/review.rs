//! Questions about oneself: `kubectl auth can-i` and `kubectl auth whoami`.

use serde_json::{Value, json};

use super::Identity;
use super::rules::{Attempt, Facts, allows};

/// Fills in the answer of a SelfSubjectAccessReview.
pub fn access_review(identity: &Identity, mut review: Value, facts: &dyn Facts) -> Value {
    let allowed = {
        let spec = &review["spec"];
        let resource = &spec["resourceAttributes"];
        let word = |of: &'_ Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
        let (verb, path);
        let words: Vec<String>;
        let attempt = if resource.is_object() {
            words = ["verb", "group", "resource", "subresource", "namespace", "name"].map(|f| word(resource, f)).into();
            Attempt {
                verb: &words[0],
                group: &words[1],
                resource: &words[2],
                subresource: &words[3],
                namespace: &words[4],
                name: &words[5],
                path: "",
            }
        } else {
            verb = word(&spec["nonResourceAttributes"], "verb");
            path = word(&spec["nonResourceAttributes"], "path");
            Attempt { verb: &verb, path: &path, ..Attempt::default() }
        };
        allows(identity, &attempt, facts)
    };
    review["status"] = json!({ "allowed": allowed });
    review
}

/// Fills in the answer of a SelfSubjectReview.
pub fn self_review(identity: &Identity, mut review: Value) -> Value {
    review["status"] = json!({ "userInfo": { "username": identity.user, "groups": identity.groups } });
    review
}
