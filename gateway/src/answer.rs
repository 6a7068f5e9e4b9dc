//! The answer to a request. Total: whatever was asked, something readable comes back.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use daemun_fleet::meter::Counted;
use daemun_fleet::{Client, Placer};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};

use crate::body::Body;
use crate::files::Found;
use crate::forwarded::client_address;
use crate::list::{Asked, Lister};
use crate::listings::{Listing, RankAlike, is_known};
use crate::request::{self, Refused, Route, Servers};
use crate::{Door, HARDENED, HostState, RouteName, State};

/// An answer, or one that is waited for.
pub enum Answer {
    /// It is there.
    Now(Response<Body>),
    /// It comes.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

/// Who asks, and for what: enough to ask again when the view has changed.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    client: Client,
    role: Option<String>,
    key: Option<String>,
}

impl Door {
    /// The answer to a request from `peer`.
    pub fn respond<B>(self: &Arc<Self>, request: &Request<B>, peer: IpAddr) -> Answer {
        let (route, answer) = self.route(request, peer);
        match answer {
            Answer::Now(response) => {
                self.metrics.answered(route, response.status().as_u16());
                Answer::Now(response)
            }
            Answer::Later(response) => {
                let metrics = self.metrics.clone();
                Answer::Later(Box::pin(async move {
                    let response = response.await;
                    metrics.answered(route, response.status().as_u16());
                    response
                }))
            }
        }
    }

    fn route<B>(self: &Arc<Self>, request: &Request<B>, peer: IpAddr) -> (RouteName, Answer) {
        let state = self.state.load();
        let uri = request.uri();
        let asked = request::host(request)
            .and_then(|host| Ok((host, request::route(request.method(), uri.path(), uri.query())?)));
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
                (RouteName::Page, Answer::Now(host.page.answer(request.method(), request.headers())))
            }
            (Route::File(path), Some(host)) => (RouteName::File, Answer::Now(file(host, &path, request))),
            (Route::Page | Route::File(_), None) => (
                RouteName::Unknown,
                Answer::Now(text(StatusCode::MISDIRECTED_REQUEST, "There is no such host here.\n")),
            ),
            (Route::Servers(asked), _) => {
                let response = match self.question(&state, request, peer, &asked) {
                    Ok(question) => match asked.wait {
                        Some(wait)
                            if is_known(request.headers(), self.listing(&state, &question).asset.tag()) =>
                        {
                            self.long_poll(question, request, wait)
                        }
                        _ => {
                            Answer::Now(self.servers(&state, &question, request.method(), request.headers()))
                        }
                    },
                    Err(response) => Answer::Now(response),
                };
                (RouteName::Servers, response)
            }
            (Route::Watch(asked), _) => {
                let response = match self.question(&state, request, peer, &asked) {
                    Ok(question) => self.watch(question, request),
                    Err(response) => response,
                };
                (RouteName::Watch, Answer::Now(response))
            }
            (Route::Ping, _) => {
                let mut response = empty(StatusCode::NO_CONTENT);
                response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                share(&state, request.headers(), response.headers_mut());
                (RouteName::Ping, Answer::Now(response))
            }
            (Route::Client, _) => (RouteName::Script, self.script(0, request)),
            (Route::PageScript, _) => (RouteName::Script, self.script(1, request)),
            (Route::Options, _) => {
                let mut response = empty(StatusCode::NO_CONTENT);
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
                (RouteName::Options, Answer::Now(response))
            }
        }
    }

    fn script<B>(&self, number: usize, request: &Request<B>) -> Answer {
        Answer::Now(self.scripts[number].answer(request.method(), request.headers()))
    }

    fn question<B>(
        &self,
        state: &State,
        request: &Request<B>,
        peer: IpAddr,
        asked: &Servers<'_>,
    ) -> Result<Question, Response<Body>> {
        let client = client(&state.placer, request, peer);
        count(&state.placer, request, &client);
        if let Some(role) = &asked.role
            && !self.lister(state).has_role(role)
        {
            let mut response = json(StatusCode::NOT_FOUND, r#"{"error":"there is no server of this role"}"#);
            share(state, request.headers(), response.headers_mut());
            return Err(response);
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
        let asked = Asked { order: &order, place, role: role.as_deref(), key: key.as_deref() };
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
        Arc::new(Listing::new(list, &headers))
    }

    /// The list, as this client knows it or not.
    pub(crate) fn servers(
        &self,
        state: &State,
        question: &Question,
        method: &Method,
        headers: &HeaderMap,
    ) -> Response<Body> {
        let mut response = self.listing(state, question).asset.answer(method, headers);
        share(state, headers, response.headers_mut());
        response
    }
}

/// A file, or where it is, or that there is none.
fn file<B>(host: &HostState, path: &str, request: &Request<B>) -> Response<Body> {
    let (method, headers) = (request.method(), request.headers());
    match host.files.find(path) {
        _ if path == "/index.html" => host.page.answer(method, headers),
        Some(Found::File(file)) => file.answer(method, headers),
        Some(Found::Directory) => {
            let uri = request.uri();
            let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
            // As it was asked, so that nothing is decoded twice. A path cannot name another host: `//` is no file's.
            let to = HeaderValue::try_from(format!("{}/{query}", uri.path()));
            let mut response =
                text(StatusCode::MOVED_PERMANENTLY, "It is a directory: its path ends with a slash.\n");
            if let Ok(to) = to {
                response.headers_mut().insert(header::LOCATION, to);
            }
            response
        }
        None => match host.files.get("/404.html") {
            Some(page) => {
                // Whole, whatever was asked: conditions and parts are of what was found.
                let plain: HeaderMap = headers
                    .iter()
                    .filter(|(name, _)| **name == header::ACCEPT_ENCODING)
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                let mut response = page.answer(method, &plain);
                *response.status_mut() = StatusCode::NOT_FOUND;
                for of_found in [header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES] {
                    response.headers_mut().remove(of_found);
                }
                response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                response
            }
            None => text(StatusCode::NOT_FOUND, "There is nothing here. Try / or /v1/servers.\n"),
        },
    }
}

/// Who asks: the peer, or whom a trusted proxy names.
fn client<B>(placer: &Placer, request: &Request<B>, peer: IpAddr) -> Client {
    let trusted = &placer.steering().config().gateway.trusted_proxies;
    if trusted.is_empty() || !request.headers().contains_key("x-forwarded-for") {
        return Client::address(peer);
    }
    // A header that is not text was not written by a proxy: it ends what can be believed.
    let forwarded =
        request.headers().get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or("?"));
    Client::address(client_address(peer, forwarded.collect::<Vec<_>>().into_iter(), trusted))
}

/// Counts a user's request for its ranking class: capacity is of these. The agents' probes are none.
fn count<B>(placer: &Placer, request: &Request<B>, client: &Client) {
    let is_probe = |agent: &HeaderValue| agent.as_bytes().starts_with(b"daemun-probe/");
    if !request.headers().get(header::USER_AGENT).is_some_and(is_probe) {
        let door = placer.steering().door();
        placer.count(door, &placer.choose(door, client), Counted::Request);
    }
}

/// Lets pages of ours, and those that the config names, read an answer (the fetch standard's CORS protocol).
pub(crate) fn share(state: &State, asked: &HeaderMap, answer: &mut HeaderMap) {
    let Some(origin) = asked.get(header::ORIGIN) else { return };
    answer.append(header::VARY, HeaderValue::from_static("origin"));
    let may = origin.to_str().is_ok_and(|origin| {
        let host = origin.split_once("://").and_then(|(_, host)| host.parse::<Authority>().ok());
        state.placer.steering().config().gateway.cors.iter().any(|one| one == origin)
            || host.is_some_and(|host| state.readers.contains(host.host()))
    });
    if may {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
}

fn refusal(refused: Refused) -> Response<Body> {
    let mut response = text(refused.status, refused.why);
    if refused.status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    }
    response
}

pub(crate) fn json(status: StatusCode, body: &'static str) -> Response<Body> {
    of_type(status, "application/json", body)
}

pub(crate) fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    of_type(status, "text/plain; charset=utf-8", body)
}

pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Nothing);
    *response.status_mut() = status;
    response
}

fn of_type(status: StatusCode, kind: &'static str, body: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HARDENED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What is answered when making the answer failed.
pub(crate) fn failed() -> Response<Body> {
    text(StatusCode::INTERNAL_SERVER_ERROR, "The door stumbled over this request; others are not touched.\n")
}
