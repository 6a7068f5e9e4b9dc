//! People at the front door: in a browser that shows the page while datacenters die, and as 50,000 requests of the browser client
//! while they die or are drained. Networks 127.73 to 127.75.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::client::script;
use crate::fleet::{Fleet, NAMES, wait};

const ALL: &str = "dns,gateway,sync";
/// As many as the front door is judged by.
const REQUESTS: u64 = 50_000;
/// Users at once.
const AT_ONCE: u64 = 32;

/// What the page says of each server, by name.
fn shown(browser: &Browser) -> Value {
    browser.eval(
        "return Object.fromEntries([...document.querySelectorAll('#servers tr')]\
         .map(row => [row.cells[0].textContent, row.cells[3].textContent]))",
    )
}

#[test]
fn the_page_shows_the_fleet_as_it_dies() {
    let mut fleet = Fleet::started(73, "");
    let directory = tempfile::tempdir().unwrap();
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    fs::create_dir_all(&pictures).unwrap();
    let browser = Browser::start(directory.path());
    let picture = |name: &str| {
        let path = pictures.join(format!("{name}.png"));
        browser.screenshot(&path);
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() > 20_000, "{}: a page without its map? {} bytes", path.display(), bytes.len());
        eprintln!("{}", path.display());
        bytes
    };
    let wait_for = |seoul: &str, frankfurt: &str, virginia: &str| {
        let wanted = json!({"door-seoul": seoul, "door-frankfurt": frankfurt, "door-virginia": virginia});
        wait(&format!("the page to show {wanted}"), || (shown(&browser) == wanted).then_some(()));
    };
    browser.open(&format!("http://{}:8080/", fleet.address("seoul")));
    wait_for("up", "up", "up");
    assert_eq!(browser.eval("return document.querySelectorAll('svg g.serving').length"), json!(3));
    let well = picture("1-all-well");

    fleet.kill("frankfurt", ALL);
    wait_for("up", "down", "up");
    wait("the map to show it", || {
        (browser.eval("return document.getElementById('at-frankfurt').getAttribute('class')")
            == json!("down"))
        .then_some(())
    });
    assert_ne!(picture("2-frankfurt-dead"), well);

    for name in ["seoul", "virginia"] {
        fleet.kill(name, ALL);
    }
    wait("the page to say that nobody answers", || {
        let news = browser.eval("return document.getElementById('news').textContent");
        news.as_str()?.contains("No door answers: this is the list of").then_some(())
    });
    assert_eq!(shown(&browser).as_object().unwrap().len(), 3, "the last list stays");
    picture("3-everything-dead");

    fleet.start("seoul", ALL);
    wait("the page to have a door again", || {
        let news = browser.eval("return document.getElementById('news').textContent");
        news.as_str()?.contains("of the fleet view, from seoul").then_some(())
    });
}

/// The browser client's requests, with something done when so many are answered.
fn requests(fleet: &Fleet, door: &str, mut act: impl FnMut(u64)) -> Value {
    let url = format!("http://{}:8080/", fleet.address(door));
    let mut child = Command::new("/usr/bin/node")
        .arg(script("load.js"))
        .args([url, REQUESTS.to_string(), AT_ONCE.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        last = line.unwrap();
        if let Some(done) = last.strip_prefix("done ").and_then(|rest| rest.split(' ').next()?.parse().ok()) {
            act(done);
        }
    }
    child.wait().unwrap();
    eprintln!("{last}");
    serde_json::from_str(&last).unwrap_or_else(|error| panic!("{error}: {last}"))
}

/// Acts once, when so many are done.
fn once(at: u64, mut act: impl FnMut()) -> impl FnMut(u64) {
    let mut is_done = false;
    move |done| {
        if done >= at && !is_done {
            is_done = true;
            act();
        }
    }
}

#[test]
fn users_do_not_see_a_datacenter_die() {
    let mut fleet = Fleet::new(74, "");
    for name in ["seoul", "frankfurt"] {
        fleet.start(name, ALL);
    }
    wait_for_two(&fleet);
    let pid = fleet.pid("seoul", ALL);
    let report = requests(
        &fleet,
        "seoul",
        once(REQUESTS / 3, || {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
                .unwrap();
        }),
    );
    assert_eq!((&report["requests"], &report["failed"]), (&json!(REQUESTS), &json!(0)), "{report}");
    assert!(report["retried"].as_u64() > Some(0), "nobody was there when it died: {report}");
    fleet.kill("seoul", ALL);
}

#[test]
fn a_drain_and_a_graceful_stop_fail_nobody() {
    let mut fleet = Fleet::started(75, "");
    let pid = fleet.pid("seoul", ALL);
    let mut drain = once(REQUESTS / 5, || {
        let told = fleet.tell("seoul", &["drain", "seoul"]);
        assert!(told.status.success(), "{}", crate::fleet::text(&told.stderr));
    });
    let mut stop = once(REQUESTS / 2, || {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
    });
    let report = requests(&fleet, "seoul", |done| {
        drain(done);
        stop(done);
    });
    assert_eq!((&report["requests"], &report["failed"]), (&json!(REQUESTS), &json!(0)), "{report}");
    drop((drain, stop));
    assert!(fleet.ended("seoul", ALL), "it ends well");
}

/// Waits until two of the three know of each other.
fn wait_for_two(fleet: &Fleet) {
    for name in ["seoul", "frankfurt"] {
        wait(&format!("{name} to see two doors"), || {
            let status = fleet.status(name)?;
            let health = |door: &str| status["view"]["servers"][format!("door-{door}")]["health"].clone();
            (health("seoul") == "up" && health("frankfurt") == "up" && health(NAMES[2]) == "down")
                .then_some(())
        });
    }
}
