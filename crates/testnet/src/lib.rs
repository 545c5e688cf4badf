//! The namespace test harness: nodes, pods, probes, faults
