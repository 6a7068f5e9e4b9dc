//! A config that is right, and what is said of each way to be wrong.

use super::*;

/// A config in which everything is used.
const WHOLE: &str = r#"version = 1

[fleet]
name = "shop"

[[datacenters]]
name = "seoul"
latitude = 37.57
longitude = 126.98
addresses = ["192.0.2.1", "2001:db8::1"]
capacity_rps = 1000
agent = "https://10.0.1.1:7400"

[[datacenters]]
name = "frankfurt"
latitude = 50.11
longitude = 8.68
addresses = ["192.0.2.2"]
agent = "https://10.0.2.1:7400"

[[servers]]
name = "door-seoul"
role = "frontdoor"
datacenter = "seoul"
url = "https://seoul.shop.example/"

[[servers]]
name = "door-frankfurt"
role = "frontdoor"
datacenter = "frankfurt"
addresses = ["192.0.2.22"]
weight = 50
check = { tcp = 443 }

[[servers]]
name = "api-seoul"
role = "api"
datacenter = "seoul"
url = "http://192.0.2.9:8000/v2/"
check = { http = "/health", status = 204 }

[dns]
listen = ["datacenter:53", "[::1]:5353"]
tls_listen = "datacenter:853"
certificate = "dns.pem"
key = "dns.key"
proxies = "10.0.0.9"
subnet_from = ["8.8.8.0/24"]
cookie_secrets = "cookies"
rate_limit = { answers_per_second = 50, slip = 3, exempt = "10.0.0.0/8" }
amplification_max = 9
chaos = ["id"]
default_order = ["frankfurt"]

[[dns.zones]]
name = "shop.example."
file = "shop.zone"

[[dns.names]]
name = "WWW.shop.example"
policy = "nearest"
band_km = 500
weights = { seoul = 2, frankfurt = 1 }
ttl = 60
ttl_changing = 7
answers = 2
types = ["A"]
records.HTTPS = "1 . alpn=h2"
records.srv = { seoul = "0 1 2 a", frankfurt = ["0 1 2 b", "0 1 2 c"] }

[[dns.names]]
name = "api.shop.example"
policy = "failover"
order = ["seoul"]
role = "api"
types = "A"

[[dns.overrides]]
countries = ["KR", "jp"]
continents = ["AS"]
prefixes = ["198.51.100.0/24", "203.0.113.7"]
order = ["seoul"]
names = ["www.shop.example"]

[gateway]
listen = "0.0.0.0:8080"
tls_listen = "0.0.0.0:8443"
certificate = "door.pem"
key = "door.key"
index = "index.html"
order_as = "www.shop.example"
trusted_proxies = ["127.0.0.0/8"]
cors = ["https://app.example/"]
stop_grace = "3s"

[[gateway.hosts]]
names = ["Shop.example", "192.0.2.1"]
directory = "www"
fragments = true
immutable = "/assets/"
headers = { Strict-Transport-Security = "max-age=63072000" }

[[gateway.origins]]
path = "/fragments/"
url = "http://10.0.0.9:9000"

[sync]
listen = ["datacenter:7400"]
admin = ["127.0.0.1:7480"]
ca = "authorities.pem"
probe = { interval = "1s", timeout = "2s", fall = 5, rise = 2, burst_gap = "100ms" }

[geo]
ranges = ["geoip", "geoip6"]
"#;

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse("daemun.toml", text)
}

/// All that is said about `WHOLE` with `from` replaced by `to`.
fn problems(from: &str, to: &str) -> String {
    assert_eq!(WHOLE.matches(from).count(), 1, "`{from}` stands once");
    parse(&WHOLE.replace(from, to)).expect_err("a problem").to_string()
}

#[test]
fn everything_is_read() {
    let config = parse(WHOLE).unwrap();
    assert_eq!(config.fleet.name, "shop");
    assert_eq!(config.fleet.datacenter("frankfurt"), Some(1));
    let [door, other, api] = &config.fleet.servers[..] else { panic!("three servers") };
    assert_eq!(door.addresses.len(), 2, "the datacenter's");
    assert_eq!(door.check, Check::Http(HttpCheck::get(Url::parse("https://seoul.shop.example/").unwrap())));
    assert_eq!((other.weight, &other.check), (50, &Check::Tcp { port: 443 }));
    assert_eq!(api.addresses, ["192.0.2.9".parse::<IpAddr>().unwrap()], "from the URL");
    let health = HttpCheck::get(Url::parse("http://192.0.2.9:8000/health").unwrap());
    assert_eq!(api.check, Check::Http(HttpCheck { status: 204..=204, ..health }));
    assert_eq!(config.dns.listen[0].sockets(&config.fleet.datacenters[0]).len(), 2);
    assert_eq!(config.dns.default_order, [1, 0], "completed");
    assert_eq!(config.dns.zones[0].name, "shop.example");
    let [www, second] = &config.dns.names[..] else { panic!("two names") };
    assert_eq!(
        (www.name.as_str(), www.ttl_seconds, &www.types[..]),
        ("www.shop.example", 60, &[AddressType::A][..])
    );
    assert_eq!((www.ttl_changing_seconds, www.answers, second.ttl_changing_seconds), (7, 2, 5));
    let records: Vec<_> = www.records.iter().map(|r| (r.record_type.as_str(), &r.by_datacenter)).collect();
    let alike = vec!["1 . alpn=h2".to_owned()];
    assert!(records.contains(&("HTTPS", &vec![alike.clone(), alike])));
    let apart = vec![vec!["0 1 2 a".to_owned()], vec!["0 1 2 b".to_owned(), "0 1 2 c".to_owned()]];
    assert!(records.contains(&("SRV", &apart)));
    assert_eq!(config.dns.tls_listen.len(), 1);
    assert!(config.dns.certificate.as_ref().is_some_and(|files| files.key == "dns.key"));
    assert_eq!(config.dns.rate_limit.slip, 3);
    assert_eq!((config.dns.amplification_max, &config.dns.chaos[..]), (9, &[Chaos::Id][..]));
    assert_eq!(config.dns.subnet_from.as_ref().map(Vec::len), Some(1));
    assert_eq!(www.policy, Policy::Nearest { band_km: 500, weights: vec![2, 1] });
    assert_eq!((&www.overrides[..], &second.overrides[..]), (&[0][..], &[][..]));
    assert_eq!(second.policy, Policy::Failover { order: vec![0, 1] });
    let gateway = &config.gateway;
    assert_eq!(gateway.order_as.as_deref(), Some("www.shop.example"));
    assert_eq!(
        (gateway.cors[0].as_str(), gateway.stop_grace),
        ("https://app.example", Duration::from_secs(3))
    );
    let [for_all, shop] = &gateway.hosts[..] else { panic!("two hosts") };
    assert_eq!((for_all.names.len(), for_all.index.as_deref()), (0, Some("index.html")));
    assert_eq!(shop.names, ["shop.example", "192.0.2.1"]);
    assert_eq!((shop.marker.as_str(), shop.fragments), ("</html>", true));
    assert_eq!(shop.headers, [("strict-transport-security".to_owned(), "max-age=63072000".to_owned())]);
    assert_eq!(gateway.origins[0].path, "/fragments/");
    assert_eq!(config.sync.probe.fall, 5);
    let tls = config.sync.tls.as_ref().expect("https");
    assert_eq!((tls.ca.as_str(), tls.certificate.as_str()), ("authorities.pem", "keys/agent.pem"));
    assert_eq!(config.geo, GeoSource::Ranges(vec!["geoip".into(), "geoip6".into()]));
    assert_eq!(config.digest.len(), 32);
    assert_ne!(config.digest, parse(&format!("{WHOLE}\n")).unwrap().digest);
}

#[test]
fn silence_means_defaults() {
    let text = "version = 1\n[fleet]\nname = \"one\"\n[[datacenters]]\nname = \"here\"\nlatitude = 0\nlongitude = 0\naddresses = \"192.0.2.1\"\nagent = \"https://192.0.2.1:7400\"\n";
    let config = parse(text).unwrap();
    assert_eq!(
        config.sync.admin,
        [Listen { host: ListenHost::Address("127.0.0.1".parse().unwrap()), port: 7480 }]
    );
    assert_eq!(
        config.sync.listen[0].sockets(&config.fleet.datacenters[0]),
        ["192.0.2.1:7400".parse().unwrap()]
    );
    assert_eq!(
        (config.sync.probe.fall, config.sync.probe.fall_alone),
        (8, 14),
        "who decides alone must be surer"
    );
    assert_eq!(config.sync.tls.map(|tls| tls.key), Some("keys/agent.key".to_owned()));
    assert_eq!(config.geo, GeoSource::Builtin);
    assert!(config.dns.names.is_empty() && config.gateway.hosts[0].index.is_none());
}

#[test]
fn agents_speak_tls_unless_the_operator_vouches() {
    let plain = WHOLE.replace("https://10.0.", "http://10.0.");
    let said = parse(&plain).unwrap_err();
    assert_eq!(
        said.0[0].to_string(),
        "daemun.toml:12:9: datacenters[0].agent: agents speak TLS: write https:// and make keys with `daemun keys \
         init`, or say `plain_agents = true` under [sync]"
    );
    assert_eq!(said.0.len(), 2, "one for each agent: {said}");
    let vouched = plain.replace("ca = \"authorities.pem\"", "plain_agents = true");
    assert_eq!(parse(&vouched).unwrap().sync.tls, None);
    assert!(parse(&vouched.replace("plain_agents = true", "plain_agents = false")).is_err());
    let loopback = plain.replace("10.0.1.1:7400", "127.0.1.1:7400").replace("10.0.2.1:7400", "[::1]:7400");
    assert_eq!(parse(&loopback).unwrap().sync.tls, None);
    parse(&plain.replace("10.0.1.1:7400", "localhost:7400")).expect_err("a name may lead anywhere");
}

#[test]
fn unknown_keys_name_the_nearest() {
    assert_eq!(
        problems("latitude = 50.11", "lattitude = 50.11"),
        "daemun.toml:14:1: datacenters[1].latitude: missing: expected degrees north from -90 to 90\n\
         daemun.toml:16:1: unknown key `datacenters[1].lattitude`: did you mean `latitude`?"
    );
    assert!(
        problems("weight = 50", "colour = 50")
            .contains("unknown key `servers[1].colour`: the keys here are name, role")
    );
}

#[test]
fn every_problem_at_once() {
    let text = WHOLE
        .replace("37.57", "137.57")
        .replace("datacenter = \"frankfurt\"", "datacenter = \"frankfrut\"")
        .replace("ttl = 60", "ttl = -1")
        .replace("interval = \"1s\"", "interval = 1");
    let said = parse(&text).unwrap_err();
    let places: Vec<_> = said.0.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(8, 12), (30, 14), (64, 7), (111, 22)], "{said}");
    assert!(said.0[0].message.contains("expected degrees north from -90 to 90, found the number 137.57"));
    assert!(said.0[1].message.contains("did you mean `frankfurt`?"));
}

/// Field by field: what is put in the place of what, and a part of what must be said.
const WRONG: &[(&str, &str, &str)] = &[
    ("version = 1\n", "", "version: missing"),
    ("version = 1\n", "version = 2\n", "from 1 to 1, found the integer 2"),
    ("[fleet]\nname = \"shop\"", "", "fleet.name: missing"),
    ("name = \"shop\"", "name = \"Shop!\"", "lower-case letters"),
    ("name = \"frankfurt\"\nlat", "name = \"seoul\"\nlat", "datacenter `seoul` is already given at line 7"),
    ("name = \"door-frankfurt\"", "name = \"door-seoul\"", "server `door-seoul` is already given at line 22"),
    ("longitude = 126.98", "longitude = \"east\"", "expected degrees east from -180 to 180, found \"east\""),
    ("addresses = [\"192.0.2.2\"]", "addresses = []", "datacenters[1].addresses: expected at least one"),
    (
        "addresses = [\"192.0.2.2\"]",
        "addresses = [\"0.0.0.0\"]",
        "datacenters[1].addresses[0]: expected an IP address of a host",
    ),
    ("addresses = [\"192.0.2.2\"]", "addresses = [\"192.0.2.256\"]", "found \"192.0.2.256\""),
    ("capacity_rps = 1000", "capacity_rps = 0", "requests per second from 1"),
    (
        "agent = \"https://10.0.2.1:7400\"",
        "agent = \"https://10.0.1.1:7400\"",
        "agent `https://10.0.1.1:7400/` is already given",
    ),
    ("agent = \"https://10.0.2.1:7400\"", "agent = \"ftp://10.0.2.1\"", "expected an http or https URL"),
    (
        "agent = \"https://10.0.2.1:7400\"",
        "agent = \"http://10.0.2.1:7400\"",
        "daemun.toml:19:9: datacenters[1].agent: `http` here, but not in `datacenters[0].agent`",
    ),
    ("ca = \"authorities.pem\"", "ca = \"\"", "sync.ca: expected the path of a PEM file"),
    ("ca = \"authorities.pem\"", "certificate = 1", "sync.certificate: expected the path of a PEM file"),
    ("ca = \"authorities.pem\"", "key = []", "sync.key: expected the path of a PEM file"),
    ("ca = \"authorities.pem\"", "plain_agents = 1", "sync.plain_agents: expected true or false"),
    ("role = \"api\"\ndatacenter", "role = 3\ndatacenter", "servers[2].role: expected a name"),
    ("weight = 50", "weight = 1.5", "expected a weight from 0 to 1000000, found the number 1.5"),
    ("check = { tcp = 443 }", "", "servers[1].check: missing"),
    ("check = { tcp = 443 }", "check = { tcp = 443, http = \"/\" }", "exactly one of"),
    ("check = { tcp = 443 }", "check = { tcp = 70000 }", "a port from 1 to 65535"),
    ("status = 204", "status = [300, 200]", "ends of a range"),
    ("\"datacenter:53\"", "\"datacenter\"", "dns.listen[0]: expected an address and a port"),
    ("\"[::1]:5353\"", "\"datacenter:53\"", "listener `datacenter:53` is already given"),
    (
        "default_order = [\"frankfurt\"]",
        "default_order = [\"frankfurt\", \"frankfurt\"]",
        "`frankfurt` stands here twice",
    ),
    ("file = \"shop.zone\"", "", "dns.zones[0].file: missing"),
    ("certificate = \"dns.pem\"", "", "dns.certificate: missing: expected the path of a PEM file"),
    ("key = \"dns.key\"", "", "dns.key: missing: expected the path of a PEM file"),
    ("proxies = \"10.0.0.9\"", "proxies = \"proxy\"", "dns.proxies: expected an address prefix"),
    ("subnet_from = [\"8.8.8.0/24\"]", "subnet_from = []", "dns.subnet_from: expected at least one"),
    ("cookie_secrets = \"cookies\"", "cookie_secrets = 7", "dns.cookie_secrets: expected the path"),
    (
        "answers_per_second = 50",
        "answers_per_second = -1",
        "rate_limit.answers_per_second: expected answers from 0",
    ),
    ("slip = 3", "slip = 30", "dns.rate_limit.slip: expected answers from 0 to 10"),
    (
        "exempt = \"10.0.0.0/8\"",
        "exempt = \"10.0.0.1/8\"",
        "dns.rate_limit.exempt: expected an address prefix",
    ),
    ("amplification_max = 9", "amplification_max = 1", "dns.amplification_max: expected times from 2"),
    ("chaos = [\"id\"]", "chaos = [\"ids\"]", "dns.chaos[0]: expected one of \"id\", \"version\""),
    ("ttl_changing = 7", "ttl_changing = 70", "dns.names[0].ttl_changing: expected at most the `ttl`, 60"),
    ("answers = 2", "answers = 0", "dns.names[0].answers: expected datacenters from 1 to 8"),
    (
        "types = [\"A\"]",
        "types = [\"A\"]\nrecords.A = \"x\"",
        "records.A: addresses are those of the servers",
    ),
    (
        "types = [\"A\"]",
        "types = [\"A\"]\nrecords.CNAME = \"x\"",
        "records.CNAME: a CNAME must be the only record",
    ),
    ("seoul = \"0 1 2 a\", ", "", "records.srv: has no data for datacenter `seoul`"),
    ("seoul = \"0 1 2 a\"", "soul = \"0 1 2 a\"", "unknown datacenter `soul`: did you mean `seoul`?"),
    ("records.HTTPS = \"1 . alpn=h2\"", "records.HTTPS = 1", "records.HTTPS: expected record data"),
    ("WWW.shop.example", "WWW.*.shop.example", "dns.names[0].name: expected a domain name"),
    ("name = \"shop.example.\"", "name = \"shop..example\"", "expected a domain name"),
    (
        "name = \"shop.example.\"",
        "name = \"store.example\"",
        "`www.shop.example` is in none of the zones (store.example)",
    ),
    (
        "policy = \"nearest\"",
        "policy = \"closest\"",
        "one of \"nearest\", \"weighted\", \"failover\", found \"closest\"",
    ),
    ("band_km = 500\n", "", "weights share users inside a `band_km`"),
    ("weights = { seoul = 2, frankfurt = 1 }", "weights = { seoul = 0 }", "all weights are 0"),
    (
        "weights = { seoul = 2, frankfurt = 1 }",
        "weights = { busan = 1 }",
        "unknown datacenter `busan`: the datacenters are seoul, frankfurt",
    ),
    ("order = [\"seoul\"]\nrole", "role", "dns.names[1].order: missing"),
    ("policy = \"nearest\"", "policy = \"weighted\"", "dns.names[0].band_km: goes with policy \"nearest\""),
    ("policy = \"failover\"", "policy = \"nearest\"", "dns.names[1].order: goes with policy \"failover\""),
    (
        "types = \"A\"",
        "types = \"AAAA\"",
        "AAAA is asked for, but no `api` server of datacenter `seoul` has an IPv6 address",
    ),
    ("types = \"A\"", "types = \"MX\"", "one of \"A\", \"AAAA\""),
    ("types = \"A\"", "types = []", "dns.names[1].types: expected at least one"),
    ("role = \"api\"\ntypes", "role = \"apis\"\ntypes", "no server has the role `apis`"),
    (
        "name = \"api.shop.example\"",
        "name = \"www.shop.example\"",
        "steered name `www.shop.example` is already given",
    ),
    ("\"jp\"", "\"KR\"", "an override for `country KR` is already given"),
    ("\"203.0.113.7\"", "\"198.51.100.0/24\"", "an override for `prefix 198.51.100.0/24` is already given"),
    ("\"203.0.113.7\"", "\"203.0.113.7/24\"", "no bits set behind the slash"),
    ("\"203.0.113.7\"", "\"203.0.113.7/33\"", "expected an address prefix"),
    ("continents = [\"AS\"]", "continents = [\"Asia\"]", "one of AF, AN, AS"),
    (
        "names = [\"www.shop.example\"]",
        "names = [\"ww.shop.example\"]",
        "`ww.shop.example` is not a steered name",
    ),
    (
        "order_as = \"www.shop.example\"",
        "order_as = \"no.shop.example\"",
        "`no.shop.example` is not a steered name",
    ),
    ("listen = \"0.0.0.0:8080\"", "listen = \"0.0.0.0:0\"", "gateway.listen: expected an address and a port"),
    ("key = \"door.key\"", "", "gateway.key: missing: expected the path of a PEM file"),
    ("\"https://app.example/\"", "\"https://app.example/a\"", "gateway.cors[0]: expected an origin"),
    ("\"3s\"", "\"3m\"", "gateway.stop_grace: expected a duration"),
    ("\"192.0.2.1\"]\ndirectory", "\"shop.example\"]\ndirectory", "host `shop.example` is already given"),
    ("\"/assets/\"", "\"assets\"", "hosts[0].immutable: expected the beginning of a path"),
    ("Strict-Transport-Security", "ETag", "hosts[0].headers: this header is the door's own"),
    ("Strict-Transport-Security", "\"a b\"", "hosts[0].headers: expected the name of a header"),
    ("\"max-age=63072000\"", "\"a\\nb\"", "headers.Strict-Transport-Security: expected a text"),
    (
        "http://10.0.0.9:9000",
        "http://10.0.0.9/a",
        "origins[0].url: expected an http or https URL without a path",
    ),
    ("path = \"/fragments/\"\n", "", "gateway.origins[0].path: missing"),
    ("interval = \"1s\"", "interval = \"1ms\"", "a duration from \"50ms\" to \"10m\""),
    ("rise = 2", "rise = 0", "successful probes from 1 to 100"),
    ("[geo]", "[goe]", "unknown key `goe`: did you mean `geo`?"),
    ("[fleet]", "[[fleet]]", "fleet: expected a table"),
    ("[[dns.zones]]", "[dns.zones]", "expected `[[zones]]` tables, found a table"),
    ("[gateway]", "[gateway", "not TOML"),
    ("addresses = [\"192.0.2.22\"]", "addresses = []", "servers[1].addresses: expected at least one"),
    ("\"datacenter:53\", \"[::1]:5353\"", "", "dns.listen: expected at least one"),
    ("order = [\"seoul\"]\nrole", "order = []\nrole", "dns.names[1].order: expected at least one"),
    ("weights = { seoul = 2, frankfurt = 1 }", "weights = {}", "all weights are 0"),
];

/// Checks of `door-frankfurt`, and a part of what must be said of each.
const WRONG_CHECKS: &[(&str, &str)] = &[
    ("{}", "servers[1].check: expected exactly one of `http`, `tcp`, `dns`, `grpc`, `exec` and `none`"),
    ("{ dns = \"a.example\", grpc = 50051 }", "expected exactly one of `http`"),
    ("{ tcp = 443, none = true }", "expected exactly one of `http`"),
    ("{ tcp = 443, status = 200 }", "check.status: goes with `http`"),
    ("{ tcp = 443, body = \"ok\" }", "check.body: goes with `http`"),
    ("{ grpc = 443, header = \"x\" }", "check.header: goes with `http`"),
    ("{ tcp = 443, tls_name = \"a.example\" }", "check.tls_name: goes with `http` or `grpc`"),
    ("{ tcp = 443, type = \"A\" }", "check.type: goes with `dns`"),
    ("{ grpc = 443, port = 53 }", "check.port: goes with `dns`"),
    ("{ exec = \"/bin/true\", service = \"a\" }", "check.service: goes with `grpc`"),
    ("{ http = \"/health\" }", "a path such as \"/health\" below the server's `url`"),
    ("{ http = \"https://a:b@a.example/\" }", "expected a URL without a password"),
    ("{ http = \"http://a.example/\", tls_name = \"b.example\" }", "tls_name: goes with an https URL"),
    ("{ http = \"https://a.example/\", tls_name = \"*.example\" }", "tls_name: expected a domain name"),
    ("{ http = \"http://a.example/\", body = \"\" }", "check.body: expected a text of 1 to 4096 bytes"),
    ("{ http = \"http://a.example/\", header = \": x\" }", "check.header: expected a header"),
    ("{ http = \"http://a.example/\", header = \"a b: x\" }", "check.header: expected a header"),
    ("{ http = \"http://a.example/\", header = \"a:\" }", "check.header: expected a header"),
    ("{ dns = \"a..example\" }", "check.dns: expected a domain name"),
    ("{ dns = \"a.example\", type = \"ANY\" }", "check.type: expected one of \"A\", \"AAAA\""),
    ("{ dns = \"a.example\", port = 0 }", "check.port: expected a port from 1 to 65535"),
    ("{ grpc = \"50051\" }", "check.grpc: expected a port from 1 to 65535"),
    ("{ grpc = 50051, service = 7 }", "check.service: expected the name of a gRPC service"),
    ("{ exec = [] }", "check.exec: expected at least one"),
    ("{ exec = \"check.sh\" }", "check.exec: expected the absolute path of a program"),
    ("{ exec = [\"/bin/sh\", 7] }", "check.exec[1]: expected a program or an argument"),
    ("{ none = false }", "check.none: expected true, found false"),
    ("{ tpc = 443 }", "unknown key `servers[1].check.tpc`: did you mean `tcp`?"),
];

#[test]
fn a_check_says_what_it_wants() {
    for (check, part) in WRONG_CHECKS {
        let said = problems("check = { tcp = 443 }", &format!("check = {check}"));
        assert!(said.contains(part), "`{check}`: expected to be told `{part}`, was told\n{said}");
    }
}

#[test]
fn every_kind_of_check_is_read() {
    let read = |check: &str| {
        let text = WHOLE.replace("check = { tcp = 443 }", &format!("check = {check}"));
        parse(&text).unwrap_or_else(|said| panic!("{check}: {said}")).fleet.servers[1].check.clone()
    };
    assert_eq!(read("{ none = true }"), Check::None);
    let Check::Http(http) = read(
        r#"{ http = "https://192.0.2.22/ok", body = "fine", header = "X-Cell:  7 ", tls_name = "A.example." }"#,
    ) else {
        panic!("HTTP")
    };
    assert_eq!(
        (http.status, http.body.as_deref(), http.tls_name.as_deref()),
        (200..=399, Some("fine"), Some("a.example"))
    );
    assert_eq!(http.header, Some(HeaderCheck { name: "x-cell".into(), value: Some("7".into()) }));
    let Check::Http(http) = read(r#"{ http = "http://192.0.2.22/", header = "Server" }"#) else {
        panic!("HTTP")
    };
    assert_eq!(http.header, Some(HeaderCheck { name: "server".into(), value: None }));
    let dns = DnsCheck { name: "www.shop.example".into(), record_type: "A", port: 53 };
    assert_eq!(read(r#"{ dns = "WWW.shop.example." }"#), Check::Dns(dns));
    let dns = DnsCheck { name: ".".into(), record_type: "NS", port: 5300 };
    assert_eq!(read(r#"{ dns = ".", type = "NS", port = 5300 }"#), Check::Dns(dns));
    let grpc = GrpcCheck { port: 50051, service: String::new(), tls_name: None };
    assert_eq!(read("{ grpc = 50051 }"), Check::Grpc(grpc.clone()));
    let named = GrpcCheck { service: "shop.Cart".into(), tls_name: Some("a.example".into()), ..grpc };
    let text = r#"{ grpc = 50051, service = "shop.Cart", tls_name = "a.example" }"#;
    assert_eq!(read(text), Check::Grpc(named));
    let exec = Check::Exec { program: "/bin/check".into(), arguments: vec!["-v".into(), String::new()] };
    assert_eq!(read(r#"{ exec = ["/bin/check", "-v", ""] }"#), exec);
}

#[test]
fn every_field_says_what_it_wants() {
    for (from, to, part) in WRONG {
        let said = problems(from, to);
        assert!(said.contains(part), "`{from}` → `{to}`: expected to be told `{part}`, was told\n{said}");
        assert!(said.lines().all(|line| line.starts_with("daemun.toml:")), "{said}");
    }
}

#[test]
fn two_families_when_all_have_them() {
    let both = WHOLE.replace("addresses = [\"192.0.2.22\"]", "addresses = [\"192.0.2.22\", \"2001:db8::2\"]");
    let silent = |line: &&str| !line.starts_with("types = [\"A\"]") && !line.starts_with("records.");
    let both = both.lines().filter(silent).collect::<Vec<_>>().join("\n");
    assert_eq!(parse(&both).unwrap().dns.names[0].types, [AddressType::A, AddressType::Aaaa]);
}

#[test]
fn no_text_makes_it_panic() {
    for text in [
        "",
        "\u{0}",
        "version = 1",
        "a = [[[[",
        "[[datacenters]]\n[[datacenters]]",
        "datacenters = 3",
        "datacenters = [1, 2]",
        "🦀 = 🦀",
        "version = 99999999999999999999",
    ] {
        parse(text).expect_err(text);
    }
    // Every line taken away, and the text cut at every byte.
    let lines: Vec<&str> = WHOLE.lines().collect();
    for gone in 0..lines.len() {
        let rest: Vec<&str> =
            lines.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, line)| *line).collect();
        let _ = parse(&rest.join("\n"));
    }
    for end in (0..WHOLE.len()).filter(|end| WHOLE.is_char_boundary(*end)) {
        let _ = parse(&WHOLE[..end]);
    }
}
