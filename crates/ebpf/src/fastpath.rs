//! The way past the node's stack for packets between pods; see `bpf/fastpath.c`.

/// The compiled programs: an ELF object.
pub const OBJECT: &[u8] = {
    // Where an ELF object is read in place, its parts have to be aligned.
    #[repr(C, align(8))]
    struct Aligned<T: ?Sized>(T);
    const ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/fastpath.o")));
    &ALIGNED.0
};

/// At an interface's ingress: leads packets of proven flows past the stack, and marks those that are to prove one.
pub const ENTER: &str = "podnet_enter";
/// At the egress towards a pod: takes the proofs.
pub const TO_POD: &str = "podnet_to_pod";
/// At the egress of a device that leads to other nodes: takes the proofs.
pub const TO_NODE: &str = "podnet_to_node";

/// The map of two numbers ([`u64`]): the first is counted up when proofs are to end; until the second, in ns of `CLOCK_MONOTONIC`, proofs count.
pub const PERMITS: &str = "permits";
/// The map of counters ([`u64`] for each processor), by [`Counter`].
pub const COUNTERS: &str = "counters";

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Packets that were led past the stack.
    Forwarded,
    /// Packets that were sent through the stack to prove a flow.
    Probed,
    /// Of those, the ones that came out.
    Proven,
}
