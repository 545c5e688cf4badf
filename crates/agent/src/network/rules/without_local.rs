//! Services whose policy `Local` leaves this node without an endpoint, though there are some elsewhere.

use std::collections::BTreeMap;

use podnet_model::ServiceKey;
use podnet_planner::services::{Backends, FrontendChange, FrontendKind, Serving};

use crate::proxy::facts;

/// In how many frontends each of them is.
#[derive(Debug, Default)]
pub(super) struct WithoutLocal {
    internal: BTreeMap<ServiceKey, usize>,
    external: BTreeMap<ServiceKey, usize>,
}

impl WithoutLocal {
    pub(super) fn take(&mut self, changes: &[FrontendChange]) {
        for FrontendChange { before, after, .. } in changes {
            if let Some(after) = after.as_deref()
                && let Some(map) = self.of(after)
            {
                *map.entry(after.service.clone()).or_default() += 1;
            }
            if let Some(before) = before.as_deref()
                && let Some(map) = self.of(before)
                && let Some(count) = map.get_mut(&before.service)
            {
                *count -= 1;
                if *count == 0 {
                    map.remove(&before.service);
                }
            }
        }
    }

    /// Where it is counted, if it is.
    fn of(&mut self, serving: &Serving) -> Option<&mut BTreeMap<ServiceKey, usize>> {
        match serving.kind {
            FrontendKind::ClusterIp => (serving.inside == Backends::Drop).then_some(&mut self.internal),
            _ => (serving.outside == Backends::Drop).then_some(&mut self.external),
        }
    }

    pub(super) fn count(&self) -> facts::WithoutLocal {
        facts::WithoutLocal { internal: self.internal.len(), external: self.external.len() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use podnet_model::Protocol;
    use podnet_planner::ruleset::FrontendKey;

    use super::*;

    fn change(kind: FrontendKind, port: u16, before: Option<Backends>, after: Option<Backends>) -> FrontendChange {
        let serving = |backends: Backends| {
            let inside = if kind == FrontendKind::ClusterIp { backends.clone() } else { Backends::Reject };
            Arc::new(Serving {
                service: ServiceKey::new("test", "web"),
                port: "".into(),
                kind,
                inside,
                outside: backends,
                keeps_source: true,
                affinity: None,
                lasting: Arc::default(),
                sources: None,
            })
        };
        let key = FrontendKey { addr: [10, 96, 0, 1].into(), protocol: Protocol::Tcp, port };
        FrontendChange { key, before: before.map(serving), after: after.map(serving) }
    }

    #[test]
    fn a_service_counts_once_for_each_policy_until_its_last_port_has_an_endpoint_here_or_none_anywhere() {
        use Backends::{Drop, Reject};
        use FrontendKind::{ClusterIp, LoadBalancer, NodePort};
        let mut without = WithoutLocal::default();
        let count = |without: &WithoutLocal| (without.count().internal, without.count().external);
        without.take(&[change(ClusterIp, 1, None, Some(Drop)), change(NodePort, 2, None, Some(Drop))]);
        without.take(&[change(LoadBalancer, 3, None, Some(Drop)), change(LoadBalancer, 4, None, Some(Reject))]);
        assert_eq!(count(&without), (1, 1));
        without.take(&[change(ClusterIp, 1, Some(Drop), Some(Reject)), change(NodePort, 2, Some(Drop), Some(Drop))]);
        without.take(&[change(LoadBalancer, 3, Some(Drop), None)]);
        assert_eq!(count(&without), (0, 1));
        without.take(&[change(NodePort, 2, Some(Drop), None)]);
        assert_eq!(count(&without), (0, 0));
    }
}
