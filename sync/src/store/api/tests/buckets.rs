//! Buckets: listed, counted, cleared; and what is asked of the store as a whole.

use serde_json::json;

use super::*;

async fn fill(scene: &Scene, count: usize) {
    for first in (0..count).step_by(500) {
        let changes: Vec<Value> = (first..count.min(first + 500))
            .map(|n| json!({ "op": "put", "bucket": "b", "key": format!("k{n:05}"), "value": n }))
            .collect();
        scene.ask("POST", "/v1/kv/batch", &[], json!({ "changes": changes }).to_string()).await.is(200);
    }
}

#[tokio::test]
async fn all_keys_come_in_pages_once_each_in_order() {
    let scene = Scene::new().await;
    fill(&scene, 2300).await;
    scene.put("/v1/kv/a/k00001", "other bucket").await.is(200);
    scene.put("/v1/kv/b-c/k00001", "other bucket").await.is(200);
    for n in (0..2300).step_by(3) {
        scene.ask("DELETE", &format!("/v1/kv/b/k{n:05}"), &[], "").await.is(200);
    }
    let expected: Vec<String> = (0..2300).filter(|n| n % 3 != 0).map(|n| format!("k{n:05}")).collect();
    for limit in [1000, 37] {
        let (mut found, mut path) = (Vec::new(), format!("/v1/kv/b?limit={limit}&values=false"));
        loop {
            let page = scene.get(&path).await.is(200).json();
            let keys = page["keys"].as_array().unwrap();
            assert!(keys.len() <= limit);
            found.extend(keys.iter().map(|key| key["key"].as_str().unwrap().to_owned()));
            assert!(keys.iter().all(|key| key["kind"] == "json" && key.get("value").is_none()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/v1/kv/b?limit={limit}&values=false&after={next}");
        }
        assert_eq!(found, expected, "limit {limit}");
    }
    assert_eq!(scene.get("/v1/kv/b?count=true").await.json(), json!({ "count": expected.len() }));
    assert_eq!(scene.get("/v1/kv/b?count=true&prefix=k0222").await.json(), json!({ "count": 6 }));
    let page = scene.get("/v1/kv/b?prefix=k0222&after=k02225").await.json();
    let names: Vec<_> = page["keys"].as_array().unwrap().iter().map(|key| key["value"].clone()).collect();
    assert_eq!((json!(names), &page["next"]), (json!([2227, 2228]), &json!(null)));
    let said = scene.ask("DELETE", "/v1/kv/b?prefix=k0222", &[], "").await.is(200).json();
    assert_eq!((&said["deleted"], &said["durable"]["local"]), (&json!(6), &json!(true)));
    let said = scene.ask("DELETE", "/v1/kv/b", &[], "").await.is(200).json();
    assert_eq!(said["deleted"], expected.len() - 6);
    assert_eq!(scene.get("/v1/kv/b").await.json(), json!({ "keys": [], "next": null }));
    assert_eq!(scene.ask("DELETE", "/v1/kv/b", &[], "").await.is(200).json(), json!({ "deleted": 0 }));
    assert_eq!(scene.get("/v1/kv/a?count=true").await.json()["count"], 1);
    assert_eq!(scene.get("/v1/kv/b-c?count=true").await.json()["count"], 1);
}

#[tokio::test]
async fn every_kind_is_shown() {
    let scene = Scene::new().await;
    scene.put("/v1/kv/b/text?ttl=1h", "ü\n").await.is(200);
    scene.ask("PUT", "/v1/kv/b/bytes", &[], [0xff, 0x00]).await.is(200);
    scene.put_json("/v1/kv/b/json", "{\n\"a\": 1}").await.is(200);
    scene.ask("POST", "/v1/kv/b/counter", &[], r#"{"increment": 2}"#).await.is(200);
    scene.ask("POST", "/v1/kv/b/set", &[], r#"{"add": ["x"]}"#).await.is(200);
    let page = scene.get("/v1/kv/b").await.is(200).json();
    let mut keys = page["keys"].as_array().unwrap().clone();
    for key in &mut keys {
        let key = key.as_object_mut().unwrap();
        assert!(key.remove("stamp").unwrap().as_str().unwrap().parse::<crate::store::stamp::Stamp>().is_ok());
        assert_eq!(key.remove("expires_unix_ms").is_some(), key["key"] == "text");
    }
    let expected = json!([
        { "key": "bytes", "kind": "bytes", "base64": "/wA=" },
        { "key": "counter", "kind": "counter", "value": 2 },
        { "key": "json", "kind": "json", "value": { "a": 1 } },
        { "key": "set", "kind": "set", "value": ["x"] },
        { "key": "text", "kind": "text", "value": "ü\n" },
    ]);
    assert_eq!(json!(keys), expected);
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes() {
    let scene = Scene::new().await;
    let large = "x".repeat(400 * 1024);
    for n in 0..6 {
        scene.put(&format!("/v1/kv/b/{n}"), &large).await.is(200);
    }
    let (mut found, mut after) = (0, String::new());
    loop {
        let said = scene.get(&format!("/v1/kv/b?{after}")).await.is(200);
        assert!(said.body.len() < 2 << 20, "{}", said.body.len());
        let page = said.json();
        found += page["keys"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else { break };
        after = format!("after={next}");
    }
    assert_eq!(found, 6);
}

#[tokio::test]
async fn the_store_as_a_whole() {
    let scene = Scene::new().await;
    scene.put("/v1/kv/b/k", "v").await.is(200);
    let status = scene.get("/v1/store").await.is(200).json();
    assert!(status["origin"].as_str().unwrap().starts_with("seoul/") && status["is_open"] == true);
    assert_eq!(scene.get("/v1/held").await.is(200).json(), json!({ "held": [], "waiting": 0 }));
    let none = json!({ "conflicts": [], "next": null, "evicted": 0 });
    assert_eq!(scene.get("/v1/conflicts?limit=5&before=9").await.is(200).json(), none);
}
