//! The browser client, `gateway/assets/daemun.js`: its rules one by one under Node, and the whole of it in a real browser,
//! with doors that are made to fail (`client/doors.js`). No daemun runs here.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::fleet::{needs, text, wait};

/// A script beside the rules.
pub(crate) fn script(name: &str) -> PathBuf {
    needs("/usr/bin/node", "nodejs");
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/client").join(name)
}

#[test]
fn the_client_keeps_its_rules() {
    let output = Command::new("/usr/bin/node").arg(script("unit.js")).output().unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" 0 broken"), "{said}");
}

/// A door of `client/doors.js`; it ends with this.
struct FakeDoor {
    name: &'static str,
    url: String,
    child: Child,
}

impl FakeDoor {
    fn open(name: &'static str) -> Self {
        let mut child = Command::new("/usr/bin/node")
            .arg(script("doors.js"))
            .arg(name)
            .stdin(Stdio::piped()) // it ends with us, however we end
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { name, url: url.trim().to_owned(), child }
    }

    /// Changes what it does, as `test` in `client/doors.js` has it.
    fn tell(&self, what: &Value) {
        let output = Command::new("curl")
            .args(["-sS", "--fail", "--noproxy", "*", "--max-time", "5", "--data-binary", &what.to_string()])
            .arg(format!("{}test", self.url))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// What it tells of itself, to a page.
    fn says(&self, browser: &Browser) -> Value {
        browser.eval_async(&format!("return (await fetch('{}test')).json()", self.url))
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for FakeDoor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A list of these doors, best first.
fn list(generation: u64, doors: [&FakeDoor; 2]) -> Value {
    let servers: Vec<Value> = (0..)
        .zip(doors)
        .map(|(priority, door)| {
            json!({"name": door.name, "role": "frontdoor", "datacenter": door.name, "url": door.url,
                "health": "up", "priority": priority, "weight": 100})
        })
        .collect();
    json!({"v": 1, "generation": generation, "issued": "", "ttl": 1, "you": {"datacenter": doors[0].name},
        "doors": doors.map(|door| &door.url), "servers": servers})
}

/// Waits until an expression is true in the page.
fn sees(browser: &Browser, what: &str) {
    wait(what, || (browser.eval(&format!("return {what}")) == json!(true)).then_some(()));
}

/// A browser, and two doors with a list of both in their page.
fn scene(directory: &Path) -> (Browser, FakeDoor, FakeDoor) {
    needs("/usr/bin/curl", "curl");
    let (seoul, frankfurt) = (FakeDoor::open("seoul"), FakeDoor::open("frankfurt"));
    for door in [&seoul, &frankfurt] {
        door.tell(&json!({"list": list(1, [&seoul, &frankfurt]), "embeds": true}));
    }
    (Browser::start(directory), seoul, frankfurt)
}

#[test]
fn a_browser_has_the_list_from_its_page_then_from_the_stream_then_from_its_storage() {
    let directory = tempfile::tempdir().unwrap();
    let (browser, seoul, frankfurt) = scene(directory.path());
    browser.open(&seoul.url);
    let begun = browser
        .eval("window.told = 0; window.d = daemun(); d.on(() => told++); return [d.source, d.choose()]");
    assert_eq!(begun, json!(["embedded", seoul.url]));
    sees(&browser, "d.source == 'live'");
    seoul.tell(&json!({"list": list(2, [&frankfurt, &seoul])}));
    sees(&browser, "d.list.generation == 2");
    assert_eq!(browser.eval("return [told, d.choose()]"), json!([1, frankfurt.url]));
    seoul.tell(&json!({"list": list(3, [&frankfurt, &seoul])}));
    sees(&browser, "d.list.generation == 3");
    assert_eq!(browser.eval("return told"), json!(1), "the same servers are no news");

    // What is asked for twice is sent once: the browser has it when the door says 304.
    let twice =
        browser.eval_async("await d.refresh(); await d.refresh(); return [d.list.generation, d.source]");
    assert_eq!(twice, json!([3, "live"]));
    assert!(seoul.says(&browser)["notModified"].as_u64() >= Some(1));

    // A page without a list, of a door that has none to give either.
    browser.eval("d.close()");
    seoul.tell(&json!({"embeds": false, "failures": {"/v1/servers": "empty"}}));
    browser.open(&seoul.url);
    let kept = "window.d = daemun({watch: false, ttl: 3600}); const {source} = d; await d.refresh(); \
        return [source, d.source, d.list.generation]";
    assert_eq!(browser.eval_async(kept), json!(["kept", "live", 1]), "another door has one");
    frankfurt.tell(&json!({"failures": {"/v1/servers": "empty"}}));
    browser.open(&seoul.url);
    assert_eq!(browser.eval_async(kept), json!(["kept", "kept", 1]), "an empty list is none");
    browser.open(&frankfurt.url.replace("127.0.0.1", "localhost"));
    browser.eval("localStorage.clear()");
    assert_eq!(browser.eval_async(kept)[0], json!("embedded"), "storage is an origin's own");
}

#[test]
fn a_browser_measures_doors_and_goes_on_to_the_next_when_one_fails() {
    let directory = tempfile::tempdir().unwrap();
    let (browser, mut seoul, frankfurt) = scene(directory.path());
    browser.open(&seoul.url);
    browser.eval("window.d = daemun()");

    // Measured although no page of another door may read its answers.
    let order = "await d.measure(); return d.servers().map(server => server.name)";
    let near = |names: [&str; 2]| {
        wait(&format!("the order {names:?}"), || (browser.eval_async(order) == json!(names)).then_some(()));
    };
    seoul.tell(&json!({"delay": 60}));
    frankfurt.tell(&json!({"closed": true}));
    near(["frankfurt", "seoul"]);
    seoul.tell(&json!({"delay": 0}));
    frankfurt.tell(&json!({"delay": 60, "closed": false}));
    near(["seoul", "frankfurt"]);

    let ask = "return (await (await d.fetch('frontdoor', '/hello')).json()).door";
    assert_eq!(browser.eval_async(ask), json!("seoul"));
    seoul.tell(&json!({"failures": {"/hello": "cut"}}));
    assert_eq!(browser.eval_async(ask), json!("frankfurt"));
    assert_eq!(browser.eval("return d.choose()"), json!(frankfurt.url), "who failed is in quarantine");
    let post = "window.e = daemun({watch: false, store: false}); \
        try { return (await e.fetch('frontdoor', '/hello', {method: 'POST'})).status } catch (e) { return e.name }";
    assert_eq!(browser.eval_async(post), json!("TypeError"), "a POST is not sent twice");

    // The page's own door is gone: calls, lists and the stream are another's.
    seoul.kill();
    assert_eq!(browser.eval_async(ask), json!("frankfurt"));
    wait("a stream of the other door", || (frankfurt.says(&browser)["watchers"] == json!(1)).then_some(()));
    frankfurt.tell(&json!({"list": list(2, [&frankfurt, &seoul])}));
    sees(&browser, "d.list.generation == 2");
    assert_eq!(browser.eval_async(ask), json!("frankfurt"));

    let picture = directory.path().join("page.png");
    browser.screenshot(&picture);
    assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
}
