//! Brokers of a few lines: what they are sent, and again, and by whom.

mod broker;

use std::net::TcpListener;

use data_encoding::BASE64;
use ring::{digest, hmac, pbkdf2};

use self::broker::{Connection, METADATA, topic};
use super::{
    agent::{Agent, listener, wait},
    *,
};

fn numbers(parts: &[(i64, Vec<Numbered>)]) -> Vec<(i64, Vec<u64>)> {
    parts.iter().map(|(partition, items)| (*partition, sequences(items))).collect()
}

/// How many have come, how many attempts failed, and how many items had to wait.
fn counts(agent: &Agent) -> [u64; 3] {
    ["sent_records_total", "failed_batches_total", "spilled_records_total"].map(|name| agent.metric(name))
}

#[test]
fn each_flow_has_its_partition_and_where_a_leader_has_moved_its_items_go_to_the_other_at_once() {
    let [(first, address), (second, _)] = [listener(), listener()];
    let agent = Agent::start(&format!("kafka://{address}/flows"));
    let sent = [flow(0), flow(1), flow(2), flow(3), gap(4, 2), flow(5)];
    agent.collectors.offer(&sent);
    Connection::metadata(&first, &[&first, &second], &[1, 2]);
    let mut to_first = Connection::accept(&first);
    let parts = to_first.produced();
    // As Kafka's own partitioner has them, by the flows' ids and the node.
    assert_eq!(numbers(&parts), [(0, vec![1, 3, 4])]);
    assert_eq!(parts[0].1, [sent[1].clone(), sent[3].clone(), sent[4].clone()]);
    let mut to_second = Connection::accept(&second);
    assert_eq!(numbers(&to_second.produced()), [(1, vec![0, 2, 5])]);
    to_first.became(&[(0, 0)]);
    // NOT_LEADER_OR_FOLLOWER.
    to_second.became(&[(1, 6)]);
    Connection::metadata(&first, &[&first, &second], &[1, 1]);
    assert_eq!(numbers(&to_first.produced()), [(1, vec![0, 2, 5])], "those that have come do not come again");
    assert_eq!(counts(&agent), [0, 0, 0]);
    to_first.became(&[(1, 0)]);
    wait("all have come", || counts(&agent) == [6, 0, 0]);
    agent.collectors.offer(&[flow(6), flow(8)]);
    assert_eq!(numbers(&to_first.produced()), [(1, vec![6, 8])], "on the same connection, to whom is known");
    to_first.became(&[(1, 0)]);
    wait("they have come", || counts(&agent) == [8, 0, 0]);
    agent.end();
}

#[test]
fn what_a_partition_has_too_few_replicas_for_waits_on_disk_and_comes_again_without_the_others() {
    let (broker, address) = listener();
    let agent = Agent::start(&format!("kafka://{address}/flows"));
    agent.collectors.offer(&[flow(0), flow(1), flow(2), flow(3)]);
    Connection::metadata(&broker, &[&broker], &[1, 1]);
    let mut connection = Connection::accept(&broker);
    assert_eq!(numbers(&connection.produced()), [(0, vec![1, 3]), (1, vec![0, 2])]);
    // NOT_ENOUGH_REPLICAS.
    connection.became(&[(0, 0), (1, 19)]);
    Connection::metadata(&broker, &[&broker], &[1, 1]);
    assert_eq!(numbers(&connection.produced()), [(1, vec![0, 2])]);
    assert_eq!(counts(&agent), [0, 1, 4]);
    // Nothing is said of it.
    connection.became(&[]);
    Connection::metadata(&broker, &[&broker], &[1, 1]);
    assert_eq!(numbers(&connection.produced()), [(1, vec![0, 2])]);
    connection.became(&[(1, 0)]);
    wait("all have come", || counts(&agent) == [4, 2, 4]);
    agent.end();
}

#[test]
fn a_batch_that_is_too_large_is_sent_in_parts() {
    let (broker, address) = listener();
    let agent = Agent::start(&format!("kafka://{address}/flows"));
    agent.collectors.offer(&[flow(0), flow(1)]);
    let mut connection = None;
    for (items, code) in [(vec![0, 1], 10), (vec![0], 0), (vec![1], 0)] {
        // Whatever failed, leaders are asked for again.
        if items != [1] {
            Connection::metadata(&broker, &[&broker], &[1]);
        }
        let connection = connection.get_or_insert_with(|| Connection::accept(&broker));
        assert_eq!(numbers(&connection.produced()), [(0, items)]);
        connection.became(&[(0, code)]);
    }
    wait("both have come", || counts(&agent) == [2, 0, 0]);
    agent.end();
}

/// A port that nobody else is given, and where nobody listens yet.
fn closed() -> (TcpListener, String) {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn what_is_told_while_no_broker_is_there_waits_on_disk_and_whoever_comes_back_is_asked() {
    let [(_first, away), (broker, later)] = [closed(), closed()];
    let agent = Agent::start(&format!("kafka://{away},{later}/flows"));
    agent.collectors.offer(&[flow(0), flow(1)]);
    wait("it was tried in vain", || agent.metric("failed_batches_total") > 2);
    assert_eq!(agent.metric("spilled_records_total"), 2);
    rustix::net::listen(&broker, 16).unwrap();
    // The topic is there, and nobody leads it yet.
    Connection::metadata(&broker, &[&broker], &[-1]);
    Connection::metadata(&broker, &[&broker], &[1]);
    let mut connection = Connection::accept(&broker);
    assert_eq!(numbers(&connection.produced()), [(0, vec![0, 1])]);
    // It goes away amid an answer, and another one has its place.
    drop(connection);
    Connection::metadata(&broker, &[&broker], &[1]);
    let mut connection = Connection::accept(&broker);
    assert_eq!(numbers(&connection.produced()), [(0, vec![0, 1])]);
    connection.became(&[(0, 0)]);
    wait("both have come", || agent.metric("sent_records_total") == 2);
    agent.end();
}

/// The answer to a proof, where it is that of who knows the password; else nothing of use.
fn judged(first: &str, challenge: &str, last: &str, password: &str) -> Option<String> {
    let (before, proof) = last.split_once(",p=")?;
    let mut salted = [0; digest::SHA256_OUTPUT_LEN];
    let repeated = std::num::NonZeroU32::new(4096).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, repeated, b"salt", password.as_bytes(), &mut salted);
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let stored = digest::digest(&digest::SHA256, sign(&salted, b"Client Key").as_ref());
    let all = format!("{},{challenge},{before}", first.strip_prefix("n,,")?);
    let signature = sign(stored.as_ref(), all.as_bytes());
    // Who knows the key that is stored finds the client's own in the proof.
    let proof = BASE64.decode(proof.as_bytes()).ok()?;
    let key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(proof, signature)| proof ^ signature).collect();
    if digest::digest(&digest::SHA256, &key).as_ref() != stored.as_ref() {
        return None;
    }
    let server = sign(sign(&salted, b"Server Key").as_ref(), all.as_bytes());
    Some(format!("v={}", BASE64.encode(server.as_ref())))
}

#[test]
fn who_sends_is_known_by_scram_and_nobody_is_told_a_password_that_others_may_hear() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials");
    fs::write(&credentials, "flows:secret\n").unwrap();
    let (broker, address) = listener();
    let agent = Agent::start(&format!("kafka://{address}/flows?credentials={}", credentials.display()));
    agent.collectors.offer(&[flow(0)]);
    let mut connection = Connection::accept(&broker);
    connection.knows("SCRAM-SHA-512", &["PLAIN", "GSSAPI"]);
    assert!(connection.is_closed(), "there is nothing that could be said");
    let known = ["PLAIN", "SCRAM-SHA-256"];
    let let_in = |password: &str| {
        let mut refused = Connection::accept(&broker);
        refused.knows("SCRAM-SHA-512", &known);
        let mut connection = Connection::accept(&broker);
        assert!(refused.is_closed());
        connection.knows("SCRAM-SHA-256", &known);
        let first = connection.told();
        let nonce = first.strip_prefix("n,,n=flows,r=").unwrap();
        let challenge = format!("r={nonce}more,s={},i=4096", BASE64.encode(b"salt"));
        connection.say(&challenge);
        let last = connection.told();
        let signature = judged(&first, &challenge, &last, password);
        connection.say(signature.as_deref().unwrap_or("v=AAAA"));
        (connection, signature.is_some())
    };
    let (mut strange, is_known) = let_in("other");
    assert!(!is_known && strange.is_closed(), "a broker that does not know the password is not believed");
    let (mut connection, is_known) = let_in("secret");
    assert!(is_known);
    let mut request = connection.request(METADATA, 1);
    assert_eq!((request.number(4), request.text().as_str()), (1, "flows"));
    connection.answer(&topic(&[&broker], &[1]));
    let (mut connection, is_known) = let_in("secret");
    assert!(is_known);
    assert_eq!(numbers(&connection.produced()), [(0, vec![0])]);
    connection.became(&[(0, 0)]);
    wait("it has come", || counts(&agent) == [1, 2, 1]);
    agent.end();
}

#[test]
fn over_tls_the_password_may_be_said_and_only_to_whom_the_authorities_vouch_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(path("ca.pem"), certified.cert.pem()).unwrap();
    fs::write(path("credentials"), "flows:secret\n").unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key);
    let config = Arc::new(config.unwrap());
    let (broker, address) = listener();
    let files = format!("ca={}&credentials={}", path("ca.pem").display(), path("credentials").display());
    let agent = Agent::start(&format!("kafka+tls://{address}/flows?{files}"));
    agent.collectors.offer(&[flow(0)]);
    let accept = || {
        let (stream, _) = broker.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let server = rustls::ServerConnection::new(config.clone()).unwrap();
        Connection::welcome(rustls::StreamOwned::new(server, stream))
    };
    let let_in = || {
        accept().knows("SCRAM-SHA-512", &["PLAIN"]);
        let mut connection = accept();
        connection.knows("PLAIN", &["PLAIN"]);
        assert_eq!(connection.told(), "\0flows\0secret");
        connection.say("");
        connection
    };
    let mut connection = let_in();
    connection.request(METADATA, 1);
    connection.answer(&topic(&[&broker], &[1]));
    let mut connection = let_in();
    assert_eq!(numbers(&connection.produced()), [(0, vec![0])]);
    connection.became(&[(0, 0)]);
    wait("it has come", || agent.metric("sent_records_total") == 1);
    agent.end();
}
