//! Whether the pods' network is ready: the first conflist, and what its plugins say to STATUS.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    cni::{Cni, CniError},
    pod::NetworkState,
};

/// Until there is a network a look costs one directory listing.
const EAGER: Duration = Duration::from_millis(200);
/// After that it costs an execution of each plugin, which may say that it cannot serve yet.
const UNSERVED: Duration = Duration::from_secs(1);
/// A network that serves is asked less often.
const STEADY: Duration = Duration::from_secs(30);

/// Tells about the network until nobody listens.
pub(super) async fn watch(cni: Cni, state: watch::Sender<NetworkState>) {
    while !state.is_closed() {
        let wait = match cni.ready().await {
            Ok(conflist) => {
                become_ready(&state, conflist);
                STEADY
            }
            Err(error) => {
                let reason = error.to_string();
                state.send_if_modified(|known| {
                    let news = !matches!(known, NetworkState::NotReady(told) if *told == reason);
                    if news {
                        warn!(%reason, "the network is not ready");
                        *known = NetworkState::NotReady(reason.clone());
                    }
                    news
                });
                if matches!(error, CniError::Conflist(_)) { EAGER } else { UNSERVED }
            }
        };
        tokio::time::sleep(wait).await;
    }
}

fn become_ready(state: &watch::Sender<NetworkState>, conflist: crate::cni::Conflist) {
    state.send_if_modified(|known| {
        let news = !matches!(known, NetworkState::Ready(told) if **told == conflist);
        if news {
            info!(network = %conflist.name, "the network is ready");
            *known = NetworkState::Ready(Arc::new(conflist));
        }
        news
    });
}
