//! Kubernetes API access: watches, status writes, leases
