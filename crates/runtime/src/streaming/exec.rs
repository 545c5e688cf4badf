//! Copies between a process and the wires to its client, whatever protocol is at their other end.

use std::{convert::Infallible, future::pending, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::status;
use crate::access::ExecSession;

/// How much is read from a process at a time, and so the largest message that a client gets.
const CHUNK: usize = 32 * 1024;

/// How many chunks wait on a wire: with [`CHUNK`], a quarter of a megabyte for each stream of a session.
const WIRE_DEPTH: usize = 8;

/// How long an ended process's output may be silent and open: something that it left behind holds it, and no one waits for that.
const SILENCE_AFTER_EXIT: Duration = Duration::from_secs(5);

/// The process's ends of the wires. A closed `stdin` is end of file.
pub(super) struct ProcessEnds {
    pub(super) stdin: mpsc::Receiver<Bytes>,
    pub(super) resize: mpsc::Receiver<(u16, u16)>,
    pub(super) stdout: mpsc::Sender<Bytes>,
    pub(super) stderr: mpsc::Sender<Bytes>,
}

/// The client's ends of the wires. A closed `stdout` or `stderr` is the end of that stream.
pub(super) struct ClientEnds {
    pub(super) stdin: mpsc::Sender<Bytes>,
    pub(super) resize: mpsc::Sender<(u16, u16)>,
    pub(super) stdout: mpsc::Receiver<Bytes>,
    pub(super) stderr: mpsc::Receiver<Bytes>,
}

/// The wires of one session.
pub(super) fn wires() -> (ProcessEnds, ClientEnds) {
    let (stdin, process_stdin) = mpsc::channel(WIRE_DEPTH);
    let (resize, process_resize) = mpsc::channel(WIRE_DEPTH);
    let (process_stdout, stdout) = mpsc::channel(WIRE_DEPTH);
    let (process_stderr, stderr) = mpsc::channel(WIRE_DEPTH);
    (
        ProcessEnds { stdin: process_stdin, resize: process_resize, stdout: process_stdout, stderr: process_stderr },
        ClientEnds { stdin, resize, stdout, stderr },
    )
}

/// Copies until the process has ended and its output has been taken; the answer is for the client. Dropping this kills the process.
pub(super) async fn run(session: ExecSession, ends: ProcessEnds) -> Value {
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let exited = CancellationToken::new();
    let to_client = async {
        let errors = async {
            match stderr {
                Some(stderr) => copy_output(stderr, ends.stderr, &exited).await,
                None => drop(ends.stderr),
            }
        };
        tokio::join!(copy_output(stdout, ends.stdout, &exited), errors);
    };
    let code = async {
        let code = exit.await;
        exited.cancel();
        code
    };
    let ending = async { tokio::join!(code, to_client).0 };
    let to_process = async {
        tokio::join!(copy_input(ends.stdin, stdin), pass_sizes(ends.resize, resize));
        pending::<Infallible>().await
    };
    tokio::select! {
        code = ending => match code {
            Ok(code) => status::exited(code),
            Err(_) => status::failed("the process is gone and its exit code is not known"),
        },
        never = to_process => match never {},
    }
}

async fn copy_output(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Bytes>, exited: &CancellationToken) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let mut window = (&mut buffer).limit(CHUNK);
        let read = tokio::select! {
            read = from.read_buf(&mut window) => read,
            () = silence(exited) => return,
        };
        match read {
            // A terminal whose last process has gone answers EIO rather than end of file.
            Ok(0) | Err(_) => return,
            // What the client did not ask for is read nevertheless: the process must not stall on it.
            Ok(_) => {
                let _ = to.send(buffer.split().freeze()).await;
            }
        }
    }
}

async fn silence(exited: &CancellationToken) {
    exited.cancelled().await;
    sleep(SILENCE_AFTER_EXIT).await;
}

async fn copy_input(mut from: mpsc::Receiver<Bytes>, to: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let Some(mut to) = to else { return };
    while let Some(bytes) = from.recv().await {
        let written = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        // The process has closed its stdin: returning closes the wire, and the client's further input is thrown away.
        if written.await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn pass_sizes(mut from: mpsc::Receiver<(u16, u16)>, to: Option<mpsc::Sender<(u16, u16)>>) {
    let Some(to) = to else { return };
    while let Some(size) = from.recv().await {
        if to.send(size).await.is_err() {
            return;
        }
    }
}

/// A terminal's size as clients send it: `{"Width":80,"Height":24}`, in columns and rows.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TerminalSize {
    width: u16,
    height: u16,
}

impl TerminalSize {
    /// Columns and rows.
    pub(super) fn columns_and_rows(&self) -> (u16, u16) {
        (self.width, self.height)
    }
}
