//! A user, as authentication found it.

/// Members may do everything.
pub const MASTERS: &str = "system:masters";

/// Nodes: the agent and the runtime.
pub const NODES: &str = "system:nodes";

/// Name prefix of a node's user.
const NODE_USER: &str = "system:node:";

/// Name prefix of a service account's user.
const ACCOUNT_USER: &str = "system:serviceaccount:";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Groups, `system:authenticated` among them.
    pub groups: Vec<String>,
}

impl Identity {
    /// A user that proved to be itself.
    pub fn authenticated(user: impl Into<String>, mut groups: Vec<String>) -> Self {
        let everybody = "system:authenticated";
        if !groups.iter().any(|group| group == everybody) {
            groups.push(everybody.to_owned());
        }
        Self { user: user.into(), groups }
    }

    /// This program itself: the controllers.
    pub fn in_process() -> Self {
        Self::authenticated("system:apiserver", vec![MASTERS.to_owned()])
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        Self::authenticated(format!("{ACCOUNT_USER}{namespace}:{name}"), groups)
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|member| member == group)
    }

    /// The node that this is, when it is one.
    pub fn node(&self) -> Option<&str> {
        let name = self.user.strip_prefix(NODE_USER).filter(|name| !name.is_empty())?;
        self.is_in(NODES).then_some(name)
    }

    /// Namespace and name of the service account that this is, when it is one.
    pub fn account(&self) -> Option<(&str, &str)> {
        self.user.strip_prefix(ACCOUNT_USER)?.split_once(':')
    }
}
