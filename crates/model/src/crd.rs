//! The `crd.projectcalico.org/v1` types.
