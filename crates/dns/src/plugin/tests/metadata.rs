//! What plugins tell of a question, and who uses it.

use super::rig;
use crate::{
    message::rtype,
    server::fixture::{Rig, query, told},
    zone::tests::cluster,
};

fn lines(rig: &Rig) -> Vec<String> {
    std::mem::take(&mut *rig.events.lock().unwrap())
}

#[test]
fn log_tells_what_plugins_do_where_metadata_wants_it() {
    let line = "{/kubernetes/service} {/kubernetes/port-name} {/forward/upstream} {/view/name} {/no/label}";
    let plugins = format!("log . \"{line}\"\nkubernetes cluster.local {{\n fallthrough\n}}\nforward . 192.0.2.1");
    let view = "view ours {\n expr true\n}\n";
    let own = rig(&format!("metadata cluster.local\n{view}{plugins}"));
    own.ask("_http._tcp.web.web.svc.cluster.local", rtype::SRV);
    assert_eq!(lines(&own), ["Answered { line: \"web http - ours -\" }"]);
    let (mut waiting, sent) = own.forward(&query("none.web.svc.cluster.local", rtype::A));
    sent.tells(0, &[[192, 0, 2, 9]]);
    waiting.response().unwrap();
    assert_eq!(lines(&own), ["Answered { line: \"none - 192.0.2.1:53 ours -\" }"]);
    let (mut waiting, sent) = own.forward(&query("www.example.org", rtype::A));
    sent.tells(0, &[]);
    waiting.response().unwrap();
    assert_eq!(lines(&own), ["Answered { line: \"- - - - -\" }"], "nothing is told of names of other zones");
    let without = rig(&format!("{view}{plugins}"));
    without.ask("web.web.svc.cluster.local", rtype::A);
    assert_eq!(lines(&without), ["Answered { line: \"- - - - -\" }"]);
}

#[test]
fn view_template_and_rewrite_use_what_is_told() {
    let mut rig = Rig::new(
        ". {\n metadata\n view web {\n  expr metadata('kubernetes/namespace') == 'web'\n }\n \
         template IN TXT {\n  answer \"{{ .Name }} 5 IN TXT of-{{ .Meta \\\"kubernetes/service\\\" }}\"\n }\n \
         rewrite continue edns0 local set 0xffee {kubernetes/service}\n rewrite edns0 local set 0xffef {no/label}\n \
         kubernetes cluster.local {\n  fallthrough\n }\n forward . 192.0.2.1\n}\n",
    );
    cluster(&mut rig);
    assert_eq!(rig.ask("a.other.svc.cluster.local", rtype::A), ["REFUSED"], "the view takes one namespace");
    assert_eq!(rig.ask("shop.web.svc.cluster.local", rtype::TXT), ["NOERROR", "TXT \"of-shop\""]);
    let (mut waiting, sent) = rig.forward(&query("none.web.svc.cluster.local", rtype::A));
    let message = &sent.exchange.message;
    assert!(message.windows(8).any(|bytes| bytes == b"\xff\xee\0\x04none"), "{message:?}");
    assert!(message.windows(4).any(|bytes| bytes == b"\xff\xef\0\0"), "what nobody tells is empty: {message:?}");
    sent.tells(0, &[[192, 0, 2, 9]]);
    assert_eq!(told(&waiting.response().unwrap()), ["NOERROR", "A 192.0.2.9"]);
}
