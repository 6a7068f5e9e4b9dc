//! How a server's health is found out: the kinds of checks, and how they are read.
//!
//! A check is one table with exactly one kind, and keys that go with that kind only: a key that would do nothing is
//! a mistake of whoever wrote it, and is said.

use std::ops::RangeInclusive;

use url::Url;

use super::defaults;
use super::parse_dns::domain_name;
use super::read::{self, Kind, Located, Section};

/// How a server's health is found out. Each check is made against each of the server's addresses, on a connection of
/// its own, and must succeed within the probe's time-out.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// Not at all: it counts as up.
    None,
    /// A GET must be answered as it should.
    Http(HttpCheck),
    /// A TCP connection to this port must open.
    Tcp {
        /// The port.
        port: u16,
    },
    /// A query over UDP must be answered with NOERROR and a record of its type, or a CNAME.
    Dns(DnsCheck),
    /// The standard health service of gRPC (`grpc.health.v1.Health/Check`) must say SERVING.
    Grpc(GrpcCheck),
    /// A program must exit with 0. It is told of whom in the environment: `DAEMUN_SERVER`, `DAEMUN_ADDRESS` and
    /// `DAEMUN_DATACENTER`. There is no shell; when its time is up, it is killed with all its children.
    Exec {
        /// Absolute path of the program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// What is fetched, and what the answer must be.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCheck {
    /// The URL; its host goes into the Host header.
    pub url: Url,
    /// Statuses that mean up.
    pub status: RangeInclusive<u16>,
    /// A text that the first 64 KiB of the body must contain.
    pub body: Option<String>,
    /// A header that the answer must have.
    pub header: Option<HeaderCheck>,
    /// The name that is sent as SNI and looked for in the certificate; none: the URL's host.
    pub tls_name: Option<String>,
}

impl HttpCheck {
    /// A GET of this URL, by what holds in silence.
    pub fn get(url: Url) -> Self {
        Self { url, status: defaults::STATUS, body: None, header: None, tls_name: None }
    }
}

/// A header that an answer must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderCheck {
    /// Its name, lower case.
    pub name: String,
    /// Its whole value without space at the ends; none: any.
    pub value: Option<String>,
}

/// What is asked over UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsCheck {
    /// The name, lower case, no dot at the end; `.` is the root.
    pub name: String,
    /// The type as in a master file, upper case.
    pub record_type: &'static str,
    /// The port.
    pub port: u16,
}

/// Which gRPC service is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCheck {
    /// The port.
    pub port: u16,
    /// Name of the service; empty: the server as a whole.
    pub service: String,
    /// The name that is sent as SNI and looked for in the certificate; none: no TLS.
    pub tls_name: Option<String>,
}

/// The kinds, of which a check has exactly one.
const KINDS: [&str; 6] = ["http", "tcp", "dns", "grpc", "exec", "none"];

/// Keys that go with some kinds only.
const COMPANIONS: [(&str, &[&str]); 7] = [
    ("status", &["http"]),
    ("body", &["http"]),
    ("header", &["http"]),
    ("tls_name", &["http", "grpc"]),
    ("type", &["dns"]),
    ("port", &["dns"]),
    ("service", &["grpc"]),
];

/// Types that a DNS check can ask for: those that a healthy server has one of, and no more than a datagram holds.
const RECORD_TYPES: &[(&str, &str)] = &[
    ("A", "A"),
    ("AAAA", "AAAA"),
    ("CAA", "CAA"),
    ("CNAME", "CNAME"),
    ("HTTPS", "HTTPS"),
    ("MX", "MX"),
    ("NS", "NS"),
    ("PTR", "PTR"),
    ("SOA", "SOA"),
    ("SRV", "SRV"),
    ("SVCB", "SVCB"),
    ("TXT", "TXT"),
];

/// Far more than a health page says, and far less than what is read of it.
const BODY_BYTES_MAX: usize = 4096;
/// The longest header that is looked for.
const HEADER_BYTES_MAX: usize = 1024;
/// The longest name of a gRPC service.
const SERVICE_BYTES_MAX: usize = 255;

/// Reads the `check` of a server; in silence it is a GET of the server's `url`.
pub(super) fn check(section: &mut Section<'_>, url: Option<&Url>) -> Option<Check> {
    if !section.has("check") {
        section.table("check"); // the key is known, even if nobody wrote it
        let Some(url) = url else {
            section.missing("check", "a check such as { tcp = 443 }, or a `url` to get, or { none = true }");
            return None;
        };
        return Some(Check::Http(HttpCheck::get(url.clone())));
    }
    let mut table = section.table("check");
    let given = KINDS.into_iter().filter(|kind| table.has(kind)).count();
    if given != 1 {
        let message = "expected exactly one of `http`, `tcp`, `dns`, `grpc`, `exec` and `none`";
        table.source.problem(&table.span, format!("{}: {message}", section.path("check")));
    }
    for (key, kinds) in COMPANIONS {
        if table.has(key) && !kinds.iter().any(|kind| table.has(kind)) {
            table.wrong(key, &table.span, format!("goes with `{}`", kinds.join("` or `")));
        }
    }
    let tls_name = table.optional("tls_name", &domain_name());
    let http = http(&mut table, url, tls_name.as_ref());
    let tcp = table.optional("tcp", &port()).map(|tcp| Check::Tcp { port: to_port(&tcp) });
    let dns = dns(&mut table);
    let grpc = grpc(&mut table, tls_name);
    let exec = exec(&mut table);
    let none = table.optional("none", &read::only_true()).map(|_| Check::None);
    table.finish();
    http.or(tcp).or(dns).or(grpc).or(exec).or(none).filter(|_| given == 1)
}

fn port() -> Kind<i64> {
    read::integer("a port", 1..=65535)
}

fn to_port(port: &Located<i64>) -> u16 {
    u16::try_from(port.value).expect("range checked")
}

/// A string that may be empty, without what no header, argument or message can hold.
fn short_text(expected: &str, bytes_max: usize) -> Kind<String> {
    Kind::parsed(expected, move |text| {
        (text.len() <= bytes_max && !text.contains('\0')).then(|| text.to_owned())
    })
}

fn http(table: &mut Section<'_>, url: Option<&Url>, tls_name: Option<&Located<String>>) -> Option<Check> {
    let base = url.cloned();
    let expected = "a URL without a password, or a path such as \"/health\" below the server's `url`";
    let target = Kind::parsed(expected, move |text| {
        let url = match &base {
            Some(base) if text.starts_with('/') => base.join(text).ok()?,
            _ => Url::parse(text).ok()?,
        };
        let is_open = url.username().is_empty() && url.password().is_none();
        (matches!(url.scheme(), "http" | "https") && url.has_host() && is_open).then_some(url)
    });
    let http = table.optional("http", &target);
    let status = status(table);
    let expected = format!("a text of 1 to {BODY_BYTES_MAX} bytes that the body must contain");
    let body =
        Kind::parsed(expected, |text| (1..=BODY_BYTES_MAX).contains(&text.len()).then(|| text.to_owned()));
    let body = table.optional("body", &body);
    let header = table.optional("header", &header());
    let http = http?;
    if let Some(name) = tls_name.filter(|_| http.value.scheme() != "https") {
        table.wrong("tls_name", &name.span, "goes with an https URL");
    }
    Some(Check::Http(HttpCheck {
        url: http.value,
        status: status?,
        body: body.map(|body| body.value),
        header: header.map(|header| header.value),
        tls_name: tls_name.map(|name| name.value.clone()),
    }))
}

fn status(table: &mut Section<'_>) -> Option<RangeInclusive<u16>> {
    let status = table.list("status", &read::integer("an HTTP status", 100..=599));
    let number = |status: &Located<i64>| u16::try_from(status.value).expect("range checked");
    match status.as_deref() {
        None => Some(defaults::STATUS),
        Some([only]) => Some(number(only)..=number(only)),
        Some([low, high]) if low.value <= high.value => Some(number(low)..=number(high)),
        Some(_) => {
            table.wrong("status", &table.span, "expected one status, or two that are the ends of a range");
            None
        }
    }
}

/// `name: value` or `name` alone (RFC 9110 section 5.1).
fn header() -> Kind<HeaderCheck> {
    let expected = "a header that the answer must have, \"name: value\", or \"name\" for any value";
    Kind::parsed(expected, |text| {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.trim())),
            None => (text.trim_end(), None),
        };
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_right = !name.is_empty()
            && name.bytes().all(is_token)
            && value.is_none_or(|value| !value.is_empty() && !value.contains(char::is_control))
            && text.len() <= HEADER_BYTES_MAX;
        let check = || HeaderCheck { name: name.to_ascii_lowercase(), value: value.map(str::to_owned) };
        is_right.then(check)
    })
}

fn dns(table: &mut Section<'_>) -> Option<Check> {
    let name = Kind::parsed("a domain name such as \"www.example.net\", or \".\"", |text| {
        if text == "." { Some(text.to_owned()) } else { domain_name().parse(text) }
    });
    let name = table.optional("dns", &name);
    let record_type = table.optional("type", &read::one_of(RECORD_TYPES));
    let port = table.optional("port", &port());
    Some(Check::Dns(DnsCheck {
        name: name?.value,
        record_type: record_type.map_or(defaults::CHECK_RECORD_TYPE, |record_type| record_type.value),
        port: port.as_ref().map_or(defaults::DNS_PORT, to_port),
    }))
}

fn grpc(table: &mut Section<'_>, tls_name: Option<Located<String>>) -> Option<Check> {
    let port = table.optional("grpc", &port());
    let service = table.optional("service", &short_text("the name of a gRPC service", SERVICE_BYTES_MAX));
    Some(Check::Grpc(GrpcCheck {
        port: to_port(&port?),
        service: service.map(|service| service.value).unwrap_or_default(),
        tls_name: tls_name.map(|name| name.value),
    }))
}

fn exec(table: &mut Section<'_>) -> Option<Check> {
    let mut words = command(table, "exec")?.into_iter();
    Some(Check::Exec { program: words.next()?, arguments: words.collect() })
}

/// A program and its arguments.
pub(super) fn command(table: &mut Section<'_>, key: &'static str) -> Option<Vec<String>> {
    // What one argument may hold on Linux is far more; a check that needs it wants a file.
    let words = table.list(key, &short_text("a program or an argument of at most 4096 bytes", 4096))?;
    if let Some(program) = words.first().filter(|program| !program.value.starts_with('/')) {
        let message = "expected the absolute path of a program; there is no shell that would look for it";
        table.wrong(key, &program.span, message);
    }
    Some(words.into_iter().map(|word| word.value).collect())
}
