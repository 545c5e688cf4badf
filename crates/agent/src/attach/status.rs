//! STATUS: whether an ADD can be served (specification, "STATUS"). The socket is there only while the agent is ready.
//!
//! Runtimes ask every few seconds, and take every error for a network that is not there: the node becomes `NotReady`, its running pods leave
//! their Services and are evicted after some minutes. So only what keeps every pod from being attached is one. Partial failures of the
//! node's network, a pool that is full, an API server that does not answer harm running pods less than that: they are told by
//! the ADD that fails, by the log, metrics and events.

use podnet_kernel::cni_wire::{Failure, Request};
use podnet_model::errors::chain;
use serde_json::Value;

use super::Attachments;

/// The key of the network configuration by which somebody wants to hear of exhausted addresses all the same, as the specification has it.
const ON_FULL: &str = "statusOnFull";

impl Attachments {
    pub(super) fn status(&self, request: &Request) -> Result<(), Failure> {
        if self.addresses.is_journal_broken() {
            return Err(Failure {
                code: Failure::NOT_AVAILABLE,
                msg: "no address can be given: the journal of addresses takes nothing more".to_owned(),
                details: "The agent starts anew by itself; `podnet logs agent` tells more.".to_owned(),
            });
        }
        if !tells_of_full(&request.config)? {
            return Ok(());
        }
        self.addresses.outlook().map_err(|error| Failure {
            code: Failure::NOT_AVAILABLE,
            msg: format!("no pod can get an address on this node: {}", chain(&error)),
            details: "Pods that end give their addresses back; another pool, or a larger one, gives more.".to_owned(),
        })
    }
}

fn tells_of_full(config: &Value) -> Result<bool, Failure> {
    match &config[ON_FULL] {
        Value::Null => Ok(false),
        Value::Bool(tells) => Ok(*tells),
        other => {
            let what = format!("{ON_FULL} of the CNI configuration is {other}; it must be true or false");
            Err(Failure::new(Failure::INVALID_CONFIG, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_full_node_is_told_of_only_where_the_configuration_wants_it() {
        assert_eq!(tells_of_full(&json!({})), Ok(false));
        assert_eq!(tells_of_full(&json!({"statusOnFull": true})), Ok(true));
        let wrong = tells_of_full(&json!({"statusOnFull": "yes"})).unwrap_err();
        assert_eq!(wrong.msg, r#"statusOnFull of the CNI configuration is "yes"; it must be true or false"#);
    }
}
