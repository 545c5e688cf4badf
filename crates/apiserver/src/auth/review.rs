//! Questions about oneself, `kubectl auth can-i` and `kubectl auth whoami`; and, by those who serve others, about these.

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

/// Fills in the answer of a SubjectAccessReview: what the user that it names may do, who is in the groups that it names and in no other.
pub fn subject_access_review(review: Value, facts: &dyn Facts) -> Value {
    let groups = review["spec"]["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let groups = groups.map(str::to_owned).collect();
    let identity = Identity { user: review["spec"]["user"].as_str().unwrap_or_default().to_owned(), groups };
    access_review(&identity, review, facts)
}

/// Fills in the answer of a SelfSubjectReview.
pub fn self_review(identity: &Identity, mut review: Value) -> Value {
    review["status"] = json!({ "userInfo": { "username": identity.user, "groups": identity.groups } });
    review
}
