//! What somebody damages in a mode.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{ChildStdout, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use podnet_kernel::{
    cgroup::Cgroup,
    sockets::{self, Sizes, Sockets},
};
use podnet_model::Protocol;
use podnet_planner::{ruleset::FrontendKey, services::ebpf::Edits};
use podnet_testnet::{eventually, vm};

use crate::{
    SOON, Scene,
    load::Load,
    mending::{is_mended_after, is_mended_in_time},
    on_node, progress, servers,
};

/// Requests a second of each lasting connection that rules are taken from.
const RATE: u32 = 50;
/// The same where the processor is emulated.
const SLOW_RATE: u32 = 4;
/// An agent that ends sooner after its start than this begins again after a longer pause: that is no part of what is measured.
const RAN_WELL: Duration = Duration::from_secs(6);

/// What is damaged is of another Service than the one that the load goes to.
pub(crate) fn is_mended(scene: &Scene<'_>, mode: &str) {
    let other = &scene.other;
    match mode {
        "nftables" => {
            let frontend = format!("ip podnet-services frontends {{ {other} . tcp . 80 }}");
            mended(scene, &format!("nft delete element {frontend}"), &format!("nft get element {frontend}"));
            let slot = format!("ip podnet-services backends {{ {other} . tcp . 80 . 0x00000001 }}");
            mended(scene, &format!("nft delete element {slot}"), &format!("nft get element {slot}"));
            // What keeps neighbours from the node's loopback, which takes answers there.
            let guard = "table ip podnet-loopback";
            mended(scene, &format!("nft delete {guard}"), &format!("nft list {guard} | grep drop"));
        }
        "iptables" => {
            let rule = rule_of("nat", &format!("-A KUBE-SERVICES -d {other}/32 "));
            mended(scene, &format!("iptables -t nat -D {rule}"), &format!("iptables -t nat -C {rule}"));
        }
        "ebpf" => {
            let group = Cgroup::v2("podnet/node1").unwrap();
            programs_are_put_back(&group);
            frontend_is_put_back(scene, &group);
        }
        "ipvs" => {
            let device = format!("address delete {other}/32 dev kube-ipvs0");
            mended(scene, &format!("ip {device}"), &format!("ip address show dev kube-ipvs0 | grep -w {other}"));
            let whole = format!("ipvsadm -Ln -t {other}:80 | grep -e '-> '");
            mended(scene, &format!("ipvsadm -D -t {other}:80"), &whole);
            let set = format!("KUBE-CLUSTER-IP {other},tcp:80");
            mended(scene, &format!("ipset del {set}"), &format!("ipset test {set}"));
        }
        "userspace" => {
            let way = format!("{other} proto 87");
            mended(scene, &format!("ip route delete {way}"), &format!("ip route show {way} | grep {other}"));
        }
        _ => unreachable!("no damage is known to mode {mode}"),
    }
    agent_is_killed_at_work(scene);
}

/// All rules go at once, or what stands for them. What is new is lost meanwhile; lasting connections that need none go on.
pub(crate) fn all_is_mended(scene: &Scene<'_>, mode: &str) {
    let service = &scene.service;
    match mode {
        // The Service's packets are translated by the very rules that go; those to a pod's own address need none.
        "nftables" => {
            let direct = Load::of_lasting_to_a_pod(scene, RATE);
            let element = format!("nft get element ip podnet-services frontends {{ {service} . tcp . 80 }}");
            mended(scene, "nft flush ruleset", &format!("{element} && nft list table ip podnet"));
            direct.goes_on();
            direct.end();
        }
        "iptables" => {
            let lasting = Load::of_lasting(scene, RATE);
            let [nat, filter] =
                [("nat", format!("-A KUBE-SERVICES -d {service}/32 ")), ("filter", "-A FORWARD ".into())]
                    .map(|(table, begins)| rule_of(table, &format!("{begins}.*-j KUBE-")));
            mended(scene, "iptables -t nat -F", &format!("iptables -t nat -C {nat}"));
            mended(scene, "iptables -F", &format!("iptables -C {filter}"));
            lasting.goes_on();
            lasting.end();
        }
        "ebpf" => {
            let lasting = Load::of_lasting(scene, RATE);
            programs_are_put_back(&Cgroup::v2("podnet/node1").unwrap());
            mended(scene, "nft flush ruleset", "nft list map ip podnet-services frontends");
            lasting.goes_on();
            lasting.end();
        }
        // With the device goes the way to the program, which has the connections to Services: those end.
        "userspace" => {
            let direct = Load::of_lasting_to_a_pod(scene, RATE);
            let way = format!("ip route show {service} proto 87 | grep podservices4");
            mended(scene, "ip link delete podservices4", &way);
            direct.goes_on();
            direct.end();
        }
        _ => unreachable!("no damage as a whole is known to mode {mode}"),
    }
    let answers = format!("curl -sS --max-time 3 http://{service}/hostname");
    eventually("the Service answers again", SOON, || scene.client.run(&answers));
    eventually("on the node, too", SOON, || on_node("node1", &answers));
}

/// The first rule of a table that begins so.
fn rule_of(table: &str, begins: &str) -> String {
    let rule = on_node("node1", &format!("iptables-save -t {table} | grep -m 1 -e '{begins}'")).unwrap();
    rule.trim().trim_start_matches("-A ").to_owned()
}

/// All of them, with the device of their addresses: what goes through a ClusterIP meanwhile is lost.
pub(crate) fn virtual_servers_are_mended(scene: &Scene<'_>) {
    let service = &scene.service;
    let direct = Load::of_lasting_to_a_pod(scene, SLOW_RATE);
    let answers = format!("curl -sS --max-time 3 http://{service}/hostname");
    let address = format!("ip address show dev kube-ipvs0 | grep -w {service}");
    mended(scene, "ip link delete kube-ipvs0", &address);
    let server = format!("ipvsadm -Ln -t {service}:80 | grep -e '-> '");
    mended(scene, "ipvsadm -C", &server);
    direct.goes_on();
    direct.end();
    eventually("the Service answers again", SOON, || on_node("node1", &answers));
    servers::read_as_people_expect(scene);
}

/// The programs' maps can be had by who opens the same programs.
fn frontend_is_put_back(scene: &Scene<'_>, group: &Cgroup) {
    let programs = Sockets::open(group, Sizes::LEAST).unwrap();
    let addr = scene.other.parse().unwrap();
    let key = FrontendKey { addr, protocol: Protocol::Tcp, port: 80 };
    let before = repairs();
    let took = is_mended_in_time(
        "a frontend was forgotten",
        || programs.apply(&Edits { forget: vec![key], ..Edits::default() }).unwrap(),
        || programs.tables().unwrap().frontends.get(&key).copied().ok_or_else(|| "it is not there".to_owned()),
    );
    progress(&format!("a frontend of the programs was put back within {took:?}"));
    counted(scene, before);
}

/// They are counted when they are there again.
fn programs_are_put_back(group: &Cgroup) {
    let before = Cell::new(0);
    let took = is_mended_in_time(
        "programs at sockets were taken away",
        || {
            before.set(repairs());
            assert!(sockets::detach(group, true).unwrap());
        },
        || if repairs() > before.get() { Ok(()) } else { Err("no repair is counted".to_owned()) },
    );
    progress(&format!("programs at sockets were put back within {took:?}"));
}

/// Does the damage on the node, which has to be mended within a second so that `whole` succeeds there.
fn mended(scene: &Scene<'_>, damage: &str, whole: &str) {
    let before = repairs();
    let took = is_mended_in_time(damage, || drop(on_node("node1", damage).unwrap()), || on_node("node1", whole));
    progress(&format!("{damage}: mended within {took:?}"));
    counted(scene, before);
}

fn repairs() -> u64 {
    let metrics = on_node("node1", "curl -s 127.0.0.1:9099/metrics").unwrap();
    let ours = metrics.lines().filter(|line| line.starts_with("podnet_repairs_total"));
    ours.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn counted(scene: &Scene<'_>, before: u64) {
    eventually("it is counted", SOON, || match repairs() {
        after if after > before => Ok(()),
        after => Err(format!("{before} repairs before, {after} after\n{}", scene.cluster.logs())),
    });
}

/// While it puts many Services in force: each is served soon after that, or after it came where it came later.
fn agent_is_killed_at_work(scene: &Scene<'_>) {
    let services = if vm::is_here() { 8 } else { 30 };
    let service = |number: usize| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: many-{number}, namespace: web}}\nspec: {{clusterIP: 10.233.50.{number}, selector: {{app: web}}, ports: [{{port: 80}}]}}\n"
        )
    };
    let path = format!("/tmp/podnet-test-modes-{}.yaml", std::process::id());
    std::fs::write(&path, (1..=services).map(service).collect::<String>()).unwrap();
    let of_all = |verb: &[&str]| scene.cluster.kubectl_command(&[verb, &["-f", &path]].concat());
    let ask = |number: usize, patience| format!("curl -sS --max-time {patience} {}", url(number));
    // A first packet that comes too early is sent again a second later: who asks anew sees sooner that it is answered.
    let impatient = if vm::is_here() { "3" } else { "0.2" };
    let first = ask(1, impatient);
    // A slow answer is one.
    let late = ask(services, "3");
    let none_is_left = || {
        let mut delete = of_all(&["delete", "--wait=false", "--ignore-not-found"]);
        assert!(delete.stdout(Stdio::null()).status().unwrap().success());
        let is_gone = || if on_node("node1", &late).is_err() { Ok(()) } else { Err("served") };
        eventually("the last of many is gone", SOON, is_gone);
    };
    let last_kill: Cell<Option<Instant>> = Cell::new(None);
    let killed_at_work = || {
        // Not at the first time.
        if last_kill.get().is_some() {
            none_is_left();
        }
        eventually("the agent ran for a while", SOON, || match last_kill.get() {
            Some(kill) if kill.elapsed() < RAN_WELL => Err("not yet"),
            _ => Ok(()),
        });
        let agent = scene.cluster.pid("node1-agent");
        let mut applied = of_all(&["apply"]).stdout(Stdio::piped()).spawn().unwrap();
        let told = acknowledged(applied.stdout.take().unwrap());
        eventually("the first of many is served", SOON, || on_node("node1", &first));
        let agent = rustix::process::Pid::from_raw(agent).unwrap();
        rustix::process::kill_process(agent, rustix::process::Signal::KILL).unwrap();
        let killed = Instant::now();
        last_kill.set(Some(killed));
        let (served, longest) = served_since(killed, &told, impatient);
        assert!(applied.wait().unwrap().success());
        assert_eq!(served, services, "so many are served");
        longest
    };
    let took = is_mended_after("the agent was killed at work", killed_at_work);
    progress(&format!("another agent took it up within {took:?}"));
    none_is_left();
    std::fs::remove_file(path).unwrap();
}

fn url(number: usize) -> String {
    format!("http://10.233.50.{number}/hostname")
}

/// The numbers of the many Services that kubectl says it applied, and when it said so of each.
fn acknowledged(said: ChildStdout) -> Receiver<(usize, Instant)> {
    let (tell, told) = channel();
    thread::spawn(move || {
        for line in BufReader::new(said).lines() {
            // "service/many-7 created"
            let line = line.unwrap();
            let number = line.strip_prefix("service/many-").and_then(|rest| rest.split(' ').next()?.parse().ok());
            let _ = tell.send((number.unwrap_or_else(|| panic!("kubectl says {line:?}")), Instant::now()));
        }
    });
    told
}

/// Until all that are acknowledged are served on the node: how many, and how long it took for the one that took longest, since the agent was
/// killed or since it was acknowledged, whichever was later.
fn served_since(killed: Instant, told: &Receiver<(usize, Instant)>, impatient: &str) -> (usize, Duration) {
    let (mut waiting, mut is_over) = (BTreeMap::<usize, Instant>::new(), false);
    let (mut served, mut longest) = (0, Duration::ZERO);
    // Where the processor is emulated, what kubectl takes for the rest is most of it, and no part of what is measured.
    if vm::is_here() {
        let all: Vec<_> = told.iter().collect();
        let now = Instant::now();
        waiting.extend(all.into_iter().map(|(number, _)| (number, now)));
        is_over = true;
    }
    while !is_over || !waiting.is_empty() {
        waiting.extend(told.try_iter());
        if waiting.is_empty() {
            let next = told.recv();
            is_over = next.is_err();
            waiting.extend(next);
            continue;
        }
        let urls: String = waiting.keys().map(|number| format!(" -o /dev/null {}", url(*number))).collect();
        let ask = format!("curl -sZ --max-time {impatient} -w '%{{http_code}} %{{url}}\\n'{urls}; true");
        let said = on_node("node1", &ask).unwrap();
        let now = Instant::now();
        waiting.retain(|number, since| {
            let answered = format!("200 {}", url(*number));
            let is_served = said.lines().any(|line| line == answered);
            if is_served {
                served += 1;
                longest = longest.max(now - killed.max(*since));
            }
            !is_served
        });
        let patience = if vm::is_here() { 8 * SOON } else { SOON };
        assert!(killed.elapsed() < patience, "not served: {:?}", waiting.keys());
    }
    (served, longest)
}
