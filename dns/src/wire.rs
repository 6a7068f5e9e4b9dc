//! Packets to questions, answers to packets. No decision about *what* is answered is taken here.
//!
//! Names and record data are `hickory-proto`'s. The header, the walk over the records and the OPT record are read
//! here, strictly: the library's client subnet parser accepts what RFC 7871 says to refuse, and it reserves memory by
//! the counts in the header before it has seen anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use daemun_fleet::Client;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query as ProtoQuery, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::answer::{Answer, Question};
use crate::metrics::Transport;

/// Length of the header (RFC 1035 section 4.1.1).
const HEADER_BYTES: usize = 12;
/// The largest UDP answer without EDNS (RFC 1035 section 4.2.1).
const UDP_PLAIN_MAX: u16 = 512;
/// The largest UDP answer, and the size we advertise: fits every path unfragmented (DNS flag day 2020).
pub const UDP_MAX: u16 = 1232;
/// Option code of the EDNS client subnet (RFC 7871).
const OPTION_SUBNET: u16 = 8;
/// Length of `::ffff:0:0/96`, the clothes of IPv4-mapped addresses.
const MAPPED_LEN: u8 = 96;
/// Records after the question of a query: an OPT, a TSIG; more is not a query we know.
const RECORDS_MAX: u16 = 8;

/// What a packet is.
#[derive(Debug)]
pub enum Read {
    /// A query to be answered.
    Query(Query),
    /// Not a query that we can answer; this reply says so.
    Refuse(Vec<u8>),
    /// Must not be answered: a response, or no header.
    Ignore,
}

/// A query that was understood.
#[derive(Clone, Debug)]
pub struct Query {
    id: u16,
    recursion_desired: bool,
    checking_disabled: bool,
    question: Question,
    edns: Option<EdnsQuery>,
}

/// What the OPT record of a query says (RFC 6891).
#[derive(Clone, Debug)]
struct EdnsQuery {
    udp_payload: u16,
    dnssec_ok: bool,
    subnet: Option<Subnet>,
}

impl Query {
    /// What is asked.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// The client subnet, if the query has one.
    pub fn subnet(&self) -> Option<&Subnet> {
        self.edns.as_ref()?.subnet.as_ref()
    }
}

/// The client subnet of a query, to be echoed as it came.
#[derive(Clone, Debug)]
pub struct Subnet {
    net: IpNet,
    /// The option as it came: FAMILY, SOURCE, SCOPE, ADDRESS.
    raw: Vec<u8>,
}

impl Subnet {
    /// SOURCE PREFIX-LENGTH.
    pub fn source_len(&self) -> u8 {
        self.net.prefix_len()
    }

    /// The client it stands for.
    pub fn client(&self) -> Client {
        Client::prefix(self.net)
    }

    /// SCOPE PREFIX-LENGTH of an answer to the client it stands for. A client that gave nothing of its address gets 0
    /// (RFC 7871 section 7.2.1); of an IPv4 client in IPv6 clothes the scope counts from the start of the clothes.
    fn scope(&self, answer: &Answer) -> u8 {
        match (self.net, self.client().first_address()) {
            _ if self.source_len() == 0 || answer.choice.is_none() => 0,
            (IpNet::V6(_), IpAddr::V4(_)) => answer.scope() + MAPPED_LEN,
            _ => answer.scope(),
        }
    }

    /// Reads an option strictly (RFC 7871 section 6): `None` means FORMERR.
    fn read(raw: &[u8]) -> Option<Self> {
        let [family_high, family_low, source, scope, address @ ..] = raw else { return None };
        if *scope != 0 || address.len() != usize::from(source.div_ceil(8)) {
            return None;
        }
        let net = match u16::from_be_bytes([*family_high, *family_low]) {
            1 => {
                let mut octets = [0; 4];
                octets.get_mut(..address.len())?.copy_from_slice(address);
                IpNet::V4(Ipv4Net::new(Ipv4Addr::from(octets), *source).ok()?)
            }
            2 => {
                let mut octets = [0; 16];
                octets.get_mut(..address.len())?.copy_from_slice(address);
                IpNet::V6(Ipv6Net::new(Ipv6Addr::from(octets), *source).ok()?)
            }
            _ => return None,
        };
        (net.trunc() == net).then(|| Self { net, raw: raw.to_vec() })
    }
}

/// Reads a packet.
pub fn read_query(packet: &[u8]) -> Read {
    let Some(header) = packet.first_chunk::<HEADER_BYTES>() else { return Read::Ignore };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let is_response = header[2] & 0x80 != 0;
    if is_response {
        return Read::Ignore;
    }
    let opcode = OpCode::from_u8(header[2] >> 3 & 0x0f);
    let refuse = |code| Read::Refuse(bare_reply(header, opcode, code));
    if opcode != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let (questions, records) = (word(4), [word(6), word(8), word(10)]);
    if questions != 1 || records.iter().any(|&count| count > RECORDS_MAX) {
        return refuse(ResponseCode::FormErr);
    }
    let mut decoder = BinDecoder::new(packet);
    if decoder.read_slice(HEADER_BYTES).is_err() {
        return Read::Ignore;
    }
    let Some(question) = read_question(&mut decoder) else { return refuse(ResponseCode::FormErr) };
    let count = records.iter().sum();
    let mut query = Query {
        id: word(0),
        recursion_desired: header[2] & 1 != 0,
        checking_disabled: header[3] & 0x10 != 0,
        question,
        edns: None,
    };
    match read_records(&mut decoder, count) {
        Ok(edns) => query.edns = edns,
        Err(BadRecords::Malformed) => return Read::Refuse(error_reply(&query, ResponseCode::FormErr, false)),
        Err(BadRecords::Version) => return Read::Refuse(error_reply(&query, ResponseCode::BADVERS, true)),
    }
    Read::Query(query)
}

fn read_question(decoder: &mut BinDecoder<'_>) -> Option<Question> {
    let name = Name::read(decoder).ok()?;
    let record_type = RecordType::from(decoder.read_u16().ok()?.unverified());
    let class = DNSClass::from(decoder.read_u16().ok()?.unverified());
    Some(Question { name, record_type, class })
}

enum BadRecords {
    Malformed,
    Version,
}

/// Walks the records behind the question, all of which must be whole, and reads the OPT, at most one.
fn read_records(decoder: &mut BinDecoder<'_>, count: u16) -> Result<Option<EdnsQuery>, BadRecords> {
    let mut found = None;
    let mut bad_version = false;
    for _ in 0..count {
        let malformed = |_| BadRecords::Malformed;
        let name = Name::read(decoder).map_err(malformed)?;
        let record_type = decoder.read_u16().map_err(malformed)?.unverified();
        let class = decoder.read_u16().map_err(malformed)?.unverified();
        let ttl = decoder.read_u32().map_err(malformed)?.unverified();
        let length = decoder.read_u16().map_err(malformed)?.unverified();
        let data = decoder.read_slice(usize::from(length)).map_err(malformed)?.unverified();
        if RecordType::from(record_type) != RecordType::OPT {
            continue;
        }
        if found.is_some() || !name.is_root() {
            return Err(BadRecords::Malformed);
        }
        // The fields of OPT (RFC 6891 section 6.1.3): class is the payload size, TTL is rcode, version and flags.
        bad_version |= ttl >> 16 & 0xff != 0;
        let subnet = read_options(data).ok_or(BadRecords::Malformed)?;
        found = Some(EdnsQuery { udp_payload: class, dnssec_ok: ttl & 0x8000 != 0, subnet });
    }
    if bad_version { Err(BadRecords::Version) } else { Ok(found) }
}

/// The client subnet among the options; the outer `None` means FORMERR. Options that we do not know are passed over.
#[expect(clippy::option_option, reason = "not there and malformed are two answers")]
fn read_options(mut data: &[u8]) -> Option<Option<Subnet>> {
    let mut subnet = None;
    while !data.is_empty() {
        let (&[code_high, code_low, length_high, length_low], rest) = data.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let (value, rest) = rest.split_at_checked(length)?;
        if u16::from_be_bytes([code_high, code_low]) == OPTION_SUBNET {
            if subnet.is_some() {
                return None;
            }
            subnet = Some(Subnet::read(value)?);
        }
        data = rest;
    }
    Some(subnet)
}

/// A reply to what has no question that could be read: the header alone.
fn bare_reply(header: &[u8; HEADER_BYTES], opcode: OpCode, code: ResponseCode) -> Vec<u8> {
    let mut reply = [0; HEADER_BYTES];
    reply[..2].copy_from_slice(&header[..2]);
    reply[2] = 0x80 | u8::from(opcode) << 3 | header[2] & 1;
    reply[3] = code.low();
    reply.to_vec()
}

fn error_reply(query: &Query, code: ResponseCode, with_opt: bool) -> Vec<u8> {
    let mut message = reply_to(query);
    message.metadata.response_code = code;
    if with_opt {
        message.edns = Some(our_edns());
    }
    encode(&message, UDP_MAX).unwrap_or_default()
}

fn reply_to(query: &Query) -> Message {
    let mut message = Message::new(query.id, MessageType::Response, OpCode::Query);
    let Metadata { recursion_desired, checking_disabled, .. } = &mut message.metadata;
    *recursion_desired = query.recursion_desired;
    *checking_disabled = query.checking_disabled;
    let mut question = ProtoQuery::query(query.question.name.clone(), query.question.record_type);
    question.set_query_class(query.question.class);
    message.add_query(question);
    message
}

fn our_edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_MAX).set_version(0);
    edns
}

/// The packet of an answer. Over UDP what does not fit is left out whole and TC set, so that the client asks over TCP.
pub fn write_answer(query: &Query, answer: &Answer, transport: Transport) -> Vec<u8> {
    let limit = match (transport, &query.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => UDP_PLAIN_MAX,
        (Transport::Udp, Some(edns)) => edns.udp_payload.clamp(UDP_PLAIN_MAX, UDP_MAX),
    };
    let mut message = reply_to(query);
    message.metadata.response_code = answer.code;
    message.metadata.authoritative = answer.authoritative;
    message.answers.clone_from(&answer.answers);
    message.authorities.clone_from(&answer.authority);
    message.additionals.clone_from(&answer.additional);
    message.edns = answer_edns(query, answer);
    if let Some(packet) = encode(&message, limit) {
        return packet;
    }
    // What is additional may be left out silently; the glue of a referral may not (RFC 9471 section 3.1).
    let is_referral = !answer.authoritative && !answer.authority.is_empty();
    message.additionals.clear();
    if !is_referral && let Some(packet) = encode(&message, limit) {
        return packet;
    }
    message.answers.clear();
    message.authorities.clear();
    message.metadata.truncation = true;
    encode(&message, limit).unwrap_or_default()
}

/// The OPT of an answer; a query without one gets none (RFC 6891 section 7).
pub(crate) fn answer_edns(query: &Query, answer: &Answer) -> Option<Edns> {
    let asked = query.edns.as_ref()?;
    let mut edns = our_edns();
    edns.set_dnssec_ok(asked.dnssec_ok);
    if let Some(subnet) = &asked.subnet {
        let mut echo = subnet.raw.clone();
        echo[3] = subnet.scope(answer);
        edns.options_mut().insert(EdnsOption::Unknown(OPTION_SUBNET, echo));
    }
    Some(edns)
}

/// The message, if it fits.
fn encode(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(usize::from(UDP_PLAIN_MAX));
    let mut encoder = BinEncoder::new(&mut packet);
    message.emit(&mut encoder).ok()?;
    // What is over 64 KiB the library cuts in the middle, with TC set: that is not this message.
    let is_cut = packet.get(2).is_some_and(|flags| flags & 0x02 != 0) && !message.metadata.truncation;
    (packet.len() <= usize::from(limit) && !is_cut).then_some(packet)
}

/// The address a query over UDP or TCP came from, without IPv6 clothes.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for `www.shop.test` A with an OPT that has these options.
    fn query_with(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        packet.extend(b"\x03WwW\x04shop\x04test\x00\x00\x01\x00\x01");
        packet.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0]);
        packet.extend((options.len() as u16).to_be_bytes());
        packet.extend(options);
        packet
    }

    fn subnet_option(body: &[u8]) -> Vec<u8> {
        let mut option = vec![0, 8, 0, body.len() as u8];
        option.extend(body);
        option
    }

    fn code_of(packet: &[u8]) -> Option<(ResponseCode, bool)> {
        match read_query(packet) {
            Read::Query(_) => None,
            Read::Refuse(reply) => {
                let message = Message::from_vec(&reply).expect("replies parse");
                Some((message.metadata.response_code, message.edns.is_some()))
            }
            Read::Ignore => panic!("ignored"),
        }
    }

    #[test]
    fn subnets_are_read_strictly() {
        let whole = [0, 1, 24, 0, 1, 2, 3];
        let Read::Query(query) = read_query(&query_with(&subnet_option(&whole))) else { panic!("a query") };
        assert_eq!(query.subnet().unwrap().client().to_string(), "1.2.3.0/24");
        for bad in [
            &[0, 1, 24, 8, 1, 2, 3][..],   // SCOPE in a query
            &[0, 3, 24, 0, 1, 2, 3],       // FAMILY
            &[0, 1, 33, 0, 1, 2, 3, 4, 5], // prefix over 32
            &[0, 1, 24, 0, 1, 2],          // too few octets
            &[0, 1, 24, 0, 1, 2, 3, 0],    // too many
            &[0, 1, 23, 0, 1, 2, 3],       // bits past SOURCE
            &[0, 2, 129, 0],               // prefix over 128
            &[0, 1, 0],                    // cut short
        ] {
            assert_eq!(
                code_of(&query_with(&subnet_option(bad))),
                Some((ResponseCode::FormErr, false)),
                "{bad:?}"
            );
        }
        let twice = [subnet_option(&whole), subnet_option(&whole)].concat();
        assert_eq!(code_of(&query_with(&twice)), Some((ResponseCode::FormErr, false)));
        assert_eq!(code_of(&query_with(&[0, 99, 0, 2, 1, 2])), None, "unknown options are passed over");
        assert_eq!(code_of(&query_with(&[0, 99, 0, 9, 1, 2])), Some((ResponseCode::FormErr, false)));
    }

    #[test]
    fn versions_and_second_opts() {
        let mut packet = query_with(&[]);
        let version = packet.len() - 5;
        packet[version] = 1;
        let (code, with_opt) = code_of(&packet).unwrap();
        assert_eq!((u16::from(code), with_opt), (16, true));
        let mut two = query_with(&[]);
        two[11] = 2;
        two.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(code_of(&two), Some((ResponseCode::FormErr, false)));
    }

    #[test]
    fn what_is_no_query() {
        assert!(matches!(read_query(&[]), Read::Ignore));
        assert!(matches!(read_query(&[0; 11]), Read::Ignore));
        let mut response = query_with(&[]);
        response[2] |= 0x80;
        assert!(matches!(read_query(&response), Read::Ignore));
        let mut notify = query_with(&[]);
        notify[2] = 4 << 3;
        assert_eq!(code_of(&notify), Some((ResponseCode::NotImp, false)));
        let mut many = query_with(&[]);
        many[4] = 0xff;
        assert_eq!(code_of(&many), Some((ResponseCode::FormErr, false)));
    }

    #[test]
    fn cut_anywhere_it_does_not_panic() {
        let whole = query_with(&subnet_option(&[0, 1, 24, 0, 1, 2, 3]));
        for end in 0..whole.len() {
            let _ = read_query(&whole[..end]);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let _ = read_query(&flipped);
            }
        }
    }
}
