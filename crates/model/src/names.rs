//! Names of the objects in the cluster: cheap to clone, not to be confused with each other.

use std::{cell::RefCell, collections::HashSet, fmt, sync::Arc};

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

        impl From<Arc<str>> for $name {
            fn from(text: Arc<str>) -> Self {
                Self(text)
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
                Self { namespace: interned(namespace).into(), name: Arc::from(name) }
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

/// So many are remembered: more than a cluster has nodes, zones, namespaces and names of ports, and no room to speak of.
const INTERNED: usize = 1 << 14;
/// As long as a name of an object may be, in bytes (a DNS subdomain, RFC 1123). What is longer is not remembered: an object may
/// hold texts of a megabyte, and what is remembered outlives it.
const LONGEST: usize = 253;

thread_local! {
    static INTERNED_HERE: RefCell<HashSet<Arc<str>>> = RefCell::default();
}

/// A text that many objects have, such as a node's name or a zone's: one allocation for all that are read by the same thread. Where there are
/// very many such texts they are remembered anew; those that were given out stay as they are.
#[must_use]
pub fn interned(text: &str) -> Arc<str> {
    if text.len() > LONGEST {
        return Arc::from(text);
    }
    INTERNED_HERE.with_borrow_mut(|known| {
        if let Some(known) = known.get(text) {
            return Arc::clone(known);
        }
        if known.len() >= INTERNED {
            known.clear();
        }
        let new: Arc<str> = Arc::from(text);
        known.insert(Arc::clone(&new));
        new
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_one_allocation_and_what_was_given_out_stays_when_it_is_remembered_anew() {
        let (first, again, other) = (interned("node1"), interned("node1"), interned("node2"));
        assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &other));
        (0..INTERNED).for_each(|number| drop(interned(&number.to_string())));
        assert!(INTERNED_HERE.with_borrow(|known| known.len() <= INTERNED));
        assert_eq!((&*first, &*interned("node1")), ("node1", "node1"));
    }

    #[test]
    fn what_is_longer_than_a_name_can_be_is_not_remembered() {
        let [longest, longer] = [LONGEST, LONGEST + 1].map(|length| "a".repeat(length));
        assert!(Arc::ptr_eq(&interned(&longest), &interned(&longest)));
        assert!(!Arc::ptr_eq(&interned(&longer), &interned(&longer)));
    }
}
