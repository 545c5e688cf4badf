//! The controllers against the API that they are made for, with nodes that only pretend.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod controllers {
    mod collection;
    mod endpoints;
    mod fixture;
    mod namespaces;
    mod nodes;
    mod workloads;
}
