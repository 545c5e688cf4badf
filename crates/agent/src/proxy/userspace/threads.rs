//! The threads of a program.

use std::error::Error;

use podnet_kernel::{apart::ApartError, netns::NetNs};
use tokio::runtime::{Builder, Runtime};
use tracing::error;

/// Threads in the node's namespace: from there backends are connected to.
pub(super) fn begin(netns: &NetNs) -> Result<Runtime, ApartError> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    let inside = netns.clone();
    let enter = move || {
        if let Err(error) = inside.enter_current_thread() {
            error!(error = &error as &dyn Error, "a thread that was to pass on Services' connections cannot");
            // It would connect to who has a backend's address somewhere else.
            loop {
                std::thread::park();
            }
        }
    };
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name("services").enable_all().on_thread_start(enter);
    builder.build().map_err(ApartError::Threads)
}
