//! Bad input: a clear status and body, nothing applied by halves.

use super::*;

/// Method, path, headers, body, status, a part of what is said, and where.
type Case =
    (&'static str, &'static str, &'static [&'static str], &'static str, u16, &'static str, &'static str);

const CASES: &[Case] = &[
    ("GET", "/", &[], "", 404, "GET /v1/openapi.json", "/"),
    ("GET", "/v1/kv", &[], "", 404, "/v1/kv/BUCKET/KEY", "/v1/kv"),
    (
        "GET",
        "/v1/kv/b/k",
        &["Authorization: Bearer wrong-wrong-wrong"],
        "",
        401,
        "--token-file",
        "Authorization",
    ),
    ("GET", "/v1/kv/Carts/k", &[], "", 400, "found `Carts`", "bucket"),
    ("PUT", "/v1/kv/.dropped/k", &[], "v", 400, "the store's own", "bucket"),
    ("GET", "/v1/kv/.dropped", &[], "", 400, "the store's own", "bucket"),
    ("GET", "/v1/kv//k", &[], "", 400, "1 to 64", "bucket"),
    ("GET", "/v1/kv/b/", &[], "", 400, "no slash behind it", "key"),
    ("GET", "/v1/kv/b/a%0ab", &[], "", 400, "control", "key"),
    ("GET", "/v1/kv/b/%ff", &[], "", 400, "UTF-8", "key"),
    ("GET", "/v1/kv/b/%4", &[], "", 400, "%25", "key"),
    ("GET", "/v1/kv/b/%zz", &[], "", 400, "%25", "key"),
    ("PUT", "/v1/kv/b/k?tll=5", &[], "v", 400, "did you mean `ttl`?", "query `tll`"),
    ("PUT", "/v1/kv/b/k?prefix=a", &[], "v", 400, "it takes ttl, durability, wait", "query `prefix`"),
    ("GET", "/v1/kv/b/k?ttl=5", &[], "", 400, "it takes none", "query `ttl`"),
    ("PUT", "/v1/kv/b/k?ttl=5&ttl=6", &[], "v", 400, "twice", "query `ttl`"),
    ("PUT", "/v1/kv/b/k?ttl=0", &[], "v", 400, "1ms to 100 years", "query `ttl`"),
    ("PUT", "/v1/kv/b/k?ttl=-5", &[], "v", 400, "expected seconds", "query `ttl`"),
    ("PUT", "/v1/kv/b/k?ttl=99999999999999999999999", &[], "v", 400, "expected seconds", "query `ttl`"),
    ("PUT", "/v1/kv/b/k?ttl=200y", &[], "v", 400, "100 years", "query `ttl`"),
    ("PUT", "/v1/kv/b/k?durability=remote:0", &[], "v", 400, "remote:N", "query `durability`"),
    ("PUT", "/v1/kv/b/k?durability=disk", &[], "v", 400, "found `disk`", "query `durability`"),
    ("PUT", "/v1/kv/b/k?durability=remote:5", &[], "v", 422, "0 others", "durability"),
    ("PUT", "/v1/kv/b/k?wait=61s", &[], "v", 400, "at most 60s", "query `wait`"),
    ("PUT", "/v1/kv/b/k", &["If-Match: 019a5c3b2f100003-5e2a91cc"], "v", 400, "double quotes", "If-Match"),
    ("PUT", "/v1/kv/b/k", &["If-Match: \"nonsense\""], "v", 400, "expected a stamp", "If-Match"),
    (
        "PUT",
        "/v1/kv/b/k",
        &["If-Match: W/\"019a5c3b2f100003-5e2a91cc\""],
        "v",
        400,
        "without `W/`",
        "If-Match",
    ),
    ("PUT", "/v1/kv/b/k", &["If-None-Match: \"a\", \"b\""], "v", 400, "one stamp", "If-None-Match"),
    ("PUT", "/v1/kv/b/k", &["If-Match: *", "If-Match: *"], "v", 400, "twice", "If-Match"),
    ("PUT", "/v1/kv/b/k", &["If-Match: *", "If-None-Match: *"], "v", 400, "not both", "If-None-Match"),
    ("PUT", "/v1/kv/b/k", &["If-Match: *"], "v", 412, "it has nothing", "b/k"),
    ("PUT", "/v1/kv/b/k", &["Content-Type: application/json"], "{\"a\":\n oops}", 400, "expected", "line 2"),
    ("PUT", "/v1/kv/b/k", &["Content-Type: application/json"], "", 400, "EOF", "line 1"),
    (
        "PATCH",
        "/v1/kv/b/k",
        &["Content-Type: application/json-patch+json"],
        "[]",
        415,
        "merge patch",
        "Content-Type",
    ),
    ("PATCH", "/v1/kv/b/k", &["Content-Type: application/json"], "{", 400, "EOF", "body"),
    ("POST", "/v1/kv/b/k", &[], "{\"increment\": 1, \"add\": [\"a\"]}", 400, "{\"increment\": 1}", "body"),
    ("POST", "/v1/kv/b/k", &[], "{}", 400, "{\"increment\": 1}", "body"),
    ("POST", "/v1/kv/b/k", &[], "{\"inkrement\": 1}", 400, "unknown field `inkrement`", "body"),
    ("POST", "/v1/kv/b/k", &[], "{\"increment\": 1e30}", 400, "invalid", "body"),
    ("POST", "/v1/kv/b", &[], "{}", 405, "GET, DELETE", "method"),
    ("OPTIONS", "/v1/kv/b/k", &[], "", 405, "PATCH", "method"),
    ("GET", "/v1/kv/b?limit=0", &[], "", 400, "1 to 1000", "query `limit`"),
    ("GET", "/v1/kv/b?limit=1001", &[], "", 400, "1 to 1000", "query `limit`"),
    ("GET", "/v1/kv/b?limit=x", &[], "", 400, "a number", "query `limit`"),
    ("GET", "/v1/kv/b?values=no", &[], "", 400, "true or false", "query `values`"),
    ("GET", "/v1/kv/b?count=true&limit=5", &[], "", 400, "does not go with limit", "query `limit`"),
    ("GET", "/v1/kv/b?watch", &[], "", 400, "Accept: text/event-stream", "query `watch`"),
    (
        "GET",
        "/v1/kv/b/watch",
        &["Accept: text/event-stream", "Last-Event-ID: x"],
        "",
        400,
        "a frontier",
        "Last-Event-ID",
    ),
    (
        "GET",
        "/v1/kv/b/watch",
        &["Accept: text/event-stream", "Last-Event-ID:"],
        "",
        400,
        "found nothing",
        "Last-Event-ID",
    ),
    ("GET", "/v1/conflicts?before=-1", &[], "", 400, "a number", "query `before`"),
    ("POST", "/v1/held/drop", &[], "{\"origin\": \"xyz\", \"sequence\": 1}", 400, "8 hexadecimal", "origin"),
    (
        "POST",
        "/v1/held/drop",
        &[],
        "{\"origin\": \"0000000a\", \"sequence\": 1}",
        409,
        "not known here",
        "body",
    ),
    ("POST", "/v1/kv/batch", &[], "{\"changes\": []}", 400, "1 to 1000", "changes"),
    ("POST", "/v1/kv/batch", &[], "[]", 400, "invalid", "line 1"),
    (
        "POST",
        "/v1/kv/batch",
        &[],
        "{\"changes\": [{\"op\": \"pot\"}]}",
        400,
        "unknown variant `pot`",
        "line 1",
    ),
    ("POST", "/v1/kv/batch?wait=1", &[], "{}", 400, "it takes none", "query `wait`"),
];

#[tokio::test]
async fn whatever_is_wrong_is_said() {
    let scene = Scene::new().await;
    let mut client = Client::new(scene.address).await;
    for (method, path, headers, body, status, error, at) in CASES {
        // One connection for all: what is wrong with one request does not harm the next.
        client.ask(method, path, headers, body.as_bytes()).await.problem(*status, error, at);
    }
    assert_eq!(scene.get("/v1/kv/b?count=true").await.json()["count"], 0, "nothing was applied");
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_connection_goes_on() {
    let scene = Scene::new().await;
    let mut client = Client::new(scene.address).await;
    let max = crate::store::op::VALUE_BYTES_MAX;
    let long = format!("/v1/kv/b/{}", "x".repeat(513));
    client.ask("PUT", &long, &[], b"v").await.problem(400, "found 513", "key");
    client.ask("PUT", "/v1/kv/b/k", &[], &vec![b'x'; max + 1]).await.problem(413, "at most 524288", "body");
    client.ask("PUT", "/v1/kv/b/k", &[], &vec![b'x'; max]).await.is(200);
    assert_eq!(client.ask("GET", "/v1/kv/b/k", &[], b"").await.is(200).body.len(), max);
    let element = format!("{{\"add\": [\"{}\"]}}", "e".repeat(257));
    client.ask("POST", "/v1/kv/b/s", &[], element.as_bytes()).await.problem(
        413,
        "bytes of an element",
        "body",
    );
    let many = vec!["{\"op\": \"delete\", \"bucket\": \"b\", \"key\": \"k\"}"; 1001].join(",");
    let many = format!("{{\"changes\": [{many}]}}");
    client.ask("POST", "/v1/kv/batch", &[], many.as_bytes()).await.problem(400, "found 1001", "changes");
    client.ask("GET", "/v1/kv/b/k", &[], b"").await.is(200);
}

#[tokio::test]
async fn a_broken_batch_says_which_change_and_changes_nothing() {
    let scene = Scene::new().await;
    let good = r#"{"op": "put", "bucket": "b", "key": "good", "value": 1}"#;
    let cases = [
        (r#"{"op": "put", "bucket": "b", "key": "k"}"#, 400, "one of the two", "changes[1]"),
        (
            r#"{"op": "put", "bucket": "b", "key": "k", "value": 1, "base64": ""}"#,
            400,
            "one of the two",
            "[1]",
        ),
        (
            r#"{"op": "put", "bucket": "b", "key": "k", "base64": "?"}"#,
            400,
            "no base64",
            "changes[1], `base64`",
        ),
        (r#"{"op": "put", "bucket": "b", "key": "k", "value": 1, "ttl": "x"}"#, 400, "expected", "`ttl`"),
        (r#"{"op": "put", "bucket": "b", "key": "", "value": 1}"#, 400, "found 0", "changes[1], `key`"),
        (r#"{"op": "put", "bucket": ".b", "key": "k", "value": 1}"#, 400, "own", "changes[1], `bucket`"),
        (
            r#"{"op": "delete", "bucket": "b", "key": "k", "by": 1}"#,
            400,
            "does not go with delete",
            "changes[1]",
        ),
        (r#"{"op": "increment", "bucket": "b", "key": "k"}"#, 400, "`by`, which is missing", "changes[1]"),
        (r#"{"op": "delete", "bucket": "b", "key": "k", "if_match": "x"}"#, 400, "stamp", "`if_match`"),
        (r#"{"op": "delete", "bucket": "b", "key": "k", "ifmatch": "*"}"#, 400, "unknown field", "body"),
        (r#"{"op": "delete", "bucket": "b", "key": "k", "if_match": "*"}"#, 412, "has nothing", "b/k"),
        (r#"{"op": "increment", "bucket": "b", "key": "good", "by": 1}"#, 409, "holds a value", "b/good"),
    ];
    for (bad, status, error, at) in cases {
        let body = format!("{{\"changes\": [{good}, {bad}]}}");
        scene.ask("POST", "/v1/kv/batch", &[], body).await.problem(status, error, at);
        scene.get("/v1/kv/b/good").await.is(404);
    }
    let body = format!("{{\"changes\": [{good}], \"durability\": \"paper\"}}");
    scene.ask("POST", "/v1/kv/batch", &[], body).await.problem(400, "found `paper`", "durability");
}

#[tokio::test]
async fn a_head_that_is_no_http_or_too_large_ends_the_connection_alone() {
    let scene = Scene::new().await;
    for head in [
        "nonsense\r\n\r\n".to_owned(),
        format!("GET /v1/kv/b/{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(70_000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100)),
    ] {
        let mut stream = TcpStream::connect(scene.address).await.unwrap();
        // It may hang up before it has all.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    scene.put("/v1/kv/b/k", "v").await.is(200);
}

mod any {
    use hyper::header::{HeaderMap, HeaderName, HeaderValue};
    use hyper::{Method, StatusCode};
    use proptest::prelude::*;

    use super::super::super::batch;
    use super::super::super::route::route;
    use crate::store::op::Key;
    use crate::store::request::Condition;

    fn words() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("/v1/kv/"),
            Just("/v1/held/drop"),
            Just("b"),
            Just("/"),
            Just("watch"),
            Just("batch"),
            Just("?"),
            Just("%"),
            Just("%2f"),
            Just("%c3%28"),
            Just("&"),
            Just("="),
            Just("ttl"),
            Just("limit"),
            Just("wait"),
            Just("prefix"),
            Just("durability"),
            Just("count"),
            Just("remote:1"),
            Just("99999999999999999999"),
            Just("1s"),
            Just("+"),
            Just("ü"),
            Just("\u{0}"),
            Just("W/"),
            Just("\""),
            Just("*"),
            Just(","),
            Just("5e2a91cc:17"),
            Just("019a5c3b2f100003-5e2a91cc"),
            Just("text/event-stream"),
            Just(";"),
            Just("application/json"),
        ];
        prop_oneof![
            proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat()),
            proptest::collection::vec(any::<char>(), 0..40).prop_map(|chars| chars.into_iter().collect()),
        ]
    }

    proptest! {
        #[test]
        fn request_is_routed_or_refused(
            method in prop_oneof![
                Just("GET"), Just("HEAD"), Just("PUT"), Just("PATCH"), Just("DELETE"), Just("POST"), Just("BREW"),
            ],
            is_known in any::<bool>(),
            path in words(),
            query in proptest::option::of(words()),
            headers in proptest::collection::vec((0..5_usize, words()), 0..4),
        ) {
            let names = ["if-match", "if-none-match", "last-event-id", "accept", "content-type"];
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                    map.append(HeaderName::from_static(names[name]), value);
                }
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let path = if is_known { format!("/v1/kv/{path}") } else { path };
            if let Err(problem) = route(&method, &path, query.as_deref(), &map) {
                prop_assert!(problem.status.is_client_error() && problem.status != StatusCode::UNAUTHORIZED);
                prop_assert!(!problem.error.is_empty());
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&problem.body()).is_ok());
            }
        }

        #[test]
        fn body_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60), word in words()) {
            let key = Key::new("b", "k").unwrap();
            let text = format!("{{\"changes\":[{{\"op\":\"put\",\"bucket\":\"b\",\"key\":{word:?},\"ttl\":{word:?}}}]}}");
            for body in [&bytes[..], word.as_bytes(), text.as_bytes()] {
                let _ = batch::Batch::parse(body);
                let _ = batch::alter(body, &key, Condition::None);
                let _ = batch::dropped(body);
            }
        }
    }
}
