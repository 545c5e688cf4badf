//! One layer: a tar stream, its digests, and what overlayfs makes of its whiteouts.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use super::{
    ImageError,
    oci::{Measured, check},
    unpack::Unpacker,
};

/// Unpacks the layer in `blob` into the new directory `target`. The blob's digest and the digest of what it contains are checked
/// before this succeeds. Answers what is left of `room` bytes.
pub(super) fn unpack(
    blob: &Path,
    blob_digits: &str,
    diff_digits: &str,
    target: &Path,
    room: u64,
) -> Result<u64, ImageError> {
    fs::create_dir(target).map_err(ImageError::io("make the directory", target))?;
    let file = File::open(blob).map_err(ImageError::io("open", blob))?;
    let stored = BufReader::with_capacity(64 * 1024, Measured::new(file, u64::MAX));
    let unreadable = |source| ImageError::Io { action: "read the layer", path: blob.to_owned(), source };
    let content = Measured::new(Content::detect(stored).map_err(unreadable)?, room);
    let content = entries(content, blob, target)?;
    let (content, diff, left) = content.finish().map_err(unreadable)?;
    let (_, digest, _) = content.into_stored().finish().map_err(unreadable)?;
    check("layer blob", blob_digits, &digest)?;
    check("unpacked layer", diff_digits, &diff)?;
    Ok(left)
}

fn entries<R: Read>(content: R, blob: &Path, target: &Path) -> Result<R, ImageError> {
    let unreadable = |source| ImageError::Io { action: "read the layer", path: blob.to_owned(), source };
    let mut unpacker = Unpacker::new(target)?;
    let mut archive = tar::Archive::new(content);
    for entry in archive.entries().map_err(unreadable)? {
        unpacker.entry(&mut entry.map_err(unreadable)?)?;
    }
    Ok(archive.into_inner())
}

/// A layer's content, out of whichever compression it is in.
enum Content<R: Read> {
    Plain(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
}

impl<R: Read> Content<R> {
    fn detect(mut stored: BufReader<R>) -> io::Result<Content<R>> {
        use io::BufRead;
        match stored.fill_buf()? {
            [0x1f, 0x8b, ..] => Ok(Content::Gzip(Box::new(MultiGzDecoder::new(stored)))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "zstd layers are not supported; gzip ones are"))
            }
            _ => Ok(Content::Plain(stored)),
        }
    }

    fn into_stored(self) -> R {
        match self {
            Content::Plain(stored) => stored.into_inner(),
            Content::Gzip(decoder) => decoder.into_inner().into_inner(),
        }
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Content::Plain(stored) => stored.read(buffer),
            Content::Gzip(decoder) => decoder.read(buffer),
        }
    }
}
