//! From a packet to what it asks.

use hickory_proto::op::{OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::{HEADER_BYTES, Options};
use crate::answer::Question;

/// Records after the question of a query: an OPT, a TSIG; more is not a query we know.
const RECORDS_MAX: u16 = 8;

/// What a packet is.
#[derive(Debug)]
pub enum Read {
    /// A query to be answered.
    Query(Query),
    /// No question, but a cookie to be answered with one (RFC 7873 section 5.4).
    CookieOnly(Head),
    /// Not a query that we can answer; a reply is to say so.
    Refuse(Refusal),
    /// Must not be answered: a response, or no header.
    Ignore,
}

/// Why a packet cannot be answered, and what of it the reply repeats.
#[derive(Debug)]
pub struct Refusal {
    /// What the reply says.
    pub code: ResponseCode,
    /// What all replies repeat.
    pub head: Head,
    /// The question, if it could be read.
    pub question: Option<Question>,
}

/// What every reply repeats of its query.
#[derive(Clone, Debug)]
pub struct Head {
    /// The number of the query.
    pub id: u16,
    /// Its operation.
    pub opcode: OpCode,
    /// Flag RD.
    pub recursion_desired: bool,
    /// Its OPT record.
    pub edns: Option<Edns>,
}

/// What the OPT record of a query says (RFC 6891).
#[derive(Clone, Debug)]
pub struct Edns {
    /// The largest UDP answer that the asker can take, bytes.
    pub udp_payload: u16,
    /// Flag DO.
    pub dnssec_ok: bool,
    /// The options that we know.
    pub options: Options,
}

/// A query that was understood.
#[derive(Clone, Debug)]
pub struct Query {
    /// What every reply repeats.
    pub head: Head,
    /// What is asked.
    pub question: Question,
}

impl Head {
    /// The options of the query, if it has any.
    pub fn options(&self) -> Option<&Options> {
        self.edns.as_ref().map(|edns| &edns.options)
    }
}

/// Reads a packet.
pub fn read(packet: &[u8]) -> Read {
    let Some(header) = packet.first_chunk::<HEADER_BYTES>() else { return Read::Ignore };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let is_response = header[2] & 0x80 != 0;
    if is_response {
        return Read::Ignore;
    }
    let opcode = OpCode::from_u8(header[2] >> 3 & 0x0f);
    let mut head = Head { id: word(0), opcode, recursion_desired: header[2] & 1 != 0, edns: None };
    let (questions, records) = (word(4), [word(6), word(8), word(10)]);
    // Another operation is refused as such, whatever is wrong with it besides.
    let malformed = if opcode == OpCode::Query { ResponseCode::FormErr } else { ResponseCode::NotImp };
    let refuse = |code, head, question| Read::Refuse(Refusal { code, head, question });
    let mut decoder = BinDecoder::new(packet);
    if questions > RECORDS_MAX || decoder.read_slice(HEADER_BYTES).is_err() {
        return refuse(malformed, head, None);
    }
    let mut question = None;
    for _ in 0..questions {
        question = read_question(&mut decoder);
        if question.is_none() {
            return refuse(malformed, head, None);
        }
    }
    // One question, or which would the answer be for?
    question = question.filter(|_| questions == 1);
    if records.iter().any(|&count| count > RECORDS_MAX) {
        return refuse(malformed, head, question);
    }
    let (edns, wrong) = read_records(&mut decoder, records);
    head.edns = edns;
    match (wrong, question) {
        (_, question) if opcode != OpCode::Query => refuse(ResponseCode::NotImp, head, question),
        (Some(code), question) => refuse(code, head, question),
        (None, Some(question)) => Read::Query(Query { head, question }),
        (None, None) if questions == 0 && head.options().is_some_and(|options| options.cookie.is_some()) => {
            Read::CookieOnly(head)
        }
        (None, None) => refuse(ResponseCode::FormErr, head, None),
    }
}

fn read_question(decoder: &mut BinDecoder<'_>) -> Option<Question> {
    let name = Name::read(decoder).ok()?;
    let record_type = RecordType::from(decoder.read_u16().ok()?.unverified());
    let class = DNSClass::from(decoder.read_u16().ok()?.unverified());
    Some(Question { name, record_type, class })
}

/// Walks the records behind the question, all of which must be whole, to the end of the packet, and reads the OPT: at
/// most one, of the root, among the additional (RFC 6891 section 6.1.1). What was found of it is given even if
/// something is wrong, so that the reply can have one as well.
fn read_records(decoder: &mut BinDecoder<'_>, counts: [u16; 3]) -> (Option<Edns>, Option<ResponseCode>) {
    let mut found: Option<Edns> = None;
    let mut wrong = None;
    let [answers, authority, additional] = counts;
    for number in 0..answers + authority + additional {
        let Some(record) = read_record(decoder) else { return (found, Some(ResponseCode::FormErr)) };
        if record.record_type != RecordType::OPT {
            continue;
        }
        if found.is_some() || !record.name.is_root() || number < answers + authority {
            wrong = Some(ResponseCode::FormErr);
            continue;
        }
        // The fields of OPT (RFC 6891 section 6.1.3): class is the payload size, TTL is rcode, version and flags.
        let version = record.ttl >> 16 & 0xff;
        let (options, is_right) = match version {
            0 => Options::read(record.data),
            _ => (Options::default(), true), // what its options mean we cannot know
        };
        if version != 0 {
            wrong = Some(ResponseCode::BADVERS);
        } else if !is_right {
            wrong = Some(ResponseCode::FormErr);
        }
        found = Some(Edns { udp_payload: record.class, dnssec_ok: record.ttl & 0x8000 != 0, options });
    }
    if decoder.peek().is_some() {
        wrong = wrong.or(Some(ResponseCode::FormErr));
    }
    (found, wrong)
}

struct Record<'a> {
    name: Name,
    record_type: RecordType,
    class: u16,
    ttl: u32,
    data: &'a [u8],
}

fn read_record<'a>(decoder: &mut BinDecoder<'a>) -> Option<Record<'a>> {
    let name = Name::read(decoder).ok()?;
    let record_type = RecordType::from(decoder.read_u16().ok()?.unverified());
    let class = decoder.read_u16().ok()?.unverified();
    let ttl = decoder.read_u32().ok()?.unverified();
    let length = decoder.read_u16().ok()?.unverified();
    let data = decoder.read_slice(usize::from(length)).ok()?.unverified();
    Some(Record { name, record_type, class, ttl, data })
}
