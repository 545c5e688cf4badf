//! Labels and the selectors that match them.

use std::{collections::BTreeMap, sync::Arc};

/// An object's `metadata.labels`.
pub type Labels = Arc<BTreeMap<String, String>>;

/// A pool's `nodeSelector`, in Calico's selector language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSelector;
