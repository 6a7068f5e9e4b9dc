use hickory_proto::op::{Message, ResponseCode};

use super::*;
use crate::Transport;
use crate::answer::Answer;

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
    match super::read(packet) {
        Read::Query(_) => None,
        Read::Refuse(refusal) => {
            let limits = Limits::new(Transport::Udp, &refusal.head, packet.len(), None);
            let question = refusal.question.as_ref();
            let reply =
                write(&refusal.head, question, &Answer::empty(refusal.code), &Extras::default(), limits);
            let message = Message::from_vec(&reply).expect("replies parse");
            Some((message.metadata.response_code, message.edns.is_some()))
        }
        Read::CookieOnly(_) | Read::Ignore => panic!("not refused"),
    }
}

#[test]
fn subnets_are_read_strictly() {
    let whole = [0, 1, 24, 0, 1, 2, 3];
    let Read::Query(query) = super::read(&query_with(&subnet_option(&whole))) else { panic!("a query") };
    assert_eq!(query.head.options().unwrap().subnet.as_ref().unwrap().client().to_string(), "1.2.3.0/24");
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
        assert_eq!(code_of(&query_with(&subnet_option(bad))), Some((ResponseCode::FormErr, true)), "{bad:?}");
    }
    let twice = [subnet_option(&whole), subnet_option(&whole)].concat();
    assert_eq!(code_of(&query_with(&twice)), Some((ResponseCode::FormErr, true)));
    assert_eq!(code_of(&query_with(&[0, 99, 0, 2, 1, 2])), None, "unknown options are passed over");
    assert_eq!(code_of(&query_with(&[0, 99, 0, 9, 1, 2])), Some((ResponseCode::FormErr, true)));
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
    assert_eq!(code_of(&two), Some((ResponseCode::FormErr, true)));
}

#[test]
fn what_is_no_query() {
    assert!(matches!(super::read(&[]), Read::Ignore));
    assert!(matches!(super::read(&[0; 11]), Read::Ignore));
    let mut response = query_with(&[]);
    response[2] |= 0x80;
    assert!(matches!(super::read(&response), Read::Ignore));
    let mut notify = query_with(&[]);
    notify[2] = 4 << 3;
    assert_eq!(code_of(&notify), Some((ResponseCode::NotImp, true)));
    let mut many = query_with(&[]);
    many[4] = 0xff;
    assert_eq!(code_of(&many), Some((ResponseCode::FormErr, false)));
}

#[test]
fn cut_anywhere_it_does_not_panic() {
    let whole = query_with(&subnet_option(&[0, 1, 24, 0, 1, 2, 3]));
    for end in 0..whole.len() {
        let _ = super::read(&whole[..end]);
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            let _ = super::read(&flipped);
        }
    }
}
