//! Watches: what they tell, that they miss nothing, and what they cost.

use serde_json::json;

use super::super::serve::WATCHERS_MAX;
use super::*;

/// A stream of events.
struct Watch {
    client: Client,
    read: Vec<u8>,
    /// The last id.
    id: String,
}

#[derive(Debug, PartialEq)]
struct Event {
    name: String,
    data: Value,
}

impl Watch {
    async fn new(scene: &Scene, path: &str, id: Option<&str>) -> Self {
        let mut client = Client::new(scene.address).await;
        let id_header = id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nAccept: text/event-stream\r\n{id_header}\r\n"
        );
        client.0.write_all(head.as_bytes()).await.unwrap();
        let (head, read) = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        Self { client, read, id: id.unwrap_or_default().to_owned() }
    }

    /// The next chunk of the transfer, if it is here whole.
    fn chunk(&mut self) -> Option<String> {
        let end = self.read.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&self.read[..end]).unwrap(), 16).unwrap();
        if self.read.len() < end + 2 + size + 2 {
            return None;
        }
        let chunk = self.read[end + 2..end + 2 + size].to_vec();
        self.read.drain(..end + 2 + size + 2);
        assert!(size > 0, "the stream ended");
        Some(String::from_utf8(chunk).unwrap())
    }

    /// The events of the next chunk.
    async fn next(&mut self) -> Vec<Event> {
        let chunk = loop {
            if let Some(chunk) = self.chunk() {
                break chunk;
            }
            let mut part = vec![0; 65_536];
            let reading = self.client.0.read(&mut part);
            let count = tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap().unwrap();
            assert!(count > 0, "it hung up");
            self.read.extend(&part[..count]);
        };
        let mut events = Vec::new();
        for block in chunk.split("\n\n").filter(|block| !block.is_empty()) {
            let of = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let Some(id) = of("id:") {
                self.id = id.to_owned();
            }
            if let (Some(name), Some(data)) = (of("event:"), of("data:")) {
                events.push(Event { name: name.to_owned(), data: serde_json::from_str(data).unwrap() });
            }
        }
        events
    }

    /// The next event.
    async fn one(&mut self) -> Event {
        loop {
            let mut events = self.next().await;
            assert!(events.len() <= 1, "{events:?}");
            if let Some(event) = events.pop() {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn changes_are_told_as_they_are_now() {
    let scene = Scene::new().await;
    scene.put("/v1/kv/b/before", "v").await.is(200);
    let mut watch = Watch::new(&scene, "/v1/kv/b/watch?prefix=a", None).await;
    let ready = watch.one().await;
    assert_eq!((&*ready.name, ready.data["frontier"].as_str()), ("ready", Some(&*watch.id)));
    scene.put("/v1/kv/b/x", "not watched").await.is(200);
    scene.put("/v1/kv/c/a", "not watched").await.is(200);
    let stamp = scene.put_json("/v1/kv/b/a1?ttl=1h", "{\n \"a\":\r\n1}").await.is(200).stamp();
    let mut event = watch.one().await;
    assert!(event.data.as_object_mut().unwrap().remove("expires_unix_ms").is_some());
    let data = json!({ "key": "a1", "stamp": stamp, "kind": "json", "value": { "a": 1 } });
    assert_eq!(event, Event { name: "put".to_owned(), data });
    let after_put = watch.id.clone();
    scene.ask("POST", "/v1/kv/b/a2", &[], r#"{"increment": 4}"#).await.is(200);
    let event = watch.one().await;
    assert_eq!((event.name.as_str(), &event.data["value"]), ("put", &json!(4)));
    let stamp = scene.ask("DELETE", "/v1/kv/b/a1", &[], "").await.is(200).stamp();
    let event = watch.one().await;
    assert_eq!(event, Event { name: "delete".to_owned(), data: json!({ "key": "a1", "stamp": stamp }) });
    // What was said again, from an id, by the bucket's own path.
    let mut again = Watch::new(&scene, "/v1/kv/b?watch&prefix=a", Some(&after_put)).await;
    let mut events = again.next().await;
    while events.len() < 2 {
        events.extend(again.next().await);
    }
    assert_eq!([&events[0].data["key"], &events[1].data["key"]], ["a2", "a1"]);
    assert_eq!(again.id, watch.id);
    // Without the header it is a key.
    scene.get("/v1/kv/b/watch").await.problem(404, "nothing", "b/watch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_cut_again_and_again_misses_nothing() {
    const WRITES: usize = 400;
    let scene = Arc::new(Scene::new().await);
    let mut watch = Watch::new(&scene, "/v1/kv/b/watch", None).await;
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let scene = Arc::clone(&scene);
        writers.spawn(async move {
            let mut client = Client::new(scene.address).await;
            for n in 0..WRITES {
                let (own, shared) = (format!("/v1/kv/b/{writer}-{n}"), format!("/v1/kv/b/shared-{writer}"));
                client.ask("PUT", &own, &[], b"v").await.is(200);
                client.ask("PUT", &shared, &[], n.to_string().as_bytes()).await.is(200);
            }
        });
    }
    let (mut seen, mut shared) = (std::collections::BTreeSet::new(), [0; 4]);
    let (mut cuts, mut cut_at) = (0, 0);
    while seen.len() < 4 * WRITES || shared != [WRITES - 1; 4] {
        for event in watch.next().await {
            assert_ne!(event.name, "reset");
            let key = event.data["key"].as_str().unwrap_or_default();
            match key.strip_prefix("shared-") {
                Some(writer) => {
                    shared[writer.parse::<usize>().unwrap()] =
                        event.data["value"].as_str().unwrap().parse().unwrap();
                }
                None if event.name == "put" => drop(seen.insert(key.to_owned())),
                None => {}
            }
        }
        // Cut in the middle: what has come and was not read is lost.
        if seen.len() > cut_at + 30 && seen.len() < 4 * WRITES {
            cut_at = seen.len();
            let id = watch.id.clone();
            watch = Watch::new(&scene, "/v1/kv/b/watch", Some(&id)).await;
            cuts += 1;
        }
    }
    writers.join_all().await;
    assert!(cuts >= 3, "{cuts} cuts");
}

#[tokio::test]
async fn what_is_not_known_any_more_is_said() {
    let scene = Scene::with(&["frankfurt"], Retention { entries_min: 0, entries_max: 20 }).await;
    while !scene.store.status().is_open {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut watch = Watch::new(&scene, "/v1/kv/b/watch", None).await;
    watch.one().await;
    let id = watch.id.clone();
    // More than is kept in memory of a log that is gone from the disk.
    let large = "x".repeat(500 * 1024);
    for n in 0..100 {
        scene.put(&format!("/v1/kv/b/{n}"), &large).await.is(200);
    }
    let kept = |scene: &Scene| scene.store.status().log_entries;
    while kept(&scene) > 40 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut again = Watch::new(&scene, "/v1/kv/b/watch", Some(&id)).await;
    let reset = again.one().await;
    assert_eq!((&*reset.name, reset.data["frontier"].as_str()), ("reset", Some(&*again.id)));
    scene.put("/v1/kv/b/after", "v").await.is(200);
    assert_eq!(again.one().await.data["key"], "after", "and it goes on");
}

#[tokio::test]
async fn a_watch_that_nobody_reads_costs_nothing_and_too_many_are_refused() {
    let scene = Scene::new().await;
    let mut watches = Vec::new();
    for _ in 0..WATCHERS_MAX {
        watches.push(Watch::new(&scene, "/v1/kv/b/watch", None).await);
    }
    let accept = ["Accept: text/event-stream"];
    let said = scene.ask("GET", "/v1/kv/b/watch", &accept, "").await;
    said.problem(503, "watches already", "watch");
    watches.truncate(1);
    // Those who have gone make room.
    loop {
        let mut client = Client::new(scene.address).await;
        let head = format!(
            "GET /v1/kv/b/watch HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n{}\r\n\r\n",
            accept[0]
        );
        client.0.write_all(head.as_bytes()).await.unwrap();
        if client.head().await.0.starts_with("HTTP/1.1 200") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The one that is left reads nothing, and then all: of each key the last.
    let large = "x".repeat(100_000);
    for n in 0..200 {
        scene.put(&format!("/v1/kv/b/{}", n % 100), &format!("{n} {large}")).await.is(200);
    }
    let mut last = std::collections::BTreeMap::new();
    while last.len() < 100 || last.values().any(|value| *value < 100) {
        for event in watches[0].next().await.into_iter().filter(|event| event.name == "put") {
            let number = event.data["value"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
            last.insert(event.data["key"].as_str().unwrap().to_owned(), number);
        }
        if last.len() == 100 && last.values().all(|value: &i32| *value >= 100) {
            break;
        }
    }
}
