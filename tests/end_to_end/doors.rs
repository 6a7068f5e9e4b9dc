//! The front door as browsers and their worst imitators meet it: hosts and files, HTTP/2, TLS, fragments, another door's page,
//! and connections that are made to hurt. Networks 127.67 to 127.71.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::curl::{Seen, curl};
use crate::fleet::{Fleet, needs, text, wait};

const ALL: &str = "dns,gateway,sync";

fn get(url: &str) -> Seen {
    curl(&[url]).unwrap_or_else(|| panic!("no answer from {url}"))
}

/// Seoul alone, with `gateway` in its config's section of the front door.
fn seoul(half: u8, gateway: &str, extra: &str) -> Fleet {
    let fleet = Fleet::new(half, extra);
    let config = fs::read_to_string(fleet.config_path()).unwrap();
    fs::write(fleet.config_path(), config.replace("[gateway]\n", &format!("[gateway]\n{gateway}"))).unwrap();
    fleet
}

fn page(text: &str) -> String {
    format!("<html><h1>{text}</h1></html>\n")
}

fn wait_for_door(fleet: &Fleet, name: &str) -> String {
    let url = format!("http://{}:8080", fleet.address(name));
    wait("the door to open", || curl(&[&format!("{url}/")]));
    url
}

#[test]
fn hosts_and_files() {
    let mut fleet = seoul(
        67,
        "directory = \"www\"\n",
        "[[gateway.hosts]]\nnames = [\"blog.test\"]\ndirectory = \"blog\"\nheaders = { Content-Security-Policy = \"default-src 'self'\" }\n",
    );
    let write = |path: &str, body: &str| {
        let path = fleet.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body).unwrap();
    };
    write("www/index.html", &page("shop"));
    write("www/assets/main.3f2a91bc.js", &"let shop = 'open';\n".repeat(100));
    write("www/docs/index.html", &page("docs"));
    write("www/.env", "secret");
    write("www/.well-known/security.txt", "Contact: mailto:security@shop.test\n");
    write("blog/index.html", &page("blog"));
    write("outside.txt", "secret");
    std::os::unix::fs::symlink(fleet.path("outside.txt"), fleet.path("www/link.txt")).unwrap();
    std::os::unix::fs::symlink("docs", fleet.path("www/handbook")).unwrap();
    std::os::unix::fs::symlink("..", fleet.path("www/docs/loop")).unwrap();
    fleet.start("seoul", ALL);
    let url = wait_for_door(&fleet, "seoul");

    assert!(get(&format!("{url}/")).body.contains("shop"));
    let script = curl(&["--compressed", &format!("{url}/assets/main.3f2a91bc.js")]).unwrap();
    assert_eq!(script.body, "let shop = 'open';\n".repeat(100));
    assert_eq!(script.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    assert!(!script.header("content-encoding").is_empty() && !script.header("last-modified").is_empty());
    assert!(get(&format!("{url}/docs/")).body.contains("docs"));
    assert_eq!(get(&format!("{url}/docs")).header("location"), "/docs/");
    assert!(get(&format!("{url}/handbook/")).body.contains("docs"), "a link within is followed");
    assert!(get(&format!("{url}/.well-known/security.txt")).body.contains("mailto"));
    let blog = curl(&["-H", "Host: blog.test", &format!("{url}/")]).unwrap();
    assert!(blog.body.contains("blog") && blog.header("content-security-policy") == "default-src 'self'");

    for outside in [
        "/../outside.txt",
        "/docs/../../outside.txt",
        "/%2e%2e/outside.txt",
        "/..%2foutside.txt",
        "/%2e%2e%2foutside.txt",
        "/..%5coutside.txt",
        "/%252e%252e/outside.txt",
        "//etc/passwd",
        "/link.txt",
        "/.env",
        "/%2eenv",
        "/docs/./../.env",
        "/index.html%00.txt",
        "/assets/",
        "/WWW/.env",
    ] {
        let seen = get(&format!("{url}{outside}"));
        assert!(matches!(seen.status, 400 | 404), "{outside}: {}", seen.status);
        assert!(!seen.body.contains("secret") && !seen.body.contains("root:"), "{outside}");
    }
    let status = fleet.status("seoul").unwrap();
    let complaints = status["complaints"].to_string();
    assert!(complaints.contains("link.txt: not served: it is a link to outside"), "{complaints}");
    fleet.terminate("seoul", ALL);
}

#[test]
fn files_change_without_a_bad_moment() {
    let mut fleet = seoul(68, "directory = \"www\"\n", "");
    fs::create_dir_all(fleet.path("www")).unwrap();
    let (index, file) = (fleet.path("www/index.html"), fleet.path("www/a.txt"));
    fs::write(&index, page("version 0")).unwrap();
    fs::write(&file, "version 0").unwrap();
    fleet.start("seoul", ALL);
    let url = wait_for_door(&fleet, "seoul");
    let (is_over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for path in ["/", "/a.txt"] {
            let (url, is_over, asked) = (&url, &is_over, &asked);
            scope.spawn(move || {
                let mut door = crate::load::Door::new(url[7..].split(':').next().unwrap().parse().unwrap());
                while !is_over.load(Relaxed) {
                    let (status, body) = door.get(path, "1.208.0.1").unwrap();
                    assert!(status == 200 && body.contains("version "), "{path}: {status} {body}");
                    asked.fetch_add(1, Relaxed);
                }
            });
        }
        for version in 1..4 {
            // As the careless do: emptied, then written in parts.
            fs::write(&index, "").unwrap();
            fs::write(&file, format!("version {version}")).unwrap();
            fs::write(&index, &page(&format!("version {version}"))[..20]).unwrap();
            fs::write(&index, page(&format!("version {version}"))).unwrap();
            for path in ["/", "/a.txt"] {
                let wanted = format!("version {version}");
                wait(&wanted, || get(&format!("{url}{path}")).body.contains(&wanted).then_some(()));
            }
        }
        fs::remove_file(&file).unwrap();
        is_over.store(true, Relaxed);
    });
    wait("the file to be gone", || (get(&format!("{url}/a.txt")).status == 404).then_some(()));
    eprintln!("{} requests over three changes, none failed", asked.load(Relaxed));
    fleet.terminate("seoul", ALL);
}

fn certificate(fleet: &Fleet, name: &str) {
    needs("/usr/bin/openssl", "openssl");
    let (key, chain) = (fleet.path("door.key"), fleet.path("door.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=DNS:shop.test"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
}

#[test]
fn http2_and_tls_with_certificates_that_change() {
    let tls = "tls_listen = [\"datacenter:8443\"]\ncertificate = \"door.pem\"\nkey = \"door.key\"\n";
    let mut fleet = seoul(69, tls, "");
    certificate(&fleet, "first");
    fleet.start("seoul", ALL);
    let url = wait_for_door(&fleet, "seoul");
    let address = fleet.address("seoul");
    let secure = format!("https://{address}:8443/");
    let version = |arguments: &[&str]| {
        let seen = curl(arguments).unwrap();
        assert_eq!(seen.status, 200, "{}", seen.head);
        assert!(seen.body.contains("</html>"));
        seen.head.split(' ').next().unwrap_or_default().to_owned()
    };
    assert_eq!(version(&["--http2-prior-knowledge", &format!("{url}/")]), "http/2", "h2c");
    assert_eq!(version(&["-k", "--http2", &secure]), "http/2");
    for arguments in [["-I", "--http2-prior-knowledge", &url], ["-Ik", "--http2", &secure]] {
        // curl shows the head of a HEAD twice, and fails if more comes.
        let head = curl(&arguments).expect("HEAD has no body");
        assert!(head.status == 200 && head.header("content-length").len() > 3, "{}", head.head);
    }
    assert_eq!(version(&["-k", "--http1.1", &secure]), "http/1.1");
    assert_eq!(version(&["--http1.0", &format!("{url}/")]), "http/1.1");
    let old = Command::new("curl").args(["-sk", "--tls-max", "1.1", &secure]).output().unwrap();
    assert!(!old.status.success(), "TLS 1.1 is over");

    let shown = || {
        let output = Command::new("curl").args(["-skv", "-o", "/dev/null", &secure]).output().unwrap();
        text(&output.stderr).lines().find(|line| line.contains("subject:")).map(str::to_owned)
    };
    assert!(shown().unwrap().contains("first"));
    // Broken: the last good stays, and status says so.
    fs::write(fleet.path("door.pem"), "-----BEGIN").unwrap();
    wait("a complaint", || {
        let complaints = fleet.status("seoul")?["complaints"].to_string();
        complaints.contains("certificate of the front door refused").then_some(())
    });
    assert!(shown().unwrap().contains("first"));
    certificate(&fleet, "second");
    wait("the new certificate", || shown().filter(|subject| subject.contains("second")));
    fleet.terminate("seoul", ALL);
}

/// An origin of fragments that does as it is told.
struct Origin {
    address: SocketAddr,
    mode: Arc<AtomicU64>,
}

const WELL: u64 = 0;
const BROKEN: u64 = 1;
const SILENT: u64 = 2;
const NEWER: u64 = 3;

impl Origin {
    fn start(ip: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let (address, mode) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(WELL)));
        let of_thread = Arc::clone(&mode);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mode = Arc::clone(&of_thread);
                thread::spawn(move || answer(stream, mode.load(Relaxed)));
            }
        });
        Self { address, mode }
    }
}

fn answer(mut stream: TcpStream, mode: u64) {
    let mut head = [0; 2048];
    let _ = stream.read(&mut head);
    let body = match mode {
        WELL => "<b>three in the cart</b>",
        NEWER => "<b>four in the cart</b>",
        SILENT => return thread::sleep(Duration::from_secs(3)),
        _ => "<b>oops</b>",
    };
    let status = if mode == BROKEN { "500 Internal Server Error" } else { "200 OK" };
    let length = body.len();
    let _ =
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
}

#[test]
fn fragments_fail_and_the_page_does_not() {
    let origin = Origin::start(Ipv4Addr::new(127, 70, 9, 9));
    let extra = format!("[[gateway.origins]]\npath = \"/parts/\"\nurl = \"http://{}\"\n", origin.address);
    let mut fleet = seoul(70, "index = \"index.html\"\nfragments = true\n", &extra);
    let body = "<html><!--#block name=\"none\" --><i>no offers</i><!--#endblock -->\
                <p><!--#include virtual=\"/parts/cart\" ttl=\"1s\" timeout=\"300ms\" --></p>\
                <p><!--#include virtual=\"/elsewhere\" stub=\"none\" --></p>\
                <script type=\"application/json\" id=\"daemun-servers\"><!--#echo var=\"daemun_servers\" encoding=\"none\" --></script></html>";
    fs::write(fleet.path("index.html"), body).unwrap();
    fleet.start("seoul", ALL);
    let url = wait_for_door(&fleet, "seoul");
    let seen =
        wait("the fragment", || Some(get(&url)).filter(|seen| seen.body.contains("three in the cart")));
    assert!(seen.body.contains("<i>no offers</i>") && !seen.body.contains("<!--#"), "{}", seen.body);
    let (_, list) = seen.body.split_once("daemun-servers\">").unwrap();
    let list: serde_json::Value = serde_json::from_str(list.split("</script>").next().unwrap()).unwrap();
    assert_eq!(list["servers"].as_array().unwrap().len(), 3);
    assert_eq!(seen.header("x-door-source"), "live");
    for mode in [BROKEN, SILENT] {
        origin.mode.store(mode, Relaxed);
        let outcome = if mode == BROKEN { "status" } else { "timeout" };
        let failed = || fleet.metric("seoul", "daemun_gateway_fragments_total", outcome);
        wait("a failed fetch", || (failed() > 0.0).then_some(()));
        let seen = get(&url);
        assert!(seen.status == 200 && seen.body.contains("three in the cart"), "{}", seen.body);
        let stale = || fleet.metric("seoul", "daemun_gateway_fragments_stale", "");
        wait("a stale fragment to be counted", || (stale() > 0.0).then_some(()));
    }
    origin.mode.store(NEWER, Relaxed);
    wait("the newer fragment", || get(&url).body.contains("four in the cart").then_some(()));

    // The next process has no fragment, and no origin: the page that was good is better than one with a hole.
    wait("the page to be kept", || {
        let kept = fs::read_to_string(fleet.path(&format!("data-seoul-{ALL}")).join("page.json")).ok()?;
        kept.contains(&data_encoding::BASE64.encode(b"four in the ca")[..16]).then_some(())
    });
    origin.mode.store(BROKEN, Relaxed);
    fleet.kill("seoul", ALL);
    fleet.start("seoul", ALL);
    let url = wait_for_door(&fleet, "seoul");
    let seen = get(&url);
    assert_eq!((seen.status, seen.header("x-door-source")), (200, "kept"), "{}", seen.head);
    assert!(seen.body.contains("four in the cart"));
    fleet.terminate("seoul", ALL);
}

#[test]
fn a_door_without_a_page_shows_that_of_another() {
    let mut fleet = seoul(71, "index = \"index.html\"\n", "");
    let index = fleet.path("index.html");
    fs::write(&index, page("shop")).unwrap();
    fleet.start("seoul", ALL);
    wait_for_door(&fleet, "seoul");
    // One file for the whole fleet here: it goes before Frankfurt begins.
    fs::remove_file(&index).unwrap();
    let source = |name: &str, wanted: &str| {
        let url = wait_for_door(&fleet, name);
        let what = format!("{name} to show its page from {wanted}");
        wait(&what, || Some(get(&url)).filter(|seen| seen.header("x-door-source") == wanted))
    };
    source("seoul", "last-good");
    fleet.start("frankfurt", ALL);
    let source = |name: &str, wanted: &str| {
        let url = wait_for_door(&fleet, name);
        let what = format!("{name} to show its page from {wanted}");
        wait(&what, || Some(get(&url)).filter(|seen| seen.header("x-door-source") == wanted))
    };
    assert!(source("frankfurt", "peer").body.contains("shop"));
    // A third one has it from neither: Frankfurt's is not its own.
    fleet.kill("seoul", ALL);
    fleet.start("virginia", ALL);
    let url = wait_for_door(&fleet, "virginia");
    wait("virginia to have asked", || {
        let seen = get(&url);
        assert_eq!(seen.header("x-door-source"), "compiled-in");
        assert!(seen.status == 200 && seen.body.contains("frankfurt"));
        (fleet.metric("frankfurt", "daemun_gateway_pages_total", "peer") > 2.0).then_some(())
    });
    fleet.terminate("virginia", ALL);
}

/// Bytes that begin an HTTP/2 connection: the preface and empty settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Whether the other end closes while it is being written to, and how many frames it took.
fn written_until_closed(
    stream: &mut TcpStream,
    frames: usize,
    mut next: impl FnMut(usize) -> Vec<u8>,
) -> Option<usize> {
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut ignored = [0; 4096];
    for number in 0..frames {
        if stream.write_all(&next(number)).is_err() {
            return Some(number);
        }
        if number % 64 == 0 && matches!(stream.read(&mut ignored), Ok(0)) {
            return Some(number);
        }
    }
    None
}

#[test]
fn connections_that_are_made_to_hurt() {
    let mut fleet = seoul(72, "directory = \"www\"\n", "");
    fs::create_dir_all(fleet.path("www")).unwrap();
    fs::write(fleet.path("www/index.html"), page("shop")).unwrap();
    fs::write(fleet.path("www/large.png"), vec![7; 8 << 20]).unwrap();
    fleet.start("seoul", ALL);
    let url = wait_for_door(&fleet, "seoul");
    let address = SocketAddr::from((fleet.address("seoul"), 8080));
    let connect = || TcpStream::connect(address).unwrap();
    // HPACK: `:method GET`, `:scheme http`, `:path /` from the static table, `:authority a` as a literal.
    let request = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

    // Rapid reset (CVE-2023-44487): asked, and taken back at once.
    let mut stream = connect();
    stream.write_all(HTTP2).unwrap();
    let took = written_until_closed(&mut stream, 100_000, |number| {
        let stream = u32::try_from(number * 2 + 1).unwrap();
        [frame(1, 5, stream, &request), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    eprintln!("resets taken before the end: {took:?}");
    assert!(took.is_some_and(|took| took < 50_000), "{took:?}");

    // CONTINUATION without end (CVE-2024-27316).
    let mut stream = connect();
    stream.write_all(&[HTTP2, &frame(1, 1, 1, &request)].concat()).unwrap();
    let field = [&[0x40, 0x01, b'x', 0x7f, 0x81, 0x7e][..], &[b'y'; 255]].concat();
    let took = written_until_closed(&mut stream, 100_000, |_| frame(9, 0, 1, &field));
    eprintln!("continuations taken before the end: {took:?}");
    assert!(took.is_some_and(|took| took < 10_000), "{took:?}");

    // Settings and pings that each want an answer, which nobody reads.
    let mut stream = connect();
    stream.write_all(HTTP2).unwrap();
    let took = written_until_closed(&mut stream, 1_000_000, |_| frame(6, 0, 0, &[0; 8]));
    eprintln!("pings taken before the end: {took:?}");

    // Slow heads: a byte now and then, on many connections; all are ended, and others are served meanwhile.
    let mut slow: Vec<TcpStream> = (0..300).map(|_| connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    }
    // And such as ask for much, and take nothing of it.
    let deaf: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    for mut stream in &deaf {
        stream.write_all(&b"GET /large.png HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10)).unwrap();
    }
    let mut ended = 0;
    wait("slow clients to be ended", || {
        ended = slow.iter_mut().map(|stream| usize::from(stream.write_all(b"y").is_err())).sum();
        assert_eq!(get(&format!("{url}/")).status, 200);
        thread::sleep(Duration::from_millis(200));
        (ended == 300).then_some(())
    });
    wait("the deaf to be ended too", || {
        let closed = fleet.metric("seoul", "daemun_gateway_connections_closed_total", "idle");
        let open = fleet.metric("seoul", "daemun_gateway_connections", "");
        (closed >= 320.0 && open < 5.0).then_some(())
    });
    assert_eq!(fleet.metric("seoul", "daemun_gateway_panics_total", ""), 0.0);
    fleet.signal("seoul", ALL, Signal::SIGTERM);
}
