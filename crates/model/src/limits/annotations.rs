//! A pod's annotations.

use std::collections::BTreeMap;

use super::{Allowed, BANDWIDTHS, BURSTS, Bandwidth, InvalidLimit, Limits, PacketRate, Peak, PodLimits};

/// Slightly more than a bandwidth may be, as it has to exceed one.
const PEAKS: Allowed = Allowed {
    least: 1_010,
    most: 1_010_000_000_000_000,
    words: "a quantity of bits per second from 1.01k to 1.01P, such as 20M",
};
const MIN_BURSTS: Allowed =
    Allowed { least: 1_000, most: 100_000_000, words: "a quantity of bytes from 1k to 100M, such as 1500" };
/// The kernel counts in nanoseconds for each packet: beyond the most, rounding would be more than a percent of the rate.
const PACKET_RATES: Allowed =
    Allowed { least: 1, most: 10_000_000, words: "a quantity of packets per second from 1 to 10M, such as 1k" };
const PACKET_BURSTS: Allowed =
    Allowed { least: 1, most: 10_000_000, words: "a quantity of packets from 1 to 10M, such as 100" };
const CONNECTIONS: Allowed =
    Allowed { least: 1, most: u32::MAX as u64, words: "a quantity of connections from 1 to 4294967295, such as 1k" };

/// Packets that pass at once where no burst is given: what Calico documents as its default.
const PACKET_BURST: u32 = 5;

/// The annotations of one direction.
struct Names {
    kubernetes: &'static str,
    bandwidth: &'static str,
    burst: &'static str,
    peak: &'static str,
    min_burst: &'static str,
    packet_rate: &'static str,
    packet_burst: &'static str,
    connections: &'static str,
}

const INGRESS: Names = Names {
    kubernetes: "kubernetes.io/ingress-bandwidth",
    bandwidth: "qos.projectcalico.org/ingressBandwidth",
    burst: "qos.projectcalico.org/ingressBurst",
    peak: "qos.projectcalico.org/ingressPeakrate",
    min_burst: "qos.projectcalico.org/ingressMinburst",
    packet_rate: "qos.projectcalico.org/ingressPacketRate",
    packet_burst: "qos.projectcalico.org/ingressPacketBurst",
    connections: "qos.projectcalico.org/ingressMaxConnections",
};

const EGRESS: Names = Names {
    kubernetes: "kubernetes.io/egress-bandwidth",
    bandwidth: "qos.projectcalico.org/egressBandwidth",
    burst: "qos.projectcalico.org/egressBurst",
    peak: "qos.projectcalico.org/egressPeakrate",
    min_burst: "qos.projectcalico.org/egressMinburst",
    packet_rate: "qos.projectcalico.org/egressPacketRate",
    packet_burst: "qos.projectcalico.org/egressPacketBurst",
    connections: "qos.projectcalico.org/egressMaxConnections",
};

/// What asks for a bandwidth of what goes to a pod; the second overrides the first.
pub const INGRESS_BANDWIDTH: [&str; 2] = [INGRESS.kubernetes, INGRESS.bandwidth];
/// What asks for a bandwidth of what comes from a pod; the second overrides the first.
pub const EGRESS_BANDWIDTH: [&str; 2] = [EGRESS.kubernetes, EGRESS.bandwidth];
/// What asks for a rate of packets that go to a pod.
pub const INGRESS_PACKETS: &str = INGRESS.packet_rate;
/// What asks for a rate of packets that come from a pod.
pub const EGRESS_PACKETS: &str = EGRESS.packet_rate;
/// What asks for a limit of connections to a pod.
pub const INGRESS_CONNECTIONS: &str = INGRESS.connections;
/// What asks for a limit of connections from a pod.
pub const EGRESS_CONNECTIONS: &str = EGRESS.connections;

/// What a pod's annotations ask for. Where both name a bandwidth, `qos.projectcalico.org` overrides `kubernetes.io`, as it does in
/// Calico.
///
/// # Errors
///
/// The first annotation that is wrong.
pub fn limits(annotations: &BTreeMap<String, String>) -> Result<PodLimits, InvalidLimit> {
    let reader = Reader(annotations);
    Ok(PodLimits { ingress: reader.direction(&INGRESS)?, egress: reader.direction(&EGRESS)? })
}

struct Reader<'a>(&'a BTreeMap<String, String>);

impl Reader<'_> {
    fn direction(&self, names: &Names) -> Result<Limits, InvalidLimit> {
        let connections = self.value(names.connections, &CONNECTIONS)?;
        Ok(Limits {
            bandwidth: self.bandwidth(names)?,
            packets: self.packets(names)?,
            connections: connections.map(number),
        })
    }

    fn bandwidth(&self, names: &Names) -> Result<Option<Bandwidth>, InvalidLimit> {
        let kubernetes = self.value(names.kubernetes, &BANDWIDTHS)?;
        let rate = self.value(names.bandwidth, &BANDWIDTHS)?.or(kubernetes);
        let burst = self.value(names.burst, &BURSTS)?;
        let peak = self.value(names.peak, &PEAKS)?;
        let min_burst = self.value(names.min_burst, &MIN_BURSTS)?.map(number);
        let Some(rate) = rate else {
            self.without(names.burst, names.bandwidth)?;
            self.without(names.peak, names.bandwidth)?;
            self.without(names.min_burst, names.peak)?;
            return Ok(None);
        };
        if peak.is_none() {
            self.without(names.min_burst, names.peak)?;
        }
        if peak.is_some_and(|peak| peak <= rate) {
            let value = self.0.get(names.peak).cloned().unwrap_or_default();
            return Err(InvalidLimit::Peak { place: place(names.peak), value, bandwidth: rate });
        }
        Ok(Some(Bandwidth { rate, burst, peak: peak.map(|rate| Peak { rate, min_burst }) }))
    }

    fn packets(&self, names: &Names) -> Result<Option<PacketRate>, InvalidLimit> {
        let rate = self.value(names.packet_rate, &PACKET_RATES)?;
        let burst = self.value(names.packet_burst, &PACKET_BURSTS)?;
        if rate.is_none() {
            self.without(names.packet_burst, names.packet_rate)?;
        }
        Ok(rate.map(|rate| PacketRate { rate: number(rate), burst: burst.map_or(PACKET_BURST, number) }))
    }

    fn value(&self, annotation: &str, allowed: &Allowed) -> Result<Option<u64>, InvalidLimit> {
        self.0.get(annotation).map(|text| allowed.read(&place(annotation), text)).transpose()
    }

    fn without(&self, annotation: &str, needed: &str) -> Result<(), InvalidLimit> {
        match self.0.contains_key(annotation) {
            true => Err(InvalidLimit::Alone { place: place(annotation), needed: place(needed) }),
            false => Ok(()),
        }
    }
}

fn place(annotation: &str) -> String {
    format!("the annotation {annotation}")
}

/// The ranges of these values end below 2³².
fn number(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> Result<PodLimits, InvalidLimit> {
        limits(&annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn refused(annotations: &[(&str, &str)]) -> String {
        read(annotations).unwrap_err().to_string()
    }

    #[test]
    fn a_pod_without_annotations_is_not_limited() {
        assert!(read(&[("example.com/other", "x")]).unwrap().is_empty());
    }

    #[test]
    fn kubernetes_annotations_name_bits_per_second() {
        let limits = read(&[("kubernetes.io/ingress-bandwidth", "10M"), ("kubernetes.io/egress-bandwidth", "1Gi")]);
        let limits = limits.unwrap();
        assert_eq!(limits.ingress.bandwidth, Some(Bandwidth { rate: 10_000_000, burst: None, peak: None }));
        assert_eq!(limits.egress.bandwidth, Some(Bandwidth { rate: 1 << 30, burst: None, peak: None }));
    }

    #[test]
    fn calicos_annotations_override_and_say_more() {
        let limits = read(&[
            ("kubernetes.io/ingress-bandwidth", "10M"),
            ("qos.projectcalico.org/ingressBandwidth", "20M"),
            ("qos.projectcalico.org/ingressBurst", "1M"),
            ("qos.projectcalico.org/ingressPeakrate", "40M"),
            ("qos.projectcalico.org/ingressMinburst", "1500"),
            ("qos.projectcalico.org/egressPacketRate", "1k"),
            ("qos.projectcalico.org/egressMaxConnections", "7"),
            ("qos.projectcalico.org/ingressPacketRate", "200"),
            ("qos.projectcalico.org/ingressPacketBurst", "30"),
        ]);
        let limits = limits.unwrap();
        let peak = Some(Peak { rate: 40_000_000, min_burst: Some(1500) });
        assert_eq!(limits.ingress.bandwidth, Some(Bandwidth { rate: 20_000_000, burst: Some(1_000_000), peak }));
        assert_eq!(limits.ingress.packets, Some(PacketRate { rate: 200, burst: 30 }));
        assert_eq!(limits.egress.packets, Some(PacketRate { rate: 1000, burst: 5 }));
        assert_eq!((limits.ingress.connections, limits.egress.connections), (None, Some(7)));
        assert_eq!(limits.egress.bandwidth, None);
    }

    #[test]
    fn errors_name_the_annotation_the_value_and_what_is_allowed() {
        assert_eq!(
            refused(&[("kubernetes.io/ingress-bandwidth", "10Q")]),
            "the annotation kubernetes.io/ingress-bandwidth is \"10Q\"; it must be a quantity of bits per second from 1k to 1P, such as 10M"
        );
        assert_eq!(
            refused(&[("qos.projectcalico.org/egressMaxConnections", "0")]),
            "the annotation qos.projectcalico.org/egressMaxConnections is \"0\"; it must be a quantity of connections from 1 to 4294967295, such as 1k"
        );
        assert_eq!(
            refused(&[("qos.projectcalico.org/egressBurst", "1M")]),
            "the annotation qos.projectcalico.org/egressBurst needs the annotation qos.projectcalico.org/egressBandwidth beside it"
        );
        assert_eq!(
            refused(&[("kubernetes.io/egress-bandwidth", "10M"), ("qos.projectcalico.org/egressPeakrate", "10M")]),
            "the annotation qos.projectcalico.org/egressPeakrate is \"10M\"; it must be more than the bandwidth, which is 10000000 bits per second"
        );
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for (annotation, values) in [
            ("kubernetes.io/egress-bandwidth", &["999", "1.1P", "", "-10M", "10 M", "1e40"][..]),
            ("qos.projectcalico.org/ingressPacketRate", &["0", "11M"]),
            ("qos.projectcalico.org/ingressMaxConnections", &["4294967296"]),
        ] {
            for value in values {
                assert!(refused(&[(annotation, value)]).contains(annotation), "{annotation}: {value}");
            }
        }
        for value in ["1k", "1000", "1P", "999.5"] {
            assert!(read(&[("kubernetes.io/egress-bandwidth", value)]).is_ok(), "{value}");
        }
        let alone = [("qos.projectcalico.org/ingressMinburst", "1500"), ("kubernetes.io/ingress-bandwidth", "1M")];
        assert!(refused(&alone).contains("ingressPeakrate"));
        assert!(refused(&[("qos.projectcalico.org/ingressPacketBurst", "5")]).contains("ingressPacketRate"));
    }
}
