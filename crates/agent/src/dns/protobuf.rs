//! The little of gRPC and protocol buffers that a DNS message needs: gRPC's frame of five bytes, and in it a message with one
//! field of bytes (`message DnsPacket { bytes msg = 1; }`).

/// Where a DNS message is sent to.
pub(super) const METHOD: &str = "/coredns.dns.DnsService/Query";
/// The header, or trailer, that tells how a call ended: `0` is well.
pub(super) const STATUS: &str = "grpc-status";
/// Bytes before a message: whether it is compressed, and its length.
pub(super) const HEAD: usize = 5;
/// Field 1, bytes with their length before them.
const FIELD: u64 = 1 << 3 | 2;

/// A DNS message in its frame.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(message.len() + 6);
    number(FIELD, &mut packet);
    number(message.len() as u64, &mut packet);
    packet.extend_from_slice(message);
    let mut frame = vec![0];
    frame.extend_from_slice(&(packet.len() as u32).to_be_bytes());
    frame.append(&mut packet);
    frame
}

/// The DNS message in a frame; none where it is compressed, cut or something else.
pub(super) fn unframed(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, mut packet) = frame.split_first_chunk::<HEAD>()?;
    let [compressed, length @ ..] = *head;
    if compressed != 0 || usize::try_from(u32::from_be_bytes(length)).ok()? != packet.len() {
        return None;
    }
    let mut found = Vec::new();
    while !packet.is_empty() {
        let tag = read(&mut packet)?;
        // Fields that are not known are passed over, and of one that comes several times the last counts.
        match tag & 7 {
            0 => drop(read(&mut packet)?),
            1 => packet = packet.get(8..)?,
            2 => {
                let length = usize::try_from(read(&mut packet)?).ok()?;
                let (bytes, rest) = packet.split_at_checked(length)?;
                if tag == FIELD {
                    found = bytes.to_vec();
                }
                packet = rest;
            }
            5 => packet = packet.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

/// Seven bits a byte, the lowest first.
fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read(packet: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = packet.split_first()?;
        *packet = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_out_of_its_frame_as_it_went_in() {
        for length in [0, 1, 127, 128, 300, 65_535] {
            let message: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            assert_eq!(unframed(&framed(&message)), Some(message));
        }
        assert_eq!(framed(&[7; 3]), [0, 0, 0, 0, 5, 0x0a, 3, 7, 7, 7]);
    }

    #[test]
    fn what_is_unknown_is_passed_over_and_what_is_cut_is_no_message() {
        let packet = [0x10, 0x96, 1, 0x1a, 1, 9, 0x25, 1, 2, 3, 4, 0x29, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 2, 5, 6];
        let mut frame = vec![0, 0, 0, 0, packet.len() as u8];
        frame.extend_from_slice(&packet);
        assert_eq!(unframed(&frame), Some(vec![5, 6]));
        for end in 1..frame.len() {
            assert_eq!(unframed(&frame[..end]), None);
        }
        frame[0] = 1;
        assert_eq!(unframed(&frame), None, "nobody asked for compression");
        assert_eq!(unframed(&[0, 0, 0, 0, 11, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]), None);
        assert_eq!(unframed(&[0, 0, 0, 0, 2, 0x0a, 200]), None);
    }
}
