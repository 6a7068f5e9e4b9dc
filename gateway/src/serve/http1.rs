//! HTTP/1.1 (RFC 9112) as a door needs it: heads are read by `httparse`, replies that were made ahead are copied behind each
//! other, and all that one read brought is answered with one write.
//!
//! Strict where a server for everything must be lenient. Nothing here takes a body, so none is ever looked for: a request that
//! says it has one is answered, and is the last on its connection. Two views of where a request ends, which is what smuggling
//! takes, cannot be. Lines end with CR LF, and a head that could be read in two ways is refused.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::BytesMut;
use daemun_fleet::connections::Place;
use hyper::{Method, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::connection::answer_to;
use super::input::Input;
use super::{HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, about_now_ms};
use crate::answer::{Answer, refusal};
use crate::body::Body;
use crate::message::{Asked, Reply};
use crate::request::Refused;
use crate::{Door, RouteName};

/// The connection preface of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A body up to this is copied behind its head, so that one write sends both.
const COPIED_BYTES_MAX: usize = 16 * 1024;
/// Replies gathered before they are written.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// A date may be so old.
const DATE_MS: u64 = 200;
/// What a client still sends is read for so long before a close, so that it sees the reply and not a reset.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A request that was sent before its client could know that the door closes.
const ON_ITS_WAY: Duration = Duration::from_millis(250);
/// After so many replies it is the others' turn: whoever sends requests without end must not keep a thread to itself.
const TURN: usize = 16;

/// What became of a connection.
pub(super) enum Left {
    /// It is over.
    Over,
    /// It speaks HTTP/2; these bytes of it are read.
    Http2(BytesMut),
}

/// What a head asks for.
enum Step {
    /// More of it must come.
    Partial,
    /// It is this long, and answered so.
    Answered { used: usize, answer: Answer, is_head: bool, is_old: bool, framing: Framing },
    /// It is refused, and nothing after it is read.
    Refused(Refused),
}

/// Serves requests until the connection ends, or turns out to be of HTTP/2.
pub(super) async fn serve<S>(
    stream: &mut S,
    peer: IpAddr,
    place: &Place,
    door: &Arc<Door>,
    is_secure: bool,
) -> io::Result<Left>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    place.set_patience(HEAD_TIMEOUT);
    let mut one = Connection {
        stream,
        place,
        door,
        input: Input::default(),
        output: BytesMut::new(),
        now_ms: 0,
        replies: 0,
        is_unsure: false,
    };
    let mut ended = pin!(place.ended());
    let (mut is_first, mut is_ending) = (true, false);
    loop {
        let read = tokio::select! {
            biased;
            read = one.stream.read(one.input.room()) => read?,
            // Evicted, or too slow.
            () = ended.as_mut() => 0,
        };
        let read = match read {
            // The door closes: what was on its way is waited for, and is the last.
            0 if !is_ending && one.door.is_draining() && !place.is_lost() => {
                is_ending = true;
                timeout(ON_ITS_WAY, one.stream.read(one.input.room())).await.unwrap_or(Ok(0))?
            }
            read => read,
        };
        if read == 0 {
            one.linger(is_secure).await;
            return Ok(Left::Over);
        }
        one.input.filled(read);
        let bytes = one.input.bytes();
        if is_first && bytes.starts_with(&PREFACE[..PREFACE.len().min(bytes.len())]) {
            if bytes.len() >= PREFACE.len() {
                return Ok(Left::Http2(bytes.into()));
            }
            continue;
        }
        is_first = false;
        let goes_on = {
            let mut answering = pin!(one.answer_all(peer));
            loop {
                tokio::select! {
                    biased;
                    goes_on = answering.as_mut() => break goes_on?,
                    () = ended.as_mut(), if !is_ending => {
                        // Who does not take what it is sent does not keep its place; if the door closes, this is finished.
                        if place.is_lost() {
                            return Ok(Left::Over);
                        }
                        is_ending = true;
                    }
                }
            }
        };
        if !goes_on || is_ending {
            one.linger(is_secure).await;
            return Ok(Left::Over);
        }
    }
}

struct Connection<'a, S> {
    stream: &'a mut S,
    place: &'a Place,
    door: &'a Arc<Door>,
    input: Input,
    output: BytesMut,
    /// When what is being answered was read.
    now_ms: u64,
    /// How many were given.
    replies: usize,
    /// There may be more to come that is not to be read.
    is_unsure: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    /// Answers all that is there; false: the connection is to end.
    async fn answer_all(&mut self, peer: IpAddr) -> io::Result<bool> {
        self.now_ms = about_now_ms(self.door);
        let mut goes_on = true;
        while goes_on && !self.input.bytes().is_empty() {
            self.replies += 1;
            if self.replies.is_multiple_of(TURN) {
                tokio::task::yield_now().await;
            }
            match step(self.door, peer, self.input.bytes()) {
                Step::Partial if self.input.bytes().len() < HEAD_BYTES_MAX => break,
                Step::Partial => {
                    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                    goes_on =
                        self.refuse(Refused { status, why: "At most 16 KiB of request head are read.\n" });
                }
                Step::Refused(refused) => goes_on = self.refuse(refused),
                Step::Answered { used, answer, is_head, is_old, framing } => {
                    self.is_unsure |= framing.has_body;
                    self.input.consume(used);
                    self.place.touch(self.now_ms);
                    let reply = match answer {
                        Answer::Now(reply) => reply,
                        Answer::Later(reply) => match self.waited(reply).await? {
                            Some(reply) => reply,
                            None => return Ok(false),
                        },
                    };
                    // Who is not understood once is not listened to further.
                    let closes =
                        framing.is_last || self.door.is_draining() || reply.status == StatusCode::BAD_REQUEST;
                    goes_on = !closes;
                    match reply.body {
                        Body::Events(_) => {
                            self.events(reply, is_old, is_head).await?;
                            goes_on = false;
                        }
                        Body::Nothing | Body::Whole(_) => self.gather(reply, is_head, closes).await?,
                    }
                }
            }
        }
        self.flush().await?;
        Ok(goes_on)
    }

    /// Always false: what comes after is not read.
    fn refuse(&mut self, refused: Refused) -> bool {
        self.is_unsure = true;
        self.door.metrics.answered(RouteName::Refused, refused.status.as_u16());
        let reply = refusal(refused);
        let output = &mut self.output;
        let body =
            with_date(self.door, self.now_ms, |date| reply.write_head(output, date, true, false).cloned());
        self.output.extend_from_slice(&body.unwrap_or_default());
        false
    }

    /// A reply that takes its time; none: the client has not waited for it. Meanwhile what was answered before it must not wait.
    async fn waited(
        &mut self,
        mut reply: Pin<Box<dyn Future<Output = Reply> + Send>>,
    ) -> io::Result<Option<Reply>> {
        self.flush().await?;
        self.place.set_patience(Duration::ZERO);
        let reply = loop {
            let has_room = self.input.bytes().len() < HEAD_BYTES_MAX;
            tokio::select! {
                biased;
                reply = &mut reply => break Some(reply),
                read = self.stream.read(self.input.room()), if has_room => match read? {
                    0 => break None,
                    read => self.input.filled(read),
                },
            }
        };
        self.place.touch(self.door.now_ms());
        self.place.set_patience(HEAD_TIMEOUT);
        Ok(reply)
    }

    async fn gather(&mut self, reply: Reply, is_head: bool, closes: bool) -> io::Result<()> {
        let output = &mut self.output;
        let large = with_date(self.door, self.now_ms, |date| {
            let body = reply.write_head(output, date, closes, is_head)?;
            if body.len() > COPIED_BYTES_MAX {
                return Some(body.clone());
            }
            output.extend_from_slice(body);
            None
        });
        if large.is_some() || self.output.len() >= GATHERED_BYTES_MAX {
            self.flush().await?;
        }
        match large {
            Some(body) => {
                write(self.stream, &body, self.place, self.door).await?;
                self.stream.flush().await
            }
            None => Ok(()),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            write(self.stream, &self.output, self.place, self.door).await?;
            self.output.clear();
            if self.output.capacity() > GATHERED_BYTES_MAX {
                self.output = BytesMut::new();
            }
            self.stream.flush().await?;
        }
        Ok(())
    }

    /// A reply in pieces, each a chunk (RFC 9112 section 7.1); to a client of HTTP/1.0 it is all that comes until the end.
    async fn events(&mut self, mut reply: Reply, is_old: bool, is_head: bool) -> io::Result<()> {
        let Body::Events(mut events) = std::mem::take(&mut reply.body) else { return Ok(()) };
        let output = &mut self.output;
        with_date(self.door, self.now_ms, |date| reply.write_stream_head(output, date, !is_old));
        if is_head {
            return self.flush().await;
        }
        loop {
            self.flush().await?;
            self.place.set_patience(Duration::ZERO);
            let piece = tokio::select! {
                biased;
                piece = events.next() => piece,
                gone = gone(self.stream) => {
                    gone?;
                    None
                }
            };
            self.place.touch(self.door.now_ms());
            self.place.set_patience(HEAD_TIMEOUT);
            match piece {
                Some(piece) if is_old => self.output.extend_from_slice(&piece),
                Some(piece) if piece.is_empty() => {}
                Some(piece) => {
                    self.output.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    self.output.extend_from_slice(&piece);
                    self.output.extend_from_slice(b"\r\n");
                }
                None => {
                    if !is_old {
                        self.output.extend_from_slice(b"0\r\n\r\n");
                    }
                    break;
                }
            }
        }
        self.flush().await
    }

    /// Lets the client see the end before it is there, if there may be more of it that nobody has read: a close would then
    /// be a reset, which may take the reply along.
    async fn linger(&mut self, is_secure: bool) {
        if self.place.is_lost() {
            return;
        }
        if !self.is_unsure && self.input.bytes().is_empty() {
            if is_secure {
                // That this is the end is for the other end to know (RFC 8446 section 6.1).
                let _ = timeout(LINGER, self.stream.shutdown()).await;
            }
            return;
        }
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let rest = async {
            let mut bytes = 0;
            while bytes < LINGER_BYTES_MAX {
                match self.stream.read(self.input.room()).await {
                    Ok(read) if read > 0 => bytes += read,
                    _ => return,
                }
            }
        };
        let _ = timeout(LINGER, rest).await;
    }
}

/// Writes all of it. A client that takes some of it is there.
async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    mut bytes: &[u8],
    place: &Place,
    door: &Door,
) -> io::Result<()> {
    loop {
        let written = stream.write(bytes).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        if bytes.is_empty() {
            return Ok(());
        }
        place.touch(door.now_ms());
    }
}

/// Ends when the client does, or says more than anybody would while a stream comes.
async fn gone<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let (mut ignored, mut bytes) = ([0; 512], 0);
    while bytes < LINGER_BYTES_MAX {
        match stream.read(&mut ignored).await? {
            0 => break,
            read => bytes += read,
        }
    }
    Ok(())
}

/// What the first head in some bytes asks for.
fn step(door: &Arc<Door>, peer: IpAddr, input: &[u8]) -> Step {
    const BAD: Refused = Refused {
        status: StatusCode::BAD_REQUEST,
        why: "This is no request that can be read in one way only.\n",
    };
    const VERSION: Refused = Refused {
        status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        why: "HTTP/1.0, 1.1 and 2 are spoken here.\n",
    };
    const MANY: Refused = Refused {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        why: "At most 64 header fields are read.\n",
    };
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let used = match request.parse_with_uninit_headers(input, &mut fields) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Step::Partial,
        Err(httparse::Error::TooManyHeaders) => return Step::Refused(MANY),
        Err(httparse::Error::Version) => return Step::Refused(VERSION),
        Err(_) => return Step::Refused(BAD),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Step::Refused(BAD);
    };
    let method = match method {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        other => match other.parse() {
            Ok(method) => method,
            Err(_) => return Step::Refused(BAD),
        },
    };
    let fields: &[httparse::Header<'_>] = request.headers;
    let Some(framing) = Framing::of(fields, minor == 0).filter(|_| has_whole_lines(&input[..used])) else {
        return Step::Refused(BAD);
    };
    let Some((authority, path, query)) = parts(target) else { return Step::Refused(BAD) };
    let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let asked = Asked { method: &method, version, authority, path, query, fields };
    let answer = answer_to(door, &asked, peer);
    Step::Answered { used, answer, is_head: method == Method::HEAD, is_old: minor == 0, framing }
}

/// Whether every line ends as it should, so that all who read it read the same lines (RFC 9112 section 2.2).
fn has_whole_lines(head: &[u8]) -> bool {
    let is_bare = |pair: &[u8]| (pair[1] == b'\n') != (pair[0] == b'\r');
    head.first() != Some(&b'\n') && !head.windows(2).fold(false, |found, pair| found | is_bare(pair))
}

/// What a request says of the connection, and of a body that nobody here wants.
struct Framing {
    /// No other request is read after it.
    is_last: bool,
    has_body: bool,
}

impl Framing {
    /// None: two ways to say where it ends, or one that is no way (RFC 9112 section 6.3).
    fn of(fields: &[httparse::Header<'_>], is_old: bool) -> Option<Self> {
        let (mut lengths, mut is_chunked, mut closes) = (0_usize, false, false);
        let mut has_body = false;
        for field in fields {
            match field.name.len() {
                14 if field.name.eq_ignore_ascii_case("content-length") => {
                    lengths += 1;
                    let is_number = !field.value.is_empty() && field.value.iter().all(u8::is_ascii_digit);
                    if !is_number || field.value.len() > 19 {
                        return None;
                    }
                    has_body |= field.value.iter().any(|digit| *digit != b'0');
                }
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    if is_chunked || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                        return None;
                    }
                    is_chunked = true;
                }
                10 if field.name.eq_ignore_ascii_case("connection") => {
                    let mut options = field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                    closes |= options.any(|option| option.eq_ignore_ascii_case(b"close"));
                }
                _ => {}
            }
        }
        if lengths > 1 || (is_chunked && (lengths > 0 || is_old)) {
            return None;
        }
        let has_body = has_body || is_chunked;
        // To a client of HTTP/1.0 the end says where the end is.
        Some(Self { is_last: has_body || closes || is_old, has_body })
    }
}

/// Authority, path and query of a target (RFC 9112 section 3.2).
fn parts(target: &str) -> Option<(Option<&str>, &str, Option<&str>)> {
    if target.contains('#') || !target.is_ascii() {
        return None;
    }
    let (authority, rest) = if target.starts_with('/') || target == "*" {
        (None, target)
    } else {
        let (scheme, rest) = target.split_once("://")?;
        let is_ours = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end).filter(|_| is_ours && end > 0)?;
        (Some(authority), rest)
    };
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    Some((authority, if path.is_empty() { "/" } else { path }, query))
}

/// The date as it stands in replies. The clock for it is read a few times a second, not for each reply.
fn with_date<T>(door: &Door, now_ms: u64, write: impl FnOnce(&[u8]) -> T) -> T {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    DATE.with_borrow_mut(|(made_ms, text)| {
        if text.is_empty() || now_ms.saturating_sub(*made_ms) >= DATE_MS {
            *made_ms = now_ms;
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(door.now_unix_ms()));
        }
        write(text.as_bytes())
    })
}
