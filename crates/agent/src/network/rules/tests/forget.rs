use std::time::Duration;

use podnet_kernel::netns::NetNs;
use podnet_model::{Endpoint, EndpointSlice, PodAddr, SliceKey, TargetPort, endpoints::EndpointPort};

use super::*;

fn udp_service() -> Change {
    let Change::Service(key, Some(mut web)) = service(Some("10.96.0.1")) else { unreachable!() };
    web.ports[0].protocol = Protocol::Udp;
    Change::Service(key, Some(web))
}

fn slice(backends: &[&str]) -> Change {
    let key = SliceKey::new("default", "web-1");
    let slice = EndpointSlice {
        key: key.clone(),
        service: ServiceKey::new("default", "web"),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Udp, port: TargetPort(8080) }],
        endpoints: backends.iter().map(|backend| Endpoint::new(PodAddr(backend.parse().unwrap()))).collect(),
        triggered: None,
        unproxied: false,
    };
    Change::Slice(key, Some(slice))
}

/// A node may have hundreds of thousands of connections.
#[test]
fn connections_are_gone_through_seldom_and_what_follows_closely_is_forgotten_together() {
    let path = format!("/run/netns/podnet-test-forget-{}", std::process::id());
    let netns = NetNs::create(&path).unwrap();
    let done = netns.run(|| {
        let (kernel, mut rules) = (MemoryKernel::new(), rules());
        rules.learn(&udp_service());
        rules.learn(&slice(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
        rules.put(&mut kernel.clone()).unwrap();
        rules.forget_vanished().unwrap();
        assert_eq!(rules.due(), None, "all were looked at");
        let later = Instant::now() + Duration::from_secs(60);
        assert!(rules.next_forget < later);
        rules.next_forget = later;
        for left in [&["10.0.0.1", "10.0.0.2"][..], &["10.0.0.1"]] {
            rules.learn(&slice(left));
            rules.edit(Tries::All, &mut kernel.clone()).unwrap();
            rules.forget_vanished().unwrap();
        }
        assert_eq!((rules.vanished[Family::V4].len(), rules.due()), (2, Some(later)));
        rules.next_forget = Instant::now();
        rules.forget_vanished().unwrap();
        assert_eq!((rules.vanished[Family::V4].len(), rules.due()), (0, None));
        assert!(rules.next_forget > Instant::now() - Duration::from_secs(10) && rules.next_forget < later);
        // While a family is refused its connections may still be led to where they go.
        rules.learn(&slice(&[]));
        kernel.fail_transaction(0);
        rules.edit(Tries::All, &mut kernel.clone()).unwrap_err();
        rules.next_forget = Instant::now();
        rules.forget_vanished().unwrap();
        assert_eq!((rules.vanished[Family::V4].len(), rules.due()), (1, None));
    });
    NetNs::remove(&path).unwrap();
    done.unwrap();
}
