use super::{Config, Environment, Policy};

fn load(text: &str) -> Config {
    Config::load("Corefile", text, &Environment::EMPTY).unwrap()
}

#[test]
fn forward_has_all_its_options() {
    let config = load(
        ". {\n forward example.org 192.0.2.1 dns://192.0.2.2:5353 [2001:db8::1]:54 {\n  except a.example.org 10.0.0.0/8\n  \
         policy sequential\n  force_tcp\n  max_fails 0\n  expire 20s\n  health_check 1s no_rec domain example.org\n }\n \
         forward . 192.0.2.9\n}",
    );
    let forward = &config.blocks[0].forwards[0];
    let upstreams: Vec<_> = forward.upstreams.iter().map(ToString::to_string).collect();
    assert_eq!(upstreams, ["192.0.2.1:53", "192.0.2.2:5353", "[2001:db8::1]:54"]);
    assert_eq!((forward.policy, forward.force_tcp, forward.max_fails), (Policy::Sequential, true, 0));
    assert_eq!((forward.except.len(), forward.health_recursion), (2, false));
    assert_eq!(config.blocks[0].forwards.len(), 2);
}

#[test]
fn cache_has_capacities_and_times_for_both_halves() {
    let config =
        load(". {\n cache 60 example.org {\n  success 5000 120 10\n  denial 2500\n  servfail 0\n  keepttl\n }\n}");
    let cache = config.blocks[0].cache.as_ref().unwrap();
    let (success, denial) = (cache.success.unwrap(), cache.denial.unwrap());
    assert_eq!((success.capacity, success.max_ttl, success.min_ttl), (5000, 120, 10));
    assert_eq!((denial.capacity, denial.max_ttl), (2500, 60));
    assert!(cache.servfail.is_zero() && cache.keep_ttl);
}

#[test]
fn what_is_accepted_without_effect_is_said() {
    let config = load(". {\n cache {\n  prefetch 10\n }\n log . {\n  class error\n }\n}");
    assert_eq!(config.warnings.len(), 3);
    assert!(config.warnings[0].starts_with("Corefile:3:3: \"prefetch\""), "{:?}", config.warnings);
}
