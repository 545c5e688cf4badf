//! The threads of a program.

use std::{
    error::Error,
    io,
    sync::mpsc::{self, SyncSender},
};

use podnet_kernel::{
    apart::ApartError,
    netns::{NetNs, NetNsError},
};
use tokio::runtime::{Builder, Runtime};
use tracing::error;

/// Threads in the node's namespace: from there backends are connected to.
///
/// # Errors
/// Where there can be none, or one of them cannot enter the namespace.
pub(super) fn begin(netns: &NetNs) -> Result<Runtime, ApartError> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    let inside = netns.clone();
    let (entered, outcomes) = mpsc::sync_channel(threads);
    let enter = move || come_in(&inside, &entered);
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name("services").enable_all().on_thread_start(enter);
    let runtime = builder.build().map_err(ApartError::Threads)?;
    for outcome in outcomes.iter().take(threads) {
        if let Err(error) = outcome {
            // The threads that wait for ever are not waited for.
            runtime.shutdown_background();
            return Err(ApartError::Threads(io::Error::other(error)));
        }
    }
    Ok(runtime)
}

/// Has the calling thread enter the namespace, and tells whoever still wants to know what became of it. A thread that cannot does nothing.
fn come_in(netns: &NetNs, told: &SyncSender<Result<(), NetNsError>>) {
    let Err(error) = netns.enter_current_thread() else {
        let _ = told.try_send(Ok(()));
        return;
    };
    error!(error = &error as &dyn Error, "a thread that was to pass on Services' connections cannot");
    let _ = told.try_send(Err(error));
    // It would connect to who has a backend's address somewhere else.
    loop {
        std::thread::park();
    }
}
