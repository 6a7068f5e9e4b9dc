//! Sockets of the APIs for agents and operators: HTTP/1.1 with its limits set. What they say is decided elsewhere.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at once on one listener: every agent and follower of the largest fleet, and operators.
const CONNECTIONS_MAX: usize = 512;
/// Who does not finish a request head in this time is dropped; it also bounds idle keep-alive, and is longer than a poll
/// between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// A request head larger than this is refused: a frontier of the largest fleet fits.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// After an error of accept (out of files): a pause, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped.
pub async fn serve(listener: TcpListener, router: Router) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Over the cap the newcomer is dropped; it may ask again.
                    let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
                    let service = TowerToHyperService::new(router.clone());
                    tasks.spawn(async move {
                        let _permit = permit;
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEAD_TIMEOUT)
                            .max_buf_size(HEAD_BYTES_MAX)
                            .serve_connection(TokioIo::new(stream), service);
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, %peer, "a connection of an API");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting at an API");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}
