use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn an_authority_is_made_once_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let first = Pki::load_or_create(directory.path()).unwrap();
    let second = Pki::load_or_create(directory.path()).unwrap();
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(first.token_key().serialize_pem(), second.token_key().serialize_pem());
}

#[test]
fn keys_are_readable_by_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    Pki::load_or_create(directory.path()).unwrap();
    for name in ["ca.key", "service-accounts.key"] {
        let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_client_certificate_names_user_and_group() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path()).unwrap();
    let issued = pki.issue_client("system:node:node1", &["system:nodes"]).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(issued.cert_pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let subject = certificate.subject();
    assert_eq!(subject.iter_common_name().next().unwrap().as_str().unwrap(), "system:node:node1");
    let groups: Vec<_> = subject.iter_organization().map(|o| o.as_str().unwrap()).collect();
    assert_eq!(groups, ["system:nodes"]);
}
