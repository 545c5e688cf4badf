//! API object to model.
