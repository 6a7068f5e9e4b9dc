//! Every kind of probe against a little real server that is right, and wrong in each way.

mod dns;
mod exec;
mod grpc;
mod http;

use daemun_fleet::config::GrpcCheck;
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use super::*;

/// Long: what is right must not fail on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);
/// Short: for what never answers.
const HASTY: Duration = Duration::from_millis(300);
const HERE: &str = "127.0.0.1";

fn target(check: Check) -> Target {
    let server = Server {
        name: "api-1".to_owned(),
        role: "api".to_owned(),
        datacenter: 0,
        addresses: vec![HERE.parse().unwrap()],
        url: None,
        weight: 1,
        check,
    };
    let [(address, target)] = &Target::all(&server, "seoul")[..] else { panic!("one address, one target") };
    assert_eq!(address.to_string(), HERE);
    target.clone()
}

async fn probe(check: Check) -> Outcome {
    target(check).probe(PATIENT).await
}

fn no(why: &str) -> Outcome {
    Err(why.to_owned())
}

/// Tasks that end with the test, and the port they listen on.
struct Serving {
    port: u16,
    tasks: JoinSet<()>,
}

/// Serves each connection with `serve`.
async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Serving
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(serve(stream));
        }
    });
    Serving { port, tasks }
}

/// Takes in the head of a request, says `answer`, and closes.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    String::from_utf8(head).unwrap()
}

/// A port where nobody listens, as long as the socket is held.
fn closed_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((HERE.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[tokio::test]
async fn silence_is_no_answer() {
    let server = listen(|stream| async move {
        let _stream = stream;
        std::future::pending().await
    })
    .await;
    let silent = |check| async { target(check).probe(HASTY).await };
    assert_eq!(silent(Check::Http(http::get(server.port))).await, no("no answer within 300 ms"));
    let grpc = GrpcCheck { port: server.port, service: String::new(), tls_name: None };
    assert_eq!(silent(Check::Grpc(grpc.clone())).await, no("no answer within 300 ms"));
    let grpc = GrpcCheck { tls_name: Some("a.example".to_owned()), ..grpc };
    let mut target = target(Check::Grpc(grpc));
    target.roots = Some(authority().1);
    assert_eq!(target.probe(HASTY).await, no("no answer within 300 ms"), "in the middle of TLS");
    assert_eq!(silent(Check::Tcp { port: server.port }).await, Ok(()), "it opened");
}

#[tokio::test]
async fn a_port_is_open_or_not() {
    let server = listen(|stream| async move { drop(stream) }).await;
    assert_eq!(probe(Check::Tcp { port: server.port }).await, Ok(()));
    let (_held, closed) = closed_port();
    assert_eq!(probe(Check::Tcp { port: closed }).await, no("connection refused"));
}

#[test]
fn what_is_not_checked_has_no_targets() {
    let server = Server {
        name: "a".to_owned(),
        role: "api".to_owned(),
        datacenter: 0,
        addresses: vec![HERE.parse().unwrap()],
        url: None,
        weight: 1,
        check: Check::None,
    };
    assert!(Target::all(&server, "seoul").is_empty());
}

/// A certificate for `a.example`, and those who trust it.
fn authority() -> (ServerConfig, Arc<RootCertStore>) {
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (config, Arc::new(roots))
}
