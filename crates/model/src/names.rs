//! Names of the objects in the cluster: cheap to clone, not to be confused with each other.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: AsRef<str> + ?Sized> From<&T> for $name {
            fn from(text: &T) -> Self {
                Self(Arc::from(text.as_ref()))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name {
            /// The namespace that the object lives in.
            pub namespace: Namespace,
            /// The object's name within the namespace.
            pub name: Arc<str>,
        }

        impl $name {
            /// The key of the object `name` in `namespace`.
            #[must_use]
            pub fn new(namespace: &str, name: &str) -> Self {
                Self { namespace: namespace.into(), name: Arc::from(name) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.namespace, self.name)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

name!(
    /// A Node's `metadata.name`.
    NodeName
);
name!(
    /// A Namespace's `metadata.name`.
    Namespace
);
name!(
    /// An IPPool's `metadata.name`.
    PoolName
);
name!(
    /// A port's name in a Service or an EndpointSlice; empty where the port has none.
    PortName
);
name!(
    /// A network interface's name: at most 15 bytes (`IFNAMSIZ` less the terminator, `netdevice(7)`).
    LinkName
);
key!(
    /// A Pod's namespace and name.
    PodKey
);
key!(
    /// A Service's namespace and name.
    ServiceKey
);
key!(
    /// An EndpointSlice's namespace and name.
    SliceKey
);
