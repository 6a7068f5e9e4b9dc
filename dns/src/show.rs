//! An answer's packet as text that people read and tests compare: one line for the header, one for OPT, then the
//! sections. Read from the packet alone, by the library's parser.

use std::fmt::Write as _;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Record};

use crate::rdata::{name_text, present, type_name, uncompressed};
use crate::wire;

/// A packet as text; what does not parse is said to be so.
pub fn show(packet: &[u8]) -> String {
    let Ok(message) = Message::from_vec(packet) else {
        return format!("does not parse: {}\n", data_encoding::HEXLOWER.encode(packet));
    };
    let mut text = String::new();
    let metadata = &message.metadata;
    let _ = write!(text, "{}", code_name(metadata.response_code));
    let flags = [
        ("aa", metadata.authoritative),
        ("tc", metadata.truncation),
        ("rd", metadata.recursion_desired),
        ("ra", metadata.recursion_available),
        ("ad", metadata.authentic_data),
        ("cd", metadata.checking_disabled),
    ];
    for (flag, _) in flags.into_iter().filter(|(_, is_set)| *is_set) {
        let _ = write!(text, " {flag}");
    }
    if metadata.op_code != hickory_proto::op::OpCode::Query {
        let _ = write!(text, " opcode={}", u8::from(metadata.op_code));
    }
    text.push('\n');
    if let Some(edns) = &message.edns {
        let _ = write!(text, "edns version={} size={}", edns.version(), edns.max_payload());
        if edns.flags().dnssec_ok {
            text.push_str(" do");
        }
        let mut options: Vec<(u16, String)> = edns
            .options()
            .options
            .iter()
            .map(|(code, option)| (u16::from(*code), option_text(*code, option)))
            .collect();
        options.sort();
        for (_, option) in options {
            let _ = write!(text, " {option}");
        }
        text.push('\n');
    }
    for question in &message.queries {
        let (name, class) = (name_text(question.name()), class_name(question.query_class()));
        let _ = writeln!(text, "question {name} {class} {}", type_name(question.query_type()));
    }
    let sections = [
        ("answer", &message.answers),
        ("authority", &message.authorities),
        ("additional", &message.additionals),
    ];
    for (section, records) in sections {
        for record in records {
            let _ = writeln!(text, "{section} {}", record_text(record));
        }
    }
    text
}

fn class_name(class: DNSClass) -> String {
    match class {
        DNSClass::Unknown(number) => format!("CLASS{number}"),
        known => known.to_string(),
    }
}

fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other if u16::from(other) == 16 => "BADVERS".to_owned(),
        other => format!("RCODE{}", u16::from(other)),
    }
}

fn option_text(code: EdnsCode, option: &EdnsOption) -> String {
    let bytes: Vec<u8> = match option {
        EdnsOption::Unknown(_, bytes) => bytes.clone(),
        EdnsOption::Subnet(subnet) => {
            return format!("subnet={}/{}/{}", subnet.addr(), subnet.source_prefix(), subnet.scope_prefix());
        }
        EdnsOption::NSID(nsid) => return format!("nsid={}", String::from_utf8_lossy(nsid.as_ref())),
        _ => return format!("option{}", u16::from(code)),
    };
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    match u16::from(code) {
        wire::COOKIE => format!("cookie={hex}"),
        wire::KEEPALIVE => format!("keepalive={hex}"),
        wire::PADDING => format!("padding={}", bytes.len()),
        wire::EXTENDED_ERROR if bytes.len() >= 2 => {
            let number = u16::from_be_bytes([bytes[0], bytes[1]]);
            format!("ede={number}:\"{}\"", String::from_utf8_lossy(&bytes[2..]))
        }
        number => format!("option{number}={hex}"),
    }
}

fn record_text(record: &Record) -> String {
    let data = present(record.record_type(), &uncompressed(&record.data));
    let class = if record.dns_class == DNSClass::IN { "" } else { "CH " };
    format!("{} {} {class}{} {data}", name_text(&record.name), record.ttl, type_name(record.record_type()))
}
