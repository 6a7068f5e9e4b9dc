//! The description says what is so: the router is asked about every path, method, parameter and header in it and not in it,
//! and every status that is said is given by somebody.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::super::batch::Form;
use super::super::openapi::document;
use super::super::route::route;
use super::super::routes::{Place, ROUTES};
use super::super::write::told;
use super::*;
use crate::store::op::Key;
use crate::store::request::{Durability, Refusal, Reply, Whereabouts};

const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "POST", "OPTIONS"];
const PLACES: [Place; 9] = [
    Place::Key,
    Place::Bucket,
    Place::Watch,
    Place::Batch,
    Place::Conflicts,
    Place::Held,
    Place::HeldDrop,
    Place::Store,
    Place::OpenApi,
];
const QUERY: [&str; 12] = [
    "ttl",
    "durability",
    "wait",
    "prefix",
    "after",
    "limit",
    "values",
    "count",
    "watch",
    "before",
    "nonsense",
    "if_match",
];
const HEADERS: [&str; 3] = ["if-match", "if-none-match", "last-event-id"];

/// Whether the router takes this.
fn takes(path: &str, method: &str, query: Option<&str>, bad_header: Option<&str>) -> Result<bool, String> {
    let mut headers = HeaderMap::new();
    if method == "PATCH" {
        headers.insert("content-type", HeaderValue::from_static("application/merge-patch+json"));
    }
    if path.ends_with("/watch") {
        headers.insert("accept", HeaderValue::from_static("text/event-stream"));
    }
    if let Some(name) = bad_header {
        headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("?"));
    }
    let sample = path.replace("{bucket}", "b").replace("{key}", "k");
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    match route(&method, &sample, query, &headers) {
        Ok((route, _)) => Ok(route.place.path() == path),
        Err(problem) => Err(problem.error),
    }
}

fn names(operation: &Value, place: &str) -> BTreeSet<String> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let of_place = parameters.filter(|parameter| parameter["in"] == place);
    of_place.map(|parameter| parameter["name"].as_str().unwrap().to_lowercase()).collect()
}

/// What the description and the router do not agree on.
fn differences(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: String, is_said: bool, is_so: bool| {
        if is_said != is_so {
            found.push(format!("{what}: said {is_said}, is {is_so}"));
        }
    };
    let paths = document["paths"].as_object().unwrap();
    let known = PLACES.map(Place::path);
    for path in paths.keys().map(String::as_str).chain(known).collect::<BTreeSet<_>>() {
        for method in METHODS {
            let operation = paths.get(path).and_then(|path| path.get(method.to_lowercase()));
            let is_taken = takes(path, method, None, None) == Ok(true);
            differ(format!("{method} {path}"), operation.is_some(), is_taken);
            let Some(operation) = operation.filter(|_| is_taken) else { continue };
            let said = names(operation, "query");
            for name in said.iter().map(String::as_str).chain(QUERY).collect::<BTreeSet<_>>() {
                let told = takes(path, method, Some(name), None);
                let is_known = !told.is_err_and(|error| error.contains("has no parameter"));
                differ(format!("{method} {path}?{name}"), said.contains(name), is_known);
            }
            let said = names(operation, "header");
            for name in said.iter().map(String::as_str).chain(HEADERS).collect::<BTreeSet<_>>() {
                // Whoever looks at it refuses it.
                let is_looked_at = takes(path, method, None, Some(name)).is_err();
                differ(format!("{method} {path}, {name}"), said.contains(name), is_looked_at);
            }
        }
    }
    found
}

type Given = BTreeMap<(String, String), BTreeSet<u16>>;

/// Statuses that are said and not given, or given and not said.
fn other_statuses(document: &Value, given: &Given) -> Vec<String> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in
            methods.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters")
        {
            let said: BTreeSet<u16> = operation["responses"]
                .as_object()
                .unwrap()
                .keys()
                .map(|status| status.parse().unwrap())
                .collect();
            let given = given.get(&(method.to_uppercase(), path.clone())).cloned().unwrap_or_default();
            found
                .extend(said.symmetric_difference(&given).map(|status| format!("{method} {path}: {status}")));
        }
    }
    found
}

#[test]
fn the_description_is_what_the_router_does() {
    assert_eq!(differences(&document()), [""; 0]);
}

/// The check itself: whatever is taken out of the description, or added to it, is found.
#[test]
fn a_wrong_description_is_found() {
    type Break = fn(&mut Value);
    let breaks: [(&str, Break); 6] = [
        ("a path is gone", |document| drop(document["paths"].as_object_mut().unwrap().remove("/v1/held"))),
        ("a path is new", |document| document["paths"]["/v1/more"]["get"] = json!({})),
        ("a method is gone", |document| {
            document["paths"]["/v1/kv/{bucket}/{key}"].as_object_mut().unwrap().remove("patch");
        }),
        ("a method is new", |document| document["paths"]["/v1/kv/{bucket}"]["put"] = json!({})),
        ("a parameter is gone", |document| {
            let parameters = &mut document["paths"]["/v1/kv/{bucket}/{key}"]["put"]["parameters"];
            parameters.as_array_mut().unwrap().remove(0);
        }),
        ("a header is new", |document| {
            let parameters = &mut document["paths"]["/v1/kv/{bucket}"]["delete"]["parameters"];
            parameters.as_array_mut().unwrap().push(json!({ "in": "header", "name": "If-Match" }));
        }),
    ];
    for (what, break_it) in breaks {
        let mut document = document();
        break_it(&mut document);
        assert_eq!(differences(&document).len(), 1, "{what}: {:?}", differences(&document));
    }
}

#[test]
fn no_two_routes_are_the_same_and_references_lead_somewhere() {
    let all: BTreeSet<_> = ROUTES.iter().map(|route| (route.place.path(), route.method)).collect();
    assert_eq!(all.len(), ROUTES.len());
    let (text, document) = (document().to_string(), document());
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}

/// Statuses of what cannot be had by asking: disks that fail, bodies that do not come.
fn by_replies() -> BTreeSet<u16> {
    let key = Key::new("b", "k").unwrap();
    let whereabouts = Whereabouts { local: true, remote: Vec::new(), missing: Vec::new() };
    let written = |is_done| Reply::Written { stamps: Vec::new(), is_done, whereabouts: whereabouts.clone() };
    let replies = [
        written(true),
        written(false),
        Reply::Unknown("an I/O error".to_owned()),
        Reply::Refused(Refusal::Overflow { key }),
        Reply::Refused(Refusal::TooFew { wanted: 9, there: 2 }),
        Reply::Refused(Refusal::NotOpen("it is new".to_owned())),
        Reply::Refused(Refusal::Busy),
        Reply::Refused(Refusal::Full("the disk is full".to_owned())),
        Reply::Refused(Refusal::Disk("the disk failed".to_owned())),
    ];
    let status = |reply| match told(reply, Durability::Local, Form::One) {
        Ok(answer) => answer.status().as_u16(),
        Err(problem) => problem.status.as_u16(),
    };
    replies.iter().map(status).collect()
}

/// What is given when it is asked for.
async fn by_asking(scene: &Scene) -> Given {
    scene.ask("POST", "/v1/kv/b/counter", &[], r#"{"increment": 1}"#).await.is(200);
    scene.put("/v1/kv/b/k", "v").await.is(200);
    let stamp = scene.put_json("/v1/kv/b/json", "{}").await.is(200).stamp();
    let tag = format!("If-None-Match: \"{stamp}\"");
    let huge = "x".repeat(1_100_000);
    let exists = "If-Match: *";
    let (absent, merge) = ("If-None-Match: *", "Content-Type: application/json");
    let drop_it = r#"{"origin": "0000000a", "sequence": 1}"#;
    let key = Place::Key.path();
    let requests: Vec<(&str, &str, &str, Vec<&str>, &str)> = vec![
        ("GET", key, "/v1/kv/b/json", vec![], ""),
        ("GET", key, "/v1/kv/b/json", vec![&tag], ""),
        ("GET", key, "/v1/kv/b/none", vec![], ""),
        ("GET", key, "/v1/kv/b/k", vec!["If-Match: \"019a5c3b2f100003-5e2a91cc\""], ""),
        ("HEAD", key, "/v1/kv/b/json", vec![], ""),
        ("HEAD", key, "/v1/kv/b/json", vec![&tag], ""),
        ("HEAD", key, "/v1/kv/b/none", vec![], ""),
        ("HEAD", key, "/v1/kv/b/k", vec!["If-Match: \"019a5c3b2f100003-5e2a91cc\""], ""),
        ("PUT", key, "/v1/kv/b/k", vec![absent], "v"),
        ("PUT", key, "/v1/kv/b/k", vec![], &huge),
        ("PATCH", key, "/v1/kv/b/json", vec![merge, absent], "{}"),
        ("PATCH", key, "/v1/kv/b/k", vec![merge], "{}"),
        ("PATCH", key, "/v1/kv/b/json", vec![merge], &huge),
        ("PATCH", key, "/v1/kv/b/json", vec![], "{}"),
        ("DELETE", key, "/v1/kv/b/none", vec![exists], ""),
        ("POST", key, "/v1/kv/b/counter", vec![absent], r#"{"increment": 1}"#),
        ("POST", key, "/v1/kv/b/k", vec![], r#"{"increment": 1}"#),
        ("POST", key, "/v1/kv/b/counter", vec![], &huge),
        ("GET", "/v1/kv/{bucket}", "/v1/kv/b", vec![], ""),
        ("POST", "/v1/kv/batch", "/v1/kv/batch", vec![], &huge),
        (
            "POST",
            "/v1/kv/batch",
            "/v1/kv/batch",
            vec![],
            r#"{"changes": [{"op": "increment", "bucket": "b", "key": "k", "by": 1}]}"#,
        ),
        (
            "POST",
            "/v1/kv/batch",
            "/v1/kv/batch",
            vec![],
            r#"{"changes": [{"op": "delete", "bucket": "b", "key": "none", "if_match": "*"}]}"#,
        ),
        ("GET", "/v1/conflicts", "/v1/conflicts", vec![], ""),
        ("GET", "/v1/held", "/v1/held", vec![], ""),
        ("POST", "/v1/held/drop", "/v1/held/drop", vec![], drop_it),
        ("POST", "/v1/held/drop", "/v1/held/drop", vec![], &huge),
        ("GET", "/v1/store", "/v1/store", vec![], ""),
        ("GET", "/v1/openapi.json", "/v1/openapi.json", vec![], ""),
    ];
    let mut given = Given::new();
    for (method, path, sample, headers, body) in requests {
        let status = scene.ask(method, sample, &headers, body).await.status;
        given.entry((method.to_owned(), path.to_owned())).or_default().insert(status);
    }
    given.entry(("GET".to_owned(), Place::Watch.path().to_owned())).or_default().insert(200);
    given
}

/// What is common to all, or not to be had by asking: taken from where it is made.
async fn add_the_others(scene: &Scene, given: &mut Given) {
    for route in ROUTES {
        let statuses = given.entry((route.method.to_owned(), route.place.path().to_owned())).or_default();
        let sample = route.place.path().replace("{bucket}", "b").replace("{key}", "k");
        let watch = "Accept: text/event-stream";
        let said = scene.ask(route.method, &format!("{sample}?nonsense=1"), &[watch], "").await;
        statuses.insert(said.status);
        let said = scene.ask(route.method, &sample, &["Authorization: Bearer no"], "").await;
        statuses.insert(said.status);
        if route.is_write {
            statuses.extend(by_replies());
        }
        if route.place != Place::OpenApi {
            statuses.insert(503);
        }
        if !route.body.is_empty() {
            statuses.insert(408);
        }
        // Reading fails when the disk does.
        if matches!(route.place, Place::Key | Place::Bucket | Place::Conflicts | Place::Held) {
            statuses.insert(500);
        }
    }
}

#[tokio::test]
async fn every_status_that_is_said_is_given_and_no_other() {
    let scene = Scene::new().await;
    let mut given = by_asking(&scene).await;
    add_the_others(&scene, &mut given).await;
    let mut document = document();
    assert_eq!(other_statuses(&document, &given), [""; 0]);
    let key = Place::Key.path();
    let responses = &mut document["paths"][key]["get"]["responses"];
    responses.as_object_mut().unwrap().remove("304");
    responses["418"] = json!({});
    let found = other_statuses(&document, &given);
    assert_eq!(found, [format!("get {key}: 304"), format!("get {key}: 418")], "a wrong one is found");
}
