//! Parquet files, each of what came in some time: on disk or in a bucket of S3. Their records have come when a file is where it is to be, whole.
//!
//! A file is called by the first of its records. Sent again, they are put into a file of that name, in the place of the one that may be there already.
//!
//! - `directory`: files on disk, within a budget of bytes
//! - `bucket`: files in S3; `signature` says who puts them there

mod bucket;
mod directory;
mod signature;

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use podnet_flow::{
    Numbered,
    export::{Taken, parquet},
};
use podnet_model::{NodeName, errors::chain};

use self::{bucket::Bucket, directory::Directory};
use super::{
    Collector, SendError,
    courier::Gather,
    target::{Files, Shelf},
};

/// The most records of a file: more of them make no better ones.
const MOST: usize = 20_000;

pub(super) struct Parquet {
    shelf: Put,
    time: Duration,
}

enum Put {
    Directory(Directory),
    Bucket(Box<Bucket>),
}

impl Parquet {
    pub(super) fn new(files: Files, node: &NodeName) -> Self {
        let shelf = match files.shelf {
            Shelf::Directory(path, bytes) => Put::Directory(Directory::new(path, bytes, node)),
            Shelf::Bucket(web, region) => Put::Bucket(Box::new(Bucket::new(web, region))),
        };
        Self { shelf, time: files.time }
    }

    async fn put(&mut self, items: &[Numbered]) -> Result<Taken, SendError> {
        let Some(name) = name(items) else { return Ok(Taken::default()) };
        let file = parquet::file(items).map_err(|error| SendError::Unfit(chain(&error)))?;
        match &mut self.shelf {
            Put::Directory(directory) => directory.put(&name, &file)?,
            Put::Bucket(bucket) => bucket.put(&name, file).await?,
        }
        Ok(Taken::default())
    }
}

/// What a file of these records is called, so that files of a node have the order of their names: by the first that is one of a recording, since what is
/// said to be missing before it may be more the next time.
fn name(items: &[Numbered]) -> Option<String> {
    let first = items.iter().find(|item| !item.record.missing).or(items.first())?;
    let missing = if first.record.missing { "-missing" } else { "" };
    let (node, epoch, sequence) = (&first.record.node, first.record.epoch, first.record.sequence);
    Some(format!("{node}-{epoch:020}-{sequence:020}{missing}.parquet"))
}

impl Collector for Parquet {
    fn send<'a>(&'a mut self, items: &'a [Numbered]) -> BoxFuture<'a, Result<Taken, SendError>> {
        self.put(items).boxed()
    }

    fn gather(&self) -> Gather {
        Gather { most: MOST, time: self.time, is_long: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::collect::tests::{flow, gap};

    #[test]
    fn a_file_is_called_by_its_first_record_whatever_is_missing_before_it() {
        let mut missing = gap(6, 1);
        missing.record.missing = true;
        let expected = "node1-00000000000000000001-00000000000000000007.parquet";
        assert_eq!(name(&[missing.clone(), flow(7), flow(8)]).as_deref(), Some(expected));
        assert_eq!(name(&[flow(7)]).as_deref(), Some(expected));
        let alone = "node1-00000000000000000001-00000000000000000006-missing.parquet";
        assert_eq!(name(&[missing]).as_deref(), Some(alone));
        assert_eq!(name(&[]), None);
    }
}
