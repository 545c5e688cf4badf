//! Connections that speak HTTP, on which questions come in requests: DNS over HTTPS and gRPC.

mod grpc;
mod https;

use std::{pin::pin, sync::Arc, time::Instant};

use axum::http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use podnet_dns::{
    Arrival, Outcome, Scheme,
    message::{is_padded, pad},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Shared,
    activity::Activity,
    door::{Door, Manners, Rest},
    unread::Account,
};

/// Bytes of a request's head.
const HEAD: u32 = 16 << 10;
/// Bytes of the largest query that is taken: those with keys, cookies and padding are much smaller, and there may be many at once.
const MESSAGE: usize = 4096;

/// Nothing is answered: the request is broken off.
#[derive(Debug, thiserror::Error)]
#[error("it is not answered, as the Corefile says")]
struct Silent;

/// Serves one connection to its end.
pub(super) async fn connection(
    door: &Arc<Door>,
    manners: Arc<Manners>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    arrival: Arrival,
    rest: &Rest,
) {
    let activity = Arc::new(Activity::default());
    let account = door.unread.account();
    let (shared, read, busy) = (Arc::clone(&door.shared), manners.read, Arc::clone(&activity));
    let unread = Arc::clone(&account);
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, busy, unread) = (Arc::clone(&shared), busy.begin(), Arc::clone(&unread));
        async move {
            let response = match arrival.scheme {
                Scheme::Grpc => Ok(grpc::answer(&shared, &unread, read, request, &arrival).await),
                _ => {
                    let answered = https::answer(&shared, &unread, read, request, &arrival).await;
                    if let Ok(response) = &answered {
                        shared.server().metrics().https_answered(arrival.port(), response.status().as_u16());
                    }
                    answered
                }
            };
            drop(busy);
            response
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    // The time counts while nothing comes, too.
    let patience = manners.read.max(manners.idle);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(HEAD as usize);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(manners.streams).max_header_list_size(HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    while activity.idle() < door.idle(&manners) {
        if account.stuck() > manners.write {
            // Its client reads nothing, and would not read that it ends either.
            return;
        }
        let idle = activity.idle();
        let rests = !idle.is_zero() && account.is_empty();
        rest.tell(Instant::now().checked_sub(idle).filter(|_| rests));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(Door::tick(&manners)) => {}
            () = rest.is_over(), if rests => if !activity.idle().is_zero() && account.is_empty() { break },
        }
    }
    rest.tell(None);
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(manners.write, connection).await;
}

/// The answer to a question in a request, once what was answered before is read.
async fn ask(shared: &Shared, unread: &Account, message: &[u8], arrival: &Arrival) -> Result<Vec<u8>, Silent> {
    unread.room().await;
    let server = shared.server();
    let mut response = Vec::new();
    let mut answer = match server.handle(message, arrival, Instant::now(), &mut response) {
        Outcome::Answer => response,
        Outcome::Later(later) => server.finish(later).await.ok_or(Silent)?,
        // One request has one message for an answer.
        Outcome::Drop | Outcome::Transfer(_) => return Err(Silent),
    };
    if is_padded(message) {
        pad(&mut answer);
    }
    Ok(answer)
}
