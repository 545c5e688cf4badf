use super::*;

fn route(last: u8) -> Object {
    Object::Route(format!("10.0.0.{last}/32").parse().unwrap())
}

#[test]
fn an_object_is_mended_at_once_until_somebody_keeps_undoing_it() {
    let mut limiter = Limiter::default();
    let mut now = Duration::ZERO;
    for _ in 0..FREE {
        assert_eq!(limiter.admit(&route(1), now), Admission::Now);
        now += Duration::from_millis(1);
    }
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let before = now;
        if let Admission::At(at) = limiter.admit(&route(1), now) {
            now = at;
            assert_eq!(limiter.admit(&route(1), now), Admission::Now);
        }
        pauses.push((now - before).as_millis());
    }
    // The first one counts from the last repair, a millisecond earlier.
    assert_eq!(pauses, [199, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    assert!(limiter.is_contested(&route(1)));
    assert_eq!(limiter.admit(&route(2), now), Admission::Now, "others do not wait for it");
}

#[test]
fn an_object_that_stayed_whole_is_mended_at_once_again() {
    let mut limiter = Limiter::default();
    for _ in 0..=FREE {
        limiter.admit(&route(1), Duration::ZERO);
    }
    let later = QUIET + LONGEST_PAUSE;
    assert!(matches!(limiter.admit(&route(1), Duration::from_millis(1)), Admission::At(_)));
    for _ in 0..FREE {
        assert_eq!(limiter.admit(&route(1), later), Admission::Now);
    }
    limiter.forget_quiet(later * 2);
    assert!(limiter.past.is_empty());
}

#[test]
fn a_summary_names_some_and_counts_the_rest() {
    let damages: Vec<_> = (1..7).map(|last| Damage::new(route(last), "was removed")).collect();
    assert_eq!(summary(&damages[..1]), "route 10.0.0.1/32 was removed");
    assert!(summary(&damages).ends_with("route 10.0.0.4/32 was removed; and 2 more"), "{}", summary(&damages));
}

#[test]
fn every_kind_is_listed() {
    assert!(Object::KINDS.contains(&route(1).kind()) && Object::KINDS.contains(&Object::Passage(String::new()).kind()));
}

#[test]
fn while_a_device_waits_only_what_stands_on_it_waits_too() {
    use crate::step::{FdbEntry, Neighbour, Route};
    let device = LinkName::from("podnet.vxlan");
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let to = |last: u8, target: RouteTarget| {
        Step::SetRoute(Route { dst: format!("10.0.0.{last}/32").parse().unwrap(), target })
    };
    let via: IpAddr = "192.0.2.2".parse().unwrap();
    let on = |device: &str| RouteTarget::OnLink { device: device.into(), via, source: None };
    let steps = vec![
        Step::SetNeighbour(Neighbour { device: device.clone(), addr: via, mac }),
        Step::SetFdb(FdbEntry { device: device.clone(), mac, remote: via }),
        to(1, on("podnet.vxlan")),
        to(2, on("podnet.wg")),
        to(3, RouteTarget::Via(via)),
        to(4, RouteTarget::Blackhole),
        Step::RemoveLink(device.clone()),
    ];
    let held = |objects: &[Object]| objects.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(without(steps.clone(), &held(&[])), steps);
    assert_eq!(without(steps.clone(), &held(&[Object::Device(device)])), steps[3..6]);
    assert_eq!(without(steps.clone(), &held(&[route(3)])).len(), 6, "a contested route holds nothing else");
}
