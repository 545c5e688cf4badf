//! What a socket of packets tells of each of them.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::length_of;

/// Bytes of a tag of VLAN (IEEE 802.1Q), which the kernel takes out of packets and tells beside them.
pub(super) const VLAN: usize = 4;
/// Where it stands in a packet: behind both addresses.
const ADDRESSES: usize = 12;
/// Room for time, lengths and their headers, as aligned as these are: 80 bytes are needed.
const CONTROL: usize = 16;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// When it passed: nanoseconds since 1970.
    pub at: u64,
    /// How long it was, in bytes.
    pub length: u32,
    /// It left by the interface; else it came in.
    pub outbound: bool,
    /// What is kept of it, its Ethernet header first where the interface's packets have one.
    pub bytes: &'a [u8],
}

/// What is told of a packet beside what is kept of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    at: u64,
    length: u32,
    outbound: bool,
    kept: usize,
    tagged: bool,
}

impl Head {
    pub(super) fn seen<'a>(&self, slot: &'a [u8], snap: usize) -> Seen<'a> {
        let (from, extra) = if self.tagged { (0, VLAN) } else { (VLAN, 0) };
        let to = (VLAN + self.kept).min(from + snap).min(slot.len());
        let length = self.length + extra as u32;
        Seen { at: self.at, length, outbound: self.outbound, bytes: &slot[from..to] }
    }
}

/// Takes in what waits at a socket: into each slot of `size` bytes one packet, behind the room for a tag.
pub(super) fn take_in(socket: BorrowedFd<'_>, slots: &mut [u8], size: usize, heads: &mut Vec<Head>) -> io::Result<()> {
    let mut vectors: Vec<libc::iovec> = slots
        .chunks_mut(size)
        .map(|slot| libc::iovec { iov_base: slot[VLAN..].as_mut_ptr().cast(), iov_len: slot.len() - VLAN })
        .collect();
    let mut senders = vec![nowhere(); vectors.len()];
    let mut controls = vec![[0_u64; CONTROL]; vectors.len()];
    let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(vectors.len());
    for ((vector, sender), control) in vectors.iter_mut().zip(&mut senders).zip(&mut controls) {
        // SAFETY: all-zero bytes are a valid `mmsghdr`, which is made of numbers and pointers that may be null.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_name = ptr::from_mut(sender).cast();
        header.msg_hdr.msg_namelen = length_of::<libc::sockaddr_ll>();
        header.msg_hdr.msg_control = control.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = size_of_val(control);
        headers.push(header);
    }
    let count = libc::c_uint::try_from(headers.len()).unwrap_or(0);
    // SAFETY: `headers` holds `count` headers whose vectors, addresses and control data live in the three lists and in `slots` until the
    // call returns; the kernel writes into these, within their lengths.
    let done =
        unsafe { libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut()) };
    let done = usize::try_from(done).map_err(|_| io::Error::last_os_error())?;
    let told = headers.iter().zip(&senders).take(done).map(|(header, sender)| {
        let kept = usize::try_from(header.msg_len).unwrap_or(0);
        let head = Head {
            at: 0,
            length: header.msg_len,
            outbound: sender.sll_pkttype == libc::PACKET_OUTGOING,
            kept,
            tagged: false,
        };
        control(&header.msg_hdr, head)
    });
    let told: Vec<(Head, Option<[u8; VLAN]>)> = told.collect();
    for ((mut head, tag), slot) in told.into_iter().zip(slots.chunks_mut(size)) {
        if let Some(tag) = tag.filter(|_| head.kept >= ADDRESSES) {
            slot.copy_within(VLAN..VLAN + ADDRESSES, 0);
            slot[ADDRESSES..ADDRESSES + VLAN].copy_from_slice(&tag);
            head.tagged = true;
        }
        heads.push(head);
    }
    Ok(())
}

/// Reads what is told of one packet beside its bytes: when it passed, how long it was, and its tag.
fn control(header: &libc::msghdr, mut head: Head) -> (Head, Option<[u8; VLAN]>) {
    /// 802.1Q, where the kernel does not say which protocol the tag is of.
    const USUAL: u16 = 0x8100;
    let mut tag = None;
    // SAFETY: the header is as the kernel left it: control data of the length that it says, as it wrote it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: it is not null, and so within the control data, which is as aligned as `cmsghdr` is; its data is as long as its kind says,
        // whose structure needs not be aligned to be read so.
        let (kind, data) = unsafe { (((*next).cmsg_level, (*next).cmsg_type), libc::CMSG_DATA(next)) };
        match kind {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: of this kind it is a `timespec`.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                let [seconds, nanoseconds] = [time.tv_sec, time.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
                head.at = seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
            }
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                // SAFETY: of this kind it is a `struct tpacket_auxdata`.
                let told = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
                head.length = told.tp_len;
                let protocol =
                    if told.tp_status & libc::TP_STATUS_VLAN_TPID_VALID == 0 { USUAL } else { told.tp_vlan_tpid };
                if told.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                    let ([a, b], [c, d]) = (protocol.to_be_bytes(), told.tp_vlan_tci.to_be_bytes());
                    tag = Some([a, b, c, d]);
                }
            }
            _ => {}
        }
        // SAFETY: both are of the same control data.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    (head, tag)
}

/// An address of no interface.
pub(super) const fn nowhere() -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: 0,
        sll_protocol: 0,
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}
