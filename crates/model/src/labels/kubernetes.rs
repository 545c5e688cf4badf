//! Kubernetes' own spelling of selectors.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{Expression, NodeSelector};

impl NodeSelector {
    /// What a `LabelSelector` selects; an empty one selects everything.
    ///
    /// # Errors
    ///
    /// An operator that there is not.
    pub fn of_label_selector(selector: &LabelSelector) -> Result<Self, String> {
        let labels = selector.match_labels.iter().flatten();
        let equal = labels.map(|(key, value)| Ok(Expression::Equals(key.clone(), value.clone())));
        let expressions = selector.match_expressions.iter().flatten().map(requirement);
        let parts: Vec<Expression> = equal.chain(expressions).collect::<Result<_, _>>()?;
        let text = serde_json::to_string(selector).unwrap_or_default();
        Ok(Self { text: Arc::from(text), expression: Expression::And(parts) })
    }
}

fn requirement(requirement: &LabelSelectorRequirement) -> Result<Expression, String> {
    let (key, values) = (requirement.key.clone(), requirement.values.clone().unwrap_or_default());
    match requirement.operator.as_str() {
        "In" => Ok(Expression::In(key, values)),
        "NotIn" => Ok(Expression::NotIn(key, values)),
        "Exists" => Ok(Expression::Has(key)),
        "DoesNotExist" => Ok(Expression::Not(Box::new(Expression::Has(key)))),
        other => Err(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn matches(selector: Value, labels: Value) -> bool {
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap();
        NodeSelector::of_label_selector(&selector).unwrap().matches(&labels)
    }

    #[test]
    fn a_label_selector_selects_what_kubernetes_says() {
        for (selector, labels, wanted) in [
            (json!({}), json!({}), true),
            (json!({"matchLabels": {"a": "b"}}), json!({"a": "b", "c": "d"}), true),
            (json!({"matchLabels": {"a": "b"}}), json!({"a": "c"}), false),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]}),
                json!({"a": "c"}),
                true,
            ),
            (json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}), json!({}), true),
            (json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}), json!({}), false),
            (json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}), json!({}), true),
        ] {
            assert_eq!(matches(selector.clone(), labels.clone()), wanted, "{selector} {labels}");
        }
        let wrong = serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})).unwrap();
        assert_eq!(NodeSelector::of_label_selector(&wrong), Err("Near".to_owned()));
    }
}
