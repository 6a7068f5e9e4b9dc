//! Packets in, packets out, through the same `respond` that the sockets call.

use std::net::{IpAddr, Ipv4Addr};

use daemun_fleet::view::{DatacenterView, State as DatacenterState};
use daemun_fleet::{Config, FleetView, Places, Steering};
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RecordType};

use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::{Clock, Placer};

use super::*;

const CONFIG: &str = r#"
version = 1
fleet.name = "shop"
[[datacenters]]
name = "seoul"
latitude = 37.57
longitude = 126.98
addresses = ["192.0.2.1"]
agent = "https://a:7400"
[[datacenters]]
name = "frankfurt"
latitude = 50.11
longitude = 8.68
addresses = ["192.0.2.2"]
agent = "https://b:7400"
[[servers]]
name = "door-seoul"
role = "frontdoor"
datacenter = "seoul"
check = { none = true }
[[servers]]
name = "door-frankfurt"
role = "frontdoor"
datacenter = "frankfurt"
check = { none = true }
[[dns.zones]]
name = "shop.test"
file = "shop.zone"
[[dns.names]]
name = "www.shop.test"
policy = "nearest"
[[dns.names]]
name = "deep.geo.shop.test"
policy = "nearest"
"#;

const ZONE: &str = "$TTL 300
@ 3600 SOA ns1 hostmaster 1 7200 1800 259200 900
@ NS ns1
@ MX 10 mail
ns1 A 192.0.2.53
mail A 192.0.2.25
mail AAAA 2001:db8::25
www TXT \"beside the steered types\"
alias CNAME www
far CNAME www.example.org.
loop1 CNAME loop2
loop2 CNAME loop1
*.wild TXT \"star\"
a.wild A 192.0.2.77
x.ent A 192.0.2.78
sub NS ns.sub
ns.sub A 192.0.2.99
big TXT \"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"
";

pub(crate) fn responder(states: &[(&str, DatacenterState)]) -> Responder {
    let config = Arc::new(Config::parse("daemun.toml", CONFIG).expect("the config is right"));
    let steering = Arc::new(Steering::compile(Arc::clone(&config), Arc::new(Places::builtin())));
    let mut text = ZONE.to_owned();
    for number in 0..30 {
        text += &format!("big TXT \"{number:0100}\"\n");
    }
    let zone = zone_file::parse("shop.zone", &text, "shop.test", &|_| Err("none".into()))
        .expect("the zone is right");
    let zones = Zones::new(vec![zone], &steering, "daemun.toml").expect("zone and config fit");
    let mut view = FleetView::unobserved(&config);
    for &(name, state) in states {
        let why = "for the test".to_owned();
        view.datacenters.insert(name.to_owned(), DatacenterView::new(state, why));
    }
    let placer = Placer::new(steering, Arc::new(view));
    of(Arc::new(zones), Arc::new(placer))
}

fn of(zones: Arc<Zones>, placer: Arc<Placer>) -> Responder {
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a fresh registry");
    let identity = Identity { name: "seoul".to_owned(), version: "daemun".to_owned() };
    let secrets = cookie::Secrets::one([7; 16]);
    let clock = Clock { monotonic: || Duration::ZERO, unix_ms: || 1_000_000_000 };
    Responder::new(State { zones, placer, identity, secrets, is_stale: false }, metrics, clock)
}

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(91, 0, 0, 1)); // RIPE NCC

fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

fn with_subnet(mut message: Message, subnet: &str) -> Message {
    let (address, length) = subnet.split_once('/').unwrap();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    let subnet = ClientSubnet::new(address.parse().unwrap(), length.parse().unwrap(), 0);
    edns.options_mut().insert(EdnsOption::Subnet(subnet));
    message.edns = Some(edns);
    message
}

fn ask_over(responder: &Responder, message: &Message, transport: Transport) -> Message {
    let packet =
        responder.respond(&message.to_vec().unwrap(), Peer::new(SOURCE, transport)).expect("an answer");
    if transport == Transport::Udp {
        assert!(packet.len() <= usize::from(wire::UDP_MAX));
    }
    Message::from_vec(&packet).expect("our answers parse")
}

fn ask(responder: &Responder, message: &Message) -> Message {
    ask_over(responder, message, Transport::Udp)
}

fn answers(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data)).collect()
}

fn authority_types(message: &Message) -> Vec<RecordType> {
    message.authorities.iter().map(hickory_proto::rr::Record::record_type).collect()
}

fn scope(message: &Message) -> Option<(u8, u8)> {
    match message.edns.as_ref()?.option(EdnsCode::Subnet)? {
        EdnsOption::Subnet(subnet) => Some((subnet.source_prefix(), subnet.scope_prefix())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn steered_by_subnet_and_by_source() {
    let responder = responder(&[]);
    let korea = ask(&responder, &with_subnet(query("wWw.Shop.test.", RecordType::A), "1.208.0.0/16"));
    assert_eq!(answers(&korea), ["wWw.Shop.test. 30 A 192.0.2.1"], "in the asker's letter case");
    assert!(korea.metadata.authoritative);
    let (source, scope) = scope(&korea).expect("echoed");
    assert_eq!(source, 16);
    assert!((1..=8).contains(&scope), "the registry's block or wider: {scope}");
    let plain = ask(&responder, &query("www.shop.test.", RecordType::A));
    assert_eq!(answers(&plain), ["www.shop.test. 30 A 192.0.2.2"], "91/8 is RIPE NCC's");
    assert!(plain.edns.is_none(), "no OPT in, none out");
}

#[test]
fn a_failure_changes_the_answer_not_the_scope() {
    let (well, ill) = (responder(&[]), responder(&[("seoul", DatacenterState::Down)]));
    let question = with_subnet(query("www.shop.test.", RecordType::A), "1.208.0.0/24");
    let (well, ill) = (ask(&well, &question), ask(&ill, &question));
    assert_eq!(answers(&ill), ["www.shop.test. 30 A 192.0.2.2"]);
    assert_eq!(scope(&well), scope(&ill));
    let all = responder(&[("seoul", DatacenterState::Down), ("frankfurt", DatacenterState::Down)]);
    assert_eq!(answers(&ask(&all, &question)), ["www.shop.test. 5 A 192.0.2.1"], "never empty, not for long");
}

#[test]
fn static_and_negative_answers_have_scope_zero() {
    let responder = responder(&[]);
    for (name, record_type) in [
        ("mail.shop.test.", RecordType::A),
        ("no.shop.test.", RecordType::A),
        ("www.shop.test.", RecordType::AAAA),
    ] {
        let answer = ask(&responder, &with_subnet(query(name, record_type), "1.208.0.0/24"));
        assert_eq!(scope(&answer), Some((24, 0)), "{name}");
    }
    let hidden = ask(&responder, &with_subnet(query("www.shop.test.", RecordType::A), "0.0.0.0/0"));
    assert_eq!((scope(&hidden), answers(&hidden).len()), (Some((0, 0)), 1), "placed by the resolver");
}

#[test]
fn a_mapped_subnet_is_ipv4_and_its_scope_counts_from_the_start() {
    let responder = responder(&[]);
    let plain = ask(&responder, &with_subnet(query("www.shop.test.", RecordType::A), "1.208.0.0/24"));
    // The library would write the option as IPv4: by hand, family 2, 120 bits.
    let mut mapped = query("www.shop.test.", RecordType::A);
    let mut edns = Edns::new();
    let body = [&[0, 2, 120, 0][..], &[0; 10], &[0xff, 0xff, 1, 208, 0]].concat();
    edns.options_mut().insert(EdnsOption::Unknown(8, body));
    mapped.edns = Some(edns);
    let mapped = ask(&responder, &mapped);
    assert_eq!(answers(&mapped), answers(&plain));
    assert_eq!(scope(&mapped), Some((120, 96 + scope(&plain).unwrap().1)));
}

#[test]
fn negatives_say_what_is_not_there() {
    let responder = responder(&[]);
    let codes = |name: &str, record_type| {
        let answer = ask(&responder, &query(name, record_type));
        assert_eq!(answer.answers.len(), 0, "{name}");
        (answer.metadata.response_code, authority_types(&answer))
    };
    let nodata = (ResponseCode::NoError, vec![RecordType::SOA]);
    assert_eq!(codes("no.shop.test.", RecordType::A), (ResponseCode::NXDomain, vec![RecordType::SOA]));
    assert_eq!(codes("www.shop.test.", RecordType::AAAA), nodata, "steered, but not this type");
    assert_eq!(codes("ent.shop.test.", RecordType::A), nodata, "an empty non-terminal");
    assert_eq!(codes("geo.shop.test.", RecordType::A), nodata, "above a steered name");
    assert_eq!(codes("shop.test.", RecordType::A), nodata);
    assert_eq!(codes("example.org.", RecordType::A), (ResponseCode::Refused, vec![]));
    assert_eq!(codes("shop.test.", RecordType::AXFR), (ResponseCode::Refused, vec![]));
    let soa = ask(&responder, &query("no.shop.test.", RecordType::A));
    assert_eq!(soa.authorities[0].ttl, 900, "the smaller of TTL and MINIMUM");
}

#[test]
fn beside_and_through_the_steered_name() {
    let responder = responder(&[]);
    assert_eq!(ask(&responder, &query("www.shop.test.", RecordType::TXT)).answers.len(), 1);
    let alias = ask(&responder, &with_subnet(query("alias.shop.test.", RecordType::A), "1.208.0.0/24"));
    let found = answers(&alias);
    assert_eq!(found, ["alias.shop.test. 300 CNAME www.shop.test.", "www.shop.test. 30 A 192.0.2.1"]);
    assert_ne!(scope(&alias).unwrap().1, 0, "the chain ends at a steered name");
    let far = ask(&responder, &query("far.shop.test.", RecordType::A));
    assert_eq!((far.answers.len(), far.metadata.response_code), (1, ResponseCode::NoError));
    let circle = ask(&responder, &query("loop1.shop.test.", RecordType::A));
    assert_eq!(circle.answers.len(), 2, "a circle is said once");
    let any = ask(&responder, &query("mail.shop.test.", RecordType::ANY));
    assert_eq!(any.answers[0].record_type(), RecordType::HINFO);
}

#[test]
fn wildcards_and_delegations() {
    let responder = responder(&[]);
    let star = ask(&responder, &query("b.wild.shop.test.", RecordType::TXT));
    assert_eq!(answers(&star), ["b.wild.shop.test. 300 TXT star"]);
    assert_eq!(
        ask(&responder, &query("b.wild.shop.test.", RecordType::A)).metadata.response_code,
        ResponseCode::NoError
    );
    assert!(
        ask(&responder, &query("a.wild.shop.test.", RecordType::TXT)).answers.is_empty(),
        "a name that is there"
    );
    let below = ask(&responder, &query("x.a.wild.shop.test.", RecordType::TXT));
    assert_eq!(below.metadata.response_code, ResponseCode::NXDomain, "its closest encloser has no star");
    let referral = ask(&responder, &query("host.sub.shop.test.", RecordType::A));
    assert!(!referral.metadata.authoritative && referral.answers.is_empty());
    assert_eq!(authority_types(&referral), [RecordType::NS]);
    assert_eq!(referral.additionals[0].data.ip_addr(), Some("192.0.2.99".parse().unwrap()), "glue");
    let mx = ask(&responder, &query("shop.test.", RecordType::MX));
    assert_eq!(mx.additionals.len(), 2);
}

#[test]
fn too_large_for_udp_is_whole_over_tcp() {
    let responder = responder(&[]);
    let question = query("big.shop.test.", RecordType::TXT);
    let cut = ask(&responder, &question);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = ask_over(&responder, &question, Transport::Tcp);
    assert!(!whole.metadata.truncation && whole.answers.len() == 31);
}

#[test]
fn what_fits_no_message_does_not_load() {
    let huge = |count: usize| {
        let records: String = (0..count).map(|number| format!("huge TXT \"{number:0100}\"\n")).collect();
        zone_file::parse("shop.zone", &format!("{ZONE}{records}"), "shop.test", &|_| Err("none".into()))
    };
    let error = huge(600).unwrap_err()[0].to_string();
    assert!(
        error.starts_with("shop.zone:19: the TXT records of huge.shop.test. are 75600 bytes long"),
        "{error}"
    );
    let placer = Arc::clone(&responder(&[]).state().placer);
    let zones = Zones::new(vec![huge(500).unwrap()], placer.steering(), "daemun.toml").unwrap();
    let whole =
        ask_over(&of(Arc::new(zones), placer), &query("huge.shop.test.", RecordType::TXT), Transport::Tcp);
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 500), "what loads can be told");
}

#[test]
fn steered_names_must_not_hide_records() {
    let config = Arc::new(Config::parse("daemun.toml", CONFIG).unwrap());
    let steering = Steering::compile(config, Arc::new(Places::builtin()));
    let text = format!("{ZONE}www A 192.0.2.200\n");
    let zone = zone_file::parse("shop.zone", &text, "shop.test", &|_| Err("none".into())).unwrap();
    let errors = Zones::new(vec![zone], &steering, "daemun.toml").unwrap_err().all;
    let said = errors[0].error.to_string();
    assert_eq!(
        said,
        "daemun.toml:29: www.shop.test. is steered and also has A records in its zone; remove them there, or the name here"
    );
}

#[tokio::test]
async fn embedded_in_hickory_server_it_answers_the_same() {
    let responder = Arc::new(responder(&[]));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let mut server = hickory_server::Server::new(embed::Handler(Arc::clone(&responder)));
    server.register_socket(socket);
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let question = with_subnet(query("www.shop.test.", RecordType::A), "1.208.0.0/24");
    client.send_to(&question.to_vec().unwrap(), address).await.unwrap();
    let mut buffer = [0; 1500];
    let received = tokio::time::timeout(std::time::Duration::from_secs(20), client.recv(&mut buffer));
    let length = received.await.expect("an answer in time").unwrap();
    let embedded = Message::from_vec(&buffer[..length]).unwrap();
    let ours = ask(&responder, &question);
    assert_eq!((answers(&embedded), scope(&embedded)), (answers(&ours), scope(&ours)));
    server.shutdown_gracefully().await.unwrap();
}
