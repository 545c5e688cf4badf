use serde_json::{Value, json};

use super::objects::{refusals, service, with};

#[test]
fn services_are_checked() {
    let two = json!([{"name": "a", "port": 80}, {"port": 81}]);
    for (pointer, value, wanted) in [
        ("/spec/ports", json!([]), "spec.ports: Required value"),
        (
            "/spec/ports/0",
            json!({"port": 70000, "targetPort": 80}),
            "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        ("/spec/ports", two, "spec.ports[1].name: Required value"),
        (
            "/spec/ports",
            json!([{"name": "a", "port": 80}, {"name": "a", "port": 81}]),
            "spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (
            "/spec/ports",
            json!([{"name": "a", "port": 80}, {"name": "b", "port": 80}]),
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ),
        (
            "/spec/type",
            json!("Internal"),
            "spec.type: Unsupported value: \"Internal\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \
             \"NodePort\"",
        ),
        (
            "/spec/ports/0/nodePort",
            json!(30080),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        ("/spec/type", json!("ExternalName"), "spec.externalName: Required value"),
        (
            "/spec/sessionAffinity",
            json!("Cookie"),
            "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"",
        ),
        (
            "/spec/clusterIPs",
            json!(["ten"]),
            "spec.clusterIPs[0]: Invalid value: \"ten\": must be empty, 'None', or a valid IP address",
        ),
        (
            "/spec/externalIPs",
            json!(["127.0.0.1"]),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            "/spec/externalTrafficPolicy",
            json!("Local"),
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
    ] {
        assert_eq!(refusals("", "Service", with(service(), pointer, value)), [wanted]);
    }
    let dns =
        json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]);
    assert_eq!(refusals("", "Service", with(service(), "/spec/ports", dns)), Vec::<String>::new());
    let headless = with(with(service(), "/spec/clusterIP", json!("None")), "/spec/ports", json!(null));
    assert_eq!(refusals("", "Service", headless), Vec::<String>::new());
}

#[test]
fn fields_of_services_belong_to_types() {
    let only = "may only be used when `type` is 'LoadBalancer'";
    for (change, wanted) in [
        (json!({"loadBalancerClass": "a/b"}), format!("spec.loadBalancerClass: Forbidden: {only}")),
        (json!({"allocateLoadBalancerNodePorts": true}), format!("spec.allocateLoadBalancerNodePorts: Forbidden: {only}")),
        (json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}), format!("spec.loadBalancerSourceRanges: Forbidden: {only}")),
        (
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8", "x"]}),
            "spec.loadBalancerSourceRanges[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or \
             2001:db8::/64)"
                .to_owned(),
        ),
        (
            json!({"type": "LoadBalancer", "loadBalancerClass": "a b"}),
            "spec.loadBalancerClass: Invalid value: \"a b\": name part must consist of".to_owned(),
        ),
        (
            json!({"type": "LoadBalancer", "healthCheckNodePort": 30000}),
            "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and \
             `externalTrafficPolicy` is 'Local'"
                .to_owned(),
        ),
        (
            json!({"type": "LoadBalancer", "ports": [{"port": 10250}]}),
            "spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet".to_owned(),
        ),
        (
            json!({"trafficDistribution": "Nearest"}),
            "spec.trafficDistribution: Unsupported value: \"Nearest\": supported values: \"PreferClose\", \"PreferSameNode\", \
             \"PreferSameZone\""
                .to_owned(),
        ),
        (
            json!({"ports": [{"port": 80, "appProtocol": "a b"}]}),
            "spec.ports[0].appProtocol: Invalid value: \"a b\": name part must consist of".to_owned(),
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.org", "ipFamilies": ["IPv4"]}),
            "spec.ipFamilies: Forbidden: may not be set when `type` is 'ExternalName'".to_owned(),
        ),
        (json!({"ipFamilies": ["IPv4", "IPv4"]}), "spec.ipFamilies[1]: Duplicate value: \"IPv4\"".to_owned()),
        (
            json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
            "spec.clusterIPs: Invalid value: []string{\"10.0.0.1\", \"10.0.0.2\"}: may specify no more than one IP for each IP \
             family"
                .to_owned(),
        ),
        (
            json!({"clusterIPs": ["10.0.0.1", "None"]}),
            "spec.clusterIPs: Invalid value: []string{\"10.0.0.1\", \"None\"}: 'None' must be the first and only value"
                .to_owned(),
        ),
        (
            json!({"clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv6"]}),
            "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`".to_owned(),
        ),
    ] {
        let mut object = service();
        for (field, value) in change.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        let refusals = refusals("", "Service", object);
        assert!(refusals.len() == 1 && refusals[0].starts_with(&wanted), "{change}: {refusals:?}");
    }
}

#[test]
fn what_a_load_balancer_says_of_itself_is_checked() {
    let balanced = |ingress: Value| {
        let service = with(service(), "/spec/type", json!("LoadBalancer"));
        refusals("", "Service", with(service, "/status/loadBalancer", json!({"ingress": [ingress]})))
    };
    assert_eq!(balanced(json!({"ip": "192.0.2.1"})), Vec::<String>::new());
    assert_eq!(balanced(json!({"hostname": "lb.example.com"})), Vec::<String>::new());
    for (ingress, wanted) in [
        (
            json!({"ip": "x"}),
            "[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            json!({"ip": "192.0.2.1", "ipMode": "Hub"}),
            "[0].ipMode: Unsupported value: \"Hub\": supported values: \"Proxy\", \"VIP\"",
        ),
        (
            json!({"hostname": "a.b", "ipMode": "VIP"}),
            "[0].ipMode: Forbidden: may not be specified when `ip` is not set",
        ),
        (
            json!({"hostname": "192.0.2.1"}),
            "[0].hostname: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address",
        ),
    ] {
        assert_eq!(balanced(ingress), [format!("status.loadBalancer.ingress{wanted}")]);
    }
    let plain = with(service(), "/status/loadBalancer", json!({"ingress": [{"ip": "192.0.2.1"}]}));
    assert_eq!(
        refusals("", "Service", plain),
        ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is \"LoadBalancer\""]
    );
}
