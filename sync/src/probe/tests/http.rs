//! GETs against answers written by hand.

use daemun_fleet::config::{HeaderCheck, HttpCheck};
use rustls::RootCertStore;
use tokio_rustls::TlsAcceptor;

use super::*;

pub(super) fn get(port: u16) -> HttpCheck {
    HttpCheck::get(format!("http://{HERE}:{port}/health?a=b#c").parse().unwrap())
}

async fn http(answer: &str, change: impl Fn(&mut HttpCheck)) -> Outcome {
    let answer = answer.to_owned();
    let server = listen(move |stream| {
        let answer = answer.clone();
        async move { drop(say(stream, &answer).await) }
    })
    .await;
    let mut check = get(server.port);
    change(&mut check);
    probe(Check::Http(check)).await
}

#[tokio::test]
async fn the_request_is_a_users() {
    let (sender, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let server = listen(move |stream| {
        let sender = sender.clone();
        async move { drop(sender.send(say(stream, "HTTP/1.1 204 No Content\r\n\r\n").await)) }
    })
    .await;
    let url = format!("http://www.shop.example:{}/health?a=b#c", server.port);
    assert_eq!(probe(Check::Http(HttpCheck::get(url.parse().unwrap()))).await, Ok(()));
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /health?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nhost: www.shop.example:{}\r\n", server.port)), "{head}");
    assert!(head.contains("\r\nuser-agent: daemun-probe/"), "{head}");
}

#[tokio::test]
async fn a_status_is_in_its_range() {
    let answer = "HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(http(answer, |_| ()).await, no("answered with status 503"));
    assert_eq!(http(answer, |check| check.status = 503..=503).await, Ok(()));
    let redirect = "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\n\r\n";
    assert_eq!(http(redirect, |_| ()).await, Ok(()), "not followed");
}

#[tokio::test]
async fn a_body_contains_its_text() {
    let ok = |check: &mut HttpCheck| check.body = Some("ok".to_owned());
    let plain = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nall ok";
    assert_eq!(http(plain, ok).await, Ok(()));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nall o\r\n1\r\nk\r\n0\r\n\r\n";
    assert_eq!(http(chunked, ok).await, Ok(()), "across chunks");
    assert_eq!(
        http(&format!("HTTP/1.1 200 OK\r\n\r\n{}", "o k".repeat(9)), ok).await,
        no("the body lacks `ok`")
    );
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall";
    let said = http(broken, ok).await.unwrap_err();
    assert!(said.starts_with("the body broke off"), "{said}");
    let far = format!("HTTP/1.1 200 OK\r\n\r\n{}ok", "-".repeat(64 << 10));
    assert_eq!(http(&far, ok).await, no("the first 64 KiB of the body lack `ok`"));
    let near = format!("HTTP/1.1 200 OK\r\n\r\n{}ok", "-".repeat((64 << 10) - 2));
    assert_eq!(http(&near, ok).await, Ok(()), "the last bytes that are read");
}

#[tokio::test]
async fn a_header_is_there() {
    let header = |value: Option<&str>| {
        let value = value.map(str::to_owned);
        move |check: &mut HttpCheck| {
            check.header = Some(HeaderCheck { name: "x-cell".to_owned(), value: value.clone() });
        }
    };
    let answer = "HTTP/1.1 200 OK\r\nX-Cell:  8 \r\nX-Cell: 7\r\n\r\n";
    assert_eq!(http(answer, header(None)).await, Ok(()));
    assert_eq!(http(answer, header(Some("7"))).await, Ok(()), "one of several");
    assert_eq!(http(answer, header(Some("9"))).await, no("the header `x-cell` is `8`, not `9`"));
    assert_eq!(http("HTTP/1.1 200 OK\r\n\r\n", header(None)).await, no("the header `x-cell` is missing"));
}

#[tokio::test]
async fn what_is_no_http_fails() {
    for garbage in [
        "",
        "hello\r\n\r\n",
        "HTTP/1.1 2",
        "\u{0}\u{1}",
        &format!("HTTP/1.1 200 OK\r\na: {}", "a".repeat(1 << 20)),
    ] {
        http(garbage, |_| ()).await.expect_err("no HTTP");
    }
    let (_held, closed) = closed_port();
    assert_eq!(probe(Check::Http(get(closed))).await, no("connection refused"));
}

#[tokio::test]
async fn the_certificate_has_the_name() {
    let (mut config, roots) = authority();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                assert_eq!(stream.get_ref().1.server_name(), Some("a.example"));
                say(stream, "HTTP/1.1 200 OK\r\n\r\n").await;
            }
        }
    })
    .await;
    let https = |host: &str, tls_name: Option<&str>, roots: Arc<RootCertStore>| {
        let mut check = HttpCheck::get(format!("https://{host}:{}/", server.port).parse().unwrap());
        check.tls_name = tls_name.map(str::to_owned);
        let mut target = target(Check::Http(check));
        target.roots = Some(roots);
        async move { target.probe(PATIENT).await }
    };
    assert_eq!(https("a.example", None, Arc::clone(&roots)).await, Ok(()), "the URL's host");
    assert_eq!(https("b.example", Some("a.example"), Arc::clone(&roots)).await, Ok(()));
    assert_eq!(https(HERE, Some("a.example"), Arc::clone(&roots)).await, Ok(()));
    for (host, name) in [("b.example", None), ("a.example", Some("b.example")), (HERE, None)] {
        let said = https(host, name, Arc::clone(&roots)).await.unwrap_err();
        assert!(said.starts_with("invalid peer certificate: "), "{host} {name:?}: {said}");
    }
    let said = https("a.example", None, authority().1).await.unwrap_err();
    assert!(said.starts_with("invalid peer certificate: "), "another authority: {said}");
    // With the machine's own certificates, which it may not have.
    let mut check = HttpCheck::get(format!("https://{HERE}:{}/", server.port).parse().unwrap());
    check.tls_name = Some("a.example".to_owned());
    let said = probe(Check::Http(check)).await.unwrap_err();
    let has_none = rustls_native_certs::load_native_certs().certs.is_empty();
    let none = "no trusted certificates: install ca-certificates";
    assert!(said.starts_with(if has_none { none } else { "invalid peer certificate: " }), "{said}");
}
