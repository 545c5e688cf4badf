//! STATUS: whether an ADD can be served (specification, "STATUS"). The socket is there only while the agent is ready.

use podnet_kernel::cni_wire::Failure;
use podnet_model::errors::chain;

use super::Attachments;

impl Attachments {
    pub(super) fn status(&self) -> Result<(), Failure> {
        if let Some(why) = self.network.lasting_failure() {
            return Err(Failure {
                code: Failure::LIMITED,
                msg: format!(
                    "this node's network is not as the cluster wants it, pods may not reach all others: {why}"
                ),
                details: "The agent tries it again by itself; `podnet logs agent` tells more.".to_owned(),
            });
        }
        self.addresses.outlook().map_err(|error| Failure {
            code: Failure::NOT_AVAILABLE,
            msg: format!("no pod can get an address on this node: {}", chain(&error)),
            details: "Pods that end give their addresses back; another pool, or a larger one, gives more.".to_owned(),
        })
    }
}
