//! Writing responses.

use super::{HEADER, Head, Rcode, UDP_SIZE, flag, rtype, truncate};
use crate::answer::Answer;

/// Size of the OPT record that we send, without options.
pub(crate) const OPT: usize = 11;

/// Writes the response to a question from a prebuilt answer.
///
/// `turn` chooses which address stands first where addresses take turns. `recursion` says that the server would ask others.
pub fn records(head: &Head, question: &[u8], answer: &Answer, recursion: bool, turn: usize, out: &mut Vec<u8>) {
    start(head, question, answer, recursion, out);
    let base = out.len();
    match answer.rotation {
        Some(rotation) if turn != 0 => {
            let (start, stride) = (usize::from(rotation.start), usize::from(rotation.stride));
            let count = usize::from(rotation.count);
            let (end, split) = (start + stride * count, start + stride * (turn % count));
            out.extend_from_slice(&answer.body[..start]);
            out.extend_from_slice(&answer.body[split..end]);
            out.extend_from_slice(&answer.body[start..split]);
            out.extend_from_slice(&answer.body[end..]);
        }
        _ => out.extend_from_slice(&answer.body),
    }
    debug_assert_eq!(out.len() - base, answer.body.len());
    finish(head, answer.rcode, out);
}

/// Writes a response whose only record is the zone's SOA, in the authority section (RFC 2308 §2) or as the answer.
///
/// `soa` writes the record, given the message so far.
pub fn negative(
    head: &Head,
    question: &[u8],
    rcode: Rcode,
    recursion: bool,
    in_answer: bool,
    out: &mut Vec<u8>,
    soa: impl FnOnce(&mut Vec<u8>),
) {
    let counts = if in_answer { [1, 0, 0] } else { [0, 1, 0] };
    let answer = Answer { rcode, authoritative: true, counts, ..Answer::code(rcode) };
    start(head, question, &answer, recursion, out);
    soa(out);
    finish(head, rcode, out);
}

/// Writes a response to what could not be read as one question: a code, and the question where `question` has it.
pub fn rejection(head: &Head, question: &[u8], rcode: Rcode, out: &mut Vec<u8>) {
    start(head, question, &Answer::code(rcode), false, out);
    if question.is_empty() {
        out[4..6].fill(0);
    }
    finish(head, rcode, out);
}

fn start(head: &Head, question: &[u8], answer: &Answer, recursion: bool, out: &mut Vec<u8>) {
    out.clear();
    out.reserve(HEADER + question.len() + answer.body.len() + OPT);
    let mut flags = flag::QR | (head.flags & (flag::OPCODE | flag::RD | flag::CD)) | (answer.rcode.0 & flag::RCODE);
    if answer.authoritative {
        flags |= flag::AA;
    }
    // RFC 6840 §5.8: only to those who know what it means.
    if answer.authentic && (head.dnssec_ok() || head.flags & flag::AD != 0) {
        flags |= flag::AD;
    }
    if recursion {
        flags |= flag::RA;
    }
    let additional = answer.counts[2] + u16::from(head.edns.is_some());
    let words = [head.id, flags, 1, answer.counts[0], answer.counts[1], additional];
    let mut header = [0_u8; HEADER];
    for (pair, word) in header.chunks_exact_mut(2).zip(words) {
        pair.copy_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&header);
    out.extend_from_slice(question);
}

/// Cuts what is too long, and appends the OPT record.
fn finish(head: &Head, rcode: Rcode, out: &mut Vec<u8>) {
    let opt = head.edns.map_or(0, |edns| edns.size_back());
    let limit = usize::from(head.limit);
    if out.len() + opt > limit {
        // The OPT record is counted but not yet written; the cut leaves room for it.
        truncate(out, limit.saturating_sub(opt), head.edns.is_some());
    }
    if let Some(edns) = head.edns {
        let [kind_high, kind_low] = rtype::OPT.to_be_bytes();
        let [size_high, size_low] = UDP_SIZE.to_be_bytes();
        let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
        let extended = (rcode.0 >> 4) as u8;
        let options = (edns.size_back() - OPT) as u8;
        out.extend_from_slice(&[0, kind_high, kind_low, size_high, size_low, extended, 0, dnssec_ok, 0, 0, options]);
        if let Some(cookie) = edns.cookie {
            cookie.write(out);
        }
    }
}
