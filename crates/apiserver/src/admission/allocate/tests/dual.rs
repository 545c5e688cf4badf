use super::*;

fn dual_allocator() -> ServiceAllocator {
    let networks = ["10.233.0.0/18", "fd00:10:96::/108"].map(|network| network.parse().unwrap());
    ServiceAllocator::new(networks, 30000..=32767)
}

fn assigned(allocator: &ServiceAllocator, spec: Value) -> Value {
    let mut service = service(spec);
    allocator.assign(&mut service, None).unwrap();
    service
}

/// Changes fields of a stored Service (null leaves one out); what then is stored, or what is wrong.
fn changed(allocator: &ServiceAllocator, old: &Value, fields: Value) -> Result<Value, String> {
    let mut new = old.clone();
    for (field, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => drop(new["spec"].as_object_mut().unwrap().remove(field)),
            value => new["spec"][field] = value.clone(),
        }
    }
    allocator
        .assign(&mut new, Some(old))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    allocator.settle(&new, old);
    Ok(new)
}

#[test]
fn policy_and_families_say_which_addresses_a_service_gets() {
    for (asked, families, addresses) in [
        (json!({}), json!(["IPv4"]), json!(["10.233.1.1"])),
        (json!({"ipFamilyPolicy": "SingleStack"}), json!(["IPv4"]), json!(["10.233.1.1"])),
        (json!({"ipFamilies": ["IPv6"]}), json!(["IPv6"]), json!(["fd00:10:96::101"])),
        (json!({"clusterIP": "fd00:10:96::7"}), json!(["IPv6"]), json!(["fd00:10:96::7"])),
        (
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            json!(["IPv4", "IPv6"]),
            json!(["10.233.1.1", "fd00:10:96::101"]),
        ),
        (
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            json!(["IPv6", "IPv4"]),
            json!(["fd00:10:96::101", "10.233.1.1"]),
        ),
        (
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["10.233.0.9"]}),
            json!(["IPv4", "IPv6"]),
            json!(["10.233.0.9", "fd00:10:96::101"]),
        ),
        (json!({"clusterIP": "None", "selector": {"a": "b"}}), json!(["IPv4"]), json!(["None"])),
        (json!({"clusterIP": "None"}), json!(["IPv4", "IPv6"]), json!(["None"])),
    ] {
        let service = assigned(&dual_allocator(), asked.clone());
        assert_eq!(
            (&service["spec"]["ipFamilies"], &service["spec"]["clusterIPs"]),
            (&families, &addresses),
            "{asked}"
        );
        assert_eq!(service["spec"]["clusterIP"], addresses[0], "{asked}");
    }
}

#[test]
fn a_service_says_that_it_wants_two_families_before_it_names_them() {
    let both = service(json!({"ipFamilies": ["IPv4", "IPv6"]}));
    assert_eq!(
        refusal(&dual_allocator(), both, None),
        "spec.ipFamilyPolicy: Invalid value: null: must be RequireDualStack or PreferDualStack when multiple ipFamilies are \
         specified"
    );
    let other = service(json!({"clusterIPs": ["fd00::1"]}));
    assert_eq!(
        refusal(&allocator(), other, None),
        "spec.clusterIPs[0]: Invalid value: []string{\"fd00::1\"}: IPv6 is not configured on this cluster"
    );
}

#[test]
fn a_second_family_comes_and_goes_with_the_policy() {
    let allocator = dual_allocator();
    let single = assigned(&allocator, json!({"selector": {"a": "b"}}));
    let dual = changed(&allocator, &single, json!({"ipFamilyPolicy": "PreferDualStack"})).unwrap();
    assert_eq!(dual["spec"]["clusterIPs"], json!(["10.233.1.1", "fd00:10:96::101"]));
    let kept =
        changed(&allocator, &dual, json!({"clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null})).unwrap();
    assert_eq!(kept["spec"], dual["spec"], "a client that knows clusterIP alone");
    let back = changed(&allocator, &dual, json!({"ipFamilyPolicy": "SingleStack"})).unwrap();
    assert_eq!((&back["spec"]["clusterIPs"], &back["spec"]["ipFamilies"]), (&json!(["10.233.1.1"]), &json!(["IPv4"])));
    assigned(&allocator, json!({"clusterIP": "fd00:10:96::101"}));
}

#[test]
fn a_service_of_before_a_second_family_stays_as_it_is() {
    let before = allocator();
    let old = assigned(&before, json!({"ipFamilyPolicy": "PreferDualStack"}));
    assert_eq!(old["spec"]["ipFamilies"], json!(["IPv4"]));
    let after = dual_allocator();
    after.restore(&old);
    let same = changed(&after, &old, json!({"sessionAffinity": "ClientIP"})).unwrap();
    assert_eq!(same["spec"]["clusterIPs"], json!(["10.233.1.1"]));
    let more = changed(&after, &old, json!({"ipFamilyPolicy": "RequireDualStack"})).unwrap();
    assert_eq!(more["spec"]["clusterIPs"], json!(["10.233.1.1", "fd00:10:96::101"]));
}

#[test]
fn a_network_of_2_to_the_64_addresses_is_not_looked_through() {
    let allocator = ServiceAllocator::new(["fd00::/64".parse().unwrap()], 30000..=32767);
    let first = assigned(&allocator, json!({}));
    assert_eq!(first["spec"]["clusterIP"], "fd00::101");
    let last = assigned(&allocator, json!({"clusterIP": "fd00::ffff:ffff:ffff:fffe"}));
    assert_eq!(assigned(&allocator, json!({}))["spec"]["clusterIP"], "fd00::102");
    allocator.release(&last);
}
