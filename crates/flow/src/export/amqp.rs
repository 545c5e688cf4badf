//! AMQP 0-9-1, as far as who publishes to RabbitMQ with confirms speaks it: one message for each item.
//!
//! Section numbers are those of the protocol's specification of 2008; confirms are RabbitMQ's extension (class 85).

use super::json;
use crate::Numbered;

/// What a connection begins with (section 4.2.2).
pub const HEADER: &[u8] = b"AMQP\0\0\x09\x01";
/// The channel that is used; 0 is the connection itself.
const CHANNEL: u16 = 1;
/// Types of frames, and the octet that each ends with (section 4.2.3).
const METHOD: u8 = 1;
const CONTENT: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xCE;
/// What a frame has beside its payload.
const AROUND: usize = 8;
/// The largest frame that is sent where the other side names no limit, and the largest that is read.
const LARGEST: u32 = 128 << 10;
/// `mandatory`: what goes to no queue comes back.
const MANDATORY: u8 = 1;
/// Content type, delivery mode, message id, type (section 4.2.6.1 and the class basic).
const PROPERTIES: u16 = 1 << 15 | 1 << 12 | 1 << 7 | 1 << 5;
/// The delivery mode of what a queue keeps over a restart.
const PERSISTENT: u8 = 2;

/// What the other side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Who are you (`connection.start`)?
    Start,
    /// The largest frame it takes (`connection.tune`).
    Tune(u32),
    /// What was asked for is done (`…-ok`).
    Done,
    /// It has what was published up to that number, or that one alone (`basic.ack`).
    Ack {
        /// The number.
        tag: u64,
        /// And all before it.
        multiple: bool,
    },
    /// It could not keep something (`basic.nack`).
    Nack,
    /// It knows no queue for something (`basic.return`).
    Returned(String),
    /// It ends the channel or the connection, and why.
    Closed(String),
    /// What means nothing here: heartbeats, content that came back.
    Other,
}

/// A stream says what is not AMQP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side does not speak AMQP 0-9-1")]
pub struct NotAmqp;

/// The first frame of what was read, and how many bytes it has. None where it is not whole yet.
///
/// # Errors
/// Where it is no frame.
pub fn said(bytes: &[u8]) -> Result<Option<(Said, usize)>, NotAmqp> {
    if bytes.starts_with(b"AMQP") {
        // It speaks another version.
        return Err(NotAmqp);
    }
    let Some(head) = bytes.first_chunk::<7>() else { return Ok(None) };
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    if size > LARGEST {
        return Err(NotAmqp);
    }
    let whole = size as usize + AROUND;
    let Some(frame) = bytes.get(..whole) else { return Ok(None) };
    if frame[whole - 1] != END {
        return Err(NotAmqp);
    }
    let said = if head[0] == METHOD { method(&frame[7..whole - 1]).ok_or(NotAmqp)? } else { Said::Other };
    Ok(Some((said, whole)))
}

fn method(payload: &[u8]) -> Option<Said> {
    let number = |from: usize| Some(u16::from_be_bytes(*payload.get(from..)?.first_chunk()?));
    let why = || {
        let length = usize::from(*payload.get(6)?);
        let text = String::from_utf8_lossy(payload.get(7..7 + length)?).into_owned();
        Some(format!("{} {text}", number(4)?))
    };
    Some(match (number(0)?, number(2)?) {
        (10, 10) => Said::Start,
        (10, 30) => Said::Tune(u32::from_be_bytes(*payload.get(6..)?.first_chunk()?)),
        (10, 41) | (20, 11) | (85, 11) => Said::Done,
        (60, 80) => {
            let tag = u64::from_be_bytes(*payload.get(4..)?.first_chunk()?);
            Said::Ack { tag, multiple: payload.get(12)? & 1 != 0 }
        }
        (60, 120) => Said::Nack,
        (60, 50) => Said::Returned(why()?),
        (10 | 20, 50 | 40) => Said::Closed(why()?),
        _ => Said::Other,
    })
}

/// Who we are, in answer to [`Said::Start`].
#[must_use]
pub fn start_ok(user: &str, password: &str) -> Vec<u8> {
    let mut arguments = vec![0; 4];
    short(&mut arguments, "PLAIN");
    let response = format!("\0{user}\0{password}");
    arguments.extend(u32::try_from(response.len()).unwrap_or(0).to_be_bytes());
    arguments.extend(response.as_bytes());
    short(&mut arguments, "en_US");
    frame(METHOD, 0, &called(10, 11, &arguments))
}

/// In answer to [`Said::Tune`]: what it wants, one channel, no heartbeats, and that virtual host.
#[must_use]
pub fn tune_ok(largest: u32, host: &str) -> Vec<u8> {
    // 0 would be as many as there can be, which RabbitMQ refuses where it allows fewer.
    let mut arguments = CHANNEL.to_be_bytes().to_vec();
    arguments.extend(limit(largest).to_be_bytes());
    arguments.extend(0_u16.to_be_bytes());
    let mut open = Vec::new();
    short(&mut open, host);
    open.extend([0, 0]);
    [frame(METHOD, 0, &called(10, 31, &arguments)), frame(METHOD, 0, &called(10, 40, &open))].concat()
}

/// The channel; answered by [`Said::Done`].
#[must_use]
pub fn open_channel() -> Vec<u8> {
    frame(METHOD, CHANNEL, &called(20, 10, &[0]))
}

/// That what is published is confirmed, with numbers from 1 on; answered by [`Said::Done`].
#[must_use]
pub fn select_confirms() -> Vec<u8> {
    frame(METHOD, CHANNEL, &called(85, 10, &[0]))
}

/// One item, for the queues that the exchange has for `flow`, `gap` or `drops`.
#[must_use]
pub fn publish(item: &Numbered, exchange: &str, largest: u32) -> Vec<u8> {
    let kind = item.item.kind();
    let mut arguments = vec![0, 0];
    short(&mut arguments, exchange);
    short(&mut arguments, kind);
    arguments.push(MANDATORY);
    let body = json(item);
    let mut content = [60_u16.to_be_bytes(), [0, 0]].concat();
    content.extend((body.len() as u64).to_be_bytes());
    content.extend(PROPERTIES.to_be_bytes());
    short(&mut content, "application/json");
    content.push(PERSISTENT);
    short(&mut content, &item.record.to_string());
    short(&mut content, kind);
    let mut bytes = frame(METHOD, CHANNEL, &called(60, 40, &arguments));
    bytes.extend(frame(CONTENT, CHANNEL, &content));
    for part in body.as_bytes().chunks(limit(largest) as usize - AROUND) {
        bytes.extend(frame(BODY, CHANNEL, part));
    }
    bytes
}

/// 0 means none; no less than every side has to take (section 4.2.3).
fn limit(largest: u32) -> u32 {
    if largest == 0 { LARGEST } else { largest.clamp(4096, LARGEST) }
}

fn called(class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    [&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat()
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    // Payloads are no longer than the limit.
    let size = u32::try_from(payload.len()).unwrap_or(0);
    [&[kind][..], &channel.to_be_bytes(), &size.to_be_bytes(), payload, &[END]].concat()
}

/// A text of up to 255 octets behind its length.
fn short(bytes: &mut Vec<u8>, text: &str) {
    let text = text.as_bytes().get(..255).unwrap_or(text.as_bytes());
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Item,
        testing::{drops, flow, gap},
    };

    /// Type, channel and payload of each frame.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, u16, Vec<u8>)> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let size = u32::from_be_bytes(*bytes[3..].first_chunk().unwrap()) as usize;
            assert_eq!(bytes[7 + size], 0xCE);
            frames.push((bytes[0], u16::from_be_bytes([bytes[1], bytes[2]]), bytes[7..7 + size].to_vec()));
            bytes = &bytes[8 + size..];
        }
        frames
    }

    #[test]
    fn an_item_is_published_persistently_with_its_id_in_frames_that_are_no_larger_than_they_may_be() {
        let bytes = publish(&flow(7), "flows", 0);
        let [(1, 1, publish_), (2, 1, content), (3, 1, body)] = &frames(&bytes)[..] else { panic!("{bytes:?}") };
        assert_eq!(publish_, b"\0\x3c\0\x28\0\0\x05flows\x04flow\x01");
        assert_eq!(content[..14], [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), &[0x90, 0xA0]].concat());
        assert_eq!(content[14..], *b"\x10application/json\x02\x09node1/1/7\x04flow");
        assert_eq!(*body, json(&flow(7)).into_bytes());
        let mut long = flow(7);
        if let Item::Flow(record) = &mut long.item {
            std::sync::Arc::make_mut(record).node = "n".repeat(10_000).as_str().into();
        }
        let parts = frames(&publish(&long, "flows", 4096));
        assert!(parts.len() > 4 && parts.iter().all(|(.., payload)| payload.len() + 8 <= 4096));
        let gap = publish(&gap(8), "", 4096);
        assert!(gap.windows(4).any(|part| part == b"\x03gap"));
        let drops = publish(&drops(9), "", 4096);
        assert!(drops.windows(6).any(|part| part == b"\x05drops"));
    }

    #[test]
    fn what_the_other_side_says_is_understood_and_what_is_cut_off_is_waited_for() {
        let method = |class, number, arguments: &[u8]| frame(METHOD, 0, &called(class, number, arguments));
        let closed = b"\x01\x94\x0cNOT_FOUND no\0\x3c\0\x28";
        for (bytes, expected) in [
            (method(10, 10, b"\0\x09rest"), Said::Start),
            (method(10, 30, b"\0\0\0\x02\0\0\0\0"), Said::Tune(131_072)),
            (method(10, 41, b"\0"), Said::Done),
            (method(60, 80, &[0, 0, 0, 0, 0, 0, 1, 2, 1]), Said::Ack { tag: 258, multiple: true }),
            (method(60, 120, &[0; 9]), Said::Nack),
            (method(60, 50, b"\x01\x38\x08NO_ROUTE\x05flows\x04flow"), Said::Returned("312 NO_ROUTE".to_owned())),
            (method(20, 40, closed), Said::Closed("404 NOT_FOUND no".to_owned())),
            (method(10, 50, closed), Said::Closed("404 NOT_FOUND no".to_owned())),
            (frame(8, 0, &[]), Said::Other),
        ] {
            let more = [&bytes[..], b"more"].concat();
            assert_eq!(said(&more), Ok(Some((expected, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(said(&bytes[..cut]), Ok(None));
            }
        }
        for wrong in [&b"AMQP\0\0\x09\x01"[..], b"HTTP/1.1 400", b"\x01\0\0\0\0\0\x01\0\0", &method(60, 80, b"\0")] {
            assert_eq!(said(wrong), Err(NotAmqp));
        }
    }
}
