//! Queries against a name server over UDP and TCP.

use daemun_fleet::config::DnsCheck;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;

async fn answer_over_tcp(mut stream: TcpStream, answer: impl Fn(&Message, bool) -> Vec<Message>) {
    let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut query).await.unwrap();
    for answer in answer(&Message::from_vec(&query).unwrap(), true) {
        let packet = answer.to_vec().unwrap();
        stream.write_u16(packet.len() as u16).await.unwrap();
        stream.write_all(&packet).await.unwrap();
    }
}

/// Answers each query over UDP, and over TCP at the same port, as `answer` says.
async fn dns_server(answer: impl Fn(&Message, bool) -> Vec<Message> + Clone + Send + 'static) -> Serving {
    let (mut server, socket) = loop {
        let over_tcp = answer.clone();
        let server = listen(move |stream| answer_over_tcp(stream, over_tcp.clone())).await;
        // Someone else may have the same port of UDP.
        if let Ok(socket) = UdpSocket::bind((HERE, server.port)).await {
            break (server, socket);
        }
    };
    server.tasks.spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            for answer in answer(&Message::from_vec(&buffer[..length]).unwrap(), false) {
                socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
            }
        }
    });
    server
}

fn name(name: &str) -> Name {
    Name::from_ascii(name).unwrap()
}

/// The query turned to an answer with these data.
fn answer(query: &Message, data: impl IntoIterator<Item = RData>) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.add_queries(query.queries.iter().cloned());
    answer.add_answers(data.into_iter().map(|data| Record::from_rdata(name("www.shop.example."), 30, data)));
    answer
}

fn address() -> RData {
    RData::A(A::new(192, 0, 2, 1))
}

async fn dns(
    timeout: Duration,
    answers: impl Fn(&Message, bool) -> Vec<Message> + Clone + Send + 'static,
) -> Outcome {
    let server = dns_server(answers).await;
    let check = DnsCheck { name: "www.shop.example".to_owned(), record_type: "A", port: server.port };
    target(Check::Dns(check)).probe(timeout).await
}

#[tokio::test]
async fn a_name_is_answered() {
    assert_eq!(dns(PATIENT, |query, _| vec![answer(query, [address()])]).await, Ok(()));
    let alias = || RData::CNAME(CNAME(name("other.example.")));
    assert_eq!(dns(PATIENT, move |query, _| vec![answer(query, [alias()])]).await, Ok(()));
    let text = || RData::TXT(TXT::new(vec!["a".to_owned()]));
    let none = no("answered without a record of type A");
    assert_eq!(dns(PATIENT, move |query, _| vec![answer(query, [text()])]).await, none);
    assert_eq!(dns(PATIENT, |query, _| vec![answer(query, [])]).await, none);
    for (code, said) in
        [(ResponseCode::NXDomain, "answered with NXDOMAIN"), (ResponseCode::Refused, "answered with REFUSED")]
    {
        let refused = move |query: &Message, _| {
            let mut answer = answer(query, [address()]);
            answer.metadata.response_code = code;
            vec![answer]
        };
        assert_eq!(dns(PATIENT, refused).await, no(said));
    }
}

#[tokio::test]
async fn only_the_answer_to_the_query_counts() {
    let other_id = |query: &Message| {
        let mut answer = answer(query, [address()]);
        answer.metadata.id ^= 1;
        answer
    };
    let other_question = |query: &Message| {
        let mut answer = answer(query, [address()]);
        answer.queries = vec![Query::query(name("x.example."), RecordType::A)];
        answer
    };
    let echo = |query: &Message| query.clone();
    assert_eq!(dns(HASTY, move |query, _| vec![other_id(query)]).await, no("answered with another id"));
    assert_eq!(dns(HASTY, move |query, _| vec![echo(query)]).await, no("answered with another id"));
    assert_eq!(
        dns(HASTY, move |query, _| vec![other_question(query)]).await,
        no("answered another question")
    );
    assert_eq!(dns(HASTY, |_, _| Vec::new()).await, no("no answer within 300 ms"));
    let all = move |query: &Message, _| {
        vec![other_id(query), other_question(query), echo(query), answer(query, [address()])]
    };
    assert_eq!(dns(PATIENT, all).await, Ok(()), "others are passed over");
    let (_held, closed) = closed_port();
    let check = DnsCheck { name: "a.example".to_owned(), record_type: "A", port: closed };
    assert_eq!(probe(Check::Dns(check)).await, no("connection refused"));
}

#[tokio::test]
async fn a_cut_answer_is_asked_for_again() {
    let cut = |query: &Message| {
        let mut answer = answer(query, []);
        answer.metadata.truncation = true;
        answer
    };
    let whole =
        move |query: &Message, is_tcp| vec![if is_tcp { answer(query, [address()]) } else { cut(query) }];
    assert_eq!(dns(PATIENT, whole).await, Ok(()));
    let closing = move |query: &Message, is_tcp| if is_tcp { Vec::new() } else { vec![cut(query)] };
    let said = dns(PATIENT, closing).await.unwrap_err();
    assert!(said.starts_with("the answer was cut, and over TCP: "), "{said}");
}
