//! The API as its clients see it: raw requests, kube-rs over TLS, and kubectl.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod all {
    mod cluster;
    mod custom_kinds;
    mod deletion;
    mod durability;
    mod hostile;
    mod identities;
    mod kubectl;
    mod services;
    mod speed;
    mod streaming;
    mod verbs;
    mod watches;
}
