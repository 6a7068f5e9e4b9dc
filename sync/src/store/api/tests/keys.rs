//! Single keys: put, read, patched, deleted, counted, under conditions.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_value_comes_back_as_it_was_put() {
    let scene = Scene::new().await;
    let put = scene.put("/v1/kv/carts/a/b%20c", "raw\0bytes").await.is(200);
    let body = put.json();
    assert_eq!(body["stamp"], put.stamp().as_str());
    assert_eq!(body["durable"], json!({ "local": true, "remote": [], "missing": [] }));
    let got = scene.get("/v1/kv/carts/a/b%20c").await.is(200);
    assert_eq!((got.text(), got.stamp()), ("raw\0bytes", put.stamp()));
    assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    assert_eq!(got.header("x-expires-unix-ms"), None);
    let head = scene.ask("HEAD", "/v1/kv/carts/a/b%20c", &[], "").await.is(200);
    assert_eq!((head.header("content-length"), head.stamp()), (Some("9"), put.stamp()));
    scene.put_json("/v1/kv/carts/j", "{\"a\": 1}\n").await.is(200);
    let got = scene.get("/v1/kv/carts/j").await.is(200);
    assert_eq!((got.text(), got.header("content-type")), ("{\"a\": 1}\n", Some("application/json")));
    let deleted = scene.ask("DELETE", "/v1/kv/carts/j", &[], "").await.is(200);
    assert_eq!(deleted.json()["stamp"], deleted.stamp().as_str());
    scene.get("/v1/kv/carts/j").await.problem(404, "nothing under this key", "carts/j");
    scene.put("/v1/kv/carts/empty", "").await.is(200);
    assert_eq!(scene.get("/v1/kv/carts/empty").await.is(200).text(), "");
}

#[tokio::test]
async fn a_value_ends_when_its_time_is_over() {
    let scene = Scene::new().await;
    scene.put("/v1/kv/b/k?ttl=200ms", "v").await.is(200);
    let got = scene.get("/v1/kv/b/k").await.is(200);
    assert!(got.header("x-expires-unix-ms").unwrap().parse::<u64>().unwrap() > scene.store.unix_ms());
    while scene.get("/v1/kv/b/k").await.status == 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.put("/v1/kv/b/k?ttl=3600", "v").await.is(200);
    scene.get("/v1/kv/b/k").await.is(200);
}

#[tokio::test]
async fn a_condition_is_kept() {
    let scene = Scene::new().await;
    let none = ["If-None-Match: *"];
    let first = scene.ask("PUT", "/v1/kv/b/k", &none, "1").await.is(200).stamp();
    let said = scene.ask("PUT", "/v1/kv/b/k", &none, "2").await.problem(412, "its stamp is", "b/k");
    assert_eq!((said.json()["current"].as_str(), said.stamp()), (Some(&*first), first.clone()));
    let is_first = format!("If-Match: \"{first}\"");
    let second = scene.ask("PUT", "/v1/kv/b/k", &[&is_first], "2").await.is(200).stamp();
    scene.ask("DELETE", "/v1/kv/b/k", &[&is_first], "").await.is(412);
    let is_second = format!("\"{second}\"");
    let got = scene.ask("GET", "/v1/kv/b/k", &[&format!("If-None-Match: {is_second}")], "").await.is(304);
    assert_eq!(got.stamp(), second);
    scene.ask("GET", "/v1/kv/b/k", &["If-None-Match: *"], "").await.is(304);
    scene.ask("GET", "/v1/kv/b/k", &[&format!("If-None-Match: \"{first}\"")], "").await.is(200);
    scene.ask("GET", "/v1/kv/b/k", &[&is_first], "").await.is(412);
    scene.ask("GET", "/v1/kv/b/k", &[&format!("If-Match: {is_second}")], "").await.is(200);
    scene.ask("GET", "/v1/kv/b/other", &["If-Match: *"], "").await.is(404);
    scene.ask("PUT", "/v1/kv/b/k", &[&format!("If-None-Match: {is_second}")], "3").await.is(412);
    scene.ask("DELETE", "/v1/kv/b/k", &["If-Match: *"], "").await.is(200);
    let said = scene.ask("DELETE", "/v1/kv/b/k", &["If-Match: *"], "").await.is(412);
    assert_eq!(said.json()["current"], json!(null));
}

#[tokio::test]
async fn of_two_with_the_same_condition_one_has_it() {
    let scene = Scene::new().await;
    for _ in 0..20 {
        let stamp = scene.put("/v1/kv/b/k", "0").await.is(200).stamp();
        let condition = format!("If-Match: \"{stamp}\"");
        let headers = [&*condition];
        let (one, other) = tokio::join!(
            scene.ask("PUT", "/v1/kv/b/k", &headers, "1"),
            scene.ask("PUT", "/v1/kv/b/k", &headers, "2"),
        );
        let (won, lost, value) = if one.status == 200 { (one, other, "1") } else { (other, one, "2") };
        let lost = lost.is(412);
        assert_eq!(lost.stamp(), won.is(200).stamp());
        assert_eq!(scene.get("/v1/kv/b/k").await.text(), value);
    }
}

#[tokio::test]
async fn counters_sets_and_patches() {
    let scene = Scene::new().await;
    for by in [5, -2] {
        scene.ask("POST", "/v1/kv/b/n", &[], format!("{{\"increment\": {by}}}")).await.is(200);
    }
    let got = scene.get("/v1/kv/b/n").await.is(200);
    assert_eq!((got.json(), got.header("content-type")), (json!({ "counter": 3 }), Some("application/json")));
    scene.ask("POST", "/v1/kv/b/n", &[], r#"{"add": ["a"]}"#).await.problem(409, "holds a counter", "b/n");
    let most = format!("{{\"increment\": {}}}", i64::MAX);
    scene.ask("POST", "/v1/kv/b/n", &[], &most).await.problem(422, "range", "b/n");
    scene.ask("POST", "/v1/kv/b/s", &[], r#"{"add": ["b", "a", "c"], "remove": ["b"]}"#).await.is(200);
    assert_eq!(scene.get("/v1/kv/b/s").await.json(), json!({ "set": ["a", "c"] }));
    let merge = ["Content-Type: application/merge-patch+json"];
    scene.put_json("/v1/kv/b/j?ttl=1h", r#"{"a": 1, "b": {"c": 2}}"#).await.is(200);
    let expires = scene.get("/v1/kv/b/j").await.header("x-expires-unix-ms").map(ToOwned::to_owned);
    scene.ask("PATCH", "/v1/kv/b/j", &merge, r#"{"a": null, "b": {"d": 3}}"#).await.is(200);
    let got = scene.get("/v1/kv/b/j").await.is(200);
    assert_eq!(got.json(), json!({ "b": { "c": 2, "d": 3 } }));
    assert_eq!(got.header("x-expires-unix-ms"), expires.as_deref(), "its time stays");
    scene.put("/v1/kv/b/raw", "x").await.is(200);
    scene.ask("PATCH", "/v1/kv/b/raw", &merge, "{}").await.problem(409, "not JSON", "b/raw");
    scene.ask("PATCH", "/v1/kv/b/new", &merge, r#"{"a": 1}"#).await.is(200);
    assert_eq!(scene.get("/v1/kv/b/new").await.json(), json!({ "a": 1 }));
}

#[tokio::test]
async fn a_batch_is_done_whole() {
    let scene = Scene::new().await;
    let body = json!({ "durability": "local", "wait": "1s", "changes": [
        { "op": "put", "bucket": "b", "key": "j", "value": { "a": null }, "ttl": 60 },
        { "op": "put", "bucket": "b", "key": "null", "value": null },
        { "op": "put", "bucket": "c", "key": "raw", "base64": "/wA=", "if_none_match": "*" },
        { "op": "patch", "bucket": "b", "key": "j", "value": { "b": 2 } },
        { "op": "increment", "bucket": "b", "key": "n", "by": 7 },
        { "op": "add", "bucket": "b", "key": "s", "element": "e" },
        { "op": "remove", "bucket": "b", "key": "s", "element": "other" },
        { "op": "delete", "bucket": "b", "key": "never" },
    ] });
    let said = scene.ask("POST", "/v1/kv/batch", &[], body.to_string()).await.is(200);
    assert_eq!((said.json()["stamps"].as_array().unwrap().len(), said.header("etag")), (8, None));
    assert_eq!(scene.get("/v1/kv/b/j").await.json(), json!({ "a": null, "b": 2 }));
    assert_eq!(scene.get("/v1/kv/b/null").await.json(), json!(null));
    assert_eq!(scene.get("/v1/kv/c/raw").await.body, [0xff, 0]);
    assert_eq!(scene.get("/v1/kv/b/n").await.json(), json!({ "counter": 7 }));
    assert_eq!(scene.get("/v1/kv/b/s").await.json(), json!({ "set": ["e"] }));
}

#[tokio::test]
async fn a_write_that_is_not_everywhere_in_time_is_not_called_failed() {
    let scene =
        Scene::with(&["frankfurt", "virginia"], Retention { entries_min: 0, entries_max: 1000 }).await;
    let said = scene.put("/v1/kv/b/k", "v").await.problem(503, "not open for writes yet", "store");
    assert_eq!(said.header("retry-after"), Some("1"));
    while !scene.store.status().is_open {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let said = scene.put("/v1/kv/b/k?durability=remote:1&wait=50ms", "v").await.is(202);
    let (body, stamp) = (said.json(), said.stamp());
    assert_eq!((body["asked"].as_str(), body["stamp"].as_str()), (Some("remote:1"), Some(&*stamp)));
    let durable = json!({ "local": true, "remote": [], "missing": ["frankfurt", "virginia"] });
    assert_eq!(body["durable"], durable);
    assert_eq!(scene.get("/v1/kv/b/k").await.is(200).stamp(), stamp, "it is there");
    let said = scene.ask("DELETE", "/v1/kv/b?durability=all&wait=0", &[], "").await.is(202);
    assert_eq!((&said.json()["deleted"], &said.json()["asked"]), (&json!(1), &json!("all")));
}

#[tokio::test]
async fn http_2_without_tls() {
    let scene = Scene::new().await;
    let stream = TcpStream::connect(scene.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { connection.await.unwrap() });
    for (method, body) in [("PUT", "v"), ("GET", ""), ("HEAD", "")] {
        let request = hyper::Request::builder().method(method).uri("http://h/v1/kv/b/k");
        let request = request.header("authorization", format!("Bearer {TOKEN}")).body(()).unwrap();
        let (answer, mut sending) = client.send_request(request, false).unwrap();
        sending.send_data(body.into(), true).unwrap();
        let mut answer = answer.await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers().contains_key("etag")),
            (200, true),
            "{method}"
        );
        let mut got = Vec::new();
        while let Some(part) = answer.body_mut().data().await {
            got.extend(part.unwrap());
        }
        match method {
            "PUT" => assert!(got.starts_with(b"{\"stamp\"")),
            "GET" => assert_eq!(got, b"v"),
            _ => assert!(got.is_empty()),
        }
    }
}
