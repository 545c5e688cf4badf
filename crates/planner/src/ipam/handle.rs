//! What addresses are held by.

use std::{fmt, sync::Arc};

/// What an address is given to and freed by: an interface of a sandbox.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(Arc<str>);

impl Handle {
    /// The handle of `interface` in the sandbox with this id (`CNI_CONTAINERID`, `CNI_IFNAME`). Neither may hold a `/`.
    #[must_use]
    pub fn new(sandbox: &str, interface: &str) -> Self {
        Self(Arc::from(format!("{sandbox}/{interface}")))
    }

    /// The handle as text, as the journal and the IPAMBlock's attributes hold it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The sandbox's id.
    #[must_use]
    pub fn sandbox(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(sandbox, _)| sandbox)
    }
}

impl From<&str> for Handle {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
