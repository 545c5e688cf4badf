//! Plugins with keys, certificates and passwords, and those that ask others.

use super::{check, options, refused};
use crate::{
    authority::tsig::Algorithm,
    chain::{ClientAuth, Policy, TsigRequire},
    name::Name,
};

#[test]
fn tls_has_its_files_and_what_is_asked_of_clients() {
    let tls = options!(Tls, "tls cert.pem key.pem ca.pem {\n client_auth require_and_verify\n keylog /log\n}");
    assert_eq!(
        (tls.files.certificate.as_deref(), tls.files.authorities.as_deref()),
        (Some("cert.pem"), Some("ca.pem"))
    );
    assert_eq!((tls.client_auth, tls.keylog.as_deref()), (ClientAuth::RequireAndVerify, Some("/log")));
    assert_eq!(options!(Tls, "tls a b").client_auth, ClientAuth::NoCertificate);
}

#[test]
fn a_certificate_is_issued_for_each_domain_once_and_kept_apart_by_authority_and_account() {
    let tls = options!(Tls, "tls {\n acme DNS.example.org dns.example.org. *.example.org\n email a@example.org\n}");
    let acme = tls.acme.unwrap();
    assert_eq!(acme.domains, ["dns.example.org", "*.example.org"].map(|name| Name::parse(name).unwrap()));
    let kept = ".coredns/acme/acme-v02.api.letsencrypt.org_directory";
    assert_eq!((acme.storage.as_str(), acme.certificate()), (kept, format!("{kept}/dns.example.org.pem")));
    assert_eq!(acme.account(), format!("{kept}/account-a_example.org.json"));
    assert_eq!((tls.files.certificate, tls.files.key), (Some(acme.certificate()), Some(acme.certificate())));
    let block =
        |key: &str, option: &str, domains: &str| format!("{key} {{\n tls {{\n  acme {domains}\n  {option}\n }}\n}}\n");
    // The same for two ports is one; what nothing is encrypted with is none.
    let text = ["tls://.", "https://.", ".:53"].map(|key| block(key, "storage a", "x.org")).concat();
    assert_eq!(check(&text).unwrap().acme().len(), 1);
    assert_eq!(check(&block(".:53", "storage a", "x.org")).unwrap().acme(), []);
    for other in [block("https://.", "storage b", "x.org"), block("https://.", "storage a", "y.org x.org")] {
        let error = check(&(block("tls://.", "storage a", "x.org") + &other)).unwrap_err();
        assert!(error.starts_with("Corefile:9:8: a domain of acme cannot be "), "{error}");
    }
    let apart = block("tls://.", "storage a", "x.org") + &block("https://.", "storage b", "y.org");
    assert_eq!(check(&apart).unwrap().acme().len(), 2);
}

#[test]
fn tsig_has_secrets_of_the_corefile_and_of_files_and_prints_none() {
    let tsig = options!(
        Tsig,
        "tsig {\n secret c.key. c2VjcmV0 hmac-sha1\n secret d.key. c2VjcmV0\n secrets /keys\n require AXFR IXFR\n}"
    );
    let told: Vec<_> = tsig
        .secrets
        .iter()
        .map(|secret| (secret.name.to_string(), secret.algorithm, secret.secret.as_slice()))
        .collect();
    assert_eq!(
        told,
        [
            ("c.key.".to_owned(), Algorithm::Sha1, b"secret".as_slice()),
            ("d.key.".to_owned(), Algorithm::Sha256, b"secret"),
            ("a.key.".to_owned(), Algorithm::Sha512, b"secret"),
            ("b.".to_owned(), Algorithm::Sha256, &[255, 255]),
        ]
    );
    assert_eq!(tsig.require, TsigRequire::Types(vec![252, 251]));
    assert!(!format!("{tsig:?}").contains("115, 101"), "{tsig:?}");
    assert_eq!(options!(Tsig, "tsig a.org {\n require all\n}").require, TsigRequire::All);
    assert_eq!(options!(Tsig, "tsig {\n require_opcode NOTIFY update\n}").opcodes, TsigRequire::Types(vec![4, 5]));
}

#[test]
fn dnssec_and_sign_have_keys() {
    let dnssec =
        options!(Dnssec, "dnssec example {\n key file Kp256.key Kzsk.private\n key file Kzsk\n cache_capacity 5\n}");
    let tags: Vec<u16> = dnssec.keys.iter().map(|key| key.tag()).collect();
    assert_eq!((tags, dnssec.cache_capacity), (vec![52134, 62417, 62417], 5));
    let sign = options!(Sign, "sign db example other {\n key file Kp256.key\n key file Kzsk\n directory /out\n}");
    let told: Vec<(&str, usize)> = sign.zones.iter().map(|zone| (zone.file.as_str(), zone.keys.len())).collect();
    assert_eq!(told, [("/out/db.example.signed", 2), ("/out/db.other.signed", 2)]);
    let sign = options!(Sign, "sign db {\n key file Kzsk\n}");
    assert_eq!(sign.zones[0].file, "/var/lib/coredns/db.example.org.signed");
}

#[test]
fn who_else_is_asked_has_all_options() {
    let external = options!(K8sExternal, "k8s_external a.org {\n apex ns\n ttl 30\n headless\n fallthrough\n}");
    assert_eq!((external.apex.as_str(), external.ttl, external.headless), ("ns", 30, true));
    assert_eq!(options!(K8sExternal, "k8s_external").zones, [Name::parse("example.org").unwrap()]);
    let etcd = options!(
        Etcd,
        "etcd s.local {\n path skydns/x/\n endpoint http://a:1 https://b:2\n credentials user secret\n tls ca\n upstream\n \
         stubzones\n fallthrough\n no_apex_fallback\n min-lease-ttl 60\n max-lease-ttl 1h\n}"
    );
    assert_eq!((etcd.path.as_str(), etcd.endpoints.len(), etcd.lease_ttl), ("/skydns/x", 2, (60, 3600)));
    assert!(!format!("{etcd:?}").contains("secret"));
    assert_eq!(options!(Etcd, "etcd").endpoints, ["http://localhost:2379"]);
    let grpc = options!(
        Grpc,
        "grpc . 10.0.0.1:9005 unix:///run/g.sock /etc/resolv.conf {\n except a.org\n tls\n tls_servername b.org\n policy \
         round_robin\n fallthrough\n pool_size 5\n health_check 1s\n max_fails 3\n}"
    );
    assert_eq!((grpc.upstreams.len(), grpc.pool_size, grpc.policy), (3, 5, Policy::RoundRobin));
    assert_eq!(options!(Metadata, "metadata a.org b.org").len(), 2);
}

#[test]
fn what_none_of_them_means_is_refused_at_its_place() {
    refused(&[
        ("tls cert", "2:5: \"tls\" ends here, needed: the files of a certificate and its key"),
        ("tls", "2:1: \"tls\" ends here, needed: the files of a certificate and its key, or { acme DOMAIN… }"),
        ("tls a b {\n email x@y\n}", "3:8: \"email\" ends here, needed: acme DOMAIN… beside it"),
        ("tls a b {\n acme x.org\n}", "2:5: found \"a\", allowed here: no files"),
        ("tls {\n acme\n}", "3:2: \"acme\" ends here, needed: the domains"),
        ("tls {\n acme 192.0.2.1\n}", "3:7: a domain of acme cannot be \"192.0.2.1\"; allowed: a host's name"),
        ("tls {\n acme a/b\n}", "3:7: a domain of acme cannot be \"a/b\""),
        ("tls {\n acme a.*.org\n}", "3:7: a domain of acme cannot be \"a.*.org\""),
        ("tls {\n acme a.org\n email a\n}", "4:8: email cannot be \"a\"; allowed: an address"),
        ("tls {\n acme a.org\n ca http://a/b\n}", "4:5: ca cannot be \"http://a/b\"; allowed: the URL of an ACME"),
        ("tls {\n acme a.org\n ca_root gone\n}", "4:10: cannot read gone: "),
        ("tls {\n acme a.org\n resolver a\n}", "4:11: resolver cannot be \"a\"; allowed: an address"),
        ("tls a b {\n client_auth maybe\n}", "3:14: client_auth cannot be \"maybe\"; allowed: nocert, request"),
        ("tsig {\n secret a\n}", "3:9: \"secret\" ends here, needed: a key's name and its secret"),
        ("tsig {\n secret a x!\n}", "3:11: a secret of tsig cannot be \"…\"; allowed: base64"),
        ("tsig {\n secret a c2VjcmV0 rot13\n}", "3:20: an algorithm of tsig cannot be \"rot13\""),
        (
            "tsig {\n secrets /keys.bad\n}",
            "3:10: the file with secrets \"/keys.bad\" cannot be read: key \"a\" has a sec",
        ),
        ("tsig {\n secret a c2VjcmV0 hmac-md5\n}", "3:20: an algorithm of tsig cannot be \"hmac-md5\""),
        ("tsig {\n require_opcode PUSH\n}", "3:17: a kind of messages cannot be \"PUSH\"; allowed: QUERY, IQUERY"),
        ("transfer {\n to *\n key k\n}", "4:6: there is no key \"k.\"; known: none"),
        ("tsig {\n require NOTHING\n}", "3:10: a type of require cannot be \"NOTHING\""),
        ("dnssec {\n key secret K\n}", "3:6: where keys are cannot be \"secret\"; allowed: file: keys are not fetched"),
        ("dnssec {\n key file Kp256 Kgone\n}", "3:17: cannot read Kgone.key: entity not found"),
        ("dnssec {\n key file Kbad\n}", "3:11: the key \"Kbad\" cannot be read: the private key does not fit"),
        ("sign db {\n key file Kgone\n}", "3:11: cannot read Kgone.key: entity not found"),
        ("sign db", "2:6: \"sign\" ends here, needed: { key file"),
        ("k8s_external {\n apex a.b\n}", "3:7: apex cannot be \"a.b\"; allowed: one label"),
        ("etcd {\n endpoint localhost\n}", "3:11: an endpoint of etcd cannot be \"localhost\""),
        ("etcd {\n credentials user\n}", "3:14: \"credentials\" ends here, needed: a user and a password"),
        ("grpc .", "2:6: \"grpc\" ends here, needed: at least one upstream"),
        ("grpc . unix://x", "2:8: an upstream cannot be \"unix://x\""),
        (
            "grpc . 10.0.0.1 {\n pool_size 101\n}",
            "3:12: pool_size cannot be \"101\"; allowed: a whole number from 1 to 100",
        ),
        ("metadata a {\n b\n}", "3:2: found \"b\", allowed here: no options"),
    ]);
}
