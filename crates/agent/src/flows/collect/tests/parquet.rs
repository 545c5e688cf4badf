//! Parquet files on disk, and in a bucket of a few lines that looks at who puts them there.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
};

use data_encoding::HEXLOWER;
use podnet_flow::export::parquet::file;
use ring::{digest, hmac};

use super::{
    agent::{Agent, listener, wait},
    *,
};

/// The files of a directory, by their names.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let read = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).map(read).collect()
}

fn named(sequence: u64) -> String {
    format!("node1-{:020}-{sequence:020}.parquet", 1)
}

#[test]
fn files_are_made_of_what_came_in_some_time_and_as_the_agent_ends_of_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows");
    let agent = Agent::start(&format!("parquet://{}?seconds=3", path.display()));
    agent.collectors.offer(&[flow(0), gap(1, 3)]);
    agent.collectors.offer(&[flow(2)]);
    wait("they have come", || agent.metric("sent_records_total") == 3);
    let first = (named(0), file(&[flow(0), gap(1, 3), flow(2)]).unwrap());
    assert_eq!(files(&path), BTreeMap::from([first.clone()]));
    agent.collectors.offer(&[flow(3)]);
    // Or in a file already, where this took longer than one is waited for.
    wait("it is on disk", || agent.metric("waiting_records") == 1 || agent.metric("sent_records_total") == 4);
    agent.end();
    assert_eq!(files(&path), BTreeMap::from([first, (named(3), file(&[flow(3)]).unwrap())]));
}

#[test]
fn where_no_file_can_be_made_all_waits_until_one_can() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows");
    // In its place there is a file.
    fs::write(&path, "").unwrap();
    let agent = Agent::start(&format!("parquet://{}?seconds=1", path.display()));
    agent.collectors.offer(&[flow(0)]);
    wait("it was tried in vain", || agent.metric("failed_batches_total") > 0);
    agent.collectors.offer(&[flow(1)]);
    wait("both wait", || agent.metric("waiting_records") == 2);
    fs::remove_file(&path).unwrap();
    wait("both have come", || agent.metric("sent_records_total") == 2);
    // What was tried again as the second one came is a file of its own.
    let one_by_one = [0, 1].map(|number| (named(number), file(&[flow(number)]).unwrap()));
    let together = [(named(0), file(&[flow(0), flow(1)]).unwrap())];
    assert!([BTreeMap::from(one_by_one), BTreeMap::from(together)].contains(&files(&path)));
    agent.end();
}

/// A request: its first line, its headers, and its body.
struct Put {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn put(stream: &mut BufReader<TcpStream>) -> Put {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "{lines:?}");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header =
        |line: &String| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let headers: BTreeMap<String, String> = lines.iter().skip(1).filter_map(header).collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    Put { line: lines.remove(0), headers, body }
}

fn answer(stream: &mut BufReader<TcpStream>, status: &str) {
    write!(stream.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").unwrap();
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    BufReader::new(stream)
}

impl Put {
    /// Whether who has these keys asks for it, by what Amazon's manual says of signatures (version 4).
    fn is_signed(&self, secret: &str) -> bool {
        let sha256 = |bytes: &[u8]| HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref());
        let parts: BTreeMap<&str, &str> = self.headers["authorization"]
            .strip_prefix("AWS4-HMAC-SHA256 ")
            .unwrap()
            .split(',')
            .map(|part| part.trim().split_once('=').unwrap())
            .collect();
        let (_, scope) = parts["Credential"].split_once('/').unwrap();
        let mut request = self.line.split(' ');
        let (method, path) = (request.next().unwrap(), request.next().unwrap());
        let mut text = format!("{method}\n{path}\n\n");
        for name in parts["SignedHeaders"].split(';') {
            text += &format!("{name}:{}\n", self.headers[name]);
        }
        text += &format!("\n{}\n{}", parts["SignedHeaders"], sha256(&self.body));
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.headers["x-amz-date"], sha256(text.as_bytes()));
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in scope.split('/').chain([text.as_str()]) {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        HEXLOWER.encode(&key) == parts["Signature"]
    }
}

#[test]
fn s3_is_sent_a_file_again_under_its_name_until_it_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    crate::flows::private::replace(&keys, b"AKIDEXAMPLE:wJalrXUtnFEMI:a:token\n").unwrap();
    let (listener, address) = listener();
    let agent = Agent::start(&format!(
        "s3+http://{address}/bucket/flows?seconds=1&region=eu-west-1&credentials={}",
        keys.display()
    ));
    agent.collectors.offer(&[flow(0), flow(1)]);
    let mut stream = accept(&listener);
    let first = put(&mut stream);
    assert_eq!(first.line, format!("PUT /bucket/flows/{} HTTP/1.1", named(0)));
    assert!(first.body == file(&[flow(0), flow(1)]).unwrap() && first.is_signed("wJalrXUtnFEMI"));
    assert!(!first.is_signed("wJalrXUtnFEMj"));
    let header = |put: &Put, name: &str| put.headers[name].clone();
    assert_eq!((header(&first, "host"), header(&first, "x-amz-security-token")), (address, "a:token".to_owned()));
    assert!(header(&first, "authorization").contains("Credential=AKIDEXAMPLE/"));
    assert!(header(&first, "authorization").contains("/eu-west-1/s3/aws4_request,"));
    let signed = "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,";
    assert!(header(&first, "authorization").contains(signed));
    // What came meanwhile comes with it.
    agent.collectors.offer(&[flow(2)]);
    wait("it waits", || agent.metric("waiting_records") == 3);
    answer(&mut stream, "503 Slow Down");
    let again = put(&mut stream);
    assert_eq!(again.line, first.line, "it takes the place of the other, should that be there after all");
    assert!(again.body == file(&[flow(0), flow(1), flow(2)]).unwrap() && again.is_signed("wJalrXUtnFEMI"));
    // Somebody has yet to give rights, and gives keys with them.
    crate::flows::private::replace(&keys, b"AKIDEXAMPLE:another").unwrap();
    answer(&mut stream, "403 Forbidden");
    let again = put(&mut stream);
    assert!(again.is_signed("another") && !again.headers.contains_key("x-amz-security-token"));
    assert_eq!(agent.metric("sent_records_total"), 0);
    answer(&mut stream, "200 OK");
    wait("all have come", || agent.metric("sent_records_total") == 3);
    assert_eq!(agent.metric("failed_batches_total"), 2);
    agent.collectors.offer(&[flow(3)]);
    assert_eq!(put(&mut stream).line, format!("PUT /bucket/flows/{} HTTP/1.1", named(3)));
    drop(stream);
    let mut stream = accept(&listener);
    assert_eq!(put(&mut stream).line, format!("PUT /bucket/flows/{} HTTP/1.1", named(3)), "the answer was lost");
    answer(&mut stream, "200 OK");
    wait("it has come", || agent.metric("sent_records_total") == 4);
    agent.end();
}
