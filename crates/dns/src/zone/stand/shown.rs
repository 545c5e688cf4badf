//! How Services are shown in the zones of each plugin.

use super::{Face, Stand};
use crate::{
    chain::{ExternalOptions, KubernetesOptions},
    zone::{known::Record, packed::Kind},
};

impl<'a> Stand<'a> {
    /// A Service in a zone of `kubernetes`; none where it has no names there.
    pub(in crate::zone) fn inside(record: &'a Record, options: &KubernetesOptions, tail: &'a [u8]) -> Option<Self> {
        let stand = Self::of(record, options, tail)?;
        stand.is_seen(options).then_some(stand)
    }

    /// A Service of the cluster set in a zone of `multicluster`; none where it has no names there. Only endpoints of a headless one have
    /// names (KEP-1645, the DNS specification, §2.3.4 and §2.4.1).
    pub(in crate::zone) fn imported(record: &'a Record, options: &KubernetesOptions, tail: &'a [u8]) -> Option<Self> {
        let stand = Self::of(record, options, tail)?;
        let with_hosts = stand.with_hosts && matches!(stand.face, Face::Headless);
        let stand = Self { in_set: true, with_hosts, ..stand };
        stand.is_seen(options).then_some(stand)
    }

    /// The endpoints of a headless Service that are in a zone of the topology, be there any or not (`zonal`); none where the Service is
    /// another one, or endpoints have no names.
    pub(in crate::zone) fn zonal(
        record: &'a Record,
        options: &KubernetesOptions,
        tail: &'a [u8],
        zone: &'a str,
    ) -> Option<Self> {
        let stand = Self::of(record, options, tail)?;
        let is_meant = matches!(stand.face, Face::Headless) && stand.with_hosts;
        is_meant.then_some(Self { in_zone: Some(zone), kept: false, ..stand })
    }

    /// A Service in a zone of `k8s_external`; none where it has no names there.
    pub(in crate::zone) fn outside(
        record: &'a Record,
        options: &ExternalOptions,
        kubernetes: &KubernetesOptions,
        tail: &'a [u8],
    ) -> Option<Self> {
        let front = record.front.as_ref()?;
        let (face, with_hosts) = match front.outside.as_deref() {
            Some(outside) if !outside.addrs.is_empty() => (Face::Addrs(&outside.addrs), false),
            Some(outside) => (Face::Alias(outside.name.as_ref()?, true), false),
            None if front.kind != Kind::Headless || !options.headless || kubernetes.no_endpoints => return None,
            None => (Face::Headless, true),
        };
        let by_pod = kubernetes.endpoint_pod_names;
        let stand = Self {
            record,
            front,
            face,
            with_hosts,
            by_pod,
            in_set: false,
            in_zone: None,
            kept: false,
            ttl: options.ttl,
            tail,
        };
        (!with_hosts || stand.endpoints().next().is_some()).then_some(stand)
    }

    /// A Service as its object says, whether it is seen or not; none where it has no object, or points to no name.
    fn of(record: &'a Record, options: &KubernetesOptions, tail: &'a [u8]) -> Option<Self> {
        let front = record.front.as_ref()?;
        let face = match &front.kind {
            Kind::Virtual(addrs) => Face::Addrs(addrs),
            Kind::Headless => Face::Headless,
            Kind::External(target) => Face::Alias(target.as_ref()?, false),
        };
        let with_hosts = !options.no_endpoints && !matches!(face, Face::Alias(..));
        let by_pod = options.endpoint_pod_names;
        let (in_set, in_zone, kept, ttl) = (false, None, true, options.ttl);
        Some(Self { record, front, face, with_hosts, by_pod, in_set, in_zone, kept, ttl, tail })
    }

    /// Whether it has names: a headless Service without endpoints that are told does not exist, nor does one that is not to be seen empty.
    fn is_seen(&self, options: &KubernetesOptions) -> bool {
        let needs_hosts = match self.face {
            Face::Addrs(_) => options.ignore_empty,
            Face::Headless => true,
            Face::Alias(..) => false,
        };
        let unseen = matches!(self.face, Face::Headless) && !self.with_hosts;
        !unseen && (!needs_hosts || self.endpoints().next().is_some())
    }
}
