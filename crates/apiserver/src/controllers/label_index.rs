//! Which objects carry a label: so that nobody has to look through a whole namespace for them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{PoisonError, RwLock},
};

/// A label's key and value.
type Label = (String, String);

/// The names of objects by namespace and label.
#[derive(Default)]
pub(crate) struct LabelIndex {
    namespaces: RwLock<HashMap<String, HashMap<Label, BTreeSet<String>>>>,
}

impl LabelIndex {
    /// An object carries these labels from now on.
    pub(crate) fn insert<'l>(
        &self,
        namespace: &str,
        name: &str,
        labels: impl IntoIterator<Item = (&'l String, &'l String)>,
    ) {
        let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
        let index = namespaces.entry(namespace.to_owned()).or_default();
        for (key, value) in labels {
            index.entry((key.clone(), value.clone())).or_default().insert(name.to_owned());
        }
    }

    /// An object carries these labels no more.
    pub(crate) fn remove<'l>(
        &self,
        namespace: &str,
        name: &str,
        labels: impl IntoIterator<Item = (&'l String, &'l String)>,
    ) {
        let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = namespaces.get_mut(namespace) else { return };
        for (key, value) in labels {
            let label = (key.clone(), value.clone());
            if let Some(names) = index.get_mut(&label) {
                names.remove(name);
                if names.is_empty() {
                    index.remove(&label);
                }
            }
        }
        if index.is_empty() {
            namespaces.remove(namespace);
        }
    }

    /// The names of the objects that carry that one of the labels which the fewest carry, in order: all that carry every one of
    /// them are among these. None without labels.
    pub(crate) fn fewest<'l>(
        &self,
        namespace: &str,
        labels: impl IntoIterator<Item = (&'l String, &'l String)>,
    ) -> Vec<String> {
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = namespaces.get(namespace) else { return Vec::new() };
        let found = labels.into_iter().map(|(key, value)| index.get(&(key.clone(), value.clone())));
        let fewest = found.min_by_key(|names| names.map_or(0, BTreeSet::len));
        fewest.flatten().into_iter().flatten().cloned().collect()
    }

    /// The names of the objects that carry any of the labels, in order.
    pub(crate) fn any<'l>(
        &self,
        namespace: &str,
        labels: impl IntoIterator<Item = (&'l String, &'l String)>,
    ) -> BTreeSet<String> {
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = namespaces.get(namespace) else { return BTreeSet::new() };
        let found = labels.into_iter().filter_map(|(key, value)| index.get(&(key.clone(), value.clone())));
        found.flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',').filter_map(|label| label.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn objects_are_found_by_the_label_that_fewest_carry() {
        let index = LabelIndex::default();
        for (name, carried) in [("a", "app=web,tier=x"), ("b", "app=web"), ("c", "app=db,tier=x"), ("d", "tier=x")] {
            index.insert("shop", name, &labels(carried));
        }
        assert_eq!(index.fewest("shop", &labels("app=web,tier=x")), ["a", "b"]);
        assert_eq!(index.fewest("shop", &labels("app=web,tier=none")), Vec::<String>::new());
        assert_eq!(index.fewest("shop", &labels("")), Vec::<String>::new());
        assert_eq!(index.fewest("other", &labels("app=web")), Vec::<String>::new());
        assert_eq!(index.any("shop", &labels("app=db,x=y")), ["c".to_owned()].into());
    }

    #[test]
    fn an_index_of_nothing_holds_nothing() {
        let index = LabelIndex::default();
        index.insert("shop", "a", &labels("app=web,tier=x"));
        index.remove("shop", "a", &labels("app=web"));
        assert_eq!(index.fewest("shop", &labels("tier=x")), ["a"]);
        index.remove("shop", "a", &labels("app=web,tier=x"));
        assert!(index.namespaces.read().unwrap().is_empty());
    }
}
