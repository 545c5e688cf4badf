//! Records in etcd, laid out as SkyDNS does: a key is the labels of a name, the last one first, below a path, and its value is JSON.
//!
//! `www.example.org` is `/skydns/org/example/www`, and everything below that key is an answer for the name, too. [`Place`] says which
//! keys a name's records have, [`Service`] is what one of them says, [`records`] makes records of several.

mod place;
pub mod records;
mod service;

pub use place::Place;
pub use service::{BadService, Host, Service, grouped};

use std::io;

use futures::future::BoxFuture;

/// Which keys of a store are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Keys {
    /// This one.
    One(Vec<u8>),
    /// Those that begin with this.
    Below(Vec<u8>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The seconds that its lease has left; none: it has no lease.
    pub lease: Option<u32>,
}

/// A store of keys and values.
pub trait Store: Send + Sync {
    /// The entries of keys, in the order of the keys. It fails when the store does not answer in time, and where there are more than
    /// anybody could want to know.
    fn find(&self, keys: Keys) -> BoxFuture<'static, io::Result<Vec<Entry>>>;
}
