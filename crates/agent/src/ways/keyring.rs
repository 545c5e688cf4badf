//! This node's WireGuard keys: made here, kept in a file that only their owner reads, published, and changed from time to time.
//!
//! There are always two: the one in use and the next. To change keys, the next one is published; when this node's own object shows
//! it, the device takes it by the same event by which the peers do ([`podnet_planner::overlay`]), and the file follows: the next
//! becomes the one in use, and another next one is made. So an agent that dies at any point finds the key that is shown in its file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use podnet_model::wireguard::{KeyPair, PrivateKey, PublicKey};

/// How long a key is used.
pub const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the WireGuard keys in {path}")]
pub struct KeyringError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The keys of this node.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    pairs: Mutex<Pairs>,
}

#[derive(Clone, Debug)]
struct Pairs {
    in_use: KeyPair,
    next: KeyPair,
    /// Since when the first is in use: the file's time.
    since: SystemTime,
}

/// What of the cluster's state concerns this node's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Packets shall be encrypted, and the kernel can do it.
    pub wanted: bool,
    /// This node's object is there, and shows this key.
    pub shown: Option<Option<PublicKey>>,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Rest,
    /// Let this node's object show this key, or none.
    Publish(Option<PublicKey>),
    /// The next key is shown: it is in use from now on.
    Promote,
}

impl Keyring {
    /// Reads the keys, or makes them.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written. One that holds no keys is replaced: nothing is lost that cannot be made again.
    pub fn open(path: &Path) -> Result<Self, KeyringError> {
        let failed = |action| {
            let path = path.to_path_buf();
            move |source| KeyringError { action, path, source }
        };
        let pairs = match read(path).map_err(failed("read"))? {
            Some(pairs) => pairs,
            None => {
                let pairs = Pairs::fresh().map_err(failed("make"))?;
                write(path, &pairs).map_err(failed("write"))?;
                pairs
            }
        };
        Ok(Self { path: path.to_path_buf(), pairs: Mutex::new(pairs) })
    }

    /// All keys that the device may have.
    #[must_use]
    pub fn pairs(&self) -> Vec<KeyPair> {
        let pairs = self.lock();
        vec![pairs.in_use.clone(), pairs.next.clone()]
    }

    /// What to do next.
    #[must_use]
    pub fn action(&self, wish: Wish, now: SystemTime) -> Action {
        let pairs = self.lock();
        let Some(shown) = wish.shown else { return Action::Rest };
        let is_in_use = shown == Some(pairs.in_use.public);
        let is_next = shown == Some(pairs.next.public);
        // A clock that was set back does not age keys.
        let age = now.duration_since(pairs.since).unwrap_or_default();
        match wish.wanted {
            false if is_in_use || is_next => Action::Publish(None),
            false => Action::Rest,
            true if is_next => Action::Promote,
            true if !is_in_use => Action::Publish(Some(pairs.in_use.public)),
            true if age > lifetime(&pairs.in_use.public) => Action::Publish(Some(pairs.next.public)),
            true => Action::Rest,
        }
    }

    /// Takes the next key into use and makes another next one.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; nothing is changed then.
    pub fn promote(&self) -> Result<(), KeyringError> {
        let failed = |action| move |source| KeyringError { action, path: self.path.clone(), source };
        let mut pairs = self.lock();
        let fresh = Pairs::fresh().map_err(failed("make"))?;
        let promoted = Pairs { in_use: pairs.next.clone(), ..fresh };
        write(&self.path, &promoted).map_err(failed("write"))?;
        *pairs = promoted;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Pairs> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pairs {
    fn fresh() -> io::Result<Self> {
        Ok(Self { in_use: pair()?, next: pair()?, since: SystemTime::now() })
    }
}

/// Nodes whose keys were made at one time, as when encryption is turned on, do not all change them at one time: every change is one of a
/// Node object that all nodes see.
fn lifetime(key: &PublicKey) -> Duration {
    LIFETIME + LIFETIME / 4 * u32::from(key.0[0]) / 256
}

fn pair() -> io::Result<KeyPair> {
    let mut secret = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(KeyPair::of_secret(secret))
}

fn read(path: &Path) -> io::Result<Option<Pairs>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Keys that others could read are nobody's secret any more, and are made anew.
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read the WireGuard keys; they are made anew");
        return Ok(None);
    }
    let since = file.metadata()?.modified()?;
    let text = io::read_to_string(file)?;
    let mut pairs = text.lines().map(|line| Some(KeyPair::of_secret(line.parse::<PrivateKey>().ok()?.0)));
    match (pairs.next().flatten(), pairs.next().flatten()) {
        (Some(in_use), Some(next)) => Ok(Some(Pairs { in_use, next, since })),
        _ => {
            tracing::warn!(path = %path.display(), "the file holds no WireGuard keys; they are made anew");
            Ok(None)
        }
    }
}

/// Whole or not at all, and on the disk before it is used.
fn write(path: &Path, pairs: &Pairs) -> io::Result<()> {
    let new = path.with_extension("new");
    // What a killed agent left may have been made by another and be open to others.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{}\n{}", pairs.in_use.private.reveal(), pairs.next.private.reveal())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(directory: &tempfile::TempDir) -> Keyring {
        Keyring::open(&directory.path().join("wireguard.keys")).unwrap()
    }

    fn shows(key: Option<PublicKey>) -> Wish {
        Wish { wanted: true, shown: Some(key) }
    }

    #[test]
    fn keys_are_the_same_after_a_restart_and_only_their_owner_can_read_them() {
        let directory = tempfile::tempdir().unwrap();
        let pairs = keyring(&directory).pairs();
        assert_eq!(keyring(&directory).pairs(), pairs);
        let path = directory.path().join("wireguard.keys");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_ne!(keyring(&directory).pairs(), pairs, "others could have read them");
        fs::write(&path, "no keys").unwrap();
        assert_eq!(keyring(&directory).pairs().len(), 2, "a spoilt file is replaced");
    }

    #[test]
    fn a_key_is_published_when_wanted_and_withdrawn_when_not() {
        let directory = tempfile::tempdir().unwrap();
        let (ring, now) = (keyring(&directory), SystemTime::now());
        let own = ring.pairs()[0].public;
        assert_eq!(ring.action(Wish { wanted: true, shown: None }, now), Action::Rest, "there is no object yet");
        assert_eq!(ring.action(shows(None), now), Action::Publish(Some(own)));
        assert_eq!(ring.action(shows(Some(PublicKey([7; 32]))), now), Action::Publish(Some(own)));
        assert_eq!(ring.action(shows(Some(own)), now), Action::Rest);
        let unwanted = |shown| Wish { wanted: false, shown: Some(shown) };
        assert_eq!(ring.action(unwanted(Some(own)), now), Action::Publish(None));
        assert_eq!(ring.action(unwanted(Some(PublicKey([7; 32]))), now), Action::Rest, "somebody else's");
    }

    #[test]
    fn keys_of_one_age_do_not_end_at_one_time() {
        let ends: std::collections::BTreeSet<Duration> =
            (0..=255).map(|byte| lifetime(&PublicKey([byte; 32]))).collect();
        assert_eq!(ends.len(), 256);
        assert!(ends.iter().all(|end| (LIFETIME..LIFETIME * 5 / 4).contains(end)));
    }

    #[test]
    fn an_old_key_gives_way_to_the_next_in_steps_that_can_be_interrupted() {
        let directory = tempfile::tempdir().unwrap();
        let ring = keyring(&directory);
        let later = SystemTime::now() + 2 * LIFETIME;
        let [first, second] = [0, 1].map(|at| ring.pairs()[at].public);
        assert_eq!(ring.action(shows(Some(first)), later), Action::Publish(Some(second)));
        // Published, and the agent was killed: the next one finds it in the file.
        let ring = keyring(&directory);
        assert_eq!(ring.action(shows(Some(second)), later), Action::Promote);
        ring.promote().unwrap();
        let ring = keyring(&directory);
        assert_eq!(ring.pairs()[0].public, second);
        assert!(![first, second].contains(&ring.pairs()[1].public), "another next one");
        assert_eq!(ring.action(shows(Some(second)), SystemTime::now()), Action::Rest);
    }
}
