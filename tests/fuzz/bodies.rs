//! What must hold for any packet, any zone file and any page. Two run it: the fuzzer's targets beside it, and `tests/fuzz/main.rs`
//! in every test run.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use daemun_dns::cookie::Secrets;
use daemun_dns::{Identity, Metrics, Peer, Responder, State, Transport, Zones, wire, zone_file};
use daemun_fleet::{Clock, Config, FleetView, Placer, Places, Steering};
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
