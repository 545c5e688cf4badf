//! Ports of HTTP that show a certificate, where the Corefile has one for them: a reload may give them one, or another, or none.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll, ready},
};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

use crate::dns::identity::Identity;

/// The certificate that is shown; none: nothing is encrypted.
#[derive(Clone, Debug, Default)]
pub(in crate::dns) struct Shown(Arc<RwLock<Option<Arc<Identity>>>>);

impl Shown {
    /// This one, until there is another one.
    pub(in crate::dns) fn new(identity: Option<Arc<Identity>>) -> Self {
        Self(Arc::new(RwLock::new(identity)))
    }

    /// Shows this one to those who come from now on.
    pub(in crate::dns) fn show(&self, identity: Option<Arc<Identity>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// What is shown now.
    pub(in crate::dns) fn now(&self) -> Option<Arc<Identity>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A port whose connections are encrypted while there is a certificate for it.
pub(super) struct Encrypting<L> {
    listener: L,
    shown: Shown,
}

impl<L> Encrypting<L> {
    pub(super) fn new(listener: L, shown: Shown) -> Self {
        Self { listener, shown }
    }
}

impl<L: Listener> Listener for Encrypting<L> {
    type Io = Encrypted<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Encrypted<L::Io>, L::Addr) {
        let (stream, peer) = self.listener.accept().await;
        let encrypted = match self.shown.now() {
            None => Encrypted::Plain(stream),
            // Whoever is slow to agree on something keeps nobody else waiting: that is done where the connection is served.
            Some(identity) => {
                let acceptor = TlsAcceptor::from(identity.config().await);
                Encrypted::Agreeing(Box::new(acceptor.accept(stream)))
            }
        };
        (encrypted, peer)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that may be encrypted.
pub(super) enum Encrypted<S> {
    /// It is not.
    Plain(S),
    /// Both sides are to agree on how.
    Agreeing(Box<Accept<S>>),
    /// It is.
    Open(Box<TlsStream<S>>),
    /// They did not agree.
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Encrypted<S> {
    /// Goes on until both sides have agreed.
    fn poll_agreed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let agreed = match self {
            Self::Agreeing(accept) => ready!(Pin::new(accept).poll(context)),
            _ => return Poll::Ready(Ok(())),
        };
        let (next, told) = match agreed {
            Ok(stream) => (Self::Open(Box::new(stream)), Ok(())),
            Err(error) => (Self::Ended, Err(error)),
        };
        *self = next;
        Poll::Ready(told)
    }
}

fn ended<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_agreed(context))?;
        match this {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Open(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Agreeing(_) | Self::Ended => ended(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_agreed(context))?;
        match this {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Open(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Agreeing(_) | Self::Ended => ended(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Open(stream) => Pin::new(stream).poll_flush(context),
            // Nothing was written.
            Self::Agreeing(_) | Self::Ended => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Open(stream) => Pin::new(stream).poll_shutdown(context),
            // Dropping it ends it.
            Self::Agreeing(_) | Self::Ended => Poll::Ready(Ok(())),
        }
    }
}
