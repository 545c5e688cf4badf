//! What is read of targets, and what is wrong with others.

use super::*;

/// What it means, whatever this program was built with.
fn kind(text: &str) -> Kind {
    let (scheme, rest) = text.split_once("://").unwrap();
    super::kind(scheme, Parts::read(rest).unwrap()).unwrap().unwrap()
}

fn host(name: &str, port: u16) -> Host {
    Host { name: name.to_owned(), port }
}

#[test]
fn a_target_is_read_with_the_ports_and_paths_that_are_usual() {
    assert_eq!("stdout:".parse::<Target>().unwrap().kind, Kind::Stdout);
    assert_eq!(kind("syslog+unix:///dev/log"), Kind::Syslog(Place::Unix("/dev/log".into())));
    assert_eq!(kind("syslog+udp://[::1]"), Kind::Syslog(Place::Udp(host("::1", 514))));
    assert_eq!(kind("syslog+tcp://a.b:99/"), Kind::Syslog(Place::Tcp(host("a.b", 99))));
    let tls = Place::Tls(host("a", 6514), Some("/ca.pem".to_owned()));
    assert_eq!(kind("syslog+tls://a?ca=/ca.pem"), Kind::Syslog(tls));
    assert_eq!(kind("ipfix+tcp://a"), Kind::Ipfix(Place::Tcp(host("a", 4739))));
    let Kind::Elasticsearch(web, index) = kind("elasticsearch+https://a/proxy/flows?credentials=/c&ca=/ca.pem") else {
        panic!()
    };
    assert_eq!((web.url.to_string().as_str(), index.as_str()), ("https://a:9200/proxy/_bulk", "flows"));
    assert_eq!((web.credentials.as_deref(), web.authorities.as_deref()), (Some("/c"), Some("/ca.pem")));
    let Kind::Elasticsearch(web, index) = kind("opensearch+http://[::1]:80") else { panic!() };
    assert_eq!((web.url.to_string().as_str(), index.as_str()), ("http://[::1]:80/_bulk", INDEX));
    let broker = |text| if let Kind::Amqp(broker) = kind(text) { broker } else { panic!("{text}") };
    let named = broker("amqp://a/logs?exchange=flows&credentials=/c");
    assert_eq!(
        (named.place, named.host.as_str(), named.exchange.as_str()),
        (Place::Tcp(host("a", 5672)), "logs", "flows")
    );
    let named = broker("amqps://a/?ca=/f");
    assert_eq!((named.place, named.host.as_str()), (Place::Tls(host("a", 5671), Some("/f".to_owned())), "/"));
    let Kind::Otlp(web) = kind("otlp+http://a/") else { panic!() };
    assert_eq!(web.url, "http://a:4318/v1/logs");
}

#[test]
fn where_records_wait_is_said_of_any_target_and_makes_no_other_one_of_it() {
    let target = |text: &str| text.parse::<Target>().unwrap();
    let (usual, on_disk) = (target("stdout:"), target("stdout:?buffer=disk"));
    assert_eq!((usual.waits_on_disk, on_disk.waits_on_disk), (false, true));
    assert_eq!((&on_disk.kind, on_disk.to_string().as_str()), (&Kind::Stdout, "stdout:?buffer=disk"));
    for (text, usual) in [
        ("stdout:?buffer=disk", "stdout:"),
        ("otlp+https://a?ca=/f&buffer=disk&credentials=/c", "otlp+https://a?ca=/f&credentials=/c"),
        ("kafka://a/b?buffer=disk", "kafka://a/b"),
    ] {
        let target = |text: &str| Target { text: text.to_owned(), waits_on_disk: false, kind: Kind::Stdout };
        let (own, usual) = (target(text), target(usual));
        assert_eq!((own.mark(), own.directory()), (usual.mark(), usual.directory()), "{text}");
    }
    // Others know it by what it was called before this could be said.
    let text = "otlp+https://a?ca=/f&";
    let (hash, ..) = Uuid::new_v5(&NAMES, text.as_bytes()).as_fields();
    let other = Target { text: text.to_owned(), waits_on_disk: false, kind: Kind::Stdout };
    assert_eq!(other.mark(), format!("{hash:08x}"));
}

#[test]
fn brokers_of_kafka_have_commas_between_them() {
    let brokers = |text: &str| if let Kind::Kafka(brokers) = kind(text) { brokers } else { panic!("{text}") };
    let plain = brokers("kafka://a,b:99,[::1]/flows?credentials=/c");
    assert_eq!(plain.hosts, [host("a", 9092), host("b", 99), host("::1", 9092)]);
    assert_eq!((plain.topic.as_str(), plain.credentials.as_deref(), plain.is_secure), ("flows", Some("/c"), false));
    let secure = brokers("kafka+tls://a?ca=/f");
    assert_eq!((secure.hosts, secure.topic.as_str()), (vec![host("a", 9093)], EXCHANGE));
    assert_eq!((secure.authorities.as_deref(), secure.is_secure), (Some("/f"), true));
    for (behind, is_compressed) in [("", false), ("?compression=none", false), ("?compression=gzip", true)] {
        assert_eq!(brokers(&format!("kafka://a{behind}")).is_compressed, is_compressed, "{behind}");
    }
}

#[test]
fn files_are_put_into_a_directory_or_below_a_url() {
    let files = |text| if let Kind::Parquet(files) = kind(text) { files } else { panic!("{text}") };
    let usual = Files { shelf: Shelf::Directory("/var/log/flows".into(), 1 << 30), time: Duration::from_secs(60) };
    assert_eq!(files("parquet:///var/log/flows"), usual);
    let own = Files { shelf: Shelf::Directory("/f".into(), 65_536), time: Duration::from_secs(5) };
    assert_eq!(files("parquet:///f?seconds=5&bytes=65536"), own);
    let bucket =
        |text| if let Shelf::Bucket(web, region) = files(text).shelf { (web, region) } else { panic!("{text}") };
    let (web, region) = bucket("s3+https://a/flows/node/?region=eu-west-1&credentials=/c&ca=/f");
    assert_eq!((web.url.to_string().as_str(), region.as_str()), ("https://a:443/flows/node", "eu-west-1"));
    assert_eq!((web.credentials.as_deref(), web.authorities.as_deref()), (Some("/c"), Some("/f")));
    let (web, region) = bucket("s3+http://flows.a:9000");
    assert_eq!((web.url.path(), web.url.port_u16(), region.as_str()), ("/", Some(9000), REGION));
}

#[test]
fn what_is_wrong_with_a_target_is_named_and_no_password_is_told() {
    for (text, named) in [
        ("", "stdout:"),
        ("stdout", "stdout:"),
        ("ftp://a", "ipfix+tcp"),
        ("stdout:out", "stdout:"),
        ("stdout://out", "stdout:"),
        ("stdout:?ca=/f", "ca is of no use"),
        ("stdout:?buffer=memory", "buffer is disk, and not memory"),
        ("parquet:///f?buffer=disk&buffer=disk", "buffer has a value, once"),
        ("syslog+udp://", "no host"),
        ("syslog+udp://a:x", "x is no port"),
        ("syslog+udp://a:0", "0 is no port"),
        ("syslog+udp://a/path", "/path"),
        ("syslog+udp://a?ca=/f", "ca is of no use"),
        ("syslog+tcp://a?credentials=/f", "credentials is of no use"),
        ("syslog+tcp://a,b", "one host"),
        ("syslog+unix://dev/log", "three slashes"),
        ("otlp+http://a?x=1", "x is none of"),
        ("otlp+https://a?ca=", "ca has a value"),
        ("otlp+https://a?ca=/f&ca=/g", "ca has a value, once"),
        ("otlp+http://a?ca=/f", "ca is of no use"),
        ("elasticsearch+http://a/Flows", "Flows is no name"),
        ("kafka://a,/flows", "no host"),
        ("kafka://a/flows/more", "flows/more is no name of a topic"),
        ("kafka://a?ca=/f", "ca is of no use"),
        ("kafka://a?compression=zstd", "compression is gzip or none, and not zstd"),
        ("amqp://a?compression=gzip", "compression is of no use"),
        ("parquet://host/directory", "three slashes"),
        ("parquet:///f?seconds=0", "seconds is a number from 1 to 3600, and not 0"),
        ("parquet:///f?bytes=10", "bytes is a number from 65536"),
        ("parquet:///f?region=x", "region is of no use"),
        ("s3+https://a/b c", "no path of files"),
        ("s3+https://a/b?bytes=100000", "bytes is of no use"),
        ("s3+https://a/b?region=eu/west", "eu/west is no name of a region"),
    ] {
        let error = text.parse::<Target>().unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
    for text in ["otlp+https://user:secret@a", "syslog+tcp://user:secret@a:1", "kafka://u:secret@a", "user:x@secret"] {
        let error = text.parse::<Target>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_kind_that_is_not_built_in_is_refused_by_the_feature_that_it_needs() {
    let families: &[Family] = &[("s3", "parquet", false), ("syslog", "syslog", true)];
    let refused = built_in("s3+https", families).unwrap_err();
    assert_eq!(refused, TargetError::Feature { family: "s3", feature: "parquet" });
    assert!(refused.to_string().contains("WITH=podnet-cli/parquet"));
    assert_eq!(built_in("syslog+tls", families), Ok(()));
    // Of each kind something is known to say whether this program has it.
    for (text, feature, is_there) in [
        ("syslog+tcp://a", "syslog", cfg!(feature = "syslog")),
        ("ipfix+tcp://a", "ipfix", cfg!(feature = "ipfix")),
        ("elasticsearch+http://a", "elasticsearch", cfg!(feature = "elasticsearch")),
        ("opensearch+http://a", "elasticsearch", cfg!(feature = "elasticsearch")),
        ("otlp+http://a", "otlp", cfg!(feature = "otlp")),
        ("amqp://a", "amqp", cfg!(feature = "amqp")),
        ("amqps://a", "amqp", cfg!(feature = "amqp")),
        ("kafka+tls://a", "kafka", cfg!(feature = "kafka")),
        ("parquet:///a", "parquet", cfg!(feature = "parquet")),
        ("s3+http://a", "parquet", cfg!(feature = "parquet")),
    ] {
        match text.parse::<Target>() {
            Ok(target) => assert!(is_there && target.to_string() == text, "{text}"),
            Err(error) => assert!(!is_there && error.to_string().contains(feature), "{text}: {error}"),
        }
    }
}

#[test]
fn targets_have_directories_of_their_own() {
    let names = ["otlp+http://a", "otlp+http://a/", "otlp-http---a"].map(|text| {
        let target = Target { text: text.to_owned(), waits_on_disk: false, kind: Kind::Stdout };
        target.directory()
    });
    assert!(names[0].starts_with("otlp-http---a-") && names[0] != names[1] && names[1] != names[2], "{names:?}");
}
