//! The signals that CoreDNS knows beside those that end it.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tracing::info;

/// Listens to SIGUSR1, which is told to [`run`](super::run), to SIGHUP, which does nothing, as with CoreDNS, and to SIGUSR2, by which
/// CoreDNS begins its program anew and which does nothing here, since sockets go to another process by `--handover`: each would end the
/// process if nobody listened.
///
/// # Errors
///
/// When a signal cannot be listened to.
///
/// # Panics
///
/// Outside of tokio's runtime.
pub fn reloads() -> io::Result<Arc<Notify>> {
    let (mut reload, mut hangup) = (signal(SignalKind::user_defined1())?, signal(SignalKind::hangup())?);
    let mut upgrade = signal(SignalKind::user_defined2())?;
    let asked = Arc::new(Notify::new());
    let tell = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = reload.recv() => tell.notify_one(),
                Some(()) = hangup.recv() => info!("SIGHUP does nothing; SIGUSR1 has the Corefile read again"),
                Some(()) = upgrade.recv() => info!(
                    "SIGUSR2 does nothing: another version takes over by --handover; SIGUSR1 has the Corefile read again"
                ),
                else => break,
            }
        }
    });
    Ok(asked)
}
