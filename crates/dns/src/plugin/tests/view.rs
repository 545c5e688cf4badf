//! `view`.

use std::net::SocketAddr;

use crate::{
    Transport,
    message::rtype,
    server::{
        Arrival,
        fixture::{ARRIVAL, Rig, query, told},
    },
};

fn hosts(addr: &str) -> String {
    format!("hosts /nowhere {{\n {addr} www.example.org\n fallthrough\n}}\n")
}

#[test]
fn the_first_block_whose_conditions_all_hold_answers_and_else_that_of_the_zone_above() {
    let rig = Rig::new(&format!(
        "example.org {{\n view inside {{\n expr incidr(client_ip(), '10.0.0.0/8')\n expr proto() == 'udp'\n }}\n{}}}\n\
         example.org {{\n view addresses {{\n expr type() in ['A', 'AAAA']\n }}\n{}}}\n\
         . {{\nwhoami\n}}\n",
        hosts("192.0.2.1"),
        hosts("192.0.2.2"),
    ));
    let outside = Arrival { from: SocketAddr::from(([192, 0, 2, 9], 4000)), ..ARRIVAL };
    let over_tcp = Arrival { transport: Transport::Tcp, ..ARRIVAL };
    let ask = |qtype, arrival| told(&rig.handle_from(&query("www.example.org", qtype), &arrival).1)[1].clone();
    assert_eq!(ask(rtype::A, ARRIVAL), "A 192.0.2.1");
    assert_eq!(ask(rtype::A, outside), "A 192.0.2.2");
    assert_eq!(ask(rtype::A, over_tcp), "A 192.0.2.2");
    assert!(ask(rtype::TXT, outside).starts_with("+A "), "the root's whoami");
}

#[test]
fn a_view_knows_the_address_that_was_asked() {
    let rig = Rig::new(&format!(
        "example.org {{\n view here {{\n expr server_ip() == '10.233.0.10'\n }}\n{}}}\n. {{\nwhoami\n}}\n",
        hosts("192.0.2.1"),
    ));
    let elsewhere = Arrival { local: Some([192, 0, 2, 53].into()), ..ARRIVAL };
    let ask = |arrival| told(&rig.handle_from(&query("www.example.org", rtype::A), &arrival).1)[1].clone();
    assert_eq!(ask(ARRIVAL), "A 192.0.2.1");
    assert!(ask(elsewhere).starts_with("+A "), "the root's whoami");
}

#[test]
fn questions_that_no_view_takes_are_refused() {
    let rig = Rig::new("example.org {\n view short {\n expr size() < 20 || bufsize() > 4000\n }\n whoami\n}\n");
    assert_eq!(rig.ask("www.example.org", rtype::A), ["REFUSED"]);
}
