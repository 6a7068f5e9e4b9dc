//! Master files: what is read, and what is said of what is wrong.

use super::*;

const HEAD: &str = "$TTL 300\n@ 3600 IN SOA ns1 hostmaster ( 7 7200 1800 ; comment )\n 259200 900 )\n@ NS ns1\nns1 A 192.0.2.53\n";

fn read(body: &str) -> Result<Zone, Vec<ZoneFileError>> {
    let load = |path: &str| match path {
        "more" => Ok("inc A 192.0.2.7\n bad-is-blank A 192.0.2.8\n".to_owned()),
        "self" => Ok("$INCLUDE self\n".to_owned()),
        _ => Err("no such file".to_owned()),
    };
    parse("shop.zone", &format!("{HEAD}{body}"), "shop.test", &load)
}

fn error(body: &str) -> String {
    read(body).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn records(zone: &Zone, name: &str, record_type: RecordType) -> Vec<String> {
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    let node = zone.node(&LowerName::new(&name)).expect("the name is there");
    node.records(record_type).iter().map(|record| format!("{} {}", record.ttl, record.data)).collect()
}

#[test]
fn the_common_forms() {
    let said = error("www 60 IN A 192.0.2.1\n host TXT \"a ; b\" c\n");
    assert!(said.contains("found `host`"), "a blank start means the last owner: {said}");
    let zone = read("www 60 IN A 192.0.2.1\n\tIN 60 A 192.0.2.2\ntxt TXT \"a ; b\" c\nmx MX 10 mail.other.test.\n$ORIGIN sub.shop.test.\nx A 192.0.2.3\n$TTL 1h\ny A 192.0.2.4\n").unwrap();
    assert_eq!(zone.serial(), 7);
    assert_eq!(records(&zone, "www.shop.test", RecordType::A), ["60 192.0.2.1", "60 192.0.2.2"]);
    assert_eq!(records(&zone, "txt.shop.test", RecordType::TXT), ["300 a ; bc"]);
    assert_eq!(records(&zone, "mx.shop.test", RecordType::MX), ["300 10 mail.other.test."]);
    assert_eq!(records(&zone, "x.sub.shop.test", RecordType::A), ["300 192.0.2.3"]);
    assert_eq!(records(&zone, "y.sub.shop.test", RecordType::A), ["3600 192.0.2.4"]);
    assert_eq!(records(&zone, "sub.shop.test", RecordType::A), [""; 0], "an empty non-terminal");
    assert_eq!(zone.negative_soa().ttl, 900);
}

#[test]
fn escapes_and_odd_names() {
    let zone = read("a\\101b A 192.0.2.1\nsel_1._domainkey TXT v=DKIM1\\; \"a\\065b \\\"q\\\"\"\ndot\\.ted A 192.0.2.2\nc CNAME @\nm MX 10 @\n").unwrap();
    assert_eq!(records(&zone, "aeb.shop.test", RecordType::A), ["300 192.0.2.1"], "101 is decimal");
    assert_eq!(records(&zone, "c.shop.test", RecordType::CNAME), ["300 shop.test."]);
    assert_eq!(records(&zone, "m.shop.test", RecordType::MX), ["300 10 shop.test."]);
    let labels = [&b"sel_1"[..], b"_domainkey", b"shop", b"test"];
    let name = LowerName::new(&Name::from_labels(labels).unwrap());
    let RData::TXT(txt) = &zone.node(&name).expect("an underscore").records(RecordType::TXT)[0].data else {
        panic!("TXT")
    };
    let texts: Vec<&[u8]> = txt.txt_data.iter().map(|text| &**text).collect();
    assert_eq!(texts, [&b"v=DKIM1;"[..], b"aAb \"q\""]);
    assert!(error("a\\256 A 192.0.2.1\n").contains("more than a byte"));
    assert!(error("a..b A 192.0.2.1\n").contains("a label is empty"));
    assert!(error(&format!("a TXT {}\n", "x".repeat(256))).contains("at most 255 fit"));
    assert!(error("a TYPE41 \\# 0\n").contains("not for zones"));
    assert!(error("a 4294967295 A 192.0.2.1\n").contains("at most 2147483647"));
}

#[test]
fn unknown_types_by_number() {
    let zone = read("odd TYPE65280 \\# 3 0a 0B0c\nplain TYPE1 \\# 4 c0000201\n").unwrap();
    assert_eq!(records(&zone, "plain.shop.test", RecordType::A), ["300 192.0.2.1"]);
    assert_eq!(records(&zone, "odd.shop.test", RecordType::from(65280)).len(), 1);
    assert!(error("odd TYPE65280 \\# 4 0a0b0c\n").contains("twice the length"));
}

#[test]
fn errors_name_file_and_line_and_all_are_found() {
    let all = error(
        "www A 192.0.2.300\nok A 192.0.2.1\nmx MX ten mail\nwho WHAT 1\nfar.other.test. A 192.0.2.1\n$BOGUS x\n",
    );
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 5, "{all}");
    assert!(lines[0].starts_with("shop.zone:6: not the data of a A record: `192.0.2.300`"), "{all}");
    assert!(lines[1].starts_with("shop.zone:8: not the data of a MX record"), "{all}");
    assert!(
        lines[2].starts_with("shop.zone:9: expected a record type such as A or TXT, found `WHAT`"),
        "{all}"
    );
    assert!(lines[3].starts_with("shop.zone:10: far.other.test. is not in the zone shop.test."), "{all}");
    assert!(lines[4].starts_with("shop.zone:11: unknown directive `$BOGUS`"), "{all}");
}

#[test]
fn a_zone_needs_its_soa_and_ns() {
    let none = |_: &str| Err("none".to_owned());
    let said = |text: &str| parse("z", text, "shop.test", &none).unwrap_err()[0].to_string();
    assert_eq!(said(""), "z: the zone has 0 SOA records at shop.test., expected one");
    assert_eq!(said("@ 60 SOA ns1 h 1 2 3 4 5\n"), "z: the zone has no NS record at shop.test.");
    assert!(
        said("@ SOA ns1 h 1 2 3 4 5\n@ NS ns1\nx.y 60 SOA ns1 h 1 2 3 4 5\n").contains("belongs to the apex")
    );
}

#[test]
fn cname_stands_alone_and_open_ends_are_told() {
    assert!(
        error("a CNAME b\na A 192.0.2.1\n")
            .contains("shop.zone:6: a.shop.test. has a CNAME, which must be its only record")
    );
    assert!(error("a TXT ( x\n").contains("shop.zone:6: a `(` without its `)`"));
    assert!(error("a TXT x )\n").contains("a `)` without its `(`"));
    assert!(error("a TXT \"x\n").contains("without its closing"));
    assert!(error("a TXT\n").contains("the TXT record has no data"));
    assert!(error("a 60\n").contains("found the end of the entry"));
    assert!(error("a CH TXT x\n").contains("only class IN"));
}

#[test]
fn includes() {
    let said = error("$INCLUDE more sub\n");
    assert!(said.contains("more:2: "), "{said}");
    assert!(error("$INCLUDE nothing\n").contains("cannot include `nothing`: no such file"));
    assert!(error("$INCLUDE self\n").contains("does one include itself?"));
}

#[test]
fn no_text_makes_it_panic() {
    for end in 0..HEAD.len() {
        let _ = parse("z", &HEAD[..end], "shop.test", &|_| Err(String::new()));
    }
    for text in [
        "\\",
        "\"",
        "@",
        "$",
        "$ORIGIN",
        "$TTL",
        "(",
        "é A 1.2.3.4",
        "a\\300 A 1.2.3.4",
        "\u{0} A 1",
        "x TXT \\\u{e9}",
    ] {
        let _ = read(text);
    }
}
