//! Requests in, responses out, through the same `respond` that the sockets call.

use std::time::Duration;

use bytes::Bytes;
use daemun_fleet::view::{DatacenterView, State as DatacenterState};
use daemun_fleet::{Config, FleetView, Places, Steering};
use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use serde_json::Value;

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

fn placer(states: &[(&str, DatacenterState)]) -> Arc<Placer> {
    let config = Arc::new(Config::parse("daemun.toml", CONFIG).expect("the config is right"));
    let steering = Steering::compile(Arc::clone(&config), Arc::new(Places::builtin()));
    let mut view = FleetView::unobserved(&config);
    for &(name, state) in states {
        let why = "for the test".to_owned();
        view.datacenters.insert(name.to_owned(), DatacenterView::new(state, why));
    }
    Arc::new(Placer::new(Arc::new(steering), Arc::new(view)))
}

fn door(states: &[(&str, DatacenterState)], file: Option<&PageFile>) -> Door {
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a fresh registry");
    let clock = Clock { monotonic: || Duration::ZERO, unix_ms: || 1_800_000_000_000 };
    Door::new("seoul", placer(states), file, None, metrics, clock)
}

async fn get(door: &Door, uri: &str, headers: &[(&str, &str)]) -> (u16, Response<()>, Bytes) {
    let mut request = Request::builder().uri(uri).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = door.respond(&request.body(()).unwrap(), "127.0.0.1".parse().unwrap());
    let (parts, body) = response.into_parts();
    (parts.status.as_u16(), Response::from_parts(parts, ()), body.collect().await.unwrap().to_bytes())
}

async fn list(door: &Door, uri: &str, client: &str) -> Value {
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
    door.set_state(placer(&[("seoul", DatacenterState::Down)]), None);
    assert_eq!(get(&door, "/v1/servers", &again).await.0, 200);
}

#[tokio::test]
async fn the_page_is_never_blank() {
    let good: PageFile = Ok(Bytes::from_static(b"<h1>Shop</h1>"));
    let source = |response: &Response<()>| response.headers()["x-door-source"].to_str().unwrap().to_owned();
    let door = door(&[], Some(&good));
    let (status, response, body) = get(&door, "/", &[]).await;
    assert_eq!((status, source(&response).as_str(), &body[..]), (200, "live", &b"<h1>Shop</h1>"[..]));
    for bad in [
        Err("no such file".to_owned()),
        Ok(Bytes::new()),
        Ok(Bytes::from_static(b"\n ")),
        Ok(Bytes::from_static(b"ELF")),
    ] {
        door.set_state(placer(&[]), Some(&bad));
        let (status, response, body) = get(&door, "/", &[]).await;
        assert_eq!(
            (status, source(&response).as_str(), &body[..]),
            (200, "last-good", &b"<h1>Shop</h1>"[..])
        );
    }
}

#[tokio::test]
async fn a_page_is_kept_for_the_next_process() {
    let good: PageFile = Ok(Bytes::from_static(b"<h1>Shop</h1>"));
    let gone: PageFile = Err("no such file".to_owned());
    let last = door(&[], Some(&good)).last_good().unwrap();
    let text = serde_json::to_string(&KeptPage::of(&last.asset)).unwrap();
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a fresh registry");
    let clock = Clock { monotonic: || Duration::ZERO, unix_ms: || 1_900_000_000_000 };
    let kept = serde_json::from_str::<KeptPage>(&text).unwrap().page().unwrap();
    let next = Door::new("seoul", placer(&[]), Some(&gone), Some(kept), metrics, clock);
    let (status, response, body) = get(&next, "/", &[]).await;
    assert_eq!((status, &body[..]), (200, &b"<h1>Shop</h1>"[..]));
    assert_eq!(response.headers()["x-door-source"], "kept");
    assert_eq!(response.headers()["last-modified"], "Fri, 15 Jan 2027 08:00:00 GMT");
    next.set_state(placer(&[]), Some(&good));
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
    let peer = "127.0.0.1".parse().unwrap();
    let post = Request::builder().method("POST").uri("/").header("host", "x").body(()).unwrap();
    assert_eq!(door.respond(&post, peer).status(), 405);
    let no_host = Request::builder().uri("/").body(()).unwrap();
    assert_eq!(door.respond(&no_host, peer).status(), 400);
    for bad in ["a b", "a, b", "user@a", "a/b"] {
        let request = Request::builder().uri("/").header("host", bad).body(()).unwrap();
        assert_eq!(door.respond(&request, peer).status(), 400, "{bad}");
    }
    let port = Request::builder().uri("/").header("host", "[2001:db8::1]:8080").body(()).unwrap();
    assert_eq!(door.respond(&port, peer).status(), 200);
    let two = Request::builder().uri("/").header("host", "a").header("host", "b").body(()).unwrap();
    assert_eq!(door.respond(&two, peer).status(), 400);
}
