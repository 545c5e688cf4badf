#![allow(clippy::needless_pass_by_value, reason = "the objects are literals at the call")]

use serde_json::json;

use super::*;

fn allocator() -> ServiceAllocator {
    ServiceAllocator::new(["10.233.0.0/18".parse().unwrap()], 30000..=32767)
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": spec})
}

fn plain() -> Value {
    service(json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]}))
}

fn node_port(number: i64) -> Value {
    service(json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": number}]}))
}

/// Assigns; the address.
fn address(allocator: &ServiceAllocator, service: &mut Value) -> String {
    allocator.assign(service, None).unwrap();
    service["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

fn refusal(allocator: &ServiceAllocator, mut service: Value, old: Option<&Value>) -> String {
    let errors = allocator.assign(&mut service, old).unwrap_err();
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_service_gets_the_next_address_above_the_band_for_chosen_ones() {
    let allocator = allocator();
    let mut first = plain();
    assert_eq!(address(&allocator, &mut first), "10.233.1.1");
    assert_eq!(first["spec"]["clusterIPs"], json!(["10.233.1.1"]));
    assert_eq!(first["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(first["spec"]["ipFamilyPolicy"], "SingleStack");
    assert_eq!(address(&allocator, &mut plain()), "10.233.1.2");
}

#[test]
fn a_freed_address_is_not_given_again_at_once() {
    let allocator = allocator();
    let mut first = plain();
    address(&allocator, &mut first);
    allocator.release(&first);
    assert_eq!(address(&allocator, &mut plain()), "10.233.1.2");
}

#[test]
fn a_small_network_is_used_up_to_the_last_address_and_again_from_the_start() {
    let allocator = ServiceAllocator::new(["10.0.0.0/29".parse().unwrap()], 30000..=30010);
    let mut services: Vec<Value> = (0..6).map(|_| plain()).collect();
    let given: Vec<String> = services.iter_mut().map(|service| address(&allocator, service)).collect();
    assert_eq!(given, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    assert_eq!(
        refusal(&allocator, plain(), None),
        "spec.clusterIPs: Internal error: failed to allocate a serviceIP: range is full"
    );
    allocator.release(&services[1]);
    assert_eq!(address(&allocator, &mut plain()), "10.0.0.2");
}

#[test]
fn a_service_may_ask_for_an_address() {
    let allocator = allocator();
    let asking = |ip: &str| service(json!({"type": "ClusterIP", "clusterIP": ip, "ports": []}));
    assert_eq!(address(&allocator, &mut asking("10.233.0.10")), "10.233.0.10");
    for (ip, wanted) in [
        ("10.233.0.10", "failed to allocate IP 10.233.0.10: provided IP is already allocated"),
        (
            "10.1.2.3",
            "failed to allocate IP 10.1.2.3: provided IP is not in the valid range. The range of valid IPs is 10.233.0.0/18",
        ),
        (
            "10.233.63.255",
            "failed to allocate IP 10.233.63.255: provided IP is not in the valid range. The range of valid IPs is \
             10.233.0.0/18",
        ),
        ("ten", "must be empty, 'None', or a valid IP address"),
    ] {
        let wanted = format!("spec.clusterIPs: Invalid value: []string{{{ip:?}}}: {wanted}");
        assert_eq!(refusal(&allocator, asking(ip), None), wanted);
    }
    assert_eq!(address(&allocator, &mut plain()), "10.233.1.1", "an address in the band does not move the order");
}

#[test]
fn headless_and_external_services_take_no_address() {
    let allocator = allocator();
    let mut headless = service(json!({"type": "ClusterIP", "clusterIP": "None"}));
    assert_eq!(address(&allocator, &mut headless), "None");
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let mut external = service(json!({"type": "ExternalName", "externalName": "a.org"}));
    allocator.assign(&mut external, None).unwrap();
    assert_eq!(external["spec"], json!({"type": "ExternalName", "externalName": "a.org"}));
}

#[test]
fn node_ports_are_given_or_asked_for() {
    let allocator = allocator();
    let mut given = service(
        json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "protocol": "TCP"}, {"name": "b", "port": 81, "protocol": "TCP"}]}),
    );
    allocator.assign(&mut given, None).unwrap();
    assert_eq!(given["spec"]["ports"][0]["nodePort"], 30086);
    assert_eq!(given["spec"]["ports"][1]["nodePort"], 30087);
    allocator.assign(&mut node_port(30080), None).unwrap();
    assert_eq!(
        refusal(&allocator, node_port(30080), None),
        "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    for outside in [80, 70000, -1] {
        assert_eq!(
            refusal(&allocator, node_port(outside), None),
            format!(
                "spec.ports[0].nodePort: Invalid value: {outside}: provided port is not in the valid range. The range of \
                 valid ports is 30000-32767"
            )
        );
    }
}

#[test]
fn protocols_of_one_port_share_a_node_port() {
    let allocator = allocator();
    let mut dns = service(json!({"type": "NodePort", "ports": [
        {"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53, "protocol": "TCP"}]}));
    allocator.assign(&mut dns, None).unwrap();
    assert_eq!(dns["spec"]["ports"][0]["nodePort"], dns["spec"]["ports"][1]["nodePort"]);
    let udp = service(json!({"type": "NodePort", "ports": [{"port": 1, "protocol": "UDP", "nodePort": 31000}]}));
    allocator.assign(&mut udp.clone(), None).unwrap();
    allocator.assign(&mut node_port(31000), None).unwrap();
}

#[test]
fn a_load_balancer_may_do_without_node_ports() {
    let allocator = allocator();
    let mut without =
        service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]}));
    allocator.assign(&mut without, None).unwrap();
    assert_eq!(without["spec"]["ports"][0].get("nodePort"), None);
}

#[test]
fn node_ports_that_are_not_allocated_any_more_are_given_back_where_they_are_left_out() {
    let allocator = allocator();
    let mut old = service(json!({"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}]}));
    allocator.assign(&mut old, None).unwrap();
    let mut kept = old.clone();
    kept["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
    allocator.assign(&mut kept, Some(&old)).unwrap();
    assert_eq!(kept["spec"]["ports"][0]["nodePort"], 30080, "not by itself");
    let mut without = kept.clone();
    without["spec"]["ports"] = json!([{"port": 80}]);
    allocator.assign(&mut without, Some(&kept)).unwrap();
    assert_eq!(without["spec"]["ports"][0].get("nodePort"), None);
    allocator.settle(&without, &kept);
    allocator.assign(&mut node_port(30080), None).unwrap();
}

#[test]
fn a_replaced_service_keeps_what_it_had() {
    let allocator = allocator();
    let mut old = service(json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "protocol": "TCP"}]}));
    allocator.assign(&mut old, None).unwrap();
    let mut new = service(
        json!({"type": "NodePort", "ports": [{"name": "b", "port": 81, "protocol": "TCP"}, {"name": "a", "port": 8080, "protocol": "TCP"}]}),
    );
    allocator.assign(&mut new, Some(&old)).unwrap();
    assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(new["spec"]["ports"][1]["nodePort"], old["spec"]["ports"][0]["nodePort"]);
    assert_ne!(new["spec"]["ports"][0]["nodePort"], old["spec"]["ports"][0]["nodePort"]);
    allocator.assign(&mut new.clone(), Some(&new)).unwrap();
}

#[test]
fn a_change_of_type_frees_what_the_new_type_has_not() {
    let allocator = allocator();
    let mut old = node_port(30080);
    allocator.assign(&mut old, None).unwrap();
    let mut patched = old.clone();
    patched["spec"]["type"] = json!("ClusterIP");
    allocator.assign(&mut patched, Some(&old)).unwrap();
    allocator.settle(&patched, &old);
    assert_eq!(patched["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(patched["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    allocator.assign(&mut node_port(30080), None).unwrap();

    let mut external = patched.clone();
    external["spec"]["type"] = json!("ExternalName");
    allocator.assign(&mut external, Some(&patched)).unwrap();
    allocator.settle(&external, &patched);
    assert_eq!(external["spec"].get("clusterIP"), None);
    let mut other = plain();
    other["spec"]["clusterIP"] = patched["spec"]["clusterIP"].clone();
    allocator.assign(&mut other, None).unwrap();
}

#[test]
fn a_refused_service_takes_nothing() {
    let allocator = allocator();
    allocator.assign(&mut node_port(30080), None).unwrap();
    let two = service(json!({"type": "NodePort", "clusterIP": "10.233.0.50", "ports": [
        {"name": "a", "port": 80, "protocol": "TCP", "nodePort": 30081}, {"name": "b", "port": 81, "protocol": "TCP", "nodePort": 30080}]}));
    refusal(&allocator, two, None);
    let mut same = node_port(30081);
    same["spec"]["clusterIP"] = json!("10.233.0.50");
    allocator.assign(&mut same, None).unwrap();
}

#[test]
fn what_a_change_drops_is_free_when_it_is_stored_and_what_it_adds_when_it_is_not() {
    let allocator = allocator();
    let mut old = node_port(30080);
    allocator.assign(&mut old, None).unwrap();
    let mut new = old.clone();
    new["spec"]["ports"][0]["nodePort"] = json!(30090);
    let taken = allocator.assign(&mut new, Some(&old)).unwrap();
    for under_way in [30080, 30090] {
        assert!(refusal(&allocator, node_port(under_way), None).contains("already allocated"));
    }
    allocator.give_back(&taken);
    assert!(refusal(&allocator, node_port(30080), None).contains("already allocated"));
    let mut other = node_port(30090);
    allocator.assign(&mut other, None).unwrap();
    allocator.release(&other);
    allocator.assign(&mut new, Some(&old)).unwrap();
    allocator.settle(&new, &old);
    allocator.assign(&mut node_port(30080), None).unwrap();
}

#[test]
fn what_a_change_that_came_too_late_took_is_free_again() {
    let allocator = allocator();
    let mut old = node_port(30080);
    allocator.assign(&mut old, None).unwrap();
    let mut plain = old.clone();
    plain["spec"]["type"] = json!("ClusterIP");
    allocator.assign(&mut plain, Some(&old)).unwrap();
    allocator.settle(&plain, &old);

    let taken = allocator.assign(&mut old.clone(), Some(&old)).unwrap();
    assert!(refusal(&allocator, node_port(30080), None).contains("already allocated"), "it may be stored still");
    allocator.give_back(&taken);
    allocator.assign(&mut node_port(30080), None).unwrap();
    let mut same = service(json!({"type": "ClusterIP"}));
    same["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
    assert!(refusal(&allocator, same, None).contains("already allocated"), "the Service has its address still");

    let taken = allocator.assign(&mut old.clone(), Some(&old)).unwrap();
    allocator.give_back(&taken);
    assert!(refusal(&allocator, node_port(30080), None).contains("already allocated"), "it is another one's by now");
}

#[test]
fn stored_services_are_known_after_a_restart() {
    let before = allocator();
    let (mut first, mut second) = (plain(), node_port(0));
    before.assign(&mut first, None).unwrap();
    before.assign(&mut second, None).unwrap();
    let after = allocator();
    after.restore(&second);
    after.restore(&first);
    let mut third = node_port(0);
    after.assign(&mut third, None).unwrap();
    assert_eq!(third["spec"]["clusterIP"], "10.233.1.3");
    assert_eq!(third["spec"]["ports"][0]["nodePort"], 30087);
}

#[test]
fn a_cluster_of_one_family_refuses_the_other() {
    let allocator = allocator();
    let dual =
        service(json!({"type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}));
    assert_eq!(
        refusal(&allocator, dual, None),
        "spec.ipFamilies[1]: Invalid value: \"IPv6\": not configured on this cluster; spec.ipFamilyPolicy: Invalid value: \
         \"RequireDualStack\": this cluster is not configured for dual-stack services"
    );
    let mut prefer = service(json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"}));
    allocator.assign(&mut prefer, None).unwrap();
    assert_eq!(prefer["spec"]["ipFamilies"], json!(["IPv4"]));
}

#[test]
fn both_spellings_of_the_address_have_to_agree() {
    let allocator = allocator();
    let torn = service(json!({"type": "ClusterIP", "clusterIP": "10.233.0.5", "clusterIPs": ["10.233.0.6"]}));
    assert!(refusal(&allocator, torn, None).ends_with("first value must match `clusterIP`"));
    let mut plural = service(json!({"type": "ClusterIP", "clusterIPs": ["10.233.0.6"]}));
    assert_eq!(address(&allocator, &mut plural), "10.233.0.6");
}

#[test]
fn the_health_check_of_a_local_load_balancer_has_a_node_port() {
    let allocator = allocator();
    let local = |health: Value| {
        service(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": health,
            "ports": [{"port": 80, "protocol": "TCP"}]}))
    };
    let mut given = local(Value::Null);
    allocator.assign(&mut given, None).unwrap();
    assert_eq!(given["spec"]["healthCheckNodePort"], 30087);
    let taken = "spec.healthCheckNodePort: Invalid value: 30087: provided port is already allocated";
    assert_eq!(refusal(&allocator, local(json!(30087)), None), taken);
    assert!(refusal(&allocator, node_port(30087), None).contains("already allocated"));
    allocator.assign(&mut local(json!(30099)), None).unwrap();

    let mut changed = given.clone();
    changed["spec"]["healthCheckNodePort"] = Value::Null;
    allocator.assign(&mut changed, Some(&given)).unwrap();
    assert_eq!(changed["spec"]["healthCheckNodePort"], 30087, "a client that leaves it out keeps it");
    let mut cluster = given.clone();
    cluster["spec"]["externalTrafficPolicy"] = json!("Cluster");
    allocator.assign(&mut cluster, Some(&given)).unwrap();
    assert_eq!(cluster["spec"].get("healthCheckNodePort"), None);
    allocator.settle(&cluster, &given);
    allocator.assign(&mut node_port(30087), None).unwrap();
}

#[test]
fn what_belongs_to_a_load_balancer_goes_with_it() {
    let allocator = allocator();
    let mut old = service(
        json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/x", "allocateLoadBalancerNodePorts": true,
        "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "protocol": "TCP"}]}),
    );
    allocator.assign(&mut old, None).unwrap();
    let mut plain = old.clone();
    plain["spec"]["type"] = json!("ClusterIP");
    plain["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    allocator.assign(&mut plain, Some(&old)).unwrap();
    for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts", "externalTrafficPolicy"] {
        assert_eq!(plain["spec"].get(field), None, "{field}");
    }
    assert_eq!(plain["status"], json!({"loadBalancer": {}}));
}

mod dual;
