//! What must hold for any packet, any zone file, any page and any bytes at the front door. Two run it: the fuzzer's targets beside it, and `tests/fuzz/main.rs`
//! in every test run.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use daemun_dns::cookie::Secrets;
use daemun_dns::{Identity, Metrics, Peer, Responder, State, Transport, Zones, wire, zone_file};
use daemun_fleet::{Clock, Config, FleetView, Placer, Places, Steering};
use daemun_gateway::asset::Effort;
use daemun_gateway::files::{Files, asset};
use daemun_gateway::request::{Route, route};
use daemun_gateway::serve::replay;
use daemun_gateway::ssi::{Fragment, Include, Limits, Sources, Template, assemble};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RecordType};

const CONFIG: &str = include_str!("../scenarios/fleet.toml");
const ZONE: &str = include_str!("../scenarios/shop.test.zone");
/// More steered types than the scenarios' fleet has.
const MORE: &str = r#"
[[dns.names]]
name = "shop.test"
policy = "weighted"
weights = { seoul = 1, frankfurt = 1, virginia = 1 }
types = ["A", "AAAA"]
answers = 3
records.HTTPS = "1 . alpn=h2"
[[dns.names]]
name = "*.star.shop.test"
policy = "nearest"
records.CNAME = { seoul = "www", frankfurt = "alias", virginia = "far" }
"#;

const TRANSPORTS: [Transport; 5] =
    [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Https, Transport::Quic];
const SOURCES: [&str; 4] = ["198.51.100.53", "1.2.3.4", "2001:200::1", "10.0.0.1"];

fn no_file(path: &str) -> Result<String, String> {
    Err(format!("no `{path}`"))
}

fn placer() -> Arc<Placer> {
    thread_local! {
        static PLACER: OnceCell<Arc<Placer>> = const { OnceCell::new() };
    }
    PLACER.with(|placer| {
        let made = placer.get_or_init(|| {
            let config =
                CONFIG.replace("#DNS#", "chaos = [\"id\"]\nrate_limit.answers_per_second = 0") + MORE;
            let config = Arc::new(Config::parse("daemun.toml", &config).expect("the config is right"));
            let steering = Steering::compile(Arc::clone(&config), Arc::new(Places::builtin()));
            Arc::new(Placer::new(Arc::new(steering), Arc::new(FleetView::unobserved(&config))))
        });
        Arc::clone(made)
    })
}

fn responder_of(zones: Zones) -> Responder {
    let state = State {
        zones: Arc::new(zones),
        placer: placer(),
        identity: Identity { name: "fuzz".to_owned(), version: "1".to_owned() },
        secrets: Secrets::one([7; 16]),
        is_stale: false,
    };
    let clock = Clock { monotonic: || Duration::ZERO, unix_ms: || 1_800_000_000_000 };
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a fresh registry");
    Responder::new(state, metrics, clock)
}

/// Any packet: what is answered parses, fits, and echoes what it must. The first two bytes choose transport and source.
pub(crate) fn packet(data: &[u8]) {
    thread_local! {
        static RESPONDER: OnceCell<Responder> = const { OnceCell::new() };
    }
    let [transport, source, packet @ ..] = data else { return };
    let transport = TRANSPORTS[usize::from(*transport) % TRANSPORTS.len()];
    let source: IpAddr = SOURCES[usize::from(*source) % SOURCES.len()].parse().expect("an address");
    let reply = RESPONDER.with(|responder| {
        let responder = responder.get_or_init(|| {
            let zone =
                zone_file::parse("shop.test.zone", ZONE, "shop.test", &no_file).expect("the zone is right");
            responder_of(
                Zones::new(vec![zone], placer().steering(), "daemun.toml").expect("zone and config fit"),
            )
        });
        responder.respond(packet, Peer::new(source, transport))
    });
    let Some(reply) = reply else {
        let is_query = packet.len() >= wire::HEADER_BYTES && packet[2] & 0x80 == 0;
        assert!(!is_query, "no reply to a query");
        return;
    };
    check(packet, &reply, transport);
}

/// What holds between a query and its reply.
pub(crate) fn check(packet: &[u8], reply: &[u8], transport: Transport) {
    let message = match Message::from_vec(reply) {
        Ok(message) => message,
        // A record may have no data (RFC 3597 section 5 shows one); the library does not know any.
        Err(error) if format!("{error:?}").contains("InvalidEmptyRecord") => return,
        Err(error) => panic!("a reply does not parse: {error}"),
    };
    let again = Message::from_vec(&message.to_vec().expect("and are written again")).expect("and parse");
    assert_eq!(message, again);
    assert_eq!(reply[..2], packet[..2], "the number");
    assert_eq!(reply[2] & 0xf8, 0x80 | packet[2] & 0x78, "a response, of the same operation");
    assert_eq!(reply[3] & 0xe0, 0, "neither RA nor Z nor AD");
    assert_ne!(message.metadata.response_code, ResponseCode::ServFail);
    if transport == Transport::Udp {
        assert!(reply.len() <= usize::from(wire::UDP_MAX), "{} bytes", reply.len());
        assert!(reply.len() <= 12 * packet.len(), "{} bytes for {}", reply.len(), packet.len());
    }
    if message.metadata.truncation {
        assert!(message.answers.is_empty() && message.authorities.is_empty(), "a part of a record set");
    }
    let Ok(query) = Message::from_vec(packet) else { return };
    let is_one = query.queries.len() == 1 && query.metadata.op_code == message.metadata.op_code;
    assert!(!is_one || message.queries == query.queries, "the question");
    let Some(edns) = &message.edns else { return };
    let asked = query.edns.as_ref().expect("no OPT in, none out");
    if let Some(EdnsOption::Subnet(echo)) = edns.option(EdnsCode::Subnet)
        && let Some(EdnsOption::Subnet(subnet)) = asked.option(EdnsCode::Subnet)
    {
        assert_eq!((echo.addr(), echo.source_prefix()), (subnet.addr(), subnet.source_prefix()));
    }
}

/// Any text as a zone file: it is refused with lines that it has, or every name in it can be asked for.
pub(crate) fn zone(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let zone = match zone_file::parse("fuzz.zone", &text, "shop.test", &no_file) {
        Ok(zone) => zone,
        Err(errors) => {
            assert!(!errors.is_empty());
            let lines = text.lines().count().max(1);
            assert!(errors.iter().all(|error| error.line <= lines && !error.message.is_empty()));
            return;
        }
    };
    let Ok(zones) = Zones::new(vec![zone], placer().steering(), "daemun.toml") else { return };
    let responder = responder_of(zones);
    let peer = Peer::new(SOURCES[0].parse().expect("an address"), Transport::Tcp);
    let words = text.split_whitespace().take(64);
    for word in words.chain(["shop.test."]) {
        let Ok(name) = Name::parse(word, Some(&Name::from_ascii("shop.test.").expect("a name"))) else {
            continue;
        };
        for record_type in [1, 2, 5, 6, 15, 16, 29, 33, 35, 43, 64, 65, 255, 257, 65280] {
            let mut query = Message::query();
            query.add_query(Query::query(name.clone(), RecordType::from(record_type)));
            let Ok(packet) = query.to_vec() else { continue };
            let reply = responder.respond(&packet, peer).expect("a query is answered");
            check(&packet, &reply, Transport::Tcp);
        }
    }
}

/// Answers most paths with the page itself.
struct Mirror<'a>(&'a [u8]);

impl Sources for Mirror<'_> {
    fn fragment(&self, include: &Include) -> Fragment {
        match include.path.len() % 3 {
            0 => Fragment::Missing,
            _ => Fragment::Ready(self.0.to_vec().into()),
        }
    }

    fn variable(&self, name: &str) -> Option<Cow<'_, str>> {
        (name.len() > 1).then(|| Cow::Owned(format!("/<{name}>")))
    }
}

/// Any bytes as a page with includes: what comes out is bounded, and it is said what was asked for and what is wrong.
pub(crate) fn ssi(data: &[u8]) {
    let template = Template::parse(&data.to_vec().into());
    let lines = 1 + data.iter().filter(|byte| **byte == b'\n').count();
    assert!(template.problems().iter().all(|problem| problem.line <= lines && problem.offset < data.len()));
    let limits = Limits { bytes: 16 * 1024, steps: 1_000, ..Limits::default() };
    let page = assemble(&template, &Mirror(data), limits);
    assert!(page.body.len() <= limits.bytes);
    assert!(page.is_whole || page.problems.iter().any(|problem| problem.what.contains("cut")));
    assert!(
        !template.is_plain() || page.body == data.get(..limits.bytes).unwrap_or(data),
        "no command in it"
    );
    let mut paths: Vec<_> = page.wanted.iter().map(|include| include.path.as_str()).collect();
    for path in &paths {
        assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        assert!(!path.starts_with("//") && path.split('/').all(|part| part != ".."), "{path}");
    }
    assert!(page.missing.iter().all(|path| paths.contains(&path.as_str())));
    paths.sort_unstable();
    assert!(paths.is_sorted_by(|one, other| one < other), "asked for once");
}

/// What stands in each file that the fuzzed door has; nothing else may ever be sent as a body of 200, but the page and lists.
const FILES: [(&str, &str); 3] =
    [("/a.txt", "file a"), ("/b/index.html", "<p>file b</p>"), ("/main.3f2a91bc.js", "let file = 'c'")];
const PAGE: &str = "<p>the page</p></html>";

fn door() -> Arc<daemun_gateway::Door> {
    thread_local! {
        static DOOR: OnceCell<Arc<daemun_gateway::Door>> = const { OnceCell::new() };
    }
    DOOR.with(|door| {
        let made = door.get_or_init(|| {
            let placer = placer();
            let mut files = Files::default();
            for (path, body) in FILES {
                files.insert(path.to_owned(), Arc::new(asset(path, body.into(), 0, &[], Effort::Often)));
            }
            let host = placer.steering().config().gateway.hosts[0].clone();
            let host =
                daemun_gateway::HostFiles { host, page: Some(Ok(PAGE.into())), files: Arc::new(files) };
            let files = daemun_gateway::DoorFiles { hosts: vec![host], is_meant: false };
            let settings = daemun_gateway::Settings {
                me: "seoul".to_owned(),
                metrics: daemun_gateway::Metrics::new(&prometheus::Registry::new())
                    .expect("a fresh registry"),
                clock: Clock { monotonic: || Duration::from_secs(9), unix_ms: || 1_800_000_000_000 },
                kept: std::collections::BTreeMap::new(),
            };
            daemun_gateway::Door::new(settings, placer, Arc::new(files))
        });
        Arc::clone(made)
    })
}

/// Any bytes at the front door: the replies are whole, as many as there can be requests, and the same however the bytes come.
pub(crate) fn request(data: &[u8]) {
    let door = door();
    let peer = IpAddr::from([198, 51, 100, 53]);
    let whole = replay(&door, peer, &[data]);
    check_replies(data, &whole.replies);
    // Cut in two at a place that depends on the bytes; read byte by byte, as they end.
    let sum: usize = data.iter().map(|byte| usize::from(*byte)).sum();
    let (first, second) = data.split_at(sum % (data.len() + 1));
    let pieces: Vec<&[u8]> = std::iter::once(first).chain(second.chunks(1)).collect();
    let cut = replay(&door, peer, &pieces);
    assert_eq!(String::from_utf8_lossy(&cut.replies), String::from_utf8_lossy(&whole.replies), "cut");
    assert_eq!(cut.is_http2, whole.is_http2, "cut");
}

/// That some bytes are replies as RFC 9112 has them, to at most as many requests as there are empty lines.
pub(crate) fn check_replies(asked: &[u8], replies: &[u8]) {
    let ends = asked.windows(2).filter(|pair| *pair == b"\n\r" || *pair == b"\n\n").count();
    // A refusal may come before the end of a head.
    let (mut rest, mut count) = (replies, 0);
    while !rest.is_empty() {
        count += 1;
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&rest[..end]).expect("text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).expect("a status line");
        let status: u16 = status[..3].parse().expect("a status");
        let known = [200, 204, 206, 301, 304, 400, 404, 405, 412, 414, 416, 431, 503, 505];
        assert!(known.contains(&status), "{status}");
        let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").expect("a field")).collect();
        let all = |name: &str| {
            fields.iter().filter(|(found, _)| *found == name).map(|(_, value)| *value).collect::<Vec<_>>()
        };
        assert_eq!(all("date"), ["Fri, 15 Jan 2027 08:00:00 GMT"]);
        assert!(fields.iter().all(|(name, value)| {
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && value.bytes().all(|byte| byte != b'\r' && byte != b'\n' && byte != 0)
        }));
        rest = &rest[end + 4..];
        if all("content-type") == ["text/event-stream"] {
            // A stream: what follows is chunks, or to a client of HTTP/1.0 all there is, and nothing else ever.
            assert_eq!((all("connection"), all("content-length").len()), (vec!["close"], 0));
            assert!(matches!(all("transfer-encoding")[..], [] | ["chunked"]));
            return;
        }
        assert!(all("transfer-encoding").is_empty());
        let lengths = all("content-length");
        if matches!(status, 204 | 304) {
            assert!(lengths.is_empty());
            continue;
        }
        let [length] = lengths[..] else { panic!("{} lengths", lengths.len()) };
        let length: usize = length.parse().expect("a number");
        // A reply to HEAD has a length and no body.
        let has_body = rest.len() >= length && !rest.starts_with(b"HTTP/1.1 ");
        if length > 0 && has_body && status == 200 {
            let body = &rest[..length];
            let is_file = FILES.iter().any(|(_, file)| file.as_bytes() == body) || body == PAGE.as_bytes();
            let is_coded = !all("content-encoding").is_empty();
            let is_made =
                body.starts_with(b"{\"v\":1,") || all("content-type")[0].starts_with("text/javascript");
            assert!(is_file || is_coded || is_made, "{}", String::from_utf8_lossy(body));
        }
        rest = if has_body { &rest[length..] } else { rest };
    }
    assert!(count <= ends + 1, "{count} replies to {ends} requests");
}

/// Any method, path and query: what is asked for is clear, or refused.
pub(crate) fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let Ok(method) = method.parse() else { return };
    match route(&method, path, query) {
        Ok(Route::File(path)) => {
            assert!(path.starts_with('/') && !path.contains(['\\', '\0', '\r', '\n']), "{path}");
            let is_hidden = |part: &str| part.starts_with('.') && part != ".well-known";
            assert!(!path.split('/').any(is_hidden), "{path}");
        }
        Ok(Route::Servers(asked) | Route::Watch(asked)) => {
            assert!(asked.wait.is_none_or(|wait| wait <= Duration::from_secs(55)));
            assert!(asked.key.is_none_or(|key| key.len() <= 256));
        }
        Ok(_) => {}
        Err(refused) => assert!(refused.status.is_client_error() && !refused.why.is_empty()),
    }
}
