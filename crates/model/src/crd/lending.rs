//! How nodes ask the owner of a block for one of its addresses.
//!
//! A block's owner gives its addresses from its own journal, without the API. So another node cannot just take one in the IPAMBlock
//! object, as the owner may have given it a moment before: it *asks*, by an entry in an annotation of the object, and the owner
//! answers by publishing the allocation (or none) and removing the entry, in one update. Both sides write with
//! compare-and-swap on the object's `resourceVersion`.

use serde::{Deserialize, Serialize};

use super::IPAMBlock;

/// The annotation of an IPAMBlock that holds what other nodes ask its owner: a JSON list of [`LendingRequest`].
pub const REQUESTS: &str = "ipam.podnet.io/requests";

/// What a node asks of the owner of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LendingRequest {
    /// Who asks.
    pub node: String,
    /// What the address is freed by.
    pub handle: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's `metadata.uid`.
    pub uid: String,
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    /// Any address, or exactly this one.
    Borrow(Option<String>),
    /// To take back this address, which nobody on the node uses any more.
    Return(String),
}

/// The requests of a block. An annotation that cannot be read holds none.
#[must_use]
pub fn requests(block: &IPAMBlock) -> Vec<LendingRequest> {
    let text = block.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REQUESTS));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Replaces the requests of a block; none removes the annotation.
pub fn set_requests(block: &mut IPAMBlock, requests: &[LendingRequest]) {
    let annotations = block.metadata.annotations.get_or_insert_default();
    match serde_json::to_string(requests) {
        Ok(text) if !requests.is_empty() => drop(annotations.insert(REQUESTS.to_owned(), text)),
        _ => drop(annotations.remove(REQUESTS)),
    }
}
