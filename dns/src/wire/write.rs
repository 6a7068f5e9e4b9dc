//! From an answer to a packet.

use hickory_proto::op::{Edns as ProtoEdns, Message, MessageType, Query as ProtoQuery};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::options::{COOKIE, EXTENDED_ERROR, KEEPALIVE, NSID, PADDING, SUBNET};
use super::{Head, UDP_MAX, UDP_PLAIN_MAX};
use crate::answer::{Answer, Question};
use crate::transport::Transport;

/// Answers that are padded come in multiples of this (RFC 8467 section 4.2).
const PADDING_BLOCK: usize = 468;
/// Length of code and length of an option.
const OPTION_HEADER_BYTES: usize = 4;

/// What is said besides the answer, where the query asked for it.
#[derive(Clone, Debug, Default)]
pub struct Extras<'a> {
    /// SCOPE PREFIX-LENGTH of the echoed client subnet; `None`: the subnet was not looked at, and is not echoed.
    pub scope: Option<u8>,
    /// The cookie of the client and that of the server.
    pub cookie: Option<[u8; 24]>,
    /// Name of the server.
    pub nsid: Option<&'a [u8]>,
    /// Time after which an idle connection is closed, tenths of a second.
    pub keepalive: Option<u16>,
    /// Fill up to a block.
    pub padded: bool,
}

/// How large an answer may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How it travels.
    pub transport: Transport,
    /// Bytes; over UDP at most what the asker can take, too.
    pub bytes_max: usize,
}

impl Limits {
    /// The limits of an answer to a query of so many bytes. Over UDP, to an address that may be forged, at most
    /// `ratio_max` times as much as was asked with.
    pub fn new(transport: Transport, head: &Head, query_bytes: usize, ratio_max: Option<u16>) -> Self {
        let bytes_max = match (transport, &head.edns) {
            (Transport::Udp, None) => UDP_PLAIN_MAX.into(),
            (Transport::Udp, Some(edns)) => edns.udp_payload.clamp(UDP_PLAIN_MAX, UDP_MAX).into(),
            _ => usize::from(u16::MAX),
        };
        let ratio_max = ratio_max.filter(|_| transport == Transport::Udp);
        let by_ratio = ratio_max.map_or(usize::MAX, |ratio| usize::from(ratio) * query_bytes);
        Self { transport, bytes_max: bytes_max.min(by_ratio) }
    }
}

/// The packet of an answer. What does not fit is left out whole and TC set, so that the client asks over TCP.
pub fn write(
    head: &Head,
    question: Option<&Question>,
    answer: &Answer,
    extras: &Extras<'_>,
    limits: Limits,
) -> Vec<u8> {
    let mut message = reply_to(head, question);
    message.metadata.response_code = answer.code;
    message.metadata.authoritative = answer.authoritative;
    message.answers.clone_from(&answer.answers);
    message.authorities.clone_from(&answer.authority);
    message.additionals.clone_from(&answer.additional);
    message.edns = edns(head, answer, extras);
    if answer.truncated {
        message.metadata.truncation = true;
    }
    if let Some(packet) = encode(&message, limits.bytes_max) {
        return if extras.padded { pad(&mut message, packet, limits.bytes_max) } else { packet };
    }
    // What explains may be left out silently.
    if let Some(edns) = &mut message.edns {
        edns.options_mut().remove(EXTENDED_ERROR.into());
    }
    // What is additional too; but the glue of a referral may not (RFC 9471 section 3.1).
    if !answer.refers {
        message.additionals.clear();
    }
    if let Some(packet) = encode(&message, limits.bytes_max) {
        return packet;
    }
    message.additionals.clear();
    message.answers.clear();
    message.authorities.clear();
    message.metadata.truncation = true;
    if let Some(packet) = encode(&message, limits.bytes_max) {
        return packet;
    }
    if let Some(edns) = &mut message.edns {
        edns.options_mut().remove(NSID.into());
    }
    encode(&message, UDP_MAX.into()).unwrap_or_default()
}

fn reply_to(head: &Head, question: Option<&Question>) -> Message {
    let mut message = Message::new(head.id, MessageType::Response, head.opcode);
    // CD is not repeated: nobody here checks (RFC 4035 section 3.1.6).
    message.metadata.recursion_desired = head.recursion_desired;
    if let Some(question) = question {
        let mut echo = ProtoQuery::query(question.name.clone(), question.record_type);
        echo.set_query_class(question.class);
        message.add_query(echo);
    }
    message
}

/// The OPT of an answer; a query without one gets none (RFC 6891 section 7).
fn edns(head: &Head, answer: &Answer, extras: &Extras<'_>) -> Option<ProtoEdns> {
    let asked = head.edns.as_ref()?;
    let mut edns = ProtoEdns::new();
    edns.set_max_payload(UDP_MAX).set_version(0).set_dnssec_ok(asked.dnssec_ok);
    let options = edns.options_mut();
    let mut add = |code: u16, value: Vec<u8>| options.insert(EdnsOption::Unknown(code, value));
    if let (Some(subnet), Some(scope)) = (&asked.options.subnet, extras.scope) {
        add(SUBNET, subnet.echo(scope));
    }
    if let Some(cookie) = extras.cookie {
        add(COOKIE, cookie.to_vec());
    }
    if let Some(nsid) = extras.nsid {
        add(NSID, nsid.to_vec());
    }
    if let Some(tenths) = extras.keepalive {
        add(KEEPALIVE, tenths.to_be_bytes().to_vec());
    }
    if let Some(error) = &answer.extended_error {
        add(EXTENDED_ERROR, [&error.code.to_be_bytes()[..], error.text.as_bytes()].concat());
    }
    Some(edns)
}

/// The same with a padding option that fills its last block.
fn pad(message: &mut Message, packet: Vec<u8>, bytes_max: usize) -> Vec<u8> {
    let Some(edns) = &mut message.edns else { return packet };
    let bare = packet.len() + OPTION_HEADER_BYTES;
    let whole = bare.next_multiple_of(PADDING_BLOCK).min(bytes_max);
    let fill = whole.saturating_sub(bare);
    edns.options_mut().insert(EdnsOption::Unknown(PADDING, vec![0; fill]));
    encode(message, bytes_max).unwrap_or(packet)
}

/// The message, if it fits.
fn encode(message: &Message, bytes_max: usize) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(usize::from(UDP_PLAIN_MAX));
    let mut encoder = BinEncoder::new(&mut packet);
    message.emit(&mut encoder).ok()?;
    // What is over 64 KiB the library cuts in the middle, with TC set: that is not this message.
    let is_cut = packet.get(2).is_some_and(|flags| flags & 0x02 != 0) && !message.metadata.truncation;
    (packet.len() <= bytes_max && !is_cut).then_some(packet)
}
