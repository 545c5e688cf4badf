//! What becomes of a panic.
//!
//! It ends the process: a thread or a task that is gone is missed by nobody, and an agent that is half there is worse than one that
//! whoever keeps it starts anew. The one exception is the way to an answer of cluster DNS, where no packet, whatever stands in it, is to
//! take a node's network along: that the server survives (`podnet_dns::server::panicked`).

use std::{
    backtrace::Backtrace,
    io::{Write as _, stderr},
    panic::{set_hook, take_hook},
    process::abort,
};

/// From here on panics end the process, after they were told as they were before, unless they are survived.
pub fn end_the_process() {
    let tell = take_hook();
    set_hook(Box::new(move |panicked| {
        let report = |stack: bool| {
            // It is told behind what led to it, on one line.
            let report = panicked.to_string().replacen(":\n", ": ", 1);
            if stack { format!("{report}\n{}", Backtrace::force_capture()) } else { report }
        };
        if let Err(first) = podnet_dns::server::panicked(report) {
            // One that another one led out of: that would have been told later.
            if let Some(first) = first {
                let _ = writeln!(stderr(), "{first}");
            }
            tell(panicked);
            abort();
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        net::{Ipv4Addr, SocketAddr},
        os::unix::process::ExitStatusExt as _,
        process::{Command, Output},
        sync::{Arc, Mutex},
        thread,
        time::Instant,
    };

    use podnet_dns::{Arrival, Config, Environment, Outcome, Scheme, Server, Transport, server::Event, zone::Cluster};

    use super::*;
    use crate::dns::outside::Network;

    /// Tells the test that runs in a process of its own what to do there.
    const ROLE: &str = "PODNET_TEST_PANICS";
    const SIGABRT: i32 = 6;

    fn alone(role: &str) -> Output {
        let mut test = Command::new(env::current_exe().unwrap());
        let name = "dns::panics::tests::in_a_process_of_its_own";
        test.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, role).output().unwrap()
    }

    /// Panics when it is dropped.
    struct Falls;

    impl Drop for Falls {
        fn drop(&mut self) {
            panic!("it falls, too");
        }
    }

    fn is_full() {
        panic!("the log is full");
    }

    fn falls() {
        let _falls = Falls;
        is_full();
    }

    /// The code of a server whose `log` cannot be written, and what it tells of that.
    fn answered(errors: &str, log: fn()) -> (u8, String) {
        let told: Arc<Mutex<String>> = Arc::default();
        let heard = Arc::clone(&told);
        let observer = Box::new(move |event: &Event<'_>| match event {
            Event::Failed { message, .. } => *heard.lock().unwrap() = (*message).to_owned(),
            _ => log(),
        });
        let text = format!(".:53 {{\n {errors}\n log\n whoami\n}}\n");
        let config = Config::load("Corefile", &text, &Environment::EMPTY).unwrap();
        let network = Arc::new(Network::new(Arc::default()));
        let server = Server::new(config, &Cluster::default(), 1, Arc::default(), network, observer);
        let arrival = Arrival {
            from: SocketAddr::from((Ipv4Addr::LOCALHOST, 4000)),
            transport: Transport::Udp,
            port: 53,
            scheme: Scheme::Dns,
            bound: None,
            local: None,
            keepalive: None,
        };
        let packet = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        let mut response = Vec::new();
        let outcome = server.handle(&packet, &arrival, Instant::now(), &mut response);
        assert!(matches!(outcome, Outcome::Answer));
        let told = told.lock().unwrap().clone();
        (response[3] & 15, told)
    }

    /// The other test runs it with a role; by itself it does nothing.
    #[test]
    fn in_a_process_of_its_own() {
        let Ok(role) = env::var(ROLE) else { return };
        end_the_process();
        if role == "task" {
            let _ = thread::spawn(|| assert!(env::var(ROLE).is_err(), "a task ends")).join();
            println!("the rest goes on");
            return;
        }
        if role == "twice" {
            answered("errors", falls);
            println!("the rest goes on");
            return;
        }
        let (code, told) = answered("errors", is_full);
        assert_eq!(code, 2);
        assert!(
            told.starts_with("a. A from 127.0.0.1:4000 led to a panic, which was survived: panicked at "),
            "{told}"
        );
        assert!(told.contains("panics.rs:") && told.ends_with(": the log is full"), "{told}");
        let (code, told) = answered("errors {\n stacktrace\n }", is_full);
        assert_eq!(code, 2);
        assert!(told.lines().count() > 3 && told.contains(": the log is full\n"), "{told}");
    }

    #[test]
    fn a_panic_ends_the_process_but_on_the_way_to_an_answer() {
        let Output { status, stdout, stderr } = alone("answers");
        assert!(status.success(), "{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(String::from_utf8_lossy(&stdout).contains("1 passed"));
        let Output { status, stdout, stderr } = alone("task");
        assert_eq!(status.signal(), Some(SIGABRT), "{}", String::from_utf8_lossy(&stdout));
        assert!(!String::from_utf8_lossy(&stdout).contains("goes on"));
        assert!(String::from_utf8_lossy(&stderr).contains("a task ends"), "it is told as it always was");
    }

    #[test]
    fn a_panic_on_the_way_out_of_another_one_ends_the_process_and_both_are_told() {
        let Output { status, stdout, stderr } = alone("twice");
        assert_eq!(status.signal(), Some(SIGABRT), "{}", String::from_utf8_lossy(&stdout));
        let told = String::from_utf8_lossy(&stderr);
        assert!(told.contains("the log is full") && told.contains("it falls, too"), "{told}");
    }
}
