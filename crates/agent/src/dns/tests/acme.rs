//! Certificates that are issued and renewed (`tls { acme … }`), by an authority that these tests play.

mod authority;

use std::os::unix::fs::PermissionsExt as _;

use authority::Authority;

use super::{
    secure::{NAME, kdig, kdig_until, trusting},
    *,
};

/// A Corefile with a port in plain text, which knows the authority's address, and one over TLS.
fn corefile(directory: &Directory, (plain, secured): (u16, u16), authority: &Authority) -> PathBuf {
    let hosts = format!("hosts /nowhere {{\n  127.0.0.1 {}\n  10.0.0.1 a.example.com\n }}", authority::HOST);
    let tls = format!(
        "tls {{\n  acme {NAME} *.{NAME}\n  email a@example.org\n  ca {}\n  storage kept\n  ca_root ca.pem\n  \
         resolver 127.0.0.1:{plain}\n }}",
        authority.url()
    );
    let root = directory.0.display();
    let text = format!(".:{plain} {{\n {hosts}\n}}\ntls://.:{secured} {{\n root {root}\n {tls}\n {hosts}\n}}\n");
    directory.write("Corefile", &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_issued_while_all_else_is_served_and_renewed_while_it_is_shown() {
    let directory = Directory::new("acme");
    let (plain, secured) = (free_port().await, free_port().await);
    let authority = Authority::start(&directory, plain).await;
    let corefile = corefile(&directory, (plain, secured), &authority);
    let kept = directory.0.join(format!("kept/{}_{}_dir", authority::HOST, authority.port));

    let checked = crate::dns::check(&std::fs::read_to_string(&corefile).unwrap(), "Corefile");
    assert_eq!(checked.errors, []);
    assert!(crate::dns::obstacles(&checked.config).is_empty());
    assert_eq!((authority.asked(), kept.exists()), (0, false), "who only looks asks nobody for a certificate");

    // The authority is away at first.
    let process = Process::start(&corefile, None);
    dig_until(plain, "a.example.com A +short", "10.0.0.1").await;
    let trusted = trusting(&directory, "ca", "+tls");
    assert!(!kdig(secured, &trusted).await.contains("10.0.0.1"), "there is a certificate");
    authority.open();
    kdig_until(secured, &trusted, "10.0.0.1").await;
    let challenge = format!("_acme-challenge.{NAME} TXT +short");
    assert_eq!(dig(plain, &challenge).await, "", "what was proved is not told any more");
    let certificate = kept.join(format!("{NAME}.pem"));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files = [&certificate, &kept.join("account-a_example.org.json")].map(|path| mode(path));
    assert_eq!((files, mode(&kept)), ([0o600; 2], 0o700));
    process.stop().await;

    // Another process shows the one that is there, though it is old; the new one comes from the same account.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut old = rcgen::CertificateParams::new(vec![NAME.to_owned(), format!("*.{NAME}")]).unwrap();
    old.not_after = rcgen::date_time_ymd(2049, 1, 1);
    let old = old.self_signed(&key).unwrap().pem();
    directory.write("old.pem", &old);
    std::fs::write(&certificate, old + &key.serialize_pem()).unwrap();
    authority.close();
    let process = Process::start(&corefile, None);
    kdig_until(secured, &trusting(&directory, "old", "+tls"), "10.0.0.1").await;
    authority.open();
    kdig_until(secured, &trusted, "10.0.0.1").await;
    assert_eq!(authority.accounts(), ["mailto:a@example.org"]);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_authority_is_told_elsewhere_proves_nothing() {
    let directory = Directory::new("unproved");
    let (plain, secured, other) = (free_port().await, free_port().await, free_port().await);
    // Nobody listens where it asks.
    let authority = Authority::start(&directory, other).await;
    authority.open();
    let process = Process::start(&corefile(&directory, (plain, secured), &authority), None);
    let start = Instant::now();
    // Two names, two times.
    while authority.refused() < 4 {
        assert!(start.elapsed() < DEADLINE, "it is not tried again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!kdig(secured, &trusting(&directory, "ca", "+tls")).await.contains("10.0.0.1"));
    assert_eq!(authority.accounts().len(), 1);
    process.stop().await;
}
