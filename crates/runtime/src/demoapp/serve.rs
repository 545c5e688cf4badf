//! Listening, and ending well.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    DemoappError, DemoappOptions, Listen,
    answer::{self, App},
};

/// How long requests that are under way may take when it is told to end. Kubernetes gives 30 s.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long a connection may be without a request.
const IDLE: Duration = Duration::from_secs(75);
/// How long to wait when there are no descriptors left to accept with.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Resolves with SIGTERM or SIGINT. As a container's first process it would otherwise not see them at all (signal(7), pid namespaces).
pub(super) fn signals() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Serves until `stop` resolves.
pub(super) async fn run(options: DemoappOptions, stop: impl Future<Output = ()>) -> Result<(), DemoappError> {
    let listeners: Vec<TcpListener> = {
        let mut listeners = Vec::with_capacity(options.listen.len());
        for place in &options.listen {
            listeners.push(listen(*place).await?);
        }
        listeners
    };
    serve(options, listeners, stop).await
}

/// Serves on sockets that are already open.
pub(super) async fn serve(
    options: DemoappOptions,
    listeners: Vec<TcpListener>,
    stop: impl Future<Output = ()>,
) -> Result<(), DemoappError> {
    let app = Arc::new(App::new(options, Path::new("/etc/hostname"))?);
    let (connections, ending) = (TaskTracker::new(), CancellationToken::new());
    for listener in listeners {
        info!(address = ?listener.local_addr().ok(), "demoapp listens");
        connections.spawn(accept(listener, app.clone(), connections.clone(), ending.clone()));
    }
    stop.await;
    ending.cancel();
    connections.close();
    if timeout(FAREWELL, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "demoapp ends while requests are under way");
    }
    Ok(())
}

async fn listen(place: Listen) -> Result<TcpListener, DemoappError> {
    let bind = |address: SocketAddr| async move {
        TcpListener::bind(address).await.map_err(|source| DemoappError::Listen { address, source })
    };
    match place {
        Listen::Address(address) => bind(address).await,
        // An IPv6 socket takes IPv4 as well (ipv6(7), IPV6_V6ONLY).
        Listen::Port(port) => match bind((Ipv6Addr::UNSPECIFIED, port).into()).await {
            Ok(listener) => Ok(listener),
            Err(_) => bind((Ipv4Addr::UNSPECIFIED, port).into()).await,
        },
    }
}

async fn accept(listener: TcpListener, app: Arc<App>, connections: TaskTracker, ending: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                connections.spawn(connection(stream, client, app.clone(), ending.clone()));
            }
            Err(error) => {
                warn!(%error, "a connection was not accepted");
                sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, client: SocketAddr, app: Arc<App>, ending: CancellationToken) {
    let Ok(server) = stream.local_addr() else { return };
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(answer::answer(&app, request, client.ip(), server.ip()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // What a client does wrong is no concern of a demonstration.
    let _ = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}
