//! The answer to a request. Total: whatever was asked, something readable comes back.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use daemun_fleet::meter::Counted;
use daemun_fleet::{Client, Placer};
use hyper::header::{self, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode};

use crate::body::Body;
use crate::files::Found;
use crate::forwarded::client_address;
use crate::list::{Lister, Wanted};
use crate::listings::{Listing, RankAlike, is_known};
use crate::message::{Asked, Fields, Reply};
use crate::request::{self, Refused, Route, Servers};
use crate::{Door, HARDENED, HostState, RouteName, State};

/// An answer, or one that is waited for.
pub enum Answer {
    /// It is there.
    Now(Reply),
    /// It comes.
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

/// Who asks, and for what: enough to ask again when the view has changed.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    client: Client,
    role: Option<String>,
    key: Option<String>,
}

impl Question {
    /// Who asks.
    pub(crate) fn client(&self) -> IpAddr {
        self.client.first_address()
    }
}

impl Door {
    /// The answer to a request from `peer`.
    pub fn respond(self: &Arc<Self>, request: &Asked<'_, impl Fields + ?Sized>, peer: IpAddr) -> Answer {
        let (route, answer) = self.route(request, peer);
        match answer {
            Answer::Now(reply) => {
                self.metrics.answered(route, reply.status.as_u16());
                Answer::Now(reply)
            }
            Answer::Later(reply) => {
                let metrics = self.metrics.clone();
                Answer::Later(Box::pin(async move {
                    let reply = reply.await;
                    metrics.answered(route, reply.status.as_u16());
                    reply
                }))
            }
        }
    }

    fn route(
        self: &Arc<Self>,
        request: &Asked<'_, impl Fields + ?Sized>,
        peer: IpAddr,
    ) -> (RouteName, Answer) {
        let state = self.state.load();
        let asked = request::host(request)
            .and_then(|host| Ok((host, request::route(request.method, request.path, request.query)?)));
        let (host, route) = match asked {
            Ok(asked) => asked,
            Err(refused) => {
                let name = if refused.status == StatusCode::NOT_FOUND {
                    RouteName::Unknown
                } else {
                    RouteName::Refused
                };
                return (name, Answer::Now(refusal(refused)));
            }
        };
        let number = state.by_name.get(host.as_ref()).copied().or(state.for_all);
        let host = number.and_then(|number| state.hosts.get(number));
        match (route, host) {
            (Route::Page, Some(host)) => {
                let client = client(&state.placer, request, peer);
                count(&state.placer, request, &client);
                self.metrics.page(host.source);
                let reply = host.page.answer(request.method, request.fields);
                (RouteName::Page, Answer::Now(share(&state, request.fields, reply)))
            }
            (Route::File(path), Some(host)) => {
                let reply = share(&state, request.fields, file(host, &path, request));
                (RouteName::File, Answer::Now(reply))
            }
            (Route::Page | Route::File(_), None) => (
                RouteName::Unknown,
                Answer::Now(text(StatusCode::MISDIRECTED_REQUEST, "There is no such host here.\n")),
            ),
            (Route::Servers(asked), _) => {
                let reply = match self.question(&state, request, peer, &asked) {
                    Ok(question) => match asked.wait {
                        Some(wait)
                            if is_known(request.fields, self.listing(&state, &question).asset.tag()) =>
                        {
                            self.long_poll(question, request, wait)
                        }
                        _ => Answer::Now(self.servers(&state, &question, request.method, request.fields)),
                    },
                    Err(reply) => Answer::Now(reply),
                };
                (RouteName::Servers, reply)
            }
            (Route::Watch(asked), _) => {
                let reply = match self.question(&state, request, peer, &asked) {
                    Ok(question) => self.watch(question, request),
                    Err(reply) => reply,
                };
                (RouteName::Watch, Answer::Now(reply))
            }
            (Route::Ping, _) => {
                let reply = Reply::new(StatusCode::NO_CONTENT);
                let reply = reply.with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                (RouteName::Ping, Answer::Now(share(&state, request.fields, reply)))
            }
            (Route::Client, _) => (RouteName::Script, self.script(0, request)),
            (Route::PageScript, _) => (RouteName::Script, self.script(1, request)),
            (Route::Options, _) => {
                let reply =
                    Reply::new(StatusCode::NO_CONTENT).with(header::ALLOW, HeaderValue::from_static(ALLOWED));
                (RouteName::Options, Answer::Now(reply))
            }
        }
    }

    fn script(&self, number: usize, request: &Asked<'_, impl Fields + ?Sized>) -> Answer {
        Answer::Now(self.scripts[number].answer(request.method, request.fields))
    }

    fn question(
        &self,
        state: &State,
        request: &Asked<'_, impl Fields + ?Sized>,
        peer: IpAddr,
        asked: &Servers<'_>,
    ) -> Result<Question, Reply> {
        let client = client(&state.placer, request, peer);
        count(&state.placer, request, &client);
        if let Some(role) = &asked.role
            && !self.lister(state).has_role(role)
        {
            let reply = json(StatusCode::NOT_FOUND, r#"{"error":"there is no server of this role"}"#);
            return Err(share(state, request.fields, reply));
        }
        let owned = |text: &Option<std::borrow::Cow<'_, str>>| text.as_ref().map(ToString::to_string);
        Ok(Question { client, role: owned(&asked.role), key: owned(&asked.key) })
    }

    fn lister<'a>(&'a self, state: &'a State) -> Lister<'a> {
        let source = state.for_all.or(Some(0)).and_then(|number| state.hosts.get(number));
        let source = source.map_or(crate::PageSource::CompiledIn, |host| host.source);
        Lister { placer: &state.placer, kept: &state.kept, me: &self.me, source: source.name() }
    }

    /// The list that answers a question, ready to be sent.
    pub(crate) fn listing(&self, state: &State, question: &Question) -> Arc<Listing> {
        let Question { client, role, key } = question;
        let steering = state.placer.steering();
        let order = state.placer.order(steering.door(), client);
        let (place, _) = steering.places().lookup(client.first_address());
        let asked = Wanted { order: &order, place, role: role.as_deref(), key: key.as_deref() };
        let (now_unix_ms, lister) = ((self.clock.unix_ms)(), self.lister(state));
        let headers = HARDENED.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let Some(key) = asked.key else {
            return state.listings.get(RankAlike::of(&asked), now_unix_ms, || {
                self.metrics.list_made();
                Listing::made(&lister, &asked, &headers, now_unix_ms)
            });
        };
        let mut list = lister.list(&asked, now_unix_ms);
        // Among equals only: health and place come first.
        let best =
            list.servers.first().map(|server| (server.health.turn(), server.priority, server.role.clone()));
        let alike = list.servers.iter().take_while(|server| {
            best.as_ref().is_some_and(|(turn, priority, role)| {
                (server.health.turn(), server.priority) == (*turn, *priority) && server.role == *role
            })
        });
        let alike: Vec<(&str, u32)> = alike.map(|server| (server.name.as_str(), server.weight)).collect();
        if !alike.is_empty() {
            let mut assignments = self.assignments.lock().unwrap_or_else(PoisonError::into_inner);
            let at = assignments.choose(key, &alike);
            drop(assignments);
            list.servers[..=at].rotate_right(1);
        }
        Arc::new(Listing::of_one(&list, &headers))
    }

    /// The list, as this client knows it or not.
    pub(crate) fn servers(
        &self,
        state: &State,
        question: &Question,
        method: &Method,
        fields: &(impl Fields + ?Sized),
    ) -> Reply {
        share(state, fields, self.listing(state, question).asset.answer(method, fields))
    }
}

/// A file, or where it is, or that there is none.
fn file(host: &HostState, path: &str, request: &Asked<'_, impl Fields + ?Sized>) -> Reply {
    let (method, fields) = (request.method, request.fields);
    match host.files.find(path) {
        _ if path == "/index.html" => host.page.answer(method, fields),
        Some(Found::File(file)) => host.assembled.get(path).unwrap_or(file).answer(method, fields),
        Some(Found::Directory) => {
            let query = request.query.map_or(String::new(), |query| format!("?{query}"));
            // As it was asked, so that nothing is decoded twice. A path cannot name another host: `//` is no file's.
            let to = HeaderValue::try_from(format!("{}/{query}", request.path));
            let reply =
                text(StatusCode::MOVED_PERMANENTLY, "It is a directory: its path ends with a slash.\n");
            match to {
                Ok(to) => reply.with(header::LOCATION, to),
                Err(_) => reply,
            }
        }
        None => match host.assembled.get("/404.html").or_else(|| host.files.get("/404.html")) {
            Some(page) => page.missing(method, fields),
            None => text(StatusCode::NOT_FOUND, "There is nothing here. Try / or /v1/servers.\n"),
        },
    }
}

/// Who asks: the peer, or whom a trusted proxy names.
fn client(placer: &Placer, request: &Asked<'_, impl Fields + ?Sized>, peer: IpAddr) -> Client {
    let trusted = &placer.steering().config().gateway.trusted_proxies;
    if trusted.is_empty() || !request.fields.has("x-forwarded-for") {
        return Client::address(peer);
    }
    // A field that is not text was not written by a proxy: it ends what can be believed.
    let forwarded = request.fields.values("x-forwarded-for");
    let forwarded: Vec<&str> = forwarded.map(|value| std::str::from_utf8(value).unwrap_or("?")).collect();
    Client::address(client_address(peer, forwarded.into_iter(), trusted))
}

/// Counts a user's request for its ranking class: capacity is of these. The agents' probes are none.
fn count(placer: &Placer, request: &Asked<'_, impl Fields + ?Sized>, client: &Client) {
    if !request.fields.first("user-agent").is_some_and(|agent| agent.starts_with(b"daemun-probe/")) {
        let door = placer.steering().door();
        placer.count(door, &placer.choose(door, client), Counted::Request);
    }
}

/// Lets pages of ours, and those that the config names, read a reply (the fetch standard's CORS protocol).
pub(crate) fn share(state: &State, asked: &(impl Fields + ?Sized), reply: Reply) -> Reply {
    let Some(origin) = asked.first("origin").and_then(|origin| std::str::from_utf8(origin).ok()) else {
        return reply;
    };
    let host = origin.split_once("://").and_then(|(_, host)| host.parse::<Authority>().ok());
    let may = state.placer.steering().config().gateway.cors.iter().any(|one| one == origin)
        || host.is_some_and(|host| state.readers.contains(host.host()));
    match HeaderValue::try_from(origin) {
        Ok(origin) if may => reply.with(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        _ => reply,
    }
}

/// What may be asked.
const ALLOWED: &str = "GET, HEAD, OPTIONS";

pub(crate) fn refusal(refused: Refused) -> Reply {
    let reply = text(refused.status, refused.why);
    match refused.status {
        StatusCode::METHOD_NOT_ALLOWED => reply.with(header::ALLOW, HeaderValue::from_static(ALLOWED)),
        _ => reply,
    }
}

pub(crate) fn json(status: StatusCode, body: &'static str) -> Reply {
    of_type(status, "application/json", body)
}

fn text(status: StatusCode, body: &'static str) -> Reply {
    of_type(status, "text/plain; charset=utf-8", body)
}

fn of_type(status: StatusCode, kind: &'static str, body: &'static str) -> Reply {
    let hardened = HARDENED.map(|(name, value)| (name, HeaderValue::from_static(value)));
    Reply {
        more: hardened.into_iter().chain([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]).collect(),
        body: Body::from(Bytes::from_static(body.as_bytes())),
        ..Reply::new(status)
    }
}

/// What is answered when making the answer failed.
pub(crate) fn failed() -> Reply {
    text(StatusCode::INTERNAL_SERVER_ERROR, "The door stumbled over this request; others are not touched.\n")
}
