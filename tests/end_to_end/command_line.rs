//! Exit codes and messages: what is wrong, where, and what to do next. Network 127.27.

use std::fs;
use std::net::UdpSocket;

use tempfile::TempDir;

use crate::fleet::{Fleet, daemun, run, text};

#[test]
fn check_says_all_and_exits_2() {
    let fleet = Fleet::new(27, "");
    let path = fleet.config_path();
    let good = run(&["check", path.to_str().unwrap()]);
    assert_eq!(good.status.code(), Some(0));
    assert!(
        text(&good.stdout)
            .contains("3 datacenters, 3 servers, 1 zones, 1 steered names; places from built-in")
    );

    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("latitude = 50.11", "latitude = 500").replace("policy", "polizy"))
        .unwrap();
    let bad = run(&["check", path.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2));
    let said = text(&bad.stdout);
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.contains("did you mean `policy`?") && said.contains("from -90 to 90"), "{said}");
    let json = run(&["check", "--json", path.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["problems"].as_array().unwrap().len(), 3);

    let missing = run(&["check", "nowhere.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stdout).contains("nowhere.toml: cannot read"));
}

#[test]
fn run_refuses_what_it_cannot_do() {
    let fleet = Fleet::new(28, "");
    let path = fleet.config_path();
    let data = TempDir::new().unwrap();
    let data = data.path().to_str().unwrap();
    let stranger = run(&["run", "--config", path.to_str().unwrap(), "--datacenter", "busan", "--data", data]);
    assert_eq!(stranger.status.code(), Some(2));
    assert!(text(&stranger.stderr).contains("no `busan`; it has seoul, frankfurt, virginia"));

    let _taken = UdpSocket::bind((fleet.address("seoul"), 5300)).unwrap();
    let (config, keys) = (path.to_str().unwrap(), fleet.path("keys/seoul"));
    let keys = keys.to_str().unwrap();
    let clash = run(&["run", "--config", config, "--datacenter", "seoul", "--keys", keys, "--data", data]);
    assert_eq!(clash.status.code(), Some(1));
    let said = text(&clash.stderr);
    assert!(said.contains("cannot listen on 127.28.1.1:5300 (UDP)") && said.contains("ss -ulpn"), "{said}");
}

#[test]
fn agents_that_speak_tls_want_keys() {
    let fleet = Fleet::new(27, "");
    let path = fleet.config_path();
    let (config, keys) = (path.to_str().unwrap(), path.with_file_name("keys"));
    let keys = keys.to_str().unwrap();
    fs::remove_dir_all(keys).unwrap();
    assert_eq!(run(&["check", config]).status.code(), Some(0), "the config itself is right");
    let start = || run(&["run", "--config", config, "--datacenter", "seoul", "--role", "dns"]);
    let without = start();
    assert_eq!(without.status.code(), Some(2));
    let said = text(&without.stderr);
    assert!(said.contains("keys/ca.pem: cannot read") && said.contains("daemun keys issue"), "{said}");

    assert_eq!(run(&["keys", "init", "--fleet", "Test", "--directory", keys]).status.code(), Some(2));
    assert!(run(&["keys", "init", "--fleet", "test", "--directory", keys]).status.success());
    assert_eq!(run(&["keys", "init", "--fleet", "test", "--directory", keys]).status.code(), Some(1));
    let issued = run(&["keys", "issue", "virginia", "--days", "9", "--directory", keys]);
    assert!(text(&issued.stdout).contains("virginia/agent.key"), "{}", text(&issued.stdout));
    let shown = run(&["keys", "show", "--directory", keys]);
    assert!(text(&shown.stdout).contains("ATTENTION: virginia"), "{}", text(&shown.stdout));
    for file in ["agent.pem", "agent.key"] {
        fs::copy(format!("{keys}/virginia/{file}"), format!("{keys}/{file}")).unwrap();
    }
    let elsewhere = start();
    assert_eq!(elsewhere.status.code(), Some(2), "the keys of another datacenter");
    assert!(text(&elsewhere.stderr).contains("is for virginia.test.daemun.internal"));
}

#[test]
fn the_lab_names_every_port_in_use() {
    let _taken = UdpSocket::bind("127.29.2.1:5300").unwrap();
    let directory = TempDir::new().unwrap();
    let lab =
        daemun().args(["lab", "--network", "127.29", "--directory"]).arg(directory.path()).output().unwrap();
    assert_eq!(lab.status.code(), Some(1));
    let said = text(&lab.stderr);
    assert!(said.contains("127.29.2.1:5300 udp, DNS of frankfurt") && said.contains("--network"), "{said}");
    assert_eq!(run(&["lab", "--network", "10.0"]).status.code(), Some(2));
}

#[test]
fn status_and_explain_say_whom_they_asked() {
    let nobody = run(&["status", "--admin", "http://127.30.1.1:7480"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("no answer from http://127.30.1.1:7480"));
    let bare = run(&["status", "--admin", "127.30.1.1:7480"]);
    assert!(text(&bare.stderr).contains("expected a URL such as http://127.0.0.1:7480"));

    let fleet = Fleet::new(30, "");
    let path = fleet.config_path();
    let path = path.to_str().unwrap();
    let explain = |arguments: &[&str]| run(&[&["explain", "--config", path], arguments].concat());
    let unknown = explain(&["--name", "w.shop.test", "--client", "1.2.3.4"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("`w.shop.test` is not a steered name"));
    let bad = explain(&["--name", "www.shop.test", "--client", "1.2.3"]);
    assert_eq!(bad.status.code(), Some(2));
    let said = text(&explain(&["--name", "WWW.shop.test.", "--client", "91.0.0.0/16"]).stdout);
    assert!(said.contains("→ 1  frankfurt") && said.contains("the RIPE NCC region"), "{said}");
    assert!(said.contains("assuming that all serve"), "{said}");
}
