//! `daemun kv` against a store that listens: what scripts rely on.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daemun_fleet::Clock;
use daemun_sync::store::api;
use daemun_sync::store::engine::{Store, StoreSettings, Threads};
use daemun_sync::store::replica::Retention;
use serde_json::Value;
use tokio::net::TcpListener;

static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

fn clock() -> Clock {
    fn unix_ms() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
    }
    Clock { monotonic: || START.elapsed(), unix_ms }
}

/// A store alone in the world, and its API.
struct Scene {
    url: String,
    directory: tempfile::TempDir,
    _threads: Threads,
    _runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("store.token"), "0123456789abcdef\n").unwrap();
        let (store, threads) = Store::open(&StoreSettings {
            directory: directory.path().join("store"),
            datacenter: "seoul".to_owned(),
            peers: Vec::new(),
            clock: clock(),
            retention: Retention { entries_min: 100_000, entries_max: 1_000_000 },
        })
        .unwrap();
        while !store.status().is_open {
            std::thread::sleep(Duration::from_millis(10));
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn_on(api::serve(listener, Ok(store), "0123456789abcdef".into()), runtime.handle());
        tasks.detach_all();
        Self { url, directory, _threads: threads, _runtime: runtime }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_daemun"));
        command.arg("kv").args(arguments).arg("--api").arg(&self.url);
        command.arg("--token-file").arg(self.directory.path().join("store.token"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        let mut child = self.command(arguments).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        child.wait_with_output().unwrap()
    }

    /// It is done, and this is on stdout.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, b"");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// It is not done: this code, and stderr says this.
    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, says: &str) {
        let output = self.run(arguments, b"");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(says) && output.stdout.is_empty(), "{stderr}: {says}");
    }
}

#[test]
fn what_scripts_rely_on() {
    let scene = Scene::new();
    let stamp = scene.done(&["put", "carts", "a/b ü?", "value"]);
    assert_eq!(scene.done(&["get", "carts", "a/b ü?"]), "value", "the value alone");
    let raw = b"\xff\0\n-";
    assert!(scene.run(&["put", "carts", "raw", "-"], raw).status.success());
    assert_eq!(scene.run(&["get", "carts", "raw"], b"").stdout, raw);
    scene.fails(&["get", "carts", "none"], 1, "there is nothing under carts/none");
    scene.fails(&["get", "Carts", "none"], 2, "found `Carts`");
    scene.fails(&["put", "carts", "k", "v", "--durability", "disk"], 2, "found `disk`");
    scene.fails(&["put", "carts", "k", "v", "--durability", "remote:1"], 2, "0 others");
    scene.fails(&["put", "carts", "k", "oops", "--as-json"], 2, "line 1");
    scene.fails(&["put", "carts", "a/b ü?", "v", "--if-none-match", "*"], 1, "its stamp is");
    let second = scene.done(&["put", "carts", "a/b ü?", "v", "--if-match", stamp.trim()]);
    scene.fails(&["del", "carts", "a/b ü?", "--if-match", stamp.trim()], 1, second.trim());
    scene.done(&["del", "carts", "a/b ü?", "--if-match", second.trim()]);
    scene.done(&["incr", "carts", "n", "5"]);
    scene.done(&["incr", "carts", "n", "-2"]);
    assert_eq!(scene.done(&["get", "carts", "n"]), "{\"counter\":3}");
    scene.done(&["add", "carts", "s", "x", "y"]);
    scene.done(&["remove", "carts", "s", "x"]);
    let item: Value = serde_json::from_str(&scene.done(&["get", "carts", "s", "--json"])).unwrap();
    assert_eq!((&item["kind"], &item["value"]), (&"set".into(), &serde_json::json!(["y"])));
    assert_eq!(
        scene.done(&["list", "carts"]),
        "n\tcounter\t3\nraw\tbytes\tbase64 /wAKLQ==\ns\tset\t[\"y\"]\n"
    );
    assert_eq!(scene.done(&["list", "carts", "--count"]), "3\n");
    assert_eq!(scene.done(&["conflicts"]), "no conflicts\n");
    assert_eq!(scene.done(&["held"]), "nothing waits\n");
    scene.fails(&["drop", "0000000a", "1"], 1, "not known here");
    scene.done(&["list", "carts", "--datacenter", "seoul"]);
    scene.fails(&["list", "carts", "--datacenter", "busan"], 1, "no store of datacenter `busan`");
    let data = scene.directory.path().to_str().unwrap();
    let rebuild = Command::new(env!("CARGO_BIN_EXE_daemun"))
        .args(["kv", "rebuild", "--data", data, "--yes"])
        .output()
        .unwrap();
    assert_eq!(rebuild.status.code(), Some(1), "{rebuild:?}");
    assert!(String::from_utf8_lossy(&rebuild.stderr).contains("stop the process"), "{rebuild:?}");
    assert!(Path::new(data).join("store").exists());
}

#[test]
fn a_watch_shows_changes_and_a_wrong_token_is_said() {
    use std::io::{BufRead as _, BufReader};
    let scene = Scene::new();
    let mut watch = scene.command(&["watch", "carts", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["event"], "ready");
    scene.done(&["put", "carts", "k", "v"]);
    let event = next();
    assert_eq!((&event["event"], &event["data"]["value"]), (&"put".into(), &"v".into()));
    scene.done(&["del", "carts", "k"]);
    assert_eq!(next()["event"], "delete");
    watch.kill().unwrap();
    watch.wait().unwrap();
    let id = event["id"].as_str().unwrap();
    let mut watch = scene.command(&["watch", "carts", "--from", id]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "delete\tk\n");
    watch.kill().unwrap();
    watch.wait().unwrap();
    std::fs::write(scene.directory.path().join("store.token"), "fedcba9876543210\n").unwrap();
    scene.fails(&["get", "carts", "k"], 1, "token is missing or wrong");
}
