use serde_json::json;

use super::*;

#[test]
fn label_selectors_select_by_equality_sets_and_existence() {
    let labels = json!({"app":"web","env":"prod","rank":"7","empty":""});
    let labels = labels.as_object();
    for (selector, wanted) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        (" app = web , env = prod ", true),
        ("app=db", false),
        ("app!=web", false),
        ("app!=db", true),
        ("missing!=x", true),
        ("app in (web, db)", true),
        ("app in (db)", false),
        ("app notin (db),env", true),
        ("missing notin (a,b)", true),
        ("missing in (a)", false),
        ("env", true),
        ("missing", false),
        ("!missing", true),
        ("!env", false),
        ("! env", false),
        ("empty=", true),
        ("app=", false),
        ("rank>5", true),
        ("rank<5", false),
        ("app in (web),rank > 6,!x", true),
        ("kubernetes.io/os=linux", false),
    ] {
        assert_eq!(LabelSelector::parse(selector).unwrap().matches(labels), wanted, "{selector}");
    }
    assert!(LabelSelector::parse("").unwrap().matches(None));
    assert!(!LabelSelector::parse("a").unwrap().matches(None));
}

#[test]
fn malformed_label_selectors_are_refused() {
    for selector in
        ["=x", "a,,b", "a in x", "a in (x", "a b", "a in (x))", "a=b=c", "a=-x", "a>x", "/a=b", "a~b", "a=b,"]
    {
        assert!(LabelSelector::parse(selector).is_err(), "{selector}");
    }
}

#[test]
fn field_selectors_compare_fields_as_text() {
    let pod = json!({"metadata":{"name":"a","namespace":"n"},"spec":{"nodeName":"node1"},"status":{"phase":"Running"}});
    for (selector, wanted) in [
        ("", true),
        ("metadata.name=a", true),
        ("metadata.name==a,metadata.namespace=n", true),
        ("metadata.name=b", false),
        ("metadata.name!=b", true),
        ("spec.nodeName=node1,status.phase!=Succeeded,status.phase!=Failed", true),
        ("status.podIP=", true),
        ("spec.hostNetwork=false", true),
        ("spec.hostNetwork=true", false),
    ] {
        assert_eq!(FieldSelector::parse(selector).unwrap().matches(&pod), wanted, "{selector}");
    }
}

#[test]
fn events_are_selected_by_what_they_are_about() {
    let selector = "involvedObject.kind=Pod,involvedObject.name=a,involvedObject.uid=u";
    let selector = FieldSelector::parse(selector).unwrap();
    assert!(selector.validate("", "Event").is_ok());
    assert!(selector.matches(&json!({"involvedObject":{"kind":"Pod","name":"a","uid":"u"}})));
    assert!(selector.matches(&json!({"regarding":{"kind":"Pod","name":"a","uid":"u"}})));
    assert!(!selector.matches(&json!({"involvedObject":{"kind":"Pod","name":"b","uid":"u"}})));
    let by_source = FieldSelector::parse("source=kubelet").unwrap();
    assert!(by_source.matches(&json!({"source":{"component":"kubelet"}})));
    assert!(by_source.matches(&json!({"reportingComponent":"kubelet"})));
}

#[test]
fn a_required_name_can_be_looked_up() {
    let name = |text: &str| FieldSelector::parse(text).unwrap().required_name().map(str::to_owned);
    assert_eq!(name("metadata.name=kube-root-ca.crt").as_deref(), Some("kube-root-ca.crt"));
    assert_eq!(name("metadata.name!=a"), None);
    assert_eq!(name("status.phase=Running"), None);
}

#[test]
fn values_may_hold_escaped_commas_and_equal_signs() {
    let selector = FieldSelector::parse(r"reason=a\,b\=c\\,type=Normal").unwrap();
    assert!(selector.matches(&json!({"reason":r"a,b=c\","type":"Normal"})));
    for wrong in ["a", "=b", r"a=\x", "a=b=c"] {
        assert!(FieldSelector::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_field_that_the_kind_does_not_support_is_refused_by_name() {
    let validate = |text: &str, group: &str, kind: &str| FieldSelector::parse(text).unwrap().validate(group, kind);
    assert!(validate("spec.nodeName=x", "", "Pod").is_ok());
    assert!(validate("metadata.name=x", "example.org", "Thing").is_ok());
    let error = validate("spec.nodename=x", "", "Service").unwrap_err();
    assert_eq!(
        error.to_string(),
        "field label not supported: spec.nodename; Service can be selected by: metadata.name, metadata.namespace, \
         spec.clusterIP, spec.type"
    );
}
