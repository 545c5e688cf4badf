//! From an edit to messages.

use podnet_model::Family;
use podnet_planner::ruleset::Edit;

use super::{
    element::{self, Element, backend_element, set_elements, verdict_element},
    object::{self, Kind},
    transaction::Transaction,
};

pub(super) fn render(transaction: &mut Transaction<'_>, family: Family, edit: &Edit) {
    match edit {
        Edit::SetChain(name, chain) => {
            object::make_chain(transaction, name, chain.hook);
            object::remove_rules(transaction, name);
            object::add_rules(transaction, family, name, chain);
        }
        Edit::RemoveChain(name) => object::remove_chain(transaction, name),
        Edit::AddVerdictMap(name) => object::make_set(transaction, family, name, Kind::VerdictMap),
        Edit::AddBackendMap(name) => object::make_set(transaction, family, name, Kind::BackendMap),
        Edit::AddMemory(name) => object::make_set(transaction, family, name, Kind::Memory),
        Edit::AddSet(name, set) => object::fill_new_set(transaction, family, name, set),
        Edit::RemoveSet(name) => object::remove_set(transaction, name),
        Edit::SetVerdict { map, key, chain, replaces } => {
            let what = format!("point {key} at chain {chain} in map {map}");
            set(transaction, map, verdict_element(*key, chain), *replaces, &what);
        }
        Edit::RemoveVerdict { map, key } => {
            element::remove(transaction, map, &[Element::key(*key)], &format!("remove {key} from map {map}"));
        }
        Edit::SetBackend { map, key, to, replaces } => {
            let what = format!("put {to} at {key} of map {map}");
            set(transaction, map, backend_element(*key, *to), *replaces, &what);
        }
        Edit::RemoveBackend { map, key } => {
            element::remove(transaction, map, &[Element::key(*key)], &format!("empty {key} of map {map}"));
        }
        Edit::AddElements(name, set) => {
            element::add(transaction, name, &set_elements(set), &format!("add elements to set {name}"));
        }
        Edit::RemoveElements(name, set) => {
            let keys: Vec<Element<'_>> =
                set_elements(set).into_iter().map(|element| Element { value: None, ..element }).collect();
            element::remove(transaction, name, &keys, &format!("remove elements from set {name}"));
        }
    }
}

/// The kernel does not change an element's value: the old one goes and the new one comes in the same transaction.
fn set(transaction: &mut Transaction<'_>, map: &str, element: Element<'_>, replaces: bool, what: &str) {
    if replaces {
        element::remove(transaction, map, &[Element { value: None, ..element }], what);
    }
    element::add(transaction, map, &[element], what);
}
