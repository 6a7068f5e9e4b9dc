//! Files change under a running daemun: what is good is taken, what is broken is refused, said, and changes nothing.
//! Networks 127.26 and 127.53.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use nix::sys::signal::Signal;

use crate::fleet::{CLIENTS, Fleet, NAMES, ask, wait};

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

#[test]
fn one_bad_file_does_not_hold_up_the_others() {
    let second = "[[dns.zones]]\nname = \"other.test\"\nfile = \"other.test.zone\"\n";
    let dns = "listen = [\"datacenter:5300\"]\ncookie_secrets = \"cookies\"\n";
    let mut fleet = Fleet::with_dns(53, dns, second);
    let other =
        |ttl: u32| format!("$TTL {ttl}\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nhost A 192.0.2.2\n");
    let other_file = fleet.path("other.test.zone");
    let write_other = |ttl: u32| fs::write(&other_file, other(ttl)).unwrap();
    write_other(100);
    let (old, new) = ("00112233445566778899aabbccddeeff\n", "ffeeddccbbaa99887766554433221100\n");
    fs::write(fleet.path("cookies"), old).unwrap();
    fleet.start("seoul", ALL);
    let seoul = SocketAddr::from((fleet.address("seoul"), 5300));
    let other_ttl = || Some(ask(seoul, "host.other.test.", None).ok()?.answers.first()?.ttl);
    wait("the other zone", || (other_ttl() == Some(100)).then_some(()));

    // A zone that reads well and clashes with a steered name: it alone is refused.
    let zone = fleet.zone();
    fs::write(fleet.path("shop.test.zone"), format!("{zone}www A 192.0.2.66\n")).unwrap();
    write_other(200);
    wait("the other zone's change", || (other_ttl() == Some(200)).then_some(()));
    let said = wait_for_complaint(&fleet, "zone shop.test refused");
    assert!(said.contains("www.shop.test. is steered and also has A records"), "{said}");
    assert_eq!(fleet.metric("seoul", "daemun_dns_zone_refused", "\"shop.test\"") as u32, 1);
    assert_eq!(fleet.metric("seoul", "daemun_dns_zone_refused", "\"other.test\"") as u32, 0);
    assert_eq!(ttl(&fleet), 5, "steered as before");
    fs::write(fleet.path("shop.test.zone"), zone).unwrap();
    wait("all to be well", || complaints(&fleet).is_empty().then_some(()));

    // A typo in the config: what the other files say is taken all the same.
    let config = fs::read_to_string(fleet.config_path()).unwrap();
    fs::write(fleet.config_path(), config.replace("policy =", "polcy =")).unwrap();
    write_other(300);
    wait("the other zone's change beside a bad config", || (other_ttl() == Some(300)).then_some(()));
    assert!(complaints(&fleet).contains("config refused, the last good is used"), "{}", complaints(&fleet));
    fs::write(fleet.config_path(), &config).unwrap();
    wait("all to be well", || complaints(&fleet).is_empty().then_some(()));

    // Cookies of the old secret are good while it follows the new one, and not after.
    let given = cookie(&fleet, &[1; 8]).expect("a cookie");
    assert_eq!(cookie(&fleet, &given).as_ref(), Some(&given));
    fs::write(fleet.path("cookies"), format!("{new}{old}")).unwrap();
    let renewed =
        wait("a cookie by the new secret", || cookie(&fleet, &given).filter(|cookie| *cookie != given));
    fs::write(fleet.path("cookies"), new).unwrap();
    wait("the old secret to be gone", || (alone(&fleet, &given) == Some(23)).then_some(()));
    assert_eq!(alone(&fleet, &renewed), Some(0));

    // A front door has no need of the name server's secrets.
    fs::remove_file(fleet.path("cookies")).unwrap();
    fleet.start("frankfurt", "gateway");
    wait("frankfurt's door", || TcpStream::connect((fleet.address("frankfurt"), 8080)).ok());
}

/// Asks with a cookie; the one that comes back.
fn cookie(fleet: &Fleet, sent: &[u8]) -> Option<Vec<u8>> {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii("static.shop.test.").unwrap(), RecordType::A));
    let edns = exchange(fleet, query, sent)?.edns?;
    match edns.option(EdnsCode::Cookie)? {
        EdnsOption::Unknown(_, cookie) => Some(cookie.clone()),
        _ => None,
    }
}

/// Asks whether a cookie is good (RFC 7873 section 5.4); the code of the answer.
fn alone(fleet: &Fleet, sent: &[u8]) -> Option<u16> {
    Some(exchange(fleet, Message::query(), sent)?.metadata.response_code.into())
}

fn exchange(fleet: &Fleet, mut query: Message, cookie: &[u8]) -> Option<Message> {
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Unknown(10, cookie.to_vec()));
    query.edns = Some(edns);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.connect((fleet.address("seoul"), 5300)).unwrap();
    socket.send(&query.to_vec().unwrap()).ok()?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).ok()?;
    Message::from_vec(&buffer[..length]).ok()
}
