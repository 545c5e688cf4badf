//! A KubeProxyConfiguration in a file, read again as it changes. A ConfigMap's volume changes by links, and editors replace files: so it is
//! looked at by its path, now and then.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use podnet_model::{Change, NodeName, ProxyConfig, proxy::Fault};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Follower, Update};
use crate::events::About;

/// A look reads a small file.
const INTERVAL: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };

/// Follows a file. A wrong one leaves in force what it said before, also of an earlier start: `kept` is where that is written.
pub(super) struct FileWatch {
    pub(super) path: PathBuf,
    pub(super) kept: Option<PathBuf>,
    pub(super) node: NodeName,
}

/// Why a file is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl FileWatch {
    pub(super) async fn follow(self, mut follower: Follower) {
        let mut seen: Option<Result<String, String>> = None;
        loop {
            let text = fs::read_to_string(&self.path).map_err(|error: io::Error| error.to_string());
            if seen.as_ref() != Some(&text) {
                if self.take(&text, seen.is_none(), &follower).await.is_err() {
                    return;
                }
                seen = Some(text);
            }
            if follower.synced().await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = follower.sender.closed() => return,
            }
        }
    }

    async fn take(
        &self,
        text: &Result<String, String>,
        is_first: bool,
        follower: &Follower,
    ) -> Result<(), mpsc::error::SendError<Update>> {
        let path = self.path.display();
        let config = match parse(text) {
            Ok(config) => {
                info!(%path, "configuration of Services read");
                self.keep(text.as_deref().unwrap_or_default());
                config
            }
            Err(unfit) => {
                warn!(%path, error = %unfit, "configuration of Services ignored until it is mended; what it said before counts");
                if let Some(complaints) = &follower.complaints {
                    let message =
                        format!("file {path}: {unfit}; it is ignored until it is mended, what it said before counts");
                    complaints.tell(About::node(&self.node), "InvalidProxyConfig", message);
                }
                let before = self.kept.as_ref().filter(|_| is_first).and_then(|kept| fs::read_to_string(kept).ok());
                match before.and_then(|before| ProxyConfig::parse(&before).ok()) {
                    Some(config) => config,
                    None => return Ok(()),
                }
            }
        };
        follower.sender.send(Update::Change(Change::Proxy(Some(Arc::new(config))))).await
    }

    fn keep(&self, text: &str) {
        let Some(kept) = &self.kept else { return };
        let write = || {
            fs::create_dir_all(kept.parent().unwrap_or(Path::new("/")))?;
            let new = kept.with_extension("new");
            fs::write(&new, text)?;
            fs::rename(new, kept)
        };
        if let Err(error) = write() {
            warn!(%error, path = %kept.display(), "configuration not kept; a restart beside a wrong one has the defaults");
        }
    }
}

fn parse(text: &Result<String, String>) -> Result<ProxyConfig, Unfit> {
    let text = text.as_ref().map_err(|error| Unfit::Unreadable(error.clone()))?;
    Ok(ProxyConfig::parse(text)?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use podnet_model::proxy::Mode;

    use super::*;
    use crate::watch::{Quarantine, quarantine::Cell};

    const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

    fn follow(directory: &Path) -> mpsc::Receiver<Update> {
        let (sender, receiver) = mpsc::channel(16);
        let cell = Cell::new("File".into(), Quarantine::default());
        let unsynced = Some(Arc::new(AtomicUsize::new(1)));
        let (told, partly) = Default::default();
        let follower = Follower { sender, complaints: None, good: None, told, partly, unsynced, cell };
        let watch =
            FileWatch { path: directory.join("conf"), kept: Some(directory.join("good/conf")), node: "node1".into() };
        tokio::spawn(watch.follow(follower));
        receiver
    }

    fn mode(update: Option<Update>) -> Option<Mode> {
        match update {
            Some(Update::Change(Change::Proxy(Some(config)))) => config.mode,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_file_is_followed_and_a_wrong_one_changes_nothing_even_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(directory.path().join("conf"), format!("{HEAD}{text}")).unwrap();
        write("mode: nftables\n");
        let mut updates = follow(directory.path());
        assert_eq!(mode(updates.recv().await), Some(Mode::Nftables));
        assert_eq!(updates.recv().await, Some(Update::Synced));
        write("mode: iptables\n");
        assert_eq!(mode(updates.recv().await), Some(Mode::Iptables));
        write("mode: wrong\n");
        let nothing = tokio::time::timeout(INTERVAL * 5, updates.recv()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        drop(updates);
        let mut updates = follow(directory.path());
        assert_eq!(mode(updates.recv().await), Some(Mode::Iptables), "as it was when it was last right");
        assert_eq!(updates.recv().await, Some(Update::Synced));
        fs::remove_file(directory.path().join("conf")).unwrap();
        tokio::time::sleep(INTERVAL * 3).await;
        write("mode: ebpf\n");
        assert_eq!(mode(updates.recv().await), Some(Mode::Ebpf));
    }
}
