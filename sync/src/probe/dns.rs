//! A DNS query over UDP, and again over TCP when the answer did not fit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use daemun_fleet::config::DnsCheck;
use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;

use super::{connect, said};
use crate::health::Outcome;

/// What crosses nearly every network in one piece.
const UDP_BYTES_MAX: u16 = 1232;

pub(super) async fn probe(address: IpAddr, check: &DnsCheck, last_heard: &mut Option<String>) -> Outcome {
    let query = query(check)?;
    let packet = query.to_vec().map_err(|error| format!("no query can hold `{}`: {error}", check.name))?;
    let answer = match over_udp(address, check.port, &query, &packet, last_heard).await? {
        answer if answer.metadata.truncation => over_tcp(address, check.port, &packet).await?,
        answer => answer,
    };
    judge(&query, &answer)
}

fn query(check: &DnsCheck) -> Result<Message, String> {
    let mut name = Name::from_ascii(&check.name).map_err(|error| format!("`{}`: {error}", check.name))?;
    name.set_fqdn(true);
    let record_type: RecordType = check.record_type.parse().map_err(|error| format!("{error}"))?;
    let mut query = Message::query(); // its id is random
    query.metadata.recursion_desired = true; // it may be a resolver
    query.add_query(Query::query(name, record_type));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX);
    query.set_edns(edns);
    Ok(query)
}

/// The first answer to this query. Others are passed over, as a resolver does: anyone can send them.
async fn over_udp(
    address: IpAddr,
    port: u16,
    query: &Message,
    packet: &[u8],
    last_heard: &mut Option<String>,
) -> Result<Message, String> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await.map_err(|error| said(&error))?;
    socket.connect(SocketAddr::new(address, port)).await.map_err(|error| said(&error))?;
    socket.send(packet).await.map_err(|error| said(&error))?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| said(&error))?;
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) => match is_answer(query, &answer) {
                Ok(()) => return Ok(answer),
                Err(why) => *last_heard = Some(why),
            },
            Err(_) => *last_heard = Some("answered with what is no DNS message".to_owned()),
        }
    }
}

async fn over_tcp(address: IpAddr, port: u16, packet: &[u8]) -> Result<Message, String> {
    let exchange = async {
        let mut stream = connect(address, port).await?;
        let length = u16::try_from(packet.len()).map_err(|error| error.to_string())?;
        let framed = [&length.to_be_bytes(), packet].concat();
        stream.write_all(&framed).await.map_err(|error| said(&error))?;
        let length = stream.read_u16().await.map_err(|error| said(&error))?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.map_err(|error| said(&error))?;
        Message::from_vec(&answer).map_err(|_| "answered with what is no DNS message".to_owned())
    };
    exchange.await.map_err(|why| format!("the answer was cut, and over TCP: {why}"))
}

fn is_answer(query: &Message, answer: &Message) -> Outcome {
    if answer.metadata.message_type != MessageType::Response || answer.metadata.id != query.metadata.id {
        return Err("answered with another id".to_owned());
    }
    // A server that cannot read a query may leave the question out (RFC 1035 section 4.1.1).
    let is_error = answer.metadata.response_code != ResponseCode::NoError;
    if answer.queries != query.queries && !(is_error && answer.queries.is_empty()) {
        return Err("answered another question".to_owned());
    }
    Ok(())
}

fn judge(query: &Message, answer: &Message) -> Outcome {
    is_answer(query, answer)?;
    if answer.metadata.response_code != ResponseCode::NoError {
        return Err(format!("answered with {}", code(answer.metadata.response_code)));
    }
    let wanted = query.queries.first().map(Query::query_type);
    let is_wanted = |found: RecordType| Some(found) == wanted || found == RecordType::CNAME;
    if answer.answers.iter().any(|record| is_wanted(record.record_type())) {
        return Ok(());
    }
    Err(format!("answered without a record of type {}", wanted.unwrap_or(RecordType::A)))
}

/// The word of the registry.
fn code(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::NotAuth => "NOTAUTH".to_owned(),
        other => format!("response code {}", u16::from(other)),
    }
}
