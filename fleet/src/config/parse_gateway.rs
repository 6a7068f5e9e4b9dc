//! The keys of `[gateway]`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use url::{Position, Url};

use super::defaults;
use super::parse::{Names, everywhere, listens, unique};
use super::parse_dns::{certificate, domain_name};
use super::read::{self, Kind, Section};
use super::{Gateway, Origin, VirtualHost};

/// Headers that say what a body is and how it is sent: they are ours to set.
const OWN_HEADERS: [&str; 14] = [
    "accept-ranges",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "set-cookie",
    "transfer-encoding",
    "vary",
    "x-door-source",
];
/// Of one value: a long Content-Security-Policy.
const HEADER_BYTES_MAX: usize = 4096;
/// Of a marker: more than a line is no marker.
const MARKER_BYTES_MAX: usize = 256;
/// The longest that a stopping door goes on for: a supervisor's patience (systemd: 90 s) is longer.
const STOP_GRACE_MAX: Duration = Duration::from_secs(60);

pub(super) fn gateway(mut section: Section<'_>, names: &Names) -> Gateway {
    let listen = listens(&mut section, "listen", || everywhere(defaults::GATEWAY_PORT));
    let tls_listen = listens(&mut section, "tls_listen", Vec::new);
    let certificate = certificate(&mut section, !tls_listen.is_empty());
    let order_as = section.optional("order_as", &domain_name());
    if let Some(name) = &order_as {
        names.check_steered(&section, "order_as", name);
    }
    let trusted = section.list("trusted_proxies", &read::prefix()).unwrap_or_default();
    let cors = section.list("cors", &origin_of_pages()).unwrap_or_default();
    let stop_grace = section.optional("stop_grace", &read::duration(Duration::ZERO..=STOP_GRACE_MAX));
    let origins = section.tables("origins").into_iter().filter_map(origin).collect();

    let mut hosts = Vec::new();
    let mut seen = HashMap::new();
    let mut named: Vec<VirtualHost> = Vec::new();
    for mut section in section.tables("hosts") {
        let names = section.list("names", &host_name());
        if !section.has("names") {
            section.missing("names", "the names of the host, such as \"www.example.net\"");
        }
        for name in names.iter().flatten() {
            unique(section.source, "host", &mut seen, name.value.clone(), &name.span, &name.value);
        }
        let mut host = virtual_host(&mut section);
        host.names = names.into_iter().flatten().map(|name| name.value).collect();
        section.finish();
        named.push(host);
    }
    let is_for_all = named.is_empty() || section.has("directory") || section.has("index");
    let for_all = virtual_host(&mut section);
    if is_for_all {
        hosts.push(for_all);
    }
    hosts.extend(named);
    section.finish();
    Gateway {
        listen,
        tls_listen,
        certificate,
        hosts,
        origins,
        order_as: order_as.map(|name| name.value),
        trusted_proxies: trusted.into_iter().map(|net| net.value).collect(),
        cors: cors.into_iter().map(|origin| origin.value).collect(),
        stop_grace: stop_grace.map_or(defaults::STOP_GRACE, |grace| grace.value),
    }
}

/// What a host serves; its names are not read.
fn virtual_host(section: &mut Section<'_>) -> VirtualHost {
    let directory = section.optional("directory", &read::text("the path of a directory of static files"));
    let index = section.optional("index", &read::text("the path of an HTML file"));
    let marker = section.optional("marker", &marker());
    let fragments = section.optional("fragments", &read::boolean());
    let immutable = section.list("immutable", &path_prefix()).unwrap_or_default();
    let headers = section.entries("headers", &header_value()).unwrap_or_default();
    for (name, _) in &headers {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.value.is_empty() || !name.value.bytes().all(is_token) {
            section.wrong(
                "headers",
                &name.span,
                "expected the name of a header, such as \"Content-Security-Policy\"",
            );
        }
        if OWN_HEADERS.contains(&name.value.to_ascii_lowercase().as_str()) {
            section.wrong("headers", &name.span, "this header is the door's own to set");
        }
    }
    VirtualHost {
        names: Vec::new(),
        directory: directory.map(|directory| directory.value),
        index: index.map(|index| index.value),
        marker: marker.map_or_else(|| defaults::MARKER.to_owned(), |marker| marker.value),
        fragments: fragments.is_some_and(|fragments| fragments.value),
        immutable: immutable.into_iter().map(|prefix| prefix.value).collect(),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name.value.to_ascii_lowercase(), value.value))
            .collect(),
    }
}

fn origin(mut section: Section<'_>) -> Option<Origin> {
    let path = section.required("path", &path_prefix());
    let url = section.required("url", &origin_url());
    section.finish();
    Some(Origin { path: path?.value, url: url?.value })
}

/// A domain name or an address, as it stands in a Host header without its port.
fn host_name() -> Kind<String> {
    let name = domain_name();
    Kind::parsed("a host such as \"www.example.net\"", move |text| {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(IpAddr::V6(v6)) => Some(format!("[{v6}]")),
            Ok(IpAddr::V4(v4)) => Some(v4.to_string()),
            Err(_) => name.parse(text),
        }
    })
}

fn marker() -> Kind<String> {
    let expected = format!("a text of 1 to {MARKER_BYTES_MAX} bytes that every good page has");
    Kind::parsed(expected, |text| (1..=MARKER_BYTES_MAX).contains(&text.len()).then(|| text.to_owned()))
}

fn path_prefix() -> Kind<String> {
    Kind::parsed("the beginning of a path, such as \"/assets/\"", |text| {
        let is_fit =
            text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?');
        is_fit.then(|| text.to_owned())
    })
}

fn header_value() -> Kind<String> {
    let expected = format!("a text of 1 to {HEADER_BYTES_MAX} printable ASCII characters");
    Kind::parsed(expected, |text| {
        let is_fit = (1..=HEADER_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        (is_fit && text.trim() == text).then(|| text.to_owned())
    })
}

fn has_no_secret(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

/// Where pages are from, as browsers say it in `Origin` (RFC 6454 section 6.2).
fn origin_of_pages() -> Kind<String> {
    Kind::parsed("an origin such as \"https://app.example.net\"", |text| {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let is_bare = has_no_secret(&url) && url[Position::BeforePath..].trim_matches('/').is_empty();
        is_bare.then(|| url.origin().ascii_serialization())
    })
}

fn origin_url() -> Kind<Url> {
    Kind::parsed("an http or https URL without a path, such as \"http://10.0.0.9:9000\"", |text| {
        let url = Url::parse(text).ok()?;
        let is_fit = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && has_no_secret(&url)
            && url[Position::BeforePath..].trim_matches('/').is_empty();
        is_fit.then_some(url)
    })
}
