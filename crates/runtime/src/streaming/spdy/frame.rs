//! SPDY/3.1 frames (draft-mbelshe-httpbis-spdy-00, section 2.2), without sockets.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{HeaderCompressor, HeaderDecompressor, HeaderError};

/// The longest control frame taken, in bytes. Those of exec are a tenth of a kilobyte.
const MAX_CONTROL: usize = 64 * 1024;
/// Longer data frames are handed on in pieces of this size.
const DATA_PIECE: usize = 32 * 1024;
const HEAD: usize = 8;
const VERSION: u16 = 3;
const FIN: u8 = 1;
/// Identifiers, window sizes and deltas have 31 bits.
const BITS_31: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Header names and values.
pub(in crate::streaming) type HeaderBlock = Vec<(String, String)>;

/// A frame, or a piece of a long data frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::streaming) enum Frame {
    SynStream {
        stream: u32,
        fin: bool,
        headers: HeaderBlock,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: HeaderBlock,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: HeaderBlock,
    },
    Data {
        stream: u32,
        payload: Bytes,
        fin: bool,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    /// Identifiers and values.
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// A control frame of a type that the draft asks to ignore.
    Other(u16),
}

/// Why bytes are not SPDY.
#[derive(Debug, thiserror::Error)]
pub(in crate::streaming) enum FrameError {
    #[error("SPDY version {0} where {VERSION} was agreed")]
    Version(u16),
    #[error("SPDY control frame of {0} bytes; at most {MAX_CONTROL} are taken")]
    TooLong(usize),
    #[error("SPDY control frame of type {0} ends early")]
    Short(u16),
    #[error("SPDY header block")]
    Header(#[from] HeaderError),
    #[error("SPDY connection")]
    Io(#[from] io::Error),
}

/// Reads frames. Header blocks share one decompressor, so every one of them is read.
#[derive(Default)]
pub(in crate::streaming) struct Decoder {
    headers: HeaderDecompressor,
    /// Of the data frame that is being read: stream, bytes to come, whether it is the stream's last.
    data: Option<(u32, usize, bool)>,
}

impl tokio_util::codec::Decoder for Decoder {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if self.data.is_some() {
            return Ok(self.piece(source));
        }
        if source.len() < HEAD {
            return Ok(None);
        }
        let (first, second) = ((&source[..4]).get_u32(), (&source[4..HEAD]).get_u32());
        let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if first & !BITS_31 == 0 {
            source.advance(HEAD);
            self.data = Some((first, length, flags & FIN != 0));
            return Ok(self.piece(source));
        }
        let (version, kind) = (((first & BITS_31) >> 16) as u16, (first & 0xffff) as u16);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > MAX_CONTROL {
            return Err(FrameError::TooLong(length));
        }
        if source.len() < HEAD + length {
            source.reserve(HEAD + length - source.len());
            return Ok(None);
        }
        source.advance(HEAD);
        self.control(kind, flags, source.split_to(length).freeze()).map(Some)
    }
}

impl Decoder {
    fn piece(&mut self, source: &mut BytesMut) -> Option<Frame> {
        let (stream, left, fin) = self.data?;
        let length = left.min(source.len()).min(DATA_PIECE);
        if length == 0 && left > 0 {
            return None;
        }
        let payload = source.split_to(length).freeze();
        let left = left - length;
        self.data = (left > 0).then_some((stream, left, fin));
        Some(Frame::Data { stream, payload, fin: fin && left == 0 })
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Frame, FrameError> {
        let fin = flags & FIN != 0;
        let word = |body: &mut Bytes| body.try_get_u32().map_err(|_| FrameError::Short(kind));
        Ok(match kind {
            SYN_STREAM => {
                let stream = word(&mut body)? & BITS_31;
                let _associated = word(&mut body)?;
                let _priority_and_slot = body.try_get_u16().map_err(|_| FrameError::Short(kind))?;
                Frame::SynStream { stream, fin, headers: self.headers.decompress(&body)? }
            }
            SYN_REPLY => {
                let stream = word(&mut body)? & BITS_31;
                Frame::SynReply { stream, fin, headers: self.headers.decompress(&body)? }
            }
            HEADERS => {
                let stream = word(&mut body)? & BITS_31;
                Frame::Headers { stream, fin, headers: self.headers.decompress(&body)? }
            }
            RST_STREAM => Frame::Reset { stream: word(&mut body)? & BITS_31, status: word(&mut body)? },
            SETTINGS => {
                let count = word(&mut body)?;
                let settings = (0..count)
                    .map(|_| Ok((word(&mut body)? & 0x00ff_ffff, word(&mut body)?)))
                    .collect::<Result<_, FrameError>>()?;
                Frame::Settings(settings)
            }
            PING => Frame::Ping(word(&mut body)?),
            GOAWAY => Frame::GoAway { last: word(&mut body)? & BITS_31, status: word(&mut body)? },
            WINDOW_UPDATE => {
                Frame::WindowUpdate { stream: word(&mut body)? & BITS_31, delta: word(&mut body)? & BITS_31 }
            }
            other => Frame::Other(other),
        })
    }
}

/// Writes frames. Header blocks share one compressor.
#[derive(Default)]
pub(in crate::streaming) struct Encoder {
    headers: HeaderCompressor,
}

impl tokio_util::codec::Encoder<Frame> for Encoder {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, target: &mut BytesMut) -> Result<(), FrameError> {
        let (kind, fin, body) = match frame {
            Frame::Data { stream, payload, fin } => {
                target.put_u32(stream & BITS_31);
                target.put_u32(flags_and_length(fin, payload.len())?);
                target.extend_from_slice(&payload);
                return Ok(());
            }
            Frame::SynStream { stream, fin, headers } => {
                let mut body = words(&[stream, 0]);
                body.put_u16(0);
                body.extend_from_slice(&self.headers.compress(&headers)?);
                (SYN_STREAM, fin, body)
            }
            Frame::SynReply { stream, fin, headers } => (SYN_REPLY, fin, self.with_headers(stream, &headers)?),
            Frame::Headers { stream, fin, headers } => (HEADERS, fin, self.with_headers(stream, &headers)?),
            Frame::Reset { stream, status } => (RST_STREAM, false, words(&[stream, status])),
            Frame::Settings(settings) => {
                let mut body =
                    words(&[u32::try_from(settings.len()).map_err(|_| FrameError::TooLong(settings.len()))?]);
                for (id, value) in settings {
                    body.put_u32(id);
                    body.put_u32(value);
                }
                (SETTINGS, false, body)
            }
            Frame::Ping(id) => (PING, false, words(&[id])),
            Frame::GoAway { last, status } => (GOAWAY, false, words(&[last, status])),
            Frame::WindowUpdate { stream, delta } => (WINDOW_UPDATE, false, words(&[stream, delta])),
            Frame::Other(kind) => (kind, false, BytesMut::new()),
        };
        target.put_u16(0x8000 | VERSION);
        target.put_u16(kind);
        target.put_u32(flags_and_length(fin, body.len())?);
        target.extend_from_slice(&body);
        Ok(())
    }
}

impl Encoder {
    fn with_headers(&mut self, stream: u32, headers: &HeaderBlock) -> Result<BytesMut, FrameError> {
        let mut body = words(&[stream]);
        body.extend_from_slice(&self.headers.compress(headers)?);
        Ok(body)
    }
}

fn words(words: &[u32]) -> BytesMut {
    let mut body = BytesMut::new();
    for word in words {
        body.put_u32(*word);
    }
    body
}

/// 8 bits of flags and 24 of length.
fn flags_and_length(fin: bool, length: usize) -> Result<u32, FrameError> {
    let short = u32::try_from(length).ok().filter(|length| *length < 1 << 24).ok_or(FrameError::TooLong(length))?;
    Ok(short | if fin { u32::from(FIN) << 24 } else { 0 })
}

#[cfg(test)]
mod tests {
    use tokio_util::codec::{Decoder as _, Encoder as _};

    use super::*;

    fn sample() -> Vec<Frame> {
        let headers = vec![("streamtype".to_owned(), "stdin".to_owned()), ("x".to_owned(), String::new())];
        vec![
            Frame::SynStream { stream: 1, fin: false, headers: headers.clone() },
            Frame::SynStream { stream: 3, fin: true, headers: headers.clone() },
            Frame::SynReply { stream: 1, fin: false, headers: Vec::new() },
            Frame::Headers { stream: 1, fin: true, headers },
            Frame::Data { stream: 1, payload: Bytes::from_static(b"hello"), fin: false },
            Frame::Data { stream: 1, payload: Bytes::new(), fin: true },
            Frame::Reset { stream: 3, status: 5 },
            Frame::Settings(vec![(7, 65536), (4, 100)]),
            Frame::Ping(17),
            Frame::WindowUpdate { stream: 0, delta: 9 },
            Frame::GoAway { last: 3, status: 0 },
        ]
    }

    #[test]
    fn every_frame_survives_the_wire_however_it_is_cut() {
        let (mut encoder, mut wire) = (Encoder::default(), BytesMut::new());
        for frame in sample() {
            encoder.encode(frame, &mut wire).unwrap();
        }
        let (mut decoder, mut arrived, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
        for byte in wire {
            arrived.put_u8(byte);
            while let Some(frame) = decoder.decode(&mut arrived).unwrap() {
                frames.push(frame);
            }
        }
        // A data frame that arrives byte by byte is handed on byte by byte.
        let hello: Vec<_> = frames.extract_if(.., |frame| matches!(frame, Frame::Data { fin: false, .. })).collect();
        assert_eq!(hello.len(), 5);
        let expected: Vec<_> =
            sample().into_iter().filter(|frame| !matches!(frame, Frame::Data { fin: false, .. })).collect();
        assert_eq!(frames, expected);
    }

    #[test]
    fn a_frame_is_laid_out_as_the_draft_draws_it() {
        let (mut encoder, mut wire) = (Encoder::default(), BytesMut::new());
        encoder.encode(Frame::Ping(1), &mut wire).unwrap();
        encoder.encode(Frame::Data { stream: 5, payload: Bytes::from_static(b"ab"), fin: true }, &mut wire).unwrap();
        assert_eq!(&wire[..], [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 5, 1, 0, 0, 2, b'a', b'b']);
    }

    #[test]
    fn hostile_lengths_and_versions_are_refused() {
        let decode = |bytes: &[u8]| Decoder::default().decode(&mut BytesMut::from(bytes));
        assert!(matches!(decode(&[0x80, 2, 0, 1, 0, 0, 0, 0]), Err(FrameError::Version(2))));
        assert!(matches!(decode(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]), Err(FrameError::TooLong(_))));
        assert!(matches!(decode(&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0]), Err(FrameError::Short(6))));
        assert!(matches!(decode(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]), Err(FrameError::Short(4))));
    }
}
