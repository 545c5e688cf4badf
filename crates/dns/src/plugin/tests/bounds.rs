//! `cache` before plugins that know answers themselves.

use super::{query, rig, rtype, told};
use crate::zone::tests::{frontend, service};

#[test]
fn what_this_server_comes_to_know_itself_ends_what_others_said_and_is_not_kept() {
    for mode in ["immediate", "verify"] {
        let kubernetes = "kubernetes cluster.local 10.in-addr.arpa {\n fallthrough 10.in-addr.arpa\n}";
        let cache = format!("cache {{\n serve_stale 1h {mode}\n}}");
        let mut rig = rig(&format!("{cache}\n{kubernetes}\nforward . 192.0.2.1"));
        // The type does not matter: first nobody here knows the name, then it is a Service's.
        let packet = query("99.0.233.10.in-addr.arpa", rtype::A);
        let (mut waiting, sent) = rig.forward(&packet);
        sent.tells(0, &[[192, 0, 2, 7]]);
        assert_eq!(waiting.told(), ["NOERROR", "A 192.0.2.7"]);
        rig.apply(&service("web", "late", frontend(&["10.233.0.99"]), vec![]));
        rig.at(100);
        let expected = if mode == "verify" { vec!["NOERROR", "SOA"] } else { vec!["NOERROR", "A 192.0.2.7"] };
        assert_eq!(told(&rig.answer(&packet)), expected, "{mode}");
        rig.work();
        assert_eq!(told(&rig.answer(&packet)), ["NOERROR", "SOA"], "{mode}");
        assert!(rig.server.gauges().cache.values().all(|kept| *kept == (0, 0)), "{mode}");
        assert!(rig.sent().is_empty(), "{mode}");
    }
}
