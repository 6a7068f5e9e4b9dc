//! The same answer over every transport, as `kdig` and `curl` get it; the certificate replaced; proxies; wildcard
//! addresses. Networks 127.45, 127.46 and 127.48 to 127.50.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use rustls::pki_types::CertificateDer;

use crate::fleet::{Fleet, NAMES, needs, text, wait};

const ALL: &str = "dns,gateway,sync";
const DNS: &str = "listen = [\"datacenter:5300\"]\ntls_listen = [\"datacenter:8530\"]\n\
                   https_listen = [\"datacenter:8443\"]\nquic_listen = [\"datacenter:8530\"]\n\
                   certificate = \"dns.pem\"\nkey = \"dns.key\"\n";

/// Writes a new certificate; what it is.
fn write_certificate(fleet: &Fleet) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec![fleet.address("seoul").to_string()]).unwrap();
    fs::write(fleet.path("dns.key"), made.signing_key.serialize_pem()).unwrap();
    fs::write(fleet.path("dns.pem"), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

/// A TLS stream to Seoul that trusts this certificate only; `first` is sent before the handshake.
fn tls(
    fleet: &Fleet,
    certificate: &CertificateDer<'static>,
    first: &[u8],
) -> std::io::Result<rustls::StreamOwned<rustls::ClientConnection, TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = fleet.address("seoul");
    let connection =
        rustls::ClientConnection::new(Arc::new(config), std::net::IpAddr::from(address).into()).unwrap();
    let mut stream = TcpStream::connect((address, 8530))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(first)?;
    let mut tls = rustls::StreamOwned::new(connection, stream);
    tls.conn.complete_io(&mut tls.sock)?;
    Ok(tls)
}

pub(crate) fn query(name: &str, id: u16) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let packet = message.to_vec().unwrap();
    [&(packet.len() as u16).to_be_bytes()[..], &packet].concat()
}

/// The next message of a stream.
pub(crate) fn answer(stream: &mut impl std::io::Read) -> std::io::Result<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut packet)?;
    Ok(Message::from_vec(&packet).unwrap())
}

/// Seoul with a certificate, answering.
fn seoul_alone(half: u8) -> Fleet {
    let mut fleet = Fleet::with_dns(half, DNS, "");
    write_certificate(&fleet);
    fleet.start("seoul", ALL);
    wait("seoul's name server", || fleet.ask("seoul", "static.shop.test.", None).ok());
    fleet
}

#[test]
fn one_answer_over_every_transport() {
    needs("/usr/bin/kdig", "knot-dnsutils");
    let fleet = seoul_alone(45);
    let at = format!("@{}", fleet.address("seoul"));
    let ways: [&[&str]; 6] = [
        &["-p", "5300"],
        &["-p", "5300", "+tcp"],
        &["-p", "8530", "+tls"],
        &["-p", "8530", "+quic"],
        &["-p", "8443", "+https"],
        &["-p", "8443", "+https-get"],
    ];
    for way in ways {
        let kdig = Command::new("kdig")
            .arg(&at)
            .args(way)
            .args(["static.shop.test", "+subnet=1.208.0.0/16"])
            .output();
        let said = text(&kdig.unwrap().stdout);
        assert!(said.contains("192.0.2.77") && said.contains("NOERROR"), "{way:?}: {said}");
        assert!(said.contains("CLIENT-SUBNET: 1.208.0.0/16/0"), "{way:?}: {said}");
        let is_padded = said.contains("PADDING");
        assert_eq!(is_padded, !way.contains(&"5300"), "{way:?}: {said}");
    }
    for (transport, count) in [("udp", 2.0), ("tcp", 1.0), ("tls", 1.0), ("quic", 1.0), ("https", 2.0)] {
        let labels = format!("transport=\"{transport}\"");
        assert!(fleet.metric("seoul", "daemun_dns_queries_total", &labels) >= count, "{transport}");
    }
}

#[test]
fn dns_over_https_says_what_is_wrong_with_a_request() {
    needs("/usr/bin/curl", "curl");
    let fleet = seoul_alone(46);
    let url = format!("https://{}:8443", fleet.address("seoul"));
    let curl = |path: &str, arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["-sk", "-o", "/dev/null", "-w", "%{http_code} %{content_type} %header{cache-control}"])
            .args(arguments)
            .arg(format!("{url}{path}"))
            .output();
        text(&output.unwrap().stdout)
    };
    // static.shop.test A, number 0.
    let good = "/dns-query?dns=AAABAAABAAAAAAAABnN0YXRpYwRzaG9wBHRlc3QAAAEAAQ";
    assert_eq!(curl(good, &["--http2"]), "200 application/dns-message private, max-age=300");
    assert!(curl(good, &["-I", "--http2"]).starts_with("405"), "a HEAD has no body, and breaks nothing");
    let asked = fleet.path("asked");
    fs::write(&asked, &query("static.shop.test.", 0)[2..]).unwrap();
    let body = format!("@{}", asked.display());
    for kind in ["application/dns-message", "Application/DNS-Message; charset=utf-8"] {
        let told = curl("/dns-query", &["-H", &format!("content-type: {kind}"), "--data-binary", &body]);
        assert!(told.starts_with("200"), "{kind}: {told}");
    }
    assert_eq!(curl(good, &["--http1.1"]), "200 application/dns-message private, max-age=300");
    for (path, arguments, code) in [
        ("/", &[][..], "404"),
        ("/dns-query", &[], "400"),
        ("/dns-query?dns=A", &[], "400"),
        ("/dns-query?dns=AAAA", &[], "400"),
        ("/dns-query", &["-X", "DELETE"], "405"),
        ("/dns-query", &["-d", "x"], "415"),
        ("/dns-query", &["-H", "content-type: application/dns-message", "-d", "x"], "400"),
    ] {
        assert!(curl(path, arguments).starts_with(code), "{path} {arguments:?}: {}", curl(path, arguments));
    }
    let long = fleet.path("long");
    fs::write(&long, vec![0; 70_000]).unwrap();
    let body = format!("@{}", long.display());
    let told = curl("/dns-query", &["-H", "content-type: application/dns-message", "--data-binary", &body]);
    assert!(told.starts_with("413"), "{told}");
}

#[test]
fn the_certificate_is_replaced_and_a_broken_one_is_refused() {
    let mut fleet = Fleet::with_dns(49, DNS, "");
    let first = write_certificate(&fleet);
    fleet.start("seoul", ALL);
    let mut old = wait("TLS with the first certificate", || tls(&fleet, &first, b"").ok());
    let second = write_certificate(&fleet);
    wait("TLS with the second certificate", || tls(&fleet, &second, b"").ok());
    // Who was there before stays.
    old.write_all(&query("static.shop.test.", 7)).unwrap();
    assert_eq!(answer(&mut old).unwrap().answers.len(), 1);
    fs::write(fleet.path("dns.pem"), "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    let complaint = wait("a complaint", || {
        let status = fleet.status("seoul")?;
        status["complaints"].as_array()?.iter().find_map(|said| {
            said.as_str().filter(|said| said.contains("certificate refused")).map(str::to_owned)
        })
    });
    assert!(complaint.contains("dns.pem") && complaint.contains("the last good is used"), "{complaint}");
    tls(&fleet, &second, b"").unwrap();
}

#[test]
fn a_listed_proxy_says_who_the_client_is() {
    // Who may: only 127.50.99.1.
    let dns = format!("{DNS}proxies = [\"127.50.99.1\"]\n");
    let extra = "[[dns.overrides]]\nprefixes = [\"203.0.113.0/24\"]\norder = [\"virginia\"]\n\
                 [[dns.overrides]]\nprefixes = [\"127.50.99.0/24\"]\norder = [\"frankfurt\"]\n";
    let mut fleet = Fleet::with_dns(50, &dns, extra);
    let certificate = write_certificate(&fleet);
    for name in NAMES {
        fleet.start(name, ALL);
    }
    fleet.wait_until_all_see_all();
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x7f\x32\x01\x01\x12\x34\x14\xb4";
    let from = |source: Ipv4Addr| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&SocketAddr::from((fleet.address("seoul"), 5300)).into()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        TcpStream::from(socket)
    };
    let sent_to = |message: Message| fleet.whose(message.answers[0].data.ip_addr().unwrap());
    let proxy = Ipv4Addr::new(127, 50, 99, 1);
    let mut proxied = from(proxy);
    proxied.write_all(&[&header[..], &query("www.shop.test.", 1)].concat()).unwrap();
    assert_eq!(sent_to(answer(&mut proxied).unwrap()), "virginia", "203.0.113.7 behind the proxy");
    let mut bare = from(proxy);
    bare.write_all(&query("www.shop.test.", 1)).unwrap();
    // A header is waited for until it cannot be one; that may be now.
    let _ = bare.write_all(&[0; 16]);
    assert!(answer(&mut bare).is_err(), "from a proxy without a header");
    let mut other = from(Ipv4Addr::new(127, 50, 99, 2));
    other.write_all(&query("www.shop.test.", 1)).unwrap();
    assert_eq!(sent_to(answer(&mut other).unwrap()), "frankfurt", "who is not listed speaks for itself");
    let mut forger = from(Ipv4Addr::new(127, 50, 99, 2));
    forger.write_all(&[&header[..], &query("www.shop.test.", 1)].concat()).unwrap();
    assert!(answer(&mut forger).is_err(), "who is not listed is not believed");
    // TLS comes after the header.
    let trusting = format!("{DNS}proxies = [\"127.0.0.0/8\"]\n");
    let config = fs::read_to_string(fleet.config_path()).unwrap().replace(&dns, &trusting);
    fs::write(fleet.config_path(), config).unwrap();
    wait("a proxied answer over TLS", || {
        let mut secure = tls(&fleet, &certificate, header).ok()?;
        secure.write_all(&query("www.shop.test.", 1)).ok()?;
        (sent_to(answer(&mut secure).ok()?) == "virginia").then_some(())
    });
}

#[test]
fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
    let port = 5348; // on every address of the machine: nobody else's
    let mut fleet = Fleet::with_dns(48, &format!("listen = [\"[::]:{port}\"]\n"), "");
    let asks = |server: SocketAddr| {
        let any: SocketAddr = if server.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.connect(server).unwrap(); // an answer from elsewhere is not for this socket
        socket.send(&query("static.shop.test.", 9)[2..]).ok()?;
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).ok()?;
        Message::from_vec(&buffer[..length]).ok().filter(|message| message.answers.len() == 1)
    };
    let servers: [SocketAddr; 4] = [
        (Ipv4Addr::new(127, 48, 7, 7), port).into(),
        (Ipv4Addr::new(127, 48, 200, 1), port).into(),
        (Ipv4Addr::LOCALHOST, port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
    ];
    fleet.start(NAMES[0], ALL);
    for server in servers {
        wait(&format!("an answer from {server}"), || asks(server));
    }
    // IPv4 alone.
    assert!(fleet.terminate(NAMES[0], ALL));
    let config = fs::read_to_string(fleet.config_path()).unwrap().replace("[::]:", "0.0.0.0:");
    fs::write(fleet.config_path(), config).unwrap();
    fleet.start(NAMES[0], ALL);
    for server in &servers[..3] {
        wait(&format!("an answer from {server}"), || asks(*server));
    }
}
