//! The lab judged by what DNS operators judge servers with: zonemaster, dnsviz and delv, in a network namespace of its own,
//! where the lab has port 53 (see audit.sh).

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fleet::{needs, text};

/// What zonemaster has against any zone on loopback, and not against the server.
const OF_LOOPBACK: [&str; 2] = ["NAMESERVER_IP_PRIVATE_NETWORK", "NO_RESPONSE_PTR_QUERY"];

/// Tags of what zonemaster found wrong, but for loopback.
fn zonemaster(file: &Path) -> Vec<String> {
    let said = fs::read_to_string(file).unwrap();
    let entries: Vec<serde_json::Value> =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let tags = entries.iter().map(|entry| entry["tag"].as_str().unwrap().to_owned());
    tags.filter(|tag| !OF_LOOPBACK.contains(&tag.as_str())).collect()
}

#[test]
fn zonemaster_dnsviz_and_delv_find_nothing_wrong_with_the_lab() {
    needs("/usr/bin/zonemaster-cli", "zonemaster-cli");
    needs("/usr/bin/dnsviz", "dnsviz");
    needs("/usr/bin/delv", "bind9-dnsutils");
    needs("/usr/sbin/unbound", "unbound");
    needs("/usr/sbin/ip", "iproute2");
    let directory = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/audit.sh");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "--mount", "--kill-child"])
        .args([script.as_os_str(), env!("CARGO_BIN_EXE_daemun").as_ref(), directory.path().as_os_str()])
        .output()
        .unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    let read = |file: &str| fs::read_to_string(directory.path().join(file)).unwrap();

    assert_eq!(zonemaster(&directory.path().join("zonemaster.json")), [""; 0]);
    assert!(!zonemaster(&directory.path().join("zonemaster-lame.json")).is_empty(), "a lame server is seen");

    let seen = read("dnsviz.txt");
    let services = seen.lines().filter(|line| {
        ["SRV: ", "0 10 8080 ns-seoul.shop.test.", "1 10 8080 ns-frankfurt.shop.test."]
            .iter()
            .all(|part| line.contains(part))
    });
    assert_eq!(services.count(), 2, "{seen}");
    let found = read("dnsviz.json");
    assert!(!found.contains("errors") && !found.contains("warnings"), "{found}");
    assert!(read("dnsviz-lame.json").contains("errors"), "a lame server is seen");

    let delv = read("delv.txt");
    assert_eq!(delv.matches("; authoritative").count(), 6, "{delv}");
    assert_eq!(delv.matches("ncache nxrrset").count(), 2, "{delv}");
    assert_eq!(delv.matches("ncache nxdomain").count(), 2, "{delv}");
}
