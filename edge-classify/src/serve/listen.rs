//! Connections: how many, how long, and how they end.

use super::App;
use super::refusal::Refusal;
use super::wire::Wire;
use axum::Router;
use axum::http::StatusCode;
use core::future::poll_fn;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Most bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;
/// How long a client that was refused may go on sending: were the connection closed at once, the
/// system would throw away the answer that is on its way.
const LINGER: Duration = Duration::from_secs(2);
/// At the end, what a connection that has said nothing gets.
const GRACE: Duration = Duration::from_millis(300);
/// Connections beyond the limit that are told so at a time.
const REFUSED: usize = 64;

/// What each connection needs.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) app: Arc<App>,
    pub(super) router: Router,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Server {
    /// Accepts connections until the program is to stop; then those that are on their way.
    pub(super) async fn accept(mut self, listener: TcpListener) {
        let refused = Arc::new(Semaphore::new(REFUSED));
        let mut is_stopping = false;
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = async {}, if is_stopping => return,
                () = stopped(&mut self.stop), if !is_stopping => {
                    is_stopping = true;
                    continue;
                }
            };
            let Ok((stream, _)) = accepted else {
                // Too many files are open, or the client has gone again.
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            // Answers are small and go out at once; a connection for which that fails is no worse.
            let _ = stream.set_nodelay(true);
            if let Ok(permit) = Arc::clone(&self.app.connections).try_acquire_owned() {
                let server = self.clone();
                tokio::spawn(async move {
                    server.connection(stream).await;
                    drop(permit);
                });
            } else if let Ok(permit) = Arc::clone(&refused).try_acquire_owned()
                && self.tls.is_none()
            {
                self.app.metrics.request(StatusCode::SERVICE_UNAVAILABLE.as_u16(), Duration::ZERO);
                tokio::spawn(async move {
                    end(stream, Some(Refusal::busy()), LINGER).await;
                    drop(permit);
                });
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        match &self.tls {
            None => self.http(stream).await,
            Some(tls) => {
                let time = self.app.limits.time;
                if let Ok(Ok(stream)) = timeout(time, tls.accept(stream)).await {
                    self.http(stream).await;
                }
            }
        }
    }

    async fn http(mut self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let time = self.app.limits.time;
        let active = Arc::new(AtomicUsize::new(0));
        let (router, requests) = (TowerToHyperService::new(self.router), Arc::clone(&active));
        let service = service_fn(move |request| {
            requests.fetch_add(1, Relaxed);
            let (answer, requests) = (router.call(request), Arc::clone(&requests));
            Box::pin(async move {
                let answer = answer.await;
                requests.fetch_sub(1, Relaxed);
                answer
            })
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(time)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(Wire::new(io, time)), service);
        let mut is_stopping = false;
        let outcome = loop {
            tokio::select! {
                outcome = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break outcome,
                () = stopped(&mut self.stop), if !is_stopping => {
                    is_stopping = true;
                    core::pin::Pin::new(&mut connection).graceful_shutdown();
                }
                () = sleep(GRACE), if is_stopping => {
                    if active.load(Relaxed) == 0 {
                        break Ok(());
                    }
                }
            }
        };
        let parts = connection.into_parts();
        let is_slow = outcome.is_err_and(|e| e.is_timeout()) && !parts.read_buf.is_empty();
        let refusal = is_slow.then(|| {
            self.app.metrics.request(StatusCode::REQUEST_TIMEOUT.as_u16(), time);
            Refusal::too_slow(time.as_secs())
        });
        end(parts.io.into_inner(), refusal, if is_stopping { GRACE } else { LINGER }).await;
    }
}

/// Waits until the program is to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Whoever would say so is gone: the same.
    let _ = stop.wait_for(|&is_stopping| is_stopping).await;
}

/// Writes the last answer, if there is one, and lets the client read it.
async fn end(mut io: impl AsyncRead + AsyncWrite + Unpin, last: Option<Refusal>, time: Duration) {
    let work = async {
        if let Some(refusal) = last {
            io.write_all(&refusal.bytes()).await?;
        }
        io.shutdown().await?;
        let mut rest = [0; 4096];
        while io.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // The client is gone, or goes on: either is its own affair.
    let _ = timeout(time, work).await;
}
