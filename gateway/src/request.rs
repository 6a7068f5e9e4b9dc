//! What is asked for, and whether it is asked well: what hyper lets through and an edge must not (RFC 9112 section 3.2), and
//! paths that mean one thing only. Pure.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::time::Duration;

use hyper::{Method, StatusCode, Version};

use crate::message::{Asked, Fields};

/// The longest path with its query.
const URI_BYTES_MAX: usize = 8 * 1024;
/// The longest key: more tells nobody apart.
const KEY_BYTES_MAX: usize = 256;
/// The longest that a long poll waits: below what proxies between us and the client bear.
const WAIT_MAX: Duration = Duration::from_secs(55);

/// Why a request is not answered as it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: StatusCode,
    /// For a person.
    pub why: &'static str,
}

const fn refused(status: StatusCode, why: &'static str) -> Refused {
    Refused { status, why }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// The index page.
    Page,
    /// The list of servers.
    Servers(Servers<'a>),
    /// The same, and each change of it.
    Watch(Servers<'a>),
    /// Nothing, quickly.
    Ping,
    /// The client for browsers.
    Client,
    /// The script of the page compiled in.
    PageScript,
    /// What may be done here.
    Options,
    /// A file of the host, by its decoded path.
    File(Cow<'a, str>),
}

/// Which servers, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers<'a> {
    /// Of this role.
    pub role: Option<Cow<'a, str>>,
    /// In the order of this key.
    pub key: Option<Cow<'a, str>>,
    /// Not before they are others than those the asker has, or so much time has gone by.
    pub wait: Option<Duration>,
}

/// The host that is asked: lower case, without the port; empty if none is named.
///
/// # Errors
/// When that is not clear: HTTP/1.1 without a host, two of them, or something else in its place.
pub fn host<'a>(asked: &Asked<'a, impl Fields + ?Sized>) -> Result<Cow<'a, str>, Refused> {
    const WRONG: Refused = refused(StatusCode::BAD_REQUEST, "A request needs exactly one Host header.\n");
    let mut hosts = asked.fields.values("host");
    let named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(std::str::from_utf8(host).ok().filter(|text| is_host(text)).ok_or(WRONG)?),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(WRONG),
    };
    let authority = asked.authority;
    let host = match (asked.version, authority, named) {
        (_, Some(authority), _) if !is_host(authority) => return Err(WRONG),
        // Section 3.2.2: what stands in the target holds; the header is for those who do not look there.
        (Version::HTTP_10 | Version::HTTP_11, Some(authority), Some(_)) => authority,
        (Version::HTTP_10, authority, named) => authority.or(named).unwrap_or_default(),
        (Version::HTTP_11, None, Some(named)) => named,
        (Version::HTTP_11, _, None) => return Err(WRONG),
        // RFC 9113 section 8.3.1: they must not differ.
        (_, Some(authority), Some(named)) if !authority.eq_ignore_ascii_case(named) => return Err(WRONG),
        (_, authority, named) => authority.or(named).ok_or(WRONG)?,
    };
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if !port.contains(']') => bare,
        _ => host,
    };
    let is_lower = !bare.bytes().any(|byte| byte.is_ascii_uppercase());
    Ok(if is_lower { Cow::Borrowed(bare) } else { Cow::Owned(bare.to_ascii_lowercase()) })
}

/// A name or an address, and perhaps a port, nothing else; empty is allowed (RFC 9110 section 7.2).
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, rest))) if address.parse::<Ipv6Addr>().is_ok() => {
            ("", rest.strip_prefix(':').or(rest.is_empty().then_some("")))
        }
        Some(_) => return false,
        None => text.split_once(':').map_or((text, Some("")), |(name, port)| (name, Some(port))),
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok())
    };
    name.bytes().all(is_plain) && port.is_some_and(is_port)
}

/// What is asked for.
///
/// # Errors
/// When nothing could be meant by it.
pub fn route<'a>(method: &Method, path: &'a str, query: Option<&'a str>) -> Result<Route<'a>, Refused> {
    if path.len() + query.map_or(0, str::len) > URI_BYTES_MAX {
        return Err(refused(StatusCode::URI_TOO_LONG, "At most 8,192 bytes of path and query are read.\n"));
    }
    if *method == Method::OPTIONS {
        return Ok(Route::Options);
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(refused(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.\n"));
    }
    match path {
        "/" => Ok(Route::Page),
        "/v1/servers" => servers(query).map(Route::Servers),
        "/v1/servers/watch" => servers(query).map(Route::Watch),
        "/v1/ping" => Ok(Route::Ping),
        "/daemun.js" => Ok(Route::Client),
        "/daemun-page.js" => Ok(Route::PageScript),
        _ => file(path).map(Route::File),
    }
}

fn servers(query: Option<&str>) -> Result<Servers<'_>, Refused> {
    const NO_VALUE: Refused = refused(StatusCode::BAD_REQUEST, "The query has a value that is not UTF-8.\n");
    const NO_WAIT: Refused =
        refused(StatusCode::BAD_REQUEST, "wait: expected a duration such as 25s, up to 55s.\n");
    const LONG_KEY: Refused = refused(StatusCode::BAD_REQUEST, "key: at most 256 bytes are read.\n");
    let mut asked = Servers::default();
    // What is not known is passed over: caches are told apart by such things.
    for (name, value) in query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
        let value = || decode(value, true).ok_or(NO_VALUE);
        match name {
            "role" => asked.role = Some(value()?),
            "key" => asked.key = Some(value()?),
            "wait" => asked.wait = Some(wait(&value()?).ok_or(NO_WAIT)?),
            _ => {}
        }
    }
    if asked.key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(LONG_KEY);
    }
    Ok(asked)
}

/// `25s`, or `25`.
fn wait(text: &str) -> Option<Duration> {
    let seconds = text.parse().map(Duration::from_secs).ok();
    seconds.or_else(|| humantime::parse_duration(text).ok()).filter(|wait| *wait <= WAIT_MAX)
}

/// The one path that is meant: decoded once, and nothing in it that could mean another.
fn file(path: &str) -> Result<Cow<'_, str>, Refused> {
    const BAD: Refused = refused(StatusCode::BAD_REQUEST, "This path is not one of a file.\n");
    const NOTHING: Refused = refused(StatusCode::NOT_FOUND, "There is nothing here. Try / or /v1/servers.\n");
    if !path.starts_with('/') {
        return Err(BAD);
    }
    // An encoded slash is a slash to one and none to another.
    let is_slash =
        |at: usize| path.as_bytes().get(at + 1..at + 3).is_some_and(|hex| hex.eq_ignore_ascii_case(b"2f"));
    if path.bytes().enumerate().any(|(at, byte)| byte == b'%' && is_slash(at)) {
        return Err(BAD);
    }
    let decoded = decode(path, false).ok_or(BAD)?;
    if decoded.bytes().any(|byte| byte == b'\\' || byte.is_ascii_control()) {
        return Err(BAD);
    }
    for segment in decoded.split('/').skip(1) {
        match segment {
            "." | ".." => return Err(BAD),
            ".well-known" => {}
            hidden if hidden.starts_with('.') => return Err(NOTHING),
            _ => {}
        }
    }
    Ok(decoded)
}

/// Percent-decoded, once; none: broken, or not UTF-8.
fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || (plus_is_space && byte == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn host_of(version: Version, uri: &str, hosts: &[&[u8]]) -> Option<String> {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        host(&Asked::of(&request.body(()).unwrap())).ok().map(Cow::into_owned)
    }

    #[test]
    fn there_is_one_host() {
        use Version as V;
        let is = |found: Option<String>, wanted: Option<&str>| assert_eq!(found.as_deref(), wanted);
        is(host_of(V::HTTP_11, "/", &[b"Shop.Example:8080"]), Some("shop.example"));
        is(host_of(V::HTTP_11, "/", &[b"[2001:db8::1]:80"]), Some("[2001:db8::1]"));
        is(host_of(V::HTTP_11, "/", &[b"[2001:db8::1]"]), Some("[2001:db8::1]"));
        is(host_of(V::HTTP_11, "/", &[b""]), Some(""));
        is(host_of(V::HTTP_11, "/", &[]), None);
        is(host_of(V::HTTP_10, "/", &[]), Some(""));
        is(host_of(V::HTTP_11, "/", &[b"a", b"a"]), None);
        is(host_of(V::HTTP_11, "http://a/", &[b"b"]), Some("a"));
        is(host_of(V::HTTP_11, "http://a/", &[]), None);
        is(host_of(V::HTTP_2, "http://a/", &[]), Some("a"));
        is(host_of(V::HTTP_2, "http://a/", &[b"A"]), Some("a"));
        is(host_of(V::HTTP_2, "http://a/", &[b"b"]), None);
        is(host_of(V::HTTP_2, "/", &[]), None);
        for wrong in [
            &b"a b"[..],
            b"a, b",
            b"user@a",
            b"a/b",
            b"a\xff",
            b"a:b:c",
            b"a#b",
            b"a?b",
            b"a,b",
            b"a:b",
            b"a:99999",
            b"[::1",
            b"[::1]x",
            b"[a]",
        ] {
            is(host_of(V::HTTP_11, "/", &[wrong]), None);
        }
    }

    fn file_of(path: &str) -> Result<String, u16> {
        match route(&Method::GET, path, None) {
            Ok(Route::File(path)) => Ok(path.into_owned()),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => Err(refused.status.as_u16()),
        }
    }

    #[test]
    fn paths_mean_one_thing() {
        assert_eq!(file_of("/a/b.css"), Ok("/a/b.css".to_owned()));
        assert_eq!(file_of("/%61%20%C3%A9"), Ok("/a é".to_owned()));
        assert_eq!(file_of("/.well-known/security.txt"), Ok("/.well-known/security.txt".to_owned()));
        assert_eq!(file_of("/%2561"), Ok("/%61".to_owned()), "decoded once");
        for wrong in [
            "/../etc/passwd",
            "/a/../b",
            "/%2e%2e/etc/passwd",
            "/.%2E/a",
            "/./a",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00b",
            "/a%0d%0aX: y",
            "/%",
            "/%4",
            "/%zz",
            "/%ff",
            "*",
            "a",
            "/a/..",
        ] {
            assert_eq!(file_of(wrong), Err(400), "{wrong}");
        }
        for hidden in ["/.git/config", "/a/.env", "/%2egit/config"] {
            assert_eq!(file_of(hidden), Err(404), "{hidden}");
        }
        assert_eq!(file_of(&format!("/{}", "a".repeat(URI_BYTES_MAX))), Err(414));
    }

    #[test]
    fn queries_of_lists() {
        let asked = |query| match route(&Method::GET, "/v1/servers", Some(query)) {
            Ok(Route::Servers(asked)) => Ok(asked),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => Err(refused.why),
        };
        let all = asked("x=1&role=api&key=a%20b+c&wait=25s&role").unwrap();
        assert_eq!((all.role.as_deref(), all.key.as_deref()), (Some("api"), Some("a b c")));
        assert_eq!(all.wait, Some(Duration::from_secs(25)));
        assert_eq!(asked("").unwrap(), Servers::default());
        assert_eq!(asked("wait=7").unwrap().wait, Some(Duration::from_secs(7)));
        for wrong in ["wait=1h", "wait=-1", "wait=", "key=%ff", "role=%", &format!("key={}", "a".repeat(257))]
        {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn methods() {
        let of = |method: &str| {
            route(&method.parse().unwrap(), "/", None).map_err(|refused| refused.status.as_u16())
        };
        assert_eq!(of("HEAD"), Ok(Route::Page));
        assert_eq!(of("OPTIONS"), Ok(Route::Options));
        for wrong in ["POST", "PUT", "DELETE", "TRACE", "CONNECT", "get", "PRI"] {
            assert_eq!(of(wrong), Err(405), "{wrong}");
        }
    }
}
