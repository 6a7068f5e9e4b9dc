//! The streams by which stores follow each other: HTTP/2 on the agents' port, mutual TLS as for all that agents say. What is
//! said is decided in [`feed`](super::feed) and [`replica`](super::replica).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use url::Url;

use super::body::Streamed;
use super::engine::{Input, Links, Store};
use super::feed::{Down, Feeder, Took, Up, VERSION, check, compare};
use super::heads::Heads;
use super::op::Key;
use super::replica::{Denied, SILENCE};
use super::verify;
use super::wire::{Decoder, encode};
use crate::keys::{Keys, name_of};
use crate::latest::{latest, latest_seen};

/// Where a log is followed.
pub(crate) const PATH: &str = "/v1/log";
/// Time between two words of a feeder that has nothing to send: a silent link shows soon after.
const WORD: Duration = Duration::from_millis(500);
/// Pause after a stream that ended.
const RETRY: Duration = Duration::from_millis(300);
/// A stream that is silent for longer than this will not go on.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Connecting and the handshake: longer than the slowest way around the world with a packet lost.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two comparisons of a range: a store of a million keys is compared in a quarter of an hour.
const COMPARE: Duration = Duration::from_millis(100);
/// Why a stream ends, or does not begin, in a drill.
const CUT: &str = "a drill has cut the link";
/// Bytes under way in a stream: 64 MiB/s at a quarter of a second around the world.
pub(crate) const WINDOW_BYTES: u32 = 16 << 20;

/// Where streams tell of themselves.
type Signs = mpsc::Sender<Sign>;
type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// Which store to follow.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Our store.
    pub(crate) store: Store,
    /// The fleet.
    pub(crate) fleet: String,
    /// The datacenter.
    pub(crate) peer: String,
    /// Where its agent is.
    pub(crate) url: Url,
    /// Our keys, and every later ones.
    pub(crate) keys: watch::Receiver<Option<Arc<Keys>>>,
}

/// What a stream says of itself while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// It hears nothing any more.
    Silent,
    /// It hears something, for the first time or again.
    Heard(u64),
}

/// The streams to one store: one, and another that tries anew while the first hears nothing. Whichever hears first stays: after
/// a cut the old one may go on at once, or never.
struct Streams {
    link: Link,
    running: JoinSet<Result<(), Boxed>>,
    handles: Vec<(u64, AbortHandle)>,
    next: u64,
    signs: mpsc::Sender<Sign>,
}

impl Streams {
    fn begin(&mut self) {
        let (link, number, signs) = (self.link.clone(), self.next, self.signs.clone());
        self.next += 1;
        let handle = self.running.spawn(async move {
            let keys = latest(&link.keys);
            link.attempt(keys.as_deref(), number, &signs).await
        });
        self.handles.push((number, handle));
    }

    fn keep_only(&mut self, number: u64) {
        self.handles.retain(|(other, handle)| {
            if *other != number {
                handle.abort();
            }
            *other == number
        });
    }
}

impl Link {
    /// Follows it until dropped.
    pub(crate) async fn follow(mut self) {
        let mut said = String::new();
        let (signs, mut signed) = mpsc::channel(16);
        let (running, handles) = (JoinSet::new(), Vec::new());
        let mut streams = Streams { link: self.clone(), running, handles, next: 0, signs };
        streams.begin();
        let mut is_silent = false;
        loop {
            tokio::select! {
                Some(ended) = streams.running.join_next() => {
                    if let Ok(ended) = ended {
                        let why = ended.err().map_or_else(|| "the stream ended".to_owned(), |error| innermost(&*error));
                        // The same again and again is said once.
                        if why != said {
                            tracing::info!(peer = self.peer, why, "following another store");
                            said = why;
                        }
                    }
                    sleep(RETRY).await;
                    if streams.running.is_empty() || (is_silent && streams.running.len() < 2) {
                        streams.begin();
                    }
                }
                Some(sign) = signed.recv() => match sign {
                    Sign::Silent => {
                        is_silent = true;
                        if streams.running.len() < 2 {
                            streams.begin();
                        }
                    }
                    Sign::Heard(number) => {
                        is_silent = false;
                        streams.keep_only(number);
                    }
                },
                // With new keys new streams.
                Ok(()) = self.keys.changed() => {
                    streams.running.abort_all();
                    streams.begin();
                }
            }
        }
    }

    async fn attempt(&self, keys: Option<&Keys>, number: u64, signs: &Signs) -> Result<(), Boxed> {
        let mut links = self.store.links();
        let cut = links.wait_for(|links| links.is_cut(&self.peer));
        tokio::select! {
            biased;
            _ = cut => Err(CUT.into()),
            ended = self.connect(keys, number, signs) => ended,
        }
    }

    async fn connect(&self, keys: Option<&Keys>, number: u64, signs: &Signs) -> Result<(), Boxed> {
        let host = self.url.host_str().ok_or("its URL has no host")?.trim_matches(['[', ']']);
        let port = self.url.port_or_known_default().ok_or("its URL has no port")?;
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await??;
        stream.set_nodelay(true)?;
        let Some(keys) = keys else { return self.speak(stream, number, signs).await };
        let mut config = keys.client_config(&self.peer, &self.fleet)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(name_of(&self.peer, &self.fleet))?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        self.speak(timeout(CONNECT_TIMEOUT, connecting).await??, number, signs).await
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        number: u64,
        signs: &Signs,
    ) -> Result<(), Boxed> {
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake::<_, Streamed>(TokioIo::new(stream))
            .await?;
        let (up, frames) = mpsc::channel(16);
        let session = async {
            let request = Request::builder().method(Method::POST).uri(format!("http://{}{PATH}", self.peer));
            let progress = self.store.progress();
            let begin = Up::Begin {
                version: VERSION,
                fleet: self.fleet.clone(),
                word: (*self.store.word()).clone(),
                after: progress.accepted.clone(),
                wants: self.store.wants(&self.peer),
            };
            up.send(encode(&begin)).await?;
            let asking = sender.send_request(request.body(Streamed::of(frames))?);
            let response = timeout(CONNECT_TIMEOUT, asking).await??;
            if response.status() != StatusCode::OK {
                let status = response.status();
                let body = response.into_body().collect().await?.to_bytes();
                return Err(format!(
                    "it answered {status}: {}",
                    daemun_fleet::shorten(&String::from_utf8_lossy(&body))
                )
                .into());
            }
            self.listen(response.into_body(), up, number, signs).await
        };
        tokio::select! {
            ended = session => ended,
            ended = connection => Ok(ended?),
        }
    }

    /// Takes in what comes, and says what is durable.
    async fn listen(
        &self,
        body: Incoming,
        up: mpsc::Sender<Bytes>,
        number: u64,
        signs: &Signs,
    ) -> Result<(), Boxed> {
        let mut incoming = Messages::new(body);
        // How far our own log is, the feed of it says.
        let mut durable = self.store.durables_of_others();
        let mut said: Arc<Heads> = Arc::default();
        let mut handed: Option<oneshot::Receiver<Result<Took, Denied>>> = None;
        let mut wants = self.store.wants(&self.peer);
        let mut last: Option<Key> = None;
        let mut is_comparing = false;
        let mut compare_at = self.store.now() + COMPARE;
        let mut has_begun = false;
        let (mut silent_at, mut is_silent) = (self.store.now() + SILENCE, true);
        loop {
            let pause = compare_at.saturating_sub(self.store.now());
            tokio::select! {
                message = incoming.next::<Down>() => {
                    let Some(message) = message? else { return Ok(()) };
                    silent_at = self.store.now() + SILENCE;
                    if std::mem::take(&mut is_silent) {
                        signs.send(Sign::Heard(number)).await?;
                    }
                    match &message {
                        Down::Denied(why) => return Err(why.clone().into()),
                        Down::Begin { version, fleet, .. } => {
                            check(*version, fleet, &self.fleet)?;
                            has_begun = true;
                        }
                        Down::Compared(range, _) => {
                            last.clone_from(&range.upto);
                            is_comparing = false;
                        }
                        _ => {}
                    }
                    if !has_begun {
                        return Err("it did not say who it is".into());
                    }
                    // One at a time; what came of the one before is looked at only now, so that it wakes nobody.
                    if let Some(before) = handed.take() {
                        before.await??;
                    }
                    let (done, took) = oneshot::channel();
                    self.store.hand(Input::Down(self.peer.clone(), message, done));
                    handed = Some(took);
                }
                Ok(()) = durable.changed() => {
                    said = latest_seen(&mut durable);
                    up.send(encode(&Up::After { received: (*said).clone(), wants: None })).await?;
                }
                () = sleep(pause) => {
                    compare_at = self.store.now() + COMPARE;
                    let patience = if has_begun { GIVE_UP } else { Duration::ZERO };
                    if self.store.now() >= silent_at + patience {
                        return Err("it is silent".into());
                    }
                    if !is_silent && self.store.now() >= silent_at {
                        is_silent = true;
                        signs.send(Sign::Silent).await?;
                    }
                    let wanted = self.store.wants(&self.peer);
                    if wanted != wants {
                        wants.clone_from(&wanted);
                        up.send(encode(&Up::After { received: (*said).clone(), wants: Some(wanted) })).await?;
                    }
                    if let Some(mut before) = handed.take() {
                        match before.try_recv() {
                            Ok(took) => drop(took?),
                            Err(TryRecvError::Empty) => handed = Some(before),
                            Err(TryRecvError::Closed) => return Err("the store has stopped".into()),
                        }
                    }
                    if let Some(why) = self.store.refusal() {
                        return Err(why.into());
                    }
                    if !is_comparing && has_begun {
                        let range = verify::next(&self.store.0.cells, last.clone(), self.store.unix_ms())?;
                        up.send(encode(&Up::Compare(range))).await?;
                        is_comparing = true;
                    }
                }
            }
        }
    }
}

/// Messages out of a body.
struct Messages<B> {
    body: B,
    decoder: Decoder,
}

impl<B: Body<Data = Bytes, Error: Into<Boxed>> + Unpin> Messages<B> {
    fn new(body: B) -> Self {
        Self { body, decoder: Decoder::default() }
    }

    /// The next; `None`: it has ended. May be dropped while it waits: nothing is lost.
    async fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, Boxed> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(Into::into)?.into_data() {
                        self.decoder.push(&data);
                    }
                }
            }
        }
    }
}

/// Feeds whoever asks: the body of the answer. `certified` is the datacenter in its certificate, if it showed one.
pub(crate) fn feed<B>(
    store: Store,
    fleet: String,
    certified: Option<String>,
    body: B,
) -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static
where
    B: Body<Data = Bytes, Error: Into<Boxed>> + Unpin + Send + 'static,
{
    Streamed::new(move |down| async move {
        let mut incoming = Messages::new(body);
        if let Err(error) = answer(&store, &fleet, certified, &mut incoming, &down).await {
            let why = innermost(&*error);
            tracing::debug!(why, "feeding another store");
            // It may be gone.
            let _ = down.send(encode(&Down::Denied(why))).await;
        }
    })
}

async fn answer<B: Body<Data = Bytes, Error: Into<Boxed>> + Unpin>(
    store: &Store,
    fleet: &str,
    certified: Option<String>,
    incoming: &mut Messages<B>,
    down: &mpsc::Sender<Bytes>,
) -> Result<(), Boxed> {
    let first = timeout(CONNECT_TIMEOUT, incoming.next::<Up>()).await??;
    let Some(Up::Begin { version, fleet: theirs, word, after, wants }) = first else {
        return Err("the first message is to say who it is".into());
    };
    check(version, &theirs, fleet)?;
    let peer = certified.unwrap_or_else(|| word.me.datacenter.clone());
    let begin = Down::Begin { version: VERSION, fleet: fleet.to_owned(), word: (*store.word()).clone() };
    let mut feeder = Feeder::new(&word.me, after, wants);
    let them = word.me.clone();
    let (done, heard) = oneshot::channel();
    store.hand(Input::Heard(peer.clone(), word, done));
    heard.await??;
    down.send(encode(&begin)).await?;
    let mut links = store.links();
    let mut durable = store.durables();
    let mut origins = store.origins();
    let mut word_at = store.now() + WORD;
    loop {
        if let Some(why) = store.refusal() {
            return Err(why.into());
        }
        // From here on every change is seen.
        let _: Arc<Heads> = latest_seen(&mut durable);
        let drill: Arc<Links> = latest_seen(&mut links);
        if drill.is_cut(&them.datacenter) {
            return Err(CUT.into());
        }
        while let Some(message) = feeder.next(&store.0.log, &store.0.cells, &origins)? {
            if let Some(delay) = drill.slow.get(&them.datacenter) {
                // Until another is told, or the drill ends.
                let _ = timeout(*delay, links.changed()).await;
            }
            down.send(encode(&message)).await?;
            if word_at <= store.now() {
                break;
            }
        }
        tokio::select! {
            changed = durable.changed() => changed?,
            changed = links.changed() => changed?,
            up = incoming.next::<Up>() => match up? {
                None => return Ok(()),
                Some(Up::Begin { .. }) => return Err("it began twice".into()),
                Some(Up::After { received, wants }) => {
                    store.hand(Input::After(peer.clone(), them.clone(), received));
                    wants.into_iter().for_each(|wants| feeder.want(wants));
                }
                Some(Up::Compare(range)) => down.send(encode(&compare(&store.0.cells, range)?)).await?,
            },
            () = sleep(word_at.saturating_sub(store.now())) => {
                word_at = store.now() + WORD;
                origins = store.origins();
                down.send(encode(&Down::Heard((*store.word()).clone()))).await?;
            }
        }
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests;
