use proptest::{collection, prelude::*};

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn selects(selector: &str, pairs: &[(&str, &str)]) -> bool {
    selector.parse::<NodeSelector>().unwrap().matches(&labels(pairs))
}

fn error(selector: &str) -> String {
    selector.parse::<NodeSelector>().unwrap_err().to_string()
}

#[test]
fn all_and_the_empty_selector_select_everything() {
    for selector in ["all()", "", "  ", "all( )", "global()"] {
        assert!(selects(selector, &[]), "{selector:?}");
    }
    assert!(!selects("!all()", &[]));
}

#[test]
fn a_label_that_is_absent_equals_nothing_and_differs_from_everything() {
    assert!(!selects("zone == 'a'", &[]));
    assert!(selects("zone != 'a'", &[]));
    assert!(!selects("zone in {'a', 'b'}", &[]));
    assert!(selects("zone not in {'a', 'b'}", &[]));
    assert!(!selects("zone contains ''", &[]));
    assert!(selects("!has(zone)", &[]));
}

#[test]
fn every_operator_compares_as_calico_documents_it() {
    let node: &[(&str, &str)] = &[("topology.kubernetes.io/zone", "eu-west-1"), ("in", "x")];
    assert!(selects("topology.kubernetes.io/zone == \"eu-west-1\"", node));
    assert!(selects("has(topology.kubernetes.io/zone)", node));
    assert!(selects("topology.kubernetes.io/zone contains 'west'", node));
    assert!(selects("topology.kubernetes.io/zone starts with 'eu-'", node));
    assert!(selects("topology.kubernetes.io/zone ends with '-1'", node));
    assert!(!selects("topology.kubernetes.io/zone in {}", node));
    assert!(selects("in in {'y','x'}", node));
}

#[test]
fn and_binds_tighter_than_or_and_not_tighter_than_both() {
    assert!(selects("all() || all() && !all()", &[]));
    assert!(!selects("(all() || all()) && !all()", &[]));
    assert!(selects("!has(a) && has(b)", &[("b", "")]));
}

#[test]
fn an_error_names_the_column_and_what_was_expected() {
    assert_eq!(
        error("zone = 'a'"),
        "column 6: expected a label's name, a value in quotes, an operator or a parenthesis, found ="
    );
    assert_eq!(error("zone == a"), "column 9: expected a value in quotes, found a");
    assert_eq!(error("zone =="), "column 8: expected a value in quotes, found the end");
    assert_eq!(error("zone == 'a"), "column 9: expected a closing quote, found 'a");
    assert_eq!(error("(all()"), "column 7: expected &&, || or ), found the end");
    assert_eq!(error("all() all()"), "column 7: expected &&, || or the end, found all");
    assert_eq!(error("any()"), "column 1: expected all(), global() or has(…): there is no other function, found any");
    assert_eq!(error("zone not 'a'"), "column 10: expected in after not, found 'a'");
    assert_eq!(error("'é' =="), "column 1: expected a label's name, all(), has(…), ! or (, found 'é'");
}

#[test]
fn nesting_without_end_is_refused_and_not_followed() {
    assert!(error(&"!".repeat(100_000)).contains("at most 64 nested"));
    assert!(error(&"(".repeat(100_000)).contains("at most 64 nested"));
}

/// The reference: a tree that is evaluated in the most literal way and written out with its own spacing and parentheses.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(usize, String, Vec<String>),
    Not(Box<Tree>),
    Two(bool, Box<Tree>, Box<Tree>),
}

const LEAVES: [&str; 9] = ["all", "has", "==", "!=", "in", "not  in", "contains", "starts with", "ends with"];

impl Tree {
    fn text(&self) -> String {
        match self {
            Self::Leaf(0, ..) => "all()".to_owned(),
            Self::Leaf(1, key, _) => format!("has( {key} )"),
            Self::Leaf(kind @ (4 | 5), key, values) => {
                let quoted: Vec<_> = values.iter().map(|value| format!("'{value}'")).collect();
                format!("{key} {} {{{}}}", LEAVES[*kind], quoted.join(" ,"))
            }
            Self::Leaf(kind, key, values) => {
                format!("{key} {}  \"{}\"", LEAVES[*kind], values.first().map_or("", String::as_str))
            }
            Self::Not(inner) => format!("! ({})", inner.text()),
            Self::Two(and, left, right) => {
                format!("({}){}({})", left.text(), if *and { " && " } else { "||" }, right.text())
            }
        }
    }

    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Leaf(kind, key, values) => {
                let first = values.first().cloned().unwrap_or_default();
                match (*kind, labels.get(key)) {
                    (0, _) => true,
                    (1, value) => value.is_some(),
                    (3 | 5, None) => true,
                    (_, None) => false,
                    (2, Some(value)) => *value == first,
                    (3, Some(value)) => *value != first,
                    (4, Some(value)) => values.contains(value),
                    (5, Some(value)) => !values.contains(value),
                    (6, Some(value)) => value.contains(&first),
                    (7, Some(value)) => value.starts_with(&first),
                    (_, Some(value)) => value.ends_with(&first),
                }
            }
            Self::Not(inner) => !inner.holds(labels),
            Self::Two(true, left, right) => left.holds(labels) && right.holds(labels),
            Self::Two(false, left, right) => left.holds(labels) || right.holds(labels),
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = (0..LEAVES.len(), "[ab/]{1,2}", collection::vec("[ab]{0,2}", 0..3))
        .prop_map(|(kind, key, values)| Tree::Leaf(kind, key, values));
    leaf.prop_recursive(5, 32, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
            (any::<bool>(), inner.clone(), inner).prop_map(|(and, left, right)| Tree::Two(
                and,
                Box::new(left),
                Box::new(right)
            )),
        ]
    })
}

proptest! {
    #[test]
    fn a_selector_decides_as_the_reference_does(
        tree in trees(),
        labels in collection::btree_map("[ab/]{1,2}", "[ab]{0,3}", 0..4),
    ) {
        let selector: NodeSelector = tree.text().parse().unwrap();
        prop_assert_eq!(selector.matches(&labels), tree.holds(&labels), "{}", tree.text());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-c()!&|='\"{}, é]{0,40}") {
        let _ = text.parse::<NodeSelector>();
    }
}
