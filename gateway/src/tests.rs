//! Requests in, responses out, through the same `respond` that the sockets call.

use std::time::Duration;

use bytes::Bytes;
use daemun_fleet::view::{DatacenterView, State as DatacenterState};
use daemun_fleet::{Config, FleetView, Places, Steering};
use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use serde_json::Value;

use super::answer::Answer;
use super::body::Body;
use super::message::Asked;
use super::page::KeptPage;
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
url = "http://seoul.shop.example/"
[[servers]]
name = "door-frankfurt"
role = "frontdoor"
datacenter = "frankfurt"
url = "http://frankfurt.shop.example/"
[[servers]]
name = "api-frankfurt"
role = "api"
datacenter = "frankfurt"
check = { none = true }
[gateway]
trusted_proxies = ["127.0.0.0/8"]
"#;

pub(crate) fn placer(states: &[(&str, DatacenterState)]) -> Arc<Placer> {
    placer_of(CONFIG, states)
}

fn placer_of(config: &str, states: &[(&str, DatacenterState)]) -> Arc<Placer> {
    placer_with(config, 0, states)
}

fn placer_at(generation: u64, states: &[(&str, DatacenterState)]) -> Arc<Placer> {
    placer_with(CONFIG, generation, states)
}

fn placer_with(config: &str, generation: u64, states: &[(&str, DatacenterState)]) -> Arc<Placer> {
    let config = Arc::new(Config::parse("daemun.toml", config).expect("the config is right"));
    let steering = Steering::compile(Arc::clone(&config), Arc::new(Places::builtin()));
    let mut view = FleetView::unobserved(&config);
    view.generation = generation;
    for &(name, state) in states {
        let why = "for the test".to_owned();
        view.datacenters.insert(name.to_owned(), DatacenterView::new(state, why));
    }
    Arc::new(Placer::new(Arc::new(steering), Arc::new(view)))
}

pub(crate) const CLOCK: Clock = Clock { monotonic: || Duration::ZERO, unix_ms: || 1_800_000_000_000 };

pub(crate) fn settings(clock: Clock, kept: BTreeMap<String, LastGood>) -> Settings {
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a fresh registry");
    Settings { me: "seoul".to_owned(), metrics, clock, kept }
}

/// One host for all names.
fn files(page: Option<&PageFile>) -> Arc<DoorFiles> {
    files_with(page, &[])
}

pub(crate) fn files_with(page: Option<&PageFile>, paths: &[(&str, &'static str)]) -> Arc<DoorFiles> {
    let config = Config::parse("daemun.toml", CONFIG).expect("the config is right");
    let host = config.gateway.hosts[0].clone();
    let mut files = Files::default();
    for (path, body) in paths {
        let asset =
            files::asset(path, Bytes::from_static(body.as_bytes()), 1_700_000_000, &[], Effort::Often);
        files.insert((*path).to_owned(), Arc::new(asset));
    }
    let host = HostFiles { host, page: page.cloned(), files: Arc::new(files) };
    Arc::new(DoorFiles { hosts: vec![host], is_meant: false })
}

fn door(states: &[(&str, DatacenterState)], page: Option<&PageFile>) -> Arc<Door> {
    Door::new(settings(CLOCK, BTreeMap::new()), placer(states), files(page))
}

fn answer<B>(door: &Arc<Door>, request: &Request<B>, peer: &str) -> Answer {
    door.respond(&Asked::of(request), peer.parse().unwrap())
}

fn now(answer: Answer) -> Response<Body> {
    match answer {
        Answer::Now(reply) => reply.into_response(false),
        Answer::Later(_) => panic!("it waits"),
    }
}

async fn get(door: &Arc<Door>, uri: &str, headers: &[(&str, &str)]) -> (u16, Response<()>, Bytes) {
    let mut request = Request::builder().uri(uri).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = now(answer(door, &request.body(()).unwrap(), "127.0.0.1"));
    let (parts, body) = response.into_parts();
    (parts.status.as_u16(), Response::from_parts(parts, ()), body.collect().await.unwrap().to_bytes())
}

async fn list(door: &Arc<Door>, uri: &str, client: &str) -> Value {
    let (status, _, body) = get(door, uri, &[("x-forwarded-for", client)]).await;
    assert_eq!(status, 200);
    serde_json::from_slice(&body).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list["servers"].as_array().unwrap().iter().map(|server| server["name"].as_str().unwrap()).collect()
}

const KOREA: &str = "1.208.0.1";
const GERMANY: &str = "91.0.0.1";

#[tokio::test]
async fn the_list_is_in_the_clients_order() {
    let door = door(&[], None);
    let korea = list(&door, "/v1/servers", KOREA).await;
    assert_eq!(names(&korea), ["door-seoul", "door-frankfurt", "api-frankfurt"]);
    assert_eq!(korea["you"]["datacenter"], "seoul");
    assert_eq!(korea["door"]["datacenter"], "seoul");
    assert_eq!(korea["issued"], "2027-01-15T08:00:00Z");
    let germany = list(&door, "/v1/servers", GERMANY).await;
    assert_eq!(names(&germany), ["door-frankfurt", "api-frankfurt", "door-seoul"]);
    assert_eq!(germany["doors"][0], "http://frankfurt.shop.example/");
    assert_eq!(germany["servers"][1]["url"], "http://192.0.2.2");
}

#[tokio::test]
async fn the_dead_are_last_and_roles_never_empty() {
    let door = door(&[("frankfurt", DatacenterState::Down)], None);
    let germany = list(&door, "/v1/servers", GERMANY).await;
    assert_eq!(names(&germany), ["door-seoul", "door-frankfurt", "api-frankfurt"]);
    assert_eq!(germany["servers"][1]["health"], "down");
    assert_eq!(germany["doors"], serde_json::json!(["http://seoul.shop.example/"]));
    let api = list(&door, "/v1/servers?role=api", GERMANY).await;
    assert_eq!(names(&api), ["api-frankfurt"], "down, but there");
    assert_eq!(get(&door, "/v1/servers?role=nonsense", &[]).await.0, 404);
}

#[tokio::test]
async fn when_all_look_down_the_doors_are_still_named() {
    let door = door(&[("frankfurt", DatacenterState::Down), ("seoul", DatacenterState::Down)], None);
    let germany = list(&door, "/v1/servers", GERMANY).await;
    assert_eq!(germany["doors"].as_array().unwrap().len(), 2);
    assert_eq!(germany["you"]["datacenter"], "frankfurt");
}

#[tokio::test]
async fn an_unchanged_list_is_not_sent_again() {
    let door = door(&[], None);
    let (_, response, _) = get(&door, "/v1/servers", &[("x-forwarded-for", KOREA)]).await;
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    let again = [("x-forwarded-for", KOREA), ("if-none-match", &tag)];
    let (status, _, body) = get(&door, "/v1/servers", &again).await;
    assert_eq!((status, body.len()), (304, 0));
    assert_eq!(
        get(&door, "/v1/servers", &[("x-forwarded-for", GERMANY), ("if-none-match", &tag)]).await.0,
        200
    );
    door.set_state(placer(&[("seoul", DatacenterState::Down)]), files(None));
    assert_eq!(get(&door, "/v1/servers", &again).await.0, 200);
}

#[tokio::test]
async fn the_page_is_never_blank() {
    let good: PageFile = Ok(Bytes::from_static(b"<h1>Shop</h1></html>"));
    let source = |response: &Response<()>| response.headers()["x-door-source"].to_str().unwrap().to_owned();
    let door = door(&[], Some(&good));
    let (status, response, body) = get(&door, "/", &[]).await;
    assert_eq!((status, source(&response).as_str(), &body[..]), (200, "live", &b"<h1>Shop</h1></html>"[..]));
    for bad in [
        Err("no such file".to_owned()),
        Ok(Bytes::new()),
        Ok(Bytes::from_static(b"\n ")),
        Ok(Bytes::from_static(b"ELF")),
        Ok(Bytes::from_static(b"<h1>Sh")),
    ] {
        door.set_state(placer(&[]), files(Some(&bad)));
        let (status, response, body) = get(&door, "/", &[]).await;
        assert_eq!(
            (status, source(&response).as_str(), &body[..]),
            (200, "last-good", &b"<h1>Shop</h1></html>"[..])
        );
    }
}

#[tokio::test]
async fn a_page_is_kept_for_the_next_process() {
    let good: PageFile = Ok(Bytes::from_static(b"<h1>Shop</h1></html>"));
    let gone: PageFile = Err("no such file".to_owned());
    let last = door(&[], Some(&good)).last_good();
    let text = serde_json::to_string(&KeptPage::of(&last[""].asset)).unwrap();
    let kept = serde_json::from_str::<KeptPage>(&text).unwrap().page().unwrap();
    let kept = BTreeMap::from([(String::new(), kept)]);
    let later = Clock { unix_ms: || 1_900_000_000_000, ..CLOCK };
    let next = Door::new(settings(later, kept), placer(&[]), files(Some(&gone)));
    let (status, response, body) = get(&next, "/", &[]).await;
    assert_eq!((status, &body[..]), (200, &b"<h1>Shop</h1></html>"[..]));
    assert_eq!(response.headers()["x-door-source"], "kept");
    assert_eq!(response.headers()["last-modified"], "Fri, 15 Jan 2027 08:00:00 GMT");
    next.set_state(placer(&[]), files(Some(&good)));
    let (_, response, _) = get(&next, "/", &[]).await;
    assert_eq!(response.headers()["x-door-source"], "live");
    assert_eq!(response.headers()["last-modified"], "Fri, 15 Jan 2027 08:00:00 GMT", "it is the same");
    for bad in [text.replace("PGgx", "PGgy"), text.replace("PGgx", "!!!!")] {
        assert_ne!(bad, text);
        assert!(serde_json::from_str::<KeptPage>(&bad).unwrap().page().is_err());
    }
}

#[tokio::test]
async fn the_page_compiled_in_shows_the_fleet() {
    let gone: PageFile = Err("no such file".to_owned());
    let door = door(&[("seoul", DatacenterState::Down)], Some(&gone));
    let (status, response, body) = get(&door, "/", &[]).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!((status, response.headers()["x-door-source"].to_str().unwrap()), (200, "compiled-in"));
    assert!(text.contains("frankfurt") && text.contains("class=\"down\"") && text.ends_with("</html>\n"));
    assert!(!text.contains("for the test"), "reasons are for operators");
}

#[tokio::test]
async fn what_is_not_ours_is_refused_in_words() {
    let door = door(&[], None);
    let (status, _, body) = get(&door, "/nothing", &[]).await;
    assert_eq!((status, body.is_empty()), (404, false));
    let peer = "127.0.0.1";
    let post = Request::builder().method("POST").uri("/").header("host", "x").body(()).unwrap();
    assert_eq!(now(answer(&door, &post, peer)).status(), 405);
    let no_host = Request::builder().uri("/").body(()).unwrap();
    assert_eq!(now(answer(&door, &no_host, peer)).status(), 400);
    for bad in ["a b", "a, b", "user@a", "a/b"] {
        let request = Request::builder().uri("/").header("host", bad).body(()).unwrap();
        assert_eq!(now(answer(&door, &request, peer)).status(), 400, "{bad}");
    }
    let port = Request::builder().uri("/").header("host", "[2001:db8::1]:8080").body(()).unwrap();
    assert_eq!(now(answer(&door, &port, peer)).status(), 200);
    let two = Request::builder().uri("/").header("host", "a").header("host", "b").body(()).unwrap();
    assert_eq!(now(answer(&door, &two, peer)).status(), 400);
}

#[tokio::test]
async fn a_shrunken_page_waits_or_is_meant() {
    fn clock(unix_ms: fn() -> u64) -> Clock {
        Clock { unix_ms, ..CLOCK }
    }
    static NOW: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1_800_000_000_000);
    let large: PageFile = Ok(format!("<h1>{}</h1></html>", "Shop ".repeat(100)).into());
    let small: PageFile = Ok(Bytes::from_static(b"<h1>Sold</h1></html>"));
    let source = |door: &Arc<Door>| door.state.load().hosts[0].source;
    let clock = clock(|| NOW.load(Ordering::Relaxed));
    let door = Door::new(settings(clock, BTreeMap::new()), placer(&[]), files(Some(&large)));
    door.set_state(placer(&[]), files(Some(&small)));
    assert_eq!(source(&door), PageSource::LastGood);
    assert!(door.complaints()[0].contains("shrunk from 516 to 20 bytes"), "{:?}", door.complaints());
    NOW.fetch_add(299_999, Ordering::Relaxed);
    door.set_state(placer(&[]), files(Some(&small)));
    assert_eq!(source(&door), PageSource::LastGood);
    NOW.fetch_add(1, Ordering::Relaxed);
    door.set_state(placer(&[]), files(Some(&small)));
    assert_eq!(source(&door), PageSource::Live, "it stays so small");
    assert!(door.complaints().is_empty());
    door.set_state(placer(&[]), files(Some(&large)));
    let meant = DoorFiles { is_meant: true, ..DoorFiles::clone(&files(Some(&small))) };
    door.set_state(placer(&[]), Arc::new(meant));
    assert_eq!(source(&door), PageSource::Live, "an operator says so");
}

#[tokio::test]
async fn files_are_found_by_their_path_alone() {
    let page: PageFile = Ok(Bytes::from_static(b"<p>index</p></html>"));
    let paths = [
        ("/main.3f2a91bc.js", "let shop"),
        ("/docs/index.html", "<p>docs</p>"),
        ("/404.html", "<p>Nothing here.</p>"),
    ];
    let door = Door::new(settings(CLOCK, BTreeMap::new()), placer(&[]), files_with(Some(&page), &paths));
    let (status, response, body) = get(&door, "/main.3f2a91bc.js", &[]).await;
    assert_eq!((status, &body[..]), (200, &b"let shop"[..]));
    let header = |response: &Response<()>, name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header(&response, "content-type"), "text/javascript; charset=utf-8");
    assert!(header(&response, "cache-control").contains("immutable"));
    assert_eq!(header(&response, "last-modified"), "Tue, 14 Nov 2023 22:13:20 GMT");
    assert_eq!(get(&door, "/docs/", &[]).await.2, "<p>docs</p>");
    let (status, response, _) = get(&door, "/docs?a=b", &[]).await;
    assert_eq!((status, header(&response, "location").as_str()), (301, "/docs/?a=b"));
    assert_eq!(get(&door, "/index.html", &[]).await.2, "<p>index</p></html>");
    let (status, response, body) =
        get(&door, "/nothing", &[("if-none-match", "*"), ("range", "bytes=0-1")]).await;
    assert_eq!((status, &body[..]), (404, &b"<p>Nothing here.</p>"[..]));
    assert!(!response.headers().contains_key("etag"));
    for outside in ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "//docs", "/docs//", "/main.3f2a91bc.js/"] {
        let status = get(&door, outside, &[]).await.0;
        assert!(matches!(status, 400 | 404), "{outside}: {status}");
    }
}

#[tokio::test]
async fn hosts_have_their_own_pages() {
    let config = CONFIG.to_owned()
        + "[[gateway.hosts]]\nnames = [\"shop.example\"]\nindex = \"a\"\n\
        headers = { X-Frame-Options = \"DENY\" }\n[[gateway.hosts]]\nnames = [\"blog.example\"]\nindex = \"b\"\n";
    let config = Config::parse("daemun.toml", &config).unwrap();
    let page = |text: &'static str| Some(Ok(Bytes::from_static(text.as_bytes())));
    let hosts = config.gateway.hosts.iter().zip(["<p>shop</p></html>", "<p>blog</p></html>"]);
    let hosts =
        hosts.map(|(host, text)| HostFiles { host: host.clone(), page: page(text), files: Arc::default() });
    let files = Arc::new(DoorFiles { hosts: hosts.collect(), is_meant: false });
    let door = Door::new(settings(CLOCK, BTreeMap::new()), placer(&[]), files);
    let ask = async |host: &str| {
        let request = Request::builder().uri("/").header("host", host).body(()).unwrap();
        let (parts, body) = now(answer(&door, &request, "127.0.0.1")).into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, body)
    };
    let (status, headers, body) = ask("Shop.example:8080").await;
    assert_eq!((status, &body[..]), (200, &b"<p>shop</p></html>"[..]));
    assert_eq!(headers["x-frame-options"], "DENY");
    let (_, headers, body) = ask("blog.example").await;
    assert_eq!((&body[..], headers["x-frame-options"] == "SAMEORIGIN"), (&b"<p>blog</p></html>"[..], true));
    let (status, _, body) = ask("other.example").await;
    assert_eq!((status, &body[..]), (200, &b"<p>shop</p></html>"[..]), "the first one's, not a blank page");
    assert_eq!(door.last_good().keys().collect::<Vec<_>>(), ["blog.example", "shop.example"]);
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    static IS_BROKEN: AtomicBool = AtomicBool::new(false);
    let clock = Clock {
        unix_ms: || {
            assert!(!IS_BROKEN.load(Ordering::Relaxed), "a clock that panics");
            1_800_000_000_000
        },
        ..CLOCK
    };
    let door = Door::new(settings(clock, BTreeMap::new()), placer(&[]), files(None));
    let ask = |path: &'static str| {
        let request = Request::builder().uri(path).header("host", "a").body(()).unwrap();
        let answer = serve::answer_to(&door, &Asked::of(&request), "127.0.0.1".parse().unwrap());
        now(answer).status().as_u16()
    };
    IS_BROKEN.store(true, Ordering::Relaxed);
    assert_eq!((ask("/v1/servers"), ask("/")), (500, 200));
    assert_eq!(door.metrics.panics.get(), 1);
    IS_BROKEN.store(false, Ordering::Relaxed);
    assert_eq!(ask("/v1/servers"), 200);
}

#[tokio::test]
async fn pages_of_ours_may_read_the_list() {
    let door = door(&[], None);
    let allowed = async |origin: &str| {
        let (_, response, _) = get(&door, "/v1/servers", &[("origin", origin)]).await;
        response.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(allowed("http://seoul.shop.example").await.as_deref(), Some("http://seoul.shop.example"));
    assert_eq!(
        allowed("https://seoul.shop.example:8443").await.as_deref(),
        Some("https://seoul.shop.example:8443")
    );
    assert_eq!(allowed("https://evil.example").await, None);
    assert_eq!(allowed("null").await, None);
}

#[tokio::test]
async fn a_key_keeps_its_server() {
    let mut config = CONFIG.to_owned();
    for number in 0..6 {
        config += &format!(
            "[[servers]]\nname = \"up-{number}\"\nrole = \"upload\"\ndatacenter = \"seoul\"\ncheck = {{ none = true }}\n"
        );
    }
    let door = Door::new(settings(CLOCK, BTreeMap::new()), placer_of(&config, &[]), files(None));
    let first = async |door: &Arc<Door>, key: u32| {
        let list = list(door, &format!("/v1/servers?role=upload&key=user-{key}"), KOREA).await;
        list["servers"][0]["name"].as_str().unwrap().to_owned()
    };
    let mut had = Vec::new();
    for key in 0..60 {
        had.push(first(&door, key).await);
    }
    let distinct: HashSet<&String> = had.iter().collect();
    assert_eq!(distinct.len(), 6, "{had:?}");
    let fewer = config.replacen("name = \"up-5\"", "name = \"up-9\"", 1);
    door.set_state(placer_of(&fewer, &[]), files(None));
    for (key, had) in (0..).zip(&had) {
        let now = first(&door, key).await;
        assert!(had == "up-5" || now == *had, "{key}: {had} {now}");
    }
}

#[tokio::test]
async fn who_watches_hears_of_changes_that_matter() {
    let door = door(&[], None);
    let request = Request::builder().uri("/v1/servers/watch").header("host", "a").body(()).unwrap();
    let response = now(answer(&door, &request, KOREA));
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut event = async || {
        let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await.expect("an event")?;
        Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    };
    let first = event().await.unwrap();
    assert!(first.starts_with("retry: 2000\nid: 0\ndata: {\"v\":1,"), "{first}");
    // Another generation, the same servers: nobody need know.
    door.set_state(placer_at(7, &[]), files(None));
    door.set_state(placer_at(8, &[("frankfurt", DatacenterState::Down)]), files(None));
    let second = event().await.unwrap();
    assert!(second.starts_with("id: 8\n") && second.contains("\"down\""), "{second}");
    assert_eq!(door.metrics.watchers.get(), 1);
    door.drain();
    assert_eq!(event().await, None, "the door closes");
    drop(body);
    assert_eq!(door.metrics.watchers.get(), 0);
}

#[tokio::test]
async fn a_long_poll_ends_with_a_change_or_its_time() {
    let door = door(&[], None);
    let tag = get(&door, "/v1/servers", &[]).await.1.headers()["etag"].to_str().unwrap().to_owned();
    let ask = |uri: &str| {
        let request = Request::builder().uri(uri).header("host", "a").header("if-none-match", &tag);
        match answer(&door, &request.body(()).unwrap(), "127.0.0.1") {
            Answer::Later(reply) => reply,
            Answer::Now(reply) => panic!("it does not wait: {}", reply.status),
        }
    };
    assert_eq!(ask("/v1/servers?wait=0").await.status, 304);
    let waiting = ask("/v1/servers?wait=25s");
    door.set_state(placer(&[("frankfurt", DatacenterState::Down)]), files(None));
    assert_eq!(waiting.await.status, 200);
    assert_eq!(get(&door, "/v1/servers?wait=25s", &[]).await.0, 200, "who has none does not wait");
}

#[tokio::test]
async fn most_servers_of_a_role_do_not_vanish_from_the_list_at_once() {
    let door = door(&[], None);
    let without =
        CONFIG.replace("role = \"api\"", "role = \"upload\"").replace("api-frankfurt", "upload-frankfurt");
    let placer = placer_of(&without, &[]);
    door.set_state(Arc::clone(&placer), files(None));
    let api = list(&door, "/v1/servers?role=api", GERMANY).await;
    assert_eq!((names(&api), api["servers"][0]["health"].as_str()), (vec!["api-frankfurt"], Some("unknown")));
    let meant = DoorFiles { is_meant: true, ..DoorFiles::clone(&files(None)) };
    door.set_state(placer, Arc::new(meant));
    assert_eq!(get(&door, "/v1/servers?role=api", &[]).await.0, 404);
}
