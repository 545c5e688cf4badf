//! RFC 7766: DNS over connections, a test for each clause that is a server's.

use super::*;

/// A query with an id of its own.
fn numbered(id: u16, name: &str) -> Vec<u8> {
    let mut message = query(name);
    message[..2].copy_from_slice(&id.to_be_bytes());
    message
}

fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let frame = |message: &Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], message].concat();
    messages.iter().flat_map(frame).collect()
}

fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// A connection to a server whose connections may be idle for so long.
async fn connected(idle: Duration) -> (DuplexStream, JoinHandle<()>) {
    let door = door(Scheme::Dns, Duration::from_secs(10));
    let manners = Manners { idle, ..(*door.manners()).clone() };
    door.change(manners);
    connect(&door, rest().await)
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn section_5_an_answer_is_whole_however_large_it_is() {
    let (mut client, _served) = connected(LONG).await;
    ask(&mut client, "big").await.unwrap();
    let answer = answer(&mut client).await;
    assert!(answer.len() > BIG * 16, "{} bytes", answer.len());
    assert_eq!(answer[2] & 2, 0, "it is cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn section_6_2_1_a_connection_carries_many_queries() {
    let (mut client, served) = connected(LONG).await;
    for number in 0..50 {
        client.write_all(&framed(&[numbered(number, "small")])).await.unwrap();
        assert_eq!(id(&answer(&mut client).await), number);
    }
    assert!(!served.is_finished(), "the server closes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn section_6_2_1_1_and_7_what_takes_long_holds_nobody_up() {
    let (mut client, _served) = connected(LONG).await;
    client.write_all(&framed(&[numbered(1, "silent"), numbered(2, "small"), numbered(3, "small")])).await.unwrap();
    let mut answered = [id(&answer(&mut client).await), id(&answer(&mut client).await)];
    answered.sort_unstable();
    assert_eq!(answered, [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn section_6_2_3_who_is_idle_is_closed_and_who_waits_for_an_answer_is_not() {
    let (mut idle, of_idle) = connected(Duration::from_millis(300)).await;
    let (mut busy, of_busy) = connected(Duration::from_millis(300)).await;
    busy.write_all(&framed(&[numbered(1, "silent")])).await.unwrap();
    assert!(tokio::time::timeout(DEADLINE, idle.read_u8()).await.expect("it stays open").is_err());
    of_idle.await.unwrap();
    let more = tokio::time::timeout(Duration::from_secs(1), busy.read_u8()).await;
    assert!(more.is_err() && !of_busy.is_finished(), "nothing comes, and it is not closed");
    of_busy.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn section_6_2_4_what_was_asked_before_the_client_s_end_is_answered() {
    let (mut client, served) = connected(LONG).await;
    let queries: Vec<Vec<u8>> = (0..5).map(|number| numbered(number, "small")).collect();
    client.write_all(&framed(&queries)).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answered = Vec::new();
    for _ in 0..5 {
        answered.push(id(&answer(&mut client).await));
    }
    answered.sort_unstable();
    assert_eq!(answered, [0, 1, 2, 3, 4]);
    assert!(client.read_u8().await.is_err(), "and then the server's");
    served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn section_8_messages_may_come_in_pieces_and_several_in_one() {
    let (mut client, _served) = connected(LONG).await;
    for octet in framed(&[numbered(7, "small")]) {
        client.write_all(&[octet]).await.unwrap();
        client.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(id(&answer(&mut client).await), 7);
    client.write_all(&framed(&[numbered(8, "small"), numbered(9, "small")])).await.unwrap();
    assert_eq!(id(&answer(&mut client).await) + id(&answer(&mut client).await), 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn section_8_a_length_that_no_message_follows_is_not_waited_for_without_end() {
    let door = door(Scheme::Dns, Duration::from_secs(10));
    door.change(Manners { read: Duration::from_millis(300), ..(*door.manners()).clone() });
    let (mut client, served) = connect(&door, rest().await);
    client.write_all(&[0, 40, 1, 2, 3]).await.unwrap();
    assert!(tokio::time::timeout(DEADLINE, client.read_u8()).await.expect("it stays open").is_err());
    served.await.unwrap();
}
