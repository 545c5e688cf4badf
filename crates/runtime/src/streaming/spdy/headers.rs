//! Header blocks: name and value pairs, compressed with zlib and a dictionary that both sides know (draft, section 2.6.10).

use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, DecompressError, FlushCompress, FlushDecompress, Status};

use super::frame::HeaderBlock;

/// The largest header block taken, in bytes: a bound on what a few compressed bytes can become.
const MAX_BLOCK: usize = 64 * 1024;
/// The largest dictionary-driven growth of one step of compression or decompression.
const STEP: usize = 4096;

/// The dictionary starts with these words, each after its length in four bytes.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age \
    allow authorization cache-control connection content-base content-encoding content-language content-length \
    content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since \
    if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
    proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning \
    www-authenticate method get status";

/// And ends with these, the last of which runs on without lengths.
const PHRASES: [&str; 8] = ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"];
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
    Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec \
    00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,\
    utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in WORDS.split_whitespace().chain(PHRASES) {
        dictionary.put_u32(u32::try_from(word.len()).unwrap_or_default());
        dictionary.put_slice(word.as_bytes());
    }
    dictionary.put_slice(TAIL.as_bytes());
    dictionary
});

/// Why a header block cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(in crate::streaming) enum HeaderError {
    #[error("its compressed form is broken: {0}")]
    Zlib(String),
    #[error("it is longer than {MAX_BLOCK} bytes")]
    TooLong,
    #[error("it ends early")]
    Short,
    #[error("a name or value is not UTF-8")]
    Text,
}

/// The compressor of one direction of a connection.
pub(super) struct HeaderCompressor {
    zlib: Compress,
    primed: bool,
}

impl Default for HeaderCompressor {
    fn default() -> Self {
        HeaderCompressor { zlib: Compress::new(Compression::fast(), true), primed: false }
    }
}

impl HeaderCompressor {
    pub(super) fn compress(&mut self, headers: &HeaderBlock) -> Result<Bytes, HeaderError> {
        let zlib = |error: &dyn std::fmt::Display| HeaderError::Zlib(error.to_string());
        if !self.primed {
            self.zlib.set_dictionary(&DICTIONARY).map_err(|error| zlib(&error))?;
            self.primed = true;
        }
        let plain = serialise(headers)?;
        let mut compressed = Vec::with_capacity(plain.len() + STEP);
        let begin = self.zlib.total_in();
        loop {
            let used = usize::try_from(self.zlib.total_in() - begin).map_err(|_| HeaderError::TooLong)?;
            let before = compressed.len();
            self.zlib
                .compress_vec(&plain[used..], &mut compressed, FlushCompress::Sync)
                .map_err(|error| zlib(&error))?;
            // A flush is complete when it leaves room.
            if compressed.len() < compressed.capacity() || compressed.len() == before {
                return Ok(compressed.into());
            }
            compressed.reserve(STEP);
        }
    }
}

/// The decompressor of one direction of a connection.
pub(super) struct HeaderDecompressor {
    zlib: Decompress,
}

impl Default for HeaderDecompressor {
    fn default() -> Self {
        HeaderDecompressor { zlib: Decompress::new(true) }
    }
}

impl HeaderDecompressor {
    pub(super) fn decompress(&mut self, compressed: &[u8]) -> Result<HeaderBlock, HeaderError> {
        let mut plain = Vec::with_capacity(STEP);
        let begin = self.zlib.total_in();
        loop {
            let used = usize::try_from(self.zlib.total_in() - begin).map_err(|_| HeaderError::TooLong)?;
            let rest = compressed.get(used..).unwrap_or_default();
            let before = plain.len();
            let step = self.zlib.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            match step {
                Err(error) if error.needs_dictionary().is_some() => self.prime()?,
                Err(error) => return Err(broken(&error)),
                Ok(Status::StreamEnd) => return parse(plain.into()),
                Ok(_) if plain.len() < plain.capacity() || plain.len() == before => return parse(plain.into()),
                Ok(_) if plain.len() > MAX_BLOCK => return Err(HeaderError::TooLong),
                Ok(_) => plain.reserve(STEP),
            }
        }
    }

    fn prime(&mut self) -> Result<(), HeaderError> {
        self.zlib.set_dictionary(&DICTIONARY).map(drop).map_err(|error| broken(&error))
    }
}

fn broken(error: &DecompressError) -> HeaderError {
    HeaderError::Zlib(error.to_string())
}

/// Everything has its length before it, in four bytes.
fn serialise(headers: &HeaderBlock) -> Result<BytesMut, HeaderError> {
    let mut plain = BytesMut::new();
    let length = |length: usize| u32::try_from(length).map_err(|_| HeaderError::TooLong);
    plain.put_u32(length(headers.len())?);
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        plain.put_u32(length(text.len())?);
        plain.put_slice(text.as_bytes());
    }
    Ok(plain)
}

fn parse(mut plain: Bytes) -> Result<HeaderBlock, HeaderError> {
    let pairs = plain.try_get_u32().map_err(|_| HeaderError::Short)?;
    let mut text = || {
        let length = plain.try_get_u32().map_err(|_| HeaderError::Short)? as usize;
        if length > plain.len() {
            return Err(HeaderError::Short);
        }
        String::from_utf8(plain.split_to(length).into()).map_err(|_| HeaderError::Text)
    };
    (0..pairs).map(|_| Ok((text()?, text()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dictionary's Adler-32 is in every SPDY/3 connection's first header block: `78 bb e3 c6 a7 c2`.
    #[test]
    fn the_dictionary_is_the_one_that_the_world_uses() {
        assert_eq!(DICTIONARY.len(), 1423);
        let block = HeaderCompressor::default().compress(&Vec::new()).unwrap();
        assert_eq!(&block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn blocks_of_one_connection_share_their_history() {
        let (mut compressor, mut decompressor) = (HeaderCompressor::default(), HeaderDecompressor::default());
        let headers = vec![("streamtype".to_owned(), "stdout".to_owned()), ("port".to_owned(), "80".to_owned())];
        let lengths: Vec<_> = (0..3)
            .map(|_| {
                let block = compressor.compress(&headers).unwrap();
                assert_eq!(decompressor.decompress(&block).unwrap(), headers);
                block.len()
            })
            .collect();
        assert!(lengths[2] < lengths[0], "{lengths:?}");
    }

    #[test]
    fn a_long_block_survives() {
        let headers: HeaderBlock = (0..1000).map(|n| (format!("name-{n}"), format!("{:x}", n * 7919))).collect();
        let block = HeaderCompressor::default().compress(&headers).unwrap();
        assert_eq!(HeaderDecompressor::default().decompress(&block).unwrap(), headers);
    }

    #[test]
    fn a_block_that_would_fill_memory_is_refused() {
        let bomb = vec![("a".to_owned(), "0".repeat(10 * MAX_BLOCK))];
        let block = HeaderCompressor::default().compress(&bomb).unwrap();
        assert!(block.len() < MAX_BLOCK);
        assert!(matches!(HeaderDecompressor::default().decompress(&block), Err(HeaderError::TooLong)));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(HeaderDecompressor::default().decompress(b"not zlib at all").is_err());
        let mut lying = BytesMut::new();
        lying.put_u32(u32::MAX);
        assert!(matches!(parse(lying.freeze()), Err(HeaderError::Short)));
    }
}
