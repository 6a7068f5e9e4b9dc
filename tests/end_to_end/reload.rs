//! Files change under a running daemun: what is good is taken, what is broken is refused, said, and changes nothing.
//! Network 127.26.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::fleet::{CLIENTS, Fleet, NAMES, wait};

const ALL: &str = "dns,gateway,sync";

fn complaints(fleet: &Fleet) -> String {
    let status = fleet.status("seoul").unwrap();
    status["complaints"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|said| said.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

fn wait_for_complaint(fleet: &Fleet, part: &str) -> String {
    wait(&format!("a complaint with `{part}`"), || Some(complaints(fleet)).filter(|said| said.contains(part)))
}

fn ttl(fleet: &Fleet) -> u32 {
    fleet.ask("seoul", "www.shop.test.", Some(CLIENTS[0])).unwrap().answers[0].ttl
}

#[test]
fn good_files_are_taken_and_broken_ones_change_nothing() {
    let mut fleet = Fleet::new(26, "[geo]\nranges = [\"ranges\"]\n");
    fs::write(
        fleet.path("ranges"),
        "1.0.0.0,1.255.255.255,KR\n91.0.0.0,91.255.255.255,DE\n3.0.0.0,3.255.255.255,US\n",
    )
    .unwrap();
    for name in NAMES {
        fleet.start(name, ALL);
    }
    fleet.wait_until_all_see_all();
    assert_eq!(complaints(&fleet), "");
    let config = fs::read_to_string(fleet.config_path()).unwrap();

    // A good config, seen by itself.
    fs::write(fleet.config_path(), config.replace("ttl = 5", "ttl = 55")).unwrap();
    wait("the new ttl", || (ttl(&fleet) == 55).then_some(()));

    // A bad one: refused, with file, line and the right key; the last good answers on.
    fs::write(fleet.config_path(), config.replace("ttl = 5", "tll = 66")).unwrap();
    let said = wait_for_complaint(&fleet, "unknown key");
    assert!(said.contains("daemun.toml:") && said.contains("did you mean `ttl`?"), "{said}");
    assert_eq!(ttl(&fleet), 55);

    // Mended, by SIGHUP.
    fs::write(fleet.config_path(), config.replace("ttl = 5", "ttl = 77")).unwrap();
    fleet.signal("seoul", ALL, Signal::SIGHUP);
    wait("the mended ttl", || (ttl(&fleet) == 77).then_some(()));
    assert_eq!(complaints(&fleet), "");

    // A config that names a zone file which is not there yet: refused, and taken when it comes.
    let more =
        config.replace("ttl = 5", "ttl = 88") + "[[dns.zones]]\nname = \"more.test\"\nfile = \"more.zone\"\n";
    fs::write(fleet.config_path(), &more).unwrap();
    wait_for_complaint(&fleet, "more.zone: cannot read");
    assert_eq!(ttl(&fleet), 77);
    fs::write(fleet.path("more.zone"), "@ 60 SOA a b 1 2 3 4 5\n@ 60 NS ns.shop.test.\n").unwrap();
    wait("the second zone", || (ttl(&fleet) == 88).then_some(()));
    assert_eq!(complaints(&fleet), "");

    // A config of another fleet, or without this datacenter: a running process is not changed into something else.
    fs::write(fleet.config_path(), more.replace("name = \"test\"", "name = \"other\"")).unwrap();
    wait_for_complaint(&fleet, "the fleet's name has changed from `test` to `other`");
    fs::write(fleet.config_path(), more.replace("seoul", "busan")).unwrap();
    wait_for_complaint(&fleet, "no longer has datacenter `seoul`");
    assert_eq!(ttl(&fleet), 88);
    fs::write(fleet.config_path(), &more).unwrap();
    wait("the config to be right again", || complaints(&fleet).is_empty().then_some(()));

    // A pipe in the place of a file: refused, not waited for.
    fs::remove_file(fleet.path("more.zone")).unwrap();
    assert!(Command::new("mkfifo").arg(fleet.path("more.zone")).status().unwrap().success());
    wait_for_complaint(&fleet, "not a regular file");
    fs::remove_file(fleet.path("more.zone")).unwrap();
    fs::write(fleet.path("more.zone"), "@ 60 SOA a b 2 2 3 4 5\n@ 60 NS ns.shop.test.\n").unwrap();
    wait("the file to be right again", || complaints(&fleet).is_empty().then_some(()));

    // A zone with an error: the last good is served.
    let zone = fleet.zone();
    fs::write(fleet.path("shop.test.zone"), format!("{zone}static2 A 192.0.2.300\n")).unwrap();
    let said = wait_for_complaint(&fleet, "shop.test.zone:");
    assert!(
        said.contains("the last good is served") && said.contains(":10: not the data of a A record"),
        "{said}"
    );
    assert_eq!(fleet.ask("seoul", "static.shop.test.", None).unwrap().answers.len(), 1);
    fs::write(fleet.path("shop.test.zone"), format!("{zone}static2 A 192.0.2.78\n")).unwrap();
    wait("the mended zone", || {
        (fleet.ask("seoul", "static2.shop.test.", None).unwrap().answers.len() == 1).then_some(())
    });
    assert_eq!(complaints(&fleet), "");

    // Geo data that overlaps: refused, and users are sent as before.
    fs::write(fleet.path("ranges"), "1.0.0.0,1.255.255.255,US\n1.0.0.0,1.0.0.255,KR\n").unwrap();
    let said = wait_for_complaint(&fleet, "geo data refused: ranges:2:");
    assert!(said.contains("overlaps"), "{said}");
    assert_eq!(fleet.sent_to("seoul", CLIENTS[0]), Some("seoul"));
    // Taken away altogether: the same.
    fs::remove_file(fleet.path("ranges")).unwrap();
    wait_for_complaint(&fleet, "cannot read");
    assert_eq!(fleet.sent_to("seoul", CLIENTS[0]), Some("seoul"));
    // And a good one with another truth.
    fs::write(fleet.path("ranges"), "1.0.0.0,1.255.255.255,US\n").unwrap();
    wait("the new geo data", || fleet.sent_to("seoul", CLIENTS[0]).filter(|name| *name == "virginia"));
    assert_eq!(complaints(&fleet), "");
}
