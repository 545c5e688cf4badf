//! SipHash-2-4, the keyed hash of interoperable DNS cookies (RFC 9018 §4.4), after its authors' description.

/// The hash of `data` under a key.
pub(super) fn siphash(key: [u8; 16], data: &[u8]) -> u64 {
    let [k0, k1] = [0, 8].map(|at| word(&key[at..]));
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut words = data.chunks_exact(8);
    for octets in &mut words {
        take(&mut state, word(octets));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    last[7] = data.len() as u8;
    take(&mut state, word(&last));
    state[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn word(octets: &[u8]) -> u64 {
    octets.first_chunk().map_or(0, |octets| u64::from_le_bytes(*octets))
}

fn take(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    (0..2).for_each(|_| round(state));
    state[0] ^= word;
}

fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *c = c.wrapping_add(*d);
    *b = b.rotate_left(13) ^ *a;
    *d = d.rotate_left(16) ^ *c;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*b);
    *a = a.wrapping_add(*d);
    *b = b.rotate_left(17) ^ *c;
    *d = d.rotate_left(21) ^ *a;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::siphash;

    #[test]
    fn it_is_the_hash_that_its_authors_describe() {
        let key = std::array::from_fn(|at| at as u8);
        let data: Vec<u8> = (0..15).collect();
        // From the paper's appendix A.
        assert_eq!(siphash(key, &data), 0xa129_ca61_49be_45e5);
    }
}
