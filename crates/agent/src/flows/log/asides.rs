//! What is set aside of the log, compressed by a thread of its own: what the kernel rings is heard meanwhile.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

/// It is not tried again before so many times of what it took in vain: who waits for it hears no bells.
const RESTS: u32 = 10;

/// `FILE.1.gz` is the newest of those that are done, `FILE.0` the one that is being compressed, as `FILE.0.gz`.
#[derive(Debug)]
pub(super) struct Asides {
    path: PathBuf,
    /// How many bytes those that are done may have.
    room: u64,
    compressing: Option<JoinHandle<io::Result<()>>>,
    /// When it failed last though it was waited for, how long that took, and why.
    vain: Option<(Instant, Duration, io::ErrorKind)>,
}

impl Drop for Asides {
    fn drop(&mut self) {
        // The next agent tries again.
        let _ = self.wait();
    }
}

impl Asides {
    /// Those of a file. What an earlier agent did not come to compress is compressed now.
    pub(super) fn open(path: &Path, room: u64) -> Self {
        let mut asides = Self { path: path.to_owned(), room, compressing: None, vain: None };
        if asides.is_unfinished() {
            asides.compress();
        }
        asides
    }

    fn full(&self) -> PathBuf {
        aside(&self.path, 0, "")
    }

    /// Something is not compressed yet, or has no number yet.
    fn is_unfinished(&self) -> bool {
        self.full().exists() || aside(&self.path, 0, ".gz").is_file()
    }

    /// Where the file is to be put, once what was there before is compressed. Where that failed it is tried once more, since what was in the way may be
    /// over: a disk that was full has room again. Where that failed, too, it rests.
    pub(super) fn free(&mut self) -> io::Result<PathBuf> {
        let (first, full) = (self.wait(), self.full());
        if !self.is_unfinished() {
            self.vain = None;
            return first.map(|()| full);
        }
        let told = format!("{} could not be compressed; it is tried again", full.display());
        let began = Instant::now();
        if let Some((failed, took, kind)) = self.vain
            && began.duration_since(failed) < RESTS * took
        {
            return Err(io::Error::new(kind, told));
        }
        self.compress();
        let again = self.wait();
        if !self.is_unfinished() {
            self.vain = None;
            return Ok(full);
        }
        let error = again.err().unwrap_or_else(|| io::Error::other("there is no thread for it"));
        self.vain = Some((Instant::now(), began.elapsed(), error.kind()));
        Err(io::Error::new(error.kind(), format!("{told}: {error}")))
    }

    /// As if the last attempt had taken so long.
    #[cfg(test)]
    pub(super) fn rest_after(&mut self, took: Duration) {
        if let Some((_, taken, _)) = &mut self.vain {
            *taken = took;
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let Some(thread) = self.compressing.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that compresses the log ended")))
    }

    /// Begins to compress what was put there. Where there is no thread for it, that is seen as it is to be free again.
    pub(super) fn compress(&mut self) {
        let (path, room) = (self.path.clone(), self.room);
        let compress = move || {
            let done = compress(&path, room);
            if done.is_err() && aside(&path, 0, "").exists() {
                // The room is needed; without the other one it is all that there is.
                let _ = fs::remove_file(aside(&path, 0, ".gz"));
            }
            done
        };
        self.compressing = thread::Builder::new().name("flow-log".into()).spawn(compress).ok();
    }
}

fn aside(path: &Path, number: u64, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{suffix}"));
    name.into()
}

/// What was put aside becomes `.1.gz`; the older ones count up, and the oldest go where there is no room.
fn compress(path: &Path, room: u64) -> io::Result<()> {
    let (full, new) = (aside(path, 0, ""), aside(path, 0, ".gz"));
    let done = |number| aside(path, number, ".gz");
    if full.exists() {
        let mut encoder = GzEncoder::new(File::create(&new)?, Compression::default());
        io::copy(&mut File::open(&full)?, &mut encoder)?;
        encoder.finish()?.sync_all()?;
        // Before the other one has a number: the next agent would compress it once more.
        fs::remove_file(&full)?;
    }
    let last = (1..).find(|number| !done(*number).exists()).unwrap_or(1);
    for number in (1..last).rev() {
        fs::rename(done(number), done(number + 1))?;
    }
    fs::rename(&new, done(1))?;
    let mut left = room;
    for number in 1..=last {
        let size = fs::metadata(done(number))?.len();
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => {
                left = 0;
                fs::remove_file(done(number))?;
            }
        }
    }
    Ok(())
}
