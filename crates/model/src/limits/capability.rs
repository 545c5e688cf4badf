//! The CNI capability `bandwidth` (CNI conventions, "Dynamic Plugin specific fields"), which a runtime passes in `runtimeConfig`.

use serde_json::{Map, Value, json};

use super::{Allowed, BANDWIDTHS, BURSTS, Bandwidth, InvalidLimit, PodLimits};

/// What kubelet's and containerd's side of the capability passes for a burst that nobody asked for: as much as the field holds. Taken
/// at its word it would let minutes of traffic pass unlimited.
const NO_BURST: u64 = i32::MAX as u64;

/// What the value of the capability asks for: `ingressRate`, `egressRate` in bits per second, `ingressBurst`, `egressBurst` in bits. A
/// rate of 0 is no limit, as the bandwidth plugin takes it.
///
/// # Errors
///
/// The first key that is wrong.
pub fn limits(value: &Value) -> Result<PodLimits, InvalidLimit> {
    let mut limits = PodLimits::default();
    limits.ingress.bandwidth = direction(value, "ingressRate", "ingressBurst")?;
    limits.egress.bandwidth = direction(value, "egressRate", "egressBurst")?;
    Ok(limits)
}

/// The value of the capability that asks for the bandwidths of these limits.
#[must_use]
pub fn value(limits: &PodLimits) -> Value {
    let mut value = Map::new();
    for (direction, limits) in [("ingress", &limits.ingress), ("egress", &limits.egress)] {
        let Some(bandwidth) = limits.bandwidth else { continue };
        value.insert(format!("{direction}Rate"), json!(bandwidth.rate));
        if let Some(burst) = bandwidth.burst {
            value.insert(format!("{direction}Burst"), json!(burst));
        }
    }
    Value::Object(value)
}

fn direction(value: &Value, rate: &str, burst: &str) -> Result<Option<Bandwidth>, InvalidLimit> {
    let burst_bits = number(value, burst, &BURSTS)?.filter(|burst| *burst != NO_BURST);
    match number(value, rate, &BANDWIDTHS)? {
        Some(rate) => Ok(Some(Bandwidth { rate, burst: burst_bits, peak: None })),
        None if burst_bits.is_some() => Err(InvalidLimit::Alone { place: place(burst), needed: place(rate) }),
        None => Ok(None),
    }
}

fn number(value: &Value, key: &str, allowed: &Allowed) -> Result<Option<u64>, InvalidLimit> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(found) if found.as_u64() == Some(0) => Ok(None),
        Some(found) => allowed.check(&place(key), &found.to_string(), found.as_u64()).map(Some),
    }
}

fn place(key: &str) -> String {
    format!("runtimeConfig.bandwidth.{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_bursts_are_bits() {
        let limits =
            super::limits(&json!({"ingressRate": 10_000_000, "ingressBurst": 1_000_000, "egressRate": 2000})).unwrap();
        let bandwidth = |rate, burst| Some(Bandwidth { rate, burst, peak: None });
        assert_eq!(limits.ingress.bandwidth, bandwidth(10_000_000, Some(1_000_000)));
        assert_eq!(limits.egress.bandwidth, bandwidth(2000, None));
        assert_eq!(super::limits(&value(&limits)), Ok(limits));
    }

    #[test]
    fn the_burst_that_runtimes_pass_for_none_is_none() {
        let limits = super::limits(&json!({"egressRate": 1_000_000, "egressBurst": 2_147_483_647_u32})).unwrap();
        assert_eq!(limits.egress.bandwidth, Some(Bandwidth { rate: 1_000_000, burst: None, peak: None }));
    }

    #[test]
    fn zero_and_nothing_are_no_limit() {
        for value in [json!({}), json!(null), json!({"ingressRate": 0, "ingressBurst": 0})] {
            assert!(limits(&value).unwrap().is_empty(), "{value}");
        }
    }

    #[test]
    fn errors_name_the_key_the_value_and_what_is_allowed() {
        for (value, text) in [
            (json!({"ingressRate": 10}), "runtimeConfig.bandwidth.ingressRate is \"10\"; it must be"),
            (json!({"egressRate": "10M"}), "runtimeConfig.bandwidth.egressRate is \"\\\"10M\\\"\"; it must be"),
            (json!({"egressRate": -5}), "from 1k to 1P"),
            (json!({"egressBurst": 5000}), "runtimeConfig.bandwidth.egressBurst needs"),
        ] {
            let error = super::limits(&value).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
