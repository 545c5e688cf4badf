use std::io;

use super::*;
use crate::{Config, Environment};

/// What a Corefile with these options means where `/etc/web/config.yml` has this text; else the first thing that is wrong.
fn read(options: &str, file: &str) -> Result<Config, String> {
    let corefile = format!(". {{\n root /etc\n prometheus :9153 {{\n{options}\n }}\n whoami\n}}\n");
    let file = |path: &str| match path {
        "/etc/web/config.yml" => Ok(file.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let list = |_: &str| Ok(Vec::new());
    let environment = Environment { file: &file, list: &list, ..Environment::EMPTY };
    Config::load("Corefile", &corefile, &environment).map_err(|error| error.to_string())
}

fn tls(options: &str, file: &str) -> Result<Option<WebTls>, String> {
    read(options, file).map(|config| config.process.metrics[0].tls.clone())
}

fn files(certificate: &str, key: &str, authorities: Option<&str>) -> TlsFiles {
    let [certificate, key] = [certificate, key].map(|file| Some(file.to_owned()));
    TlsFiles { certificate, key, authorities: authorities.map(str::to_owned) }
}

#[test]
fn files_may_stand_in_the_corefile_with_what_is_asked_of_clients() {
    assert_eq!(tls("", "").unwrap(), None);
    let plain = tls("tls own.pem /keys/own.key", "").unwrap().unwrap();
    assert_eq!(plain.options.files, files("/etc/own.pem", "/keys/own.key", None));
    assert_eq!((plain.options.client_auth, plain.http2), (ClientAuth::NoCertificate, true));
    for (name, policy) in CLIENT_AUTH {
        let (shown, asked) = ("tls own.pem own.key ca.pem".to_owned(), format!("client_auth {name}"));
        // Whichever of the two stands first.
        for options in [format!("{shown}\n{asked}"), format!("{asked}\n{shown}")] {
            let read = tls(&options, "").unwrap().unwrap();
            assert_eq!(read.options.client_auth, policy, "{name}");
            assert_eq!(read.options.files.authorities.as_deref(), Some("/etc/ca.pem"));
        }
    }
}

#[test]
fn a_web_configuration_names_files_beside_itself_and_says_what_is_spoken() {
    let text = "
        tls_server_config:
          cert_file: own.pem
          key_file: /keys/own.key
          client_auth_type: RequireAndVerifyClientCert
          client_ca_file: ca.pem
          min_version: TLS13
          prefer_server_cipher_suites: true
        http_server_config:
          http2: false
          headers:
            X-Frame-Options: deny
        basic_auth_users:
    ";
    let config = read("tls web/config.yml", text).unwrap();
    let expected = WebTls {
        options: TlsOptions {
            files: files("/etc/web/own.pem", "/keys/own.key", Some("/etc/web/ca.pem")),
            acme: None,
            client_auth: ClientAuth::RequireAndVerify,
            keylog: None,
        },
        versions: TlsVersions::Tls13,
        http2: false,
    };
    let listen = "[::]:9153".parse().unwrap();
    assert_eq!(config.process.metrics, [PrometheusOptions { listen, tls: Some(expected) }]);
    // Who changes one of them has it looked at again.
    for file in ["/etc/web/config.yml", "/etc/web/own.pem", "/keys/own.key", "/etc/web/ca.pem"] {
        assert!(config.files.contains(&PathBuf::from(file)), "{file}: {:?}", config.files);
    }
    assert!(config.warnings.iter().any(|warning| warning.contains("headers of the web configuration")));
}

#[test]
fn versions_are_those_between_the_oldest_and_the_newest() {
    for (oldest, newest, expected) in [
        (None, None, Some(TlsVersions::All)),
        (Some("TLS10"), None, Some(TlsVersions::All)),
        (Some("TLS12"), Some("TLS13"), Some(TlsVersions::All)),
        (None, Some("TLS12"), Some(TlsVersions::Tls12)),
        (Some("TLS13"), None, Some(TlsVersions::Tls13)),
        (Some("TLS13"), Some("TLS12"), None),
        (None, Some("TLS11"), None),
        (Some("1.3"), None, None),
    ] {
        assert_eq!(versions(oldest, newest).ok(), expected, "{oldest:?} {newest:?}");
    }
}

#[test]
fn options_that_say_too_little_or_too_much_are_refused() {
    let own = "tls_server_config: {cert_file: a, key_file: b}";
    for (options, expected) in [
        ("tls", "a web configuration, or the files of a certificate and its key"),
        ("tls a b c d", "takes at most 3"),
        ("tls a b\ntls a b", "allowed here: tls once"),
        ("tls a b\nclient_auth nocert", "client_auth cannot be \"nocert\"; allowed: NoClientCert, RequestClientCert"),
        ("client_auth NoClientCert", "needed: tls CERT KEY [CA] beside it"),
        ("tls web/config.yml\nclient_auth NoClientCert", "needed: tls CERT KEY [CA] beside it"),
        ("tls nowhere.yml", "cannot read /etc/nowhere.yml"),
    ] {
        let error = read(options, own).map(|_| ()).unwrap_err();
        assert!(error.contains(expected), "{options}: {error}");
    }
}

#[test]
fn of_a_web_configuration_nothing_is_passed_over_that_is_not_served() {
    let own = "tls_server_config: {cert_file: a, key_file: b";
    for (rest, expected) in [
        (", client_ca_file: c}", "client_ca_file has no use without"),
        (", client_auth_type: maybe}", "client_auth_type is none of NoClientCert, "),
        (", max_version: TLS11}", "max_version cannot be \"TLS11\""),
        (", client_allowed_sans: [x]}", "client_allowed_sans is not served by this server yet; served: cert_file, "),
        (", cipher_suites: [x]}", "cipher_suites is not served"),
        ("}\nbasic_auth_users: {x: y}", "basic_auth_users is not served"),
        (", certificate: c}", "unknown field `certificate`"),
        ("", "the web configuration \"web/config.yml\" cannot be read"),
    ] {
        let error = read("tls web/config.yml", &format!("{own}{rest}")).map(|_| ()).unwrap_err();
        assert!(error.contains(expected), "{rest}: {error}");
    }
    for text in ["tls_server_config: {cert_file: a}", "http_server_config: {http2: true}"] {
        let error = tls("tls web/config.yml", text).unwrap_err();
        assert!(error.contains("tls_server_config needs cert_file and key_file"), "{text}: {error}");
    }
}

#[test]
fn two_blocks_do_not_serve_metrics_at_one_address_in_two_ways() {
    let block = |zone: &str, options: &str| format!("{zone} {{\n prometheus :9153{options}\n whoami\n}}\n");
    let load = |text: &str| Config::load("Corefile", text, &Environment::EMPTY).map_err(|error| error.to_string());
    let tls = " {\n  tls a b\n }";
    let same = load(&(block("a.example", tls) + &block("b.example", tls))).unwrap();
    assert_eq!(same.process.metrics.len(), 1);
    for (first, second) in [(tls, ""), ("", tls), (tls, " {\n  tls a c\n }")] {
        let error = load(&(block("a.example", first) + &block("b.example", second))).unwrap_err();
        assert!(error.contains("the address of prometheus cannot be \":9153\""), "{error}");
    }
}
