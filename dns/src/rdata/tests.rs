use super::*;

fn origin() -> Name {
    Name::from_ascii("shop.test.").unwrap()
}

fn bytes(kind: &str, text: &str) -> Result<Vec<u8>, String> {
    let record_type = type_of(kind)?;
    let data =
        crate::zone_file::split(text).and_then(|tokens| record_data(record_type, &tokens, &origin()))?;
    Ok(uncompressed(&data))
}

fn hex(kind: &str, text: &str) -> String {
    let found = bytes(kind, text).unwrap_or_else(|error| panic!("{error}"));
    data_encoding::HEXLOWER.encode(&found)
}

/// `expected` is hexadecimal; what is shown of it is read as the same.
fn assert_reads(kind: &str, text: &str, expected: &str) {
    let found = hex(kind, text);
    assert_eq!(found, expected, "{kind} {text}");
    let shown = present(type_of(kind).unwrap(), &bytes(kind, text).unwrap());
    assert_eq!(hex(kind, &shown), found, "{kind} {text} shown as {shown}");
}

#[test]
fn every_common_type() {
    for (kind, text, expected) in [
        ("A", "192.0.2.1", "c0000201"),
        ("AAAA", "2001:db8::1", "20010db8000000000000000000000001"),
        ("NS", "ns1", "036e73310473686f70047465737400"),
        ("CNAME", "@", "0473686f70047465737400"),
        (
            "SOA",
            "@ . 1 2h 30m 4w 60",
            "0473686f7004746573740000000000010000\
          1c200000070800\
          24ea000000003c",
        ),
        ("MX", "10 mail.", "000a046d61696c00"),
        ("TXT", "\"a b\" c\\\"d \\200", "036120620363226401c8"),
        ("SRV", "1 2 443 a.", "0001000201bb016100"),
        (
            "CAA",
            "128 issue \"ca.test; x=1\"",
            "80056973737565\
          63612e746573743b20783d31",
        ),
        (
            "NAPTR",
            "1 2 \"s\" \"SIP+D2U\" \"\" _sip._udp.",
            "00010002\
          0173075349502b44325500\
          045f736970045f75647000",
        ),
        ("TLSA", "3 1 1 00ff 10", "03010100ff10"),
        ("SSHFP", "4 2 ABCD", "0402abcd"),
        ("DS", "60485 ECDSAP256SHA256 2 0102", "ec450d020102"),
        (
            "LOC",
            "42 21 54 N 71 06 18 W -24m 30m",
            "00331613\
          89172dd0\
          70be15f0\
          00988d20",
        ),
        ("HINFO", "a \"b c\"", "016103622063"),
        ("URI", "1 2 \"https://a/\"", "0001000268747470733a2f2f612f"),
        ("TYPE65280", "\\# 3 0a0b 0c", "0a0b0c"),
        ("A", "\\# 4 c0000201", "c0000201"),
    ] {
        assert_reads(kind, text, expected);
    }
}

/// RFC 9460 appendix D.
#[test]
fn services() {
    for (kind, text, expected) in [
        ("SVCB", "0 foo.example.com.", "000003666f6f076578616d706c6503636f6d00"),
        ("SVCB", "1 .", "000100"),
        ("SVCB", "16 foo.example.com. port=53", "001003666f6f076578616d706c6503636f6d00000300020035"),
        (
            "SVCB",
            "1 foo.example.com. key667=hello",
            "000103666f6f076578616d706c6503636f6d00029b000568656c6c6f",
        ),
        (
            "SVCB",
            "1 foo.example.com. key667=\"hello\\210qoo\"",
            "000103666f6f076578616d706c6503636f6d00029b000968656c6c6fd2716f6f",
        ),
        (
            "SVCB",
            "1 foo.example.com. ipv6hint=\"2001:db8::1,2001:db8::53:1\"",
            "000103666f6f076578616d706c6503636f6d000006002020010db800000000000000000000000120010db8000000000000000000530001",
        ),
        (
            "SVCB",
            "16 foo.example.org. alpn=h2,h3-19 mandatory=ipv4hint,alpn ipv4hint=192.0.2.1",
            "001003666f6f076578616d706c65036f7267000000000400010004000100090268320568332d313900040004c0000201",
        ),
        (
            "SVCB",
            "16 foo.example.org. alpn=\"f\\\\\\\\oo\\\\,bar,h2\"",
            "001003666f6f076578616d706c65036f7267000001000c08665c6f6f2c626172026832",
        ),
    ] {
        assert_reads(kind, text, expected);
    }
}

/// RFC 9460 appendix D.3, and the like for other types.
#[test]
fn what_is_wrong_is_said() {
    for (kind, text, said) in [
        ("A", "192.0.2", "expected an IPv4 address"),
        ("A", "192.0.2.1 192.0.2.2", "more than was expected"),
        ("MX", "mail.", "from 0 to 65535"),
        ("MX", "10", "expected a domain name, found the end"),
        ("SRV", "0 0 +5 a.", "a port from 0 to 65535"),
        ("TXT", "\"a", "closing"),
        ("CAA", "0 is-sue \"x\"", "property"),
        ("TLSA", "3 1 1", "hexadecimal"),
        ("SSHFP", "1 1 abc", "hexadecimal"),
        ("LOC", "91 N 0 E 0m", "more than 90"),
        ("LOC", "90 59 N 0 E 0m", "more than 90 degrees"),
        ("LOC", "1 N 0 E", "altitude"),
        ("SVCB", "1 a. key123=x key123=y", "twice"),
        ("SVCB", "1 a. mandatory=key123", "not there"),
        ("SVCB", "1 a. mandatory=mandatory", "cannot be mandatory"),
        ("SVCB", "1 a. port", "needs a value"),
        ("SVCB", "1 a. no-default-alpn=x", "no value"),
        ("SVCB", "1 a. no-default-alpn", "needs alpn"),
        ("SVCB", "0 a. port=53", "alias"),
        ("HTTPS", "1 . ipv4hint=1.2.3", "not what it may hold"),
        ("EUI48", "00-00", "\\# LENGTH HEX"),
        ("TYPE99999", "x", "record type"),
        ("OPT", "x", "record type"),
        ("TYPE41", "\\# 0", "for messages"),
        ("ANAME", "x.", "steer"),
        ("DNAME", "x.", "wildcard CNAME"),
        ("A", "\\# 3 c00002", "not the data"),
        ("TYPE65280", "\\# 3 0a0b", "twice the length"),
    ] {
        let error = bytes(kind, text).expect_err(text);
        assert!(error.contains(said), "{kind} {text}: {error}");
    }
}
