//! The node daemon: CNI socket, reconcilers, health
