//! Health checks against an HTTP/2 server.

use hyper::body::Bytes;
use hyper::{HeaderMap, Response};
use tokio_rustls::TlsAcceptor;

use super::*;

/// What a gRPC server says: HTTP status, body, trailers.
#[derive(Clone)]
struct Said {
    status: u16,
    body: Vec<u8>,
    trailers: Vec<(&'static str, &'static str)>,
}

/// A health message with this status.
fn health(status: u8) -> Said {
    Said { status: 200, body: vec![0, 0, 0, 0, 2, 8, status], trailers: vec![("grpc-status", "0")] }
}

/// Serves one connection: each call is answered with `said`, if it asks for `service`.
async fn serve_grpc(stream: impl AsyncRead + AsyncWrite + Unpin, service: &str, said: Said) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut calls = JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        assert_eq!(head.uri.path(), "/grpc.health.v1.Health/Check");
        assert_eq!(head.headers["content-type"], "application/grpc");
        assert_eq!(head.headers["te"], "trailers");
        let (said, service) = (said.clone(), service.to_owned());
        calls.spawn(async move {
            let mut message = Vec::new();
            while let Some(data) = body.data().await {
                message.extend_from_slice(&data.unwrap());
            }
            let field = [&[10, service.len() as u8], service.as_bytes()].concat();
            let asked = if service.is_empty() { &[] } else { &field[..] };
            assert_eq!(message, [&[0, 0, 0, 0, asked.len() as u8], asked].concat());
            let response = Response::builder().status(said.status).body(()).unwrap();
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data(Bytes::from(said.body), false).unwrap();
            let mut trailers = HeaderMap::new();
            for (name, value) in said.trailers {
                trailers.insert(name, value.parse().unwrap());
            }
            stream.send_trailers(trailers).unwrap();
        });
    }
}

async fn grpc(service: &'static str, said: Said) -> Outcome {
    let server = listen(move |stream| serve_grpc(stream, service, said.clone())).await;
    probe(Check::Grpc(GrpcCheck { port: server.port, service: service.to_owned(), tls_name: None })).await
}

#[tokio::test]
async fn health_is_asked_for() {
    assert_eq!(grpc("", health(1)).await, Ok(()));
    assert_eq!(grpc("shop.Cart", health(1)).await, Ok(()));
    assert_eq!(grpc("", health(2)).await, no("answered NOT_SERVING"));
    assert_eq!(grpc("", health(3)).await, no("answered SERVICE_UNKNOWN"));
    assert_eq!(grpc("", health(9)).await, no("answered with health 9"));
    assert_eq!(grpc("", Said { body: vec![0; 5], ..health(1) }).await, no("answered UNKNOWN"));
    let future = vec![0, 0, 0, 0, 9, 0x12, 1, b'x', 8, 1, 0x1d, 0, 0, 0];
    assert_eq!(
        grpc("", Said { body: future, ..health(1) }).await,
        no("answered with what is no health message")
    );
    let future = vec![0, 0, 0, 0, 10, 0x12, 1, b'x', 8, 1, 0x1d, 0, 0, 0, 0];
    assert_eq!(grpc("", Said { body: future, ..health(1) }).await, Ok(()), "fields to come");
}

#[tokio::test]
async fn what_is_no_health_fails() {
    let wrong = Said { status: 404, ..health(1) };
    assert_eq!(grpc("", wrong).await, no("answered with HTTP status 404"));
    let unknown = vec![("grpc-status", "12"), ("grpc-message", "unknown service")];
    let said = grpc("", Said { body: Vec::new(), trailers: unknown, ..health(1) }).await;
    assert_eq!(said, no("answered with gRPC status 12 (UNIMPLEMENTED): unknown service"));
    let said = grpc("", Said { trailers: vec![("x", "y")], ..health(1) }).await;
    assert_eq!(said, no("answered without a gRPC status"));
    for body in [&b"garbage"[..], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 9, 8, 1], &[0, 0, 0, 0, 1, 8], b""] {
        let said = grpc("", Said { body: body.to_vec(), ..health(1) }).await;
        assert_eq!(said, no("answered with what is no health message"), "{body:?}");
    }
    let said = grpc("", Said { body: vec![0; 5000], ..health(1) }).await;
    assert_eq!(said, no("answered with more than a health check has to say"));
    for garbage in ["", "HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n"] {
        let server = listen(move |stream| async move { drop(say(stream, garbage).await) }).await;
        let check = GrpcCheck { port: server.port, service: String::new(), tls_name: None };
        let said = probe(Check::Grpc(check)).await.unwrap_err();
        assert!(said.starts_with("no HTTP/2: "), "{said}");
    }
}

#[tokio::test]
async fn health_is_asked_for_over_tls() {
    let (mut config, roots) = authority();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_grpc(stream, "", health(1)).await;
            }
        }
    })
    .await;
    let named = |name: &str| {
        let name = Some(name.to_owned());
        let mut target =
            target(Check::Grpc(GrpcCheck { port: server.port, service: String::new(), tls_name: name }));
        target.roots = Some(Arc::clone(&roots));
        async move { target.probe(PATIENT).await }
    };
    assert_eq!(named("a.example").await, Ok(()));
    let said = named("b.example").await.unwrap_err();
    assert!(said.starts_with("invalid peer certificate: "), "{said}");
}
