//! What lies in `deploy/` is parsed by the programs that will read it.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::fleet::{needs, run, text};

fn deploy(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path).display().to_string()
}

#[test]
fn the_example_fleet_is_right() {
    needs("/usr/share/tor/geoip", "tor-geoipdb");
    let check = run(&["check", &deploy("example/daemun.toml")]);
    assert!(check.status.success(), "{}", text(&check.stdout));
    let config = deploy("example/daemun.toml");
    let said =
        run(&["explain", "--config", &config, "--name", "www.shop.example", "--client", "49.36.0.0/14"]);
    assert!(
        text(&said.stdout).contains("→ 1  frankfurt") && text(&said.stdout).contains("override for IN, LK")
    );
}

/// `systemd-analyze verify` of these units: what it says.
fn verify(units: &[&str]) -> String {
    needs("/usr/bin/systemd-analyze", "systemd");
    // It complains of programs that are not installed: a copy names the program under test.
    let directory = TempDir::new().unwrap();
    let mut paths = Vec::new();
    for unit in units {
        let text = fs::read_to_string(deploy(&format!("systemd/{unit}"))).unwrap();
        let path = directory.path().join(unit.replace("@.", "@seoul."));
        fs::write(&path, text.replace("/usr/local/bin/daemun", env!("CARGO_BIN_EXE_daemun"))).unwrap();
        paths.push(path);
    }
    let output = Command::new("systemd-analyze").arg("verify").args(&paths).output().unwrap();
    let said = text(&output.stderr);
    said.lines().filter(|line| line.contains("daemun")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_units_are_right() {
    assert_eq!(verify(&["daemun@.service", "daemun-role@.service"]), "");
}

#[test]
fn a_unit_that_is_wrong_is_caught() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("daemun@seoul.service");
    let text = fs::read_to_string(deploy("systemd/daemun@.service")).unwrap();
    fs::write(&path, text.replace("Restart=always", "Restart=sometimes")).unwrap();
    let output = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("sometimes"));
}

/// Options in units and examples are options that the program has.
#[test]
fn options_in_units_exist() {
    let help = text(&run(&["run", "--help"]).stdout);
    for unit in ["daemun@.service", "daemun-role@.service"] {
        let unit = fs::read_to_string(deploy(&format!("systemd/{unit}"))).unwrap();
        let start = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        for option in start.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "`run` has no {option}");
        }
    }
}
