//! A query of a scenario, made byte by byte: what is asked need not be right.

use std::collections::BTreeMap;
use std::net::IpAddr;

use daemun_dns::{Peer, Responder, Transport, record_type, show};
use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::EdnsOption;

/// Whoever asks, unless told otherwise: of unknown place.
const RESOLVER: &str = "198.51.100.53";
/// A client's cookie.
const CLIENT_COOKIE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[derive(Default)]
struct Edns {
    is_there: bool,
    size: Option<u16>,
    is_dnssec_ok: bool,
    version: u8,
    options: Vec<(u16, Vec<u8>)>,
}

pub(crate) struct Ask {
    packet: Vec<u8>,
    peer: Peer,
    times: Option<u32>,
    shows_size: bool,
}

struct Options {
    edns: Edns,
    flags: [u8; 2],
    class: u16,
    peer: Peer,
    times: Option<u32>,
    shows_size: bool,
}

impl Ask {
    pub(crate) fn parse(word: &str, text: &str, last_cookie: Option<&[u8]>) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (plain, options): (Vec<&str>, Vec<&str>) =
            words.into_iter().partition(|word| !word.starts_with('+'));
        let mut read = Options {
            edns: Edns::default(),
            flags: [0, 0],
            class: 1,
            peer: Peer::new(RESOLVER.parse().expect("an address"), Transport::Udp),
            times: None,
            shows_size: false,
        };
        for option in options {
            read.option(option, last_cookie)?;
        }
        let packet = match (word, plain.as_slice()) {
            ("packet", hex) => {
                HEX.decode(hex.concat().as_bytes()).map_err(|error| format!("packet: {error}"))?
            }
            (_, [name, kind]) => read.packet(name, u16::from(record_type(kind).or_else(|_| meta(kind))?))?,
            _ => return Err(format!("expected `ask NAME TYPE`, found `{text}`")),
        };
        let Options { peer, times, shows_size, .. } = read;
        Ok(Self { packet, peer, times, shows_size })
    }

    /// The answer as text, and the replies.
    pub(crate) fn play(&self, responder: &Responder) -> (String, Vec<Vec<u8>>) {
        let Some(times) = self.times else {
            let Some(reply) = responder.respond(&self.packet, self.peer) else {
                return ("no reply\n".to_owned(), Vec::new());
            };
            let size = if self.shows_size {
                format!("asked with {} bytes, answered with {}\n", self.packet.len(), reply.len())
            } else {
                String::new()
            };
            return (size + &show::show(&reply), vec![reply]);
        };
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        let mut replies = Vec::new();
        for _ in 0..times {
            let reply = responder.respond(&self.packet, self.peer);
            let what = reply.as_deref().map_or("no reply".to_owned(), show::show);
            *counts.entry(what.lines().next().unwrap_or_default().to_owned()).or_default() += 1;
            replies.extend(reply);
        }
        (counts.iter().map(|(what, count)| format!("{count} times {what}\n")).collect(), replies)
    }
}

/// Types that only a query has.
fn meta(word: &str) -> Result<hickory_proto::rr::RecordType, String> {
    match word {
        "ANY" => Ok(255_u16.into()),
        "AXFR" => Ok(252_u16.into()),
        "IXFR" => Ok(251_u16.into()),
        "OPT" => Ok(41_u16.into()),
        other => other
            .strip_prefix("TYPE")
            .and_then(|number| number.parse::<u16>().ok())
            .map(Into::into)
            .ok_or_else(|| format!("`{other}` is not a type")),
    }
}

impl Options {
    fn option(&mut self, option: &str, last_cookie: Option<&[u8]>) -> Result<(), String> {
        let (word, value) = option.split_once('=').unwrap_or((option, ""));
        let wrong = || format!("not an option of a query: `{option}`");
        let number = || value.parse::<u16>().map_err(|_| wrong());
        let hex = |text: &str| HEX.decode(text.as_bytes()).map_err(|_| wrong());
        let edns = &mut self.edns;
        let mut add = |code: u16, data: Vec<u8>| {
            edns.is_there = true;
            edns.options.push((code, data));
        };
        match (word, value) {
            ("+tcp", "") => self.peer.transport = Transport::Tcp,
            ("+tls", "") => self.peer.transport = Transport::Tls,
            ("+https", "") => self.peer.transport = Transport::Https,
            ("+quic", "") => self.peer.transport = Transport::Quic,
            ("+from", address) => self.peer.address = address.parse().map_err(|_| wrong())?,
            ("+class", "CH") => self.class = 3,
            ("+class", _) => self.class = number()?,
            ("+rd", "") => self.flags[0] |= 1,
            ("+tc", "") => self.flags[0] |= 2,
            ("+aa", "") => self.flags[0] |= 4,
            ("+qr", "") => self.flags[0] |= 0x80,
            ("+cd", "") => self.flags[1] |= 0x10,
            ("+ad", "") => self.flags[1] |= 0x20,
            ("+z", "") => self.flags[1] |= 0x40,
            ("+opcode", _) => self.flags[0] |= (number()? as u8 & 15) << 3,
            ("+times", _) => self.times = Some(number()?.into()),
            ("+size", "") => self.shows_size = true,
            ("+edns", "") => edns.is_there = true,
            ("+bufsize", _) => (edns.is_there, edns.size) = (true, Some(number()?)),
            ("+do", "") => (edns.is_there, edns.is_dnssec_ok) = (true, true),
            ("+version", _) => (edns.is_there, edns.version) = (true, number()? as u8),
            ("+subnet", net) => add(8, subnet(net).ok_or_else(wrong)?),
            ("+cookie", "") => add(10, CLIENT_COOKIE.to_vec()),
            ("+cookie", "good") => add(10, last_cookie.ok_or("no cookie was given yet")?.to_vec()),
            ("+cookie", text) => add(10, hex(text)?),
            ("+nsid", "") => add(3, Vec::new()),
            ("+keepalive", "") => add(11, Vec::new()),
            ("+padding", "") => add(12, vec![0; 8]),
            ("+option", text) => {
                let (code, data) = text.split_once(':').ok_or_else(wrong)?;
                add(code.parse().map_err(|_| wrong())?, hex(data)?);
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn packet(&self, name: &str, record_type: u16) -> Result<Vec<u8>, String> {
        let mut packet = vec![0x12, 0x34, self.flags[0], self.flags[1], 0, 1, 0, 0, 0, 0, 0, 0];
        packet[11] = self.edns.is_there.into();
        packet.extend(wire_name(name).ok_or(format!("`{name}` is not a name"))?);
        packet.extend(record_type.to_be_bytes());
        packet.extend(self.class.to_be_bytes());
        if self.edns.is_there {
            packet.extend([0, 0, 41]);
            packet.extend(self.edns.size.unwrap_or(1232).to_be_bytes());
            packet.extend([0, self.edns.version, u8::from(self.edns.is_dnssec_ok) << 7, 0]);
            let options: Vec<u8> = self
                .edns
                .options
                .iter()
                .flat_map(|(code, data)| {
                    [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
                })
                .collect();
            packet.extend((options.len() as u16).to_be_bytes());
            packet.extend(options);
        }
        Ok(packet)
    }
}

/// A name as packets have it; `\DDD` and `\X` as in master files.
fn wire_name(name: &str) -> Option<Vec<u8>> {
    let mut labels: Vec<Vec<u8>> = vec![Vec::new()];
    let mut rest = name.strip_suffix('.').filter(|rest| !rest.ends_with('\\')).unwrap_or(name).as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'.', _) => labels.push(Vec::new()),
            (b'\\', [a, b, c, after @ ..]) if a.is_ascii_digit() => {
                let digits = std::str::from_utf8(&[*a, *b, *c]).ok()?.to_owned();
                labels.last_mut()?.push(digits.parse().ok()?);
                rest = after;
            }
            (b'\\', [escaped, after @ ..]) => {
                labels.last_mut()?.push(*escaped);
                rest = after;
            }
            (byte, _) => labels.last_mut()?.push(*byte),
        }
    }
    let is_root = labels == [Vec::new()];
    if !is_root && labels.iter().any(Vec::is_empty) {
        return None;
    }
    let framed = labels
        .iter()
        .filter(|label| !label.is_empty())
        .flat_map(|label| std::iter::once(label.len() as u8).chain(label.iter().copied()));
    Some(framed.chain([0]).collect())
}

/// A client subnet option, as short as it can be.
fn subnet(net: &str) -> Option<Vec<u8>> {
    let (address, length) = net.split_once('/')?;
    let length: u8 = length.parse().ok()?;
    let (family, octets) = match address.parse().ok()? {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    let octets = octets.get(..usize::from(length.div_ceil(8)))?;
    Some([&[0, family, length, 0], octets].concat())
}

/// The cookie option of a reply.
pub(crate) fn cookie(reply: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_vec(reply).ok()?;
    match message.edns?.option(10_u16.into())? {
        EdnsOption::Unknown(_, bytes) => Some(bytes.clone()),
        _ => None,
    }
}
