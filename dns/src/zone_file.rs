//! Master files (RFC 1035 section 5): entries, directives, and what each error says.
//!
//! The reader here cuts the text into entries and knows the line of each; `hickory-proto` reads the record data,
//! whose many types it knows. Going entry by entry finds every error of a file, not only the first.

use std::collections::HashMap;
use std::fmt;

use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType, rdata};
use hickory_proto::serialize::binary::{BinDecoder, Restrict};
use hickory_proto::serialize::txt::{Parser, parse_ttl};

use crate::answer::is_no_data;
use crate::zone::{Node, Zone};

/// `$INCLUDE` within `$INCLUDE`: deeper than this is a loop.
const INCLUDES_MAX: usize = 8;
/// Errors after which reading stops: the file is probably not a master file.
const ERRORS_MAX: usize = 50;

/// Something that is wrong with a master file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ZoneFileError {
    /// Name of the file.
    pub file: String,
    /// Line, from 1; 0 when it is the whole zone that is wrong.
    pub line: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for ZoneFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// Reads a zone. `load` gives the text of an included file by the path in the file, or why there is none.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn parse(
    file: &str,
    text: &str,
    origin: &str,
    load: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Zone, Vec<ZoneFileError>> {
    let whole = |message: String| vec![ZoneFileError { file: file.to_owned(), line: 0, message }];
    let mut origin = Name::from_ascii(origin).map_err(|error| whole(format!("not a zone name: {error}")))?;
    origin.set_fqdn(true);
    let mut reader = Reader {
        apex: LowerName::new(&origin),
        nodes: HashMap::new(),
        owner_lines: HashMap::new(),
        errors: Vec::new(),
        load,
    };
    reader.read(
        file,
        text,
        Context { origin: origin.clone(), owner: None, default_ttl: None, last_ttl: None },
        0,
    );
    let Reader { nodes, owner_lines, mut errors, .. } = reader;
    for (name, node) in &nodes {
        let types: Vec<RecordType> = node.types().collect();
        if types.contains(&RecordType::CNAME)
            && (types.len() > 1 || node.records(RecordType::CNAME).len() > 1)
        {
            let (file, line) = owner_lines.get(name).cloned().unwrap_or_default();
            let message =
                format!("{name} has a CNAME, which must be its only record (RFC 2181 section 10.1)");
            errors.push(ZoneFileError { file, line, message });
        }
    }
    if errors.is_empty() {
        return Zone::new(&origin, nodes).map_err(whole);
    }
    errors.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Err(errors)
}

/// What carries over from entry to entry.
#[derive(Clone)]
struct Context {
    origin: Name,
    owner: Option<Name>,
    default_ttl: Option<u32>,
    last_ttl: Option<u32>,
}

struct Reader<'a> {
    apex: LowerName,
    nodes: HashMap<LowerName, Node>,
    owner_lines: HashMap<LowerName, (String, usize)>,
    errors: Vec<ZoneFileError>,
    load: &'a dyn Fn(&str) -> Result<String, String>,
}

impl Reader<'_> {
    fn read(&mut self, file: &str, text: &str, mut context: Context, depth: usize) {
        for entry in entries(text) {
            if self.errors.len() >= ERRORS_MAX {
                return;
            }
            let result = match entry.tokens.first().map(Token::text) {
                None => continue,
                Some(word) if word.starts_with('$') && !entry.begins_blank => {
                    self.directive(&entry, &mut context, depth)
                }
                Some(_) => entry.problem.clone().map_or_else(|| self.record(&entry, file, &mut context), Err),
            };
            if let Err(message) = result {
                self.errors.push(ZoneFileError { file: file.to_owned(), line: entry.line, message });
            }
        }
    }

    fn directive(&mut self, entry: &Entry<'_>, context: &mut Context, depth: usize) -> Result<(), String> {
        let words: Vec<&str> = entry.tokens.iter().map(Token::text).collect();
        match (words[0].to_ascii_uppercase().as_str(), &words[1..]) {
            ("$TTL", [ttl]) => {
                context.default_ttl = Some(time_to_live(ttl)?);
            }
            ("$ORIGIN", [origin]) => context.origin = name(origin, &context.origin)?,
            ("$INCLUDE", [path, rest @ ..]) if rest.len() <= 1 => {
                if depth >= INCLUDES_MAX {
                    return Err(format!(
                        "$INCLUDE goes deeper than {INCLUDES_MAX} files: does one include itself?"
                    ));
                }
                let origin = rest.first().map(|origin| name(origin, &context.origin)).transpose()?;
                let text = (self.load)(path)
                    .map_err(|error| format!("cannot include `{}`: {error}", shown(path)))?;
                // The included file gets this file's origin and owner, and leaves them as they were (section 5.1).
                let mut inner = context.clone();
                inner.origin = origin.unwrap_or(inner.origin);
                self.read(path, &text, inner, depth + 1);
            }
            ("$TTL" | "$ORIGIN" | "$INCLUDE", _) => {
                return Err(format!("{} has {} arguments, expected one", words[0], words.len() - 1));
            }
            _ => {
                return Err(format!(
                    "unknown directive `{}`; known are $ORIGIN, $TTL and $INCLUDE",
                    shown(words[0])
                ));
            }
        }
        Ok(())
    }

    fn record(&mut self, entry: &Entry<'_>, file: &str, context: &mut Context) -> Result<(), String> {
        let mut tokens = entry.tokens.iter().peekable();
        let owner = if entry.begins_blank {
            context.owner.clone().ok_or("the first record must name its owner")?
        } else {
            let word = tokens.next().map(Token::text).unwrap_or_default();
            let owner = if word == "@" { context.origin.clone() } else { name(word, &context.origin)? };
            context.owner = Some(owner.clone());
            owner
        };
        let mut ttl = None;
        let mut class = None;
        let record_type = loop {
            let Some(word) = tokens.next().map(Token::text) else {
                return Err("expected a record type and its data, found the end of the entry".to_owned());
            };
            if ttl.is_none() && word.starts_with(|first: char| first.is_ascii_digit()) {
                ttl = Some(time_to_live(word)?);
            } else if class.is_none()
                && ["IN", "CH", "HS", "CLASS1"].contains(&word.to_ascii_uppercase().as_str())
            {
                class = Some(word.to_ascii_uppercase());
            } else {
                break type_of(word)?;
            }
        };
        if class.is_some_and(|class| class != "IN" && class != "CLASS1") {
            return Err("only class IN is served".to_owned());
        }
        let lower = LowerName::new(&owner);
        if !self.apex.zone_of(&lower) {
            return Err(format!("{owner} is not in the zone {}", self.apex));
        }
        let data = tokens.map(|token| token.raw).collect::<Vec<_>>();
        let data = record_data(record_type, &data, &context.origin)?;
        // Without $TTL: the last one stated (RFC 1035 section 5.1), for an SOA its own MINIMUM.
        let soa_ttl = if let RData::SOA(soa) = &data { Some(soa.minimum) } else { None };
        let ttl = ttl.or(context.default_ttl).or(context.last_ttl).or(soa_ttl);
        let ttl = ttl.ok_or("the record has no time to live: give it one, or the file a $TTL")?;
        context.last_ttl = Some(ttl);
        if record_type == RecordType::SOA && lower != self.apex {
            return Err(format!("an SOA record belongs to the apex {}, not to {owner}", self.apex));
        }
        let node = self.nodes.entry(lower.clone()).or_default();
        let mut record = Record::from_rdata(owner, ttl, data);
        record.dns_class = DNSClass::IN;
        node.add(record);
        self.owner_lines.entry(lower).or_insert_with(|| (file.to_owned(), entry.line));
        Ok(())
    }
}

/// Seconds, or units such as `1h30m`; at most 2^31 - 1 (RFC 2181 section 8).
fn time_to_live(text: &str) -> Result<u32, String> {
    match parse_ttl(text) {
        Ok(ttl) if i32::try_from(ttl).is_ok() => Ok(ttl),
        Ok(_) => Err(format!("a time to live is at most 2147483647 seconds, found `{}`", shown(text))),
        Err(_) => Err(format!("expected a time to live, found `{}`", shown(text))),
    }
}

fn shown(text: &str) -> String {
    daemun_fleet::shorten(text)
}

/// A domain name as master files write it: `@` is the origin, a name without a dot at its end is below it, `\DDD` is a
/// decimal byte, `\X` is X (RFC 1035 section 5.1). Any byte may stand in a label (RFC 2181 section 11).
fn name(text: &str, origin: &Name) -> Result<Name, String> {
    let wrong = |reason: &str| format!("`{}` is not a domain name: {reason}", shown(text));
    if text == "@" {
        return Ok(origin.clone());
    }
    if text == "." {
        return Ok(Name::root());
    }
    let mut labels: Vec<Vec<u8>> = vec![Vec::new()];
    for (byte, is_escaped) in unescape(text).map_err(|reason| wrong(&reason))? {
        match (byte, labels.last_mut()) {
            (b'.', _) if !is_escaped => labels.push(Vec::new()),
            (byte, Some(label)) => label.push(byte),
            (_, None) => {}
        }
    }
    let is_whole = labels.last().is_some_and(Vec::is_empty) && labels.pop().is_some();
    if labels.iter().any(Vec::is_empty) {
        return Err(wrong("a label is empty"));
    }
    let tail = if is_whole { Vec::new() } else { origin.iter().map(<[u8]>::to_vec).collect() };
    let all = labels.iter().chain(&tail).map(Vec::as_slice);
    let mut name = Name::from_labels(all).map_err(|error| wrong(&error.to_string()))?;
    name.set_fqdn(true);
    Ok(name)
}

/// Bytes of a token, and whether each was escaped.
fn unescape(text: &str) -> Result<Vec<(u8, bool)>, String> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push((*first, false));
            continue;
        }
        match after {
            [a, b, c, after @ ..] if a.is_ascii_digit() && b.is_ascii_digit() && c.is_ascii_digit() => {
                let number = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
                let byte = u8::try_from(number).map_err(|_| format!("\\{number} is more than a byte"))?;
                bytes.push((byte, true));
                rest = after;
            }
            [byte, after @ ..] if !byte.is_ascii_digit() => {
                bytes.push((*byte, true));
                rest = after;
            }
            _ => return Err("a `\\` needs three digits or a character after it".to_owned()),
        }
    }
    Ok(bytes)
}

/// A character-string: at most 255 bytes (RFC 1035 section 3.3).
fn character_string(token: &str) -> Result<Vec<u8>, String> {
    let inner = token.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(token);
    let bytes: Vec<u8> = unescape(inner)?.into_iter().map(|(byte, _)| byte).collect();
    if bytes.len() > usize::from(u8::MAX) {
        return Err(format!(
            "a text of {} bytes: at most 255 fit; write several, each in quotes",
            bytes.len()
        ));
    }
    Ok(bytes)
}

/// Data of the types that are made of names, numbers and texts: the library's reader does not know `@` in data, takes
/// escapes for octal, and refuses bytes that may well stand in a label. `None`: another type.
fn plain_data(record_type: RecordType, tokens: &[&str], origin: &Name) -> Option<Result<RData, String>> {
    let name = |token: &str| name(token, origin);
    let number = |token: &str| {
        token.parse::<u16>().map_err(|_| format!("expected 0 to 65535, found `{}`", shown(token)))
    };
    let data = match (record_type, tokens) {
        (RecordType::CNAME, [target]) => name(target).map(|target| RData::CNAME(rdata::CNAME(target))),
        (RecordType::NS, [host]) => name(host).map(|host| RData::NS(rdata::NS(host))),
        (RecordType::PTR, [target]) => name(target).map(|target| RData::PTR(rdata::PTR(target))),
        (RecordType::MX, [preference, host]) => {
            number(preference).and_then(|preference| Ok(RData::MX(rdata::MX::new(preference, name(host)?))))
        }
        (RecordType::SRV, [priority, weight, port, host]) => (|| {
            let srv = rdata::SRV::new(number(priority)?, number(weight)?, number(port)?, name(host)?);
            Ok(RData::SRV(srv))
        })(),
        (RecordType::TXT, texts) => {
            let texts = texts.iter().map(|text| character_string(text)).collect::<Result<Vec<_>, _>>();
            texts.and_then(|texts| {
                let bytes: usize = texts.iter().map(|text| text.len() + 1).sum();
                if bytes > usize::from(u16::MAX) {
                    return Err(format!("{bytes} bytes of data: a record holds at most 65535"));
                }
                Ok(RData::TXT(rdata::TXT::from_bytes(texts.iter().map(Vec::as_slice).collect())))
            })
        }
        _ => return None,
    };
    Some(data)
}

fn type_of(word: &str) -> Result<RecordType, String> {
    let upper = word.to_ascii_uppercase();
    // RFC 3597 section 5: types without a name.
    if let Some(number) = upper.strip_prefix("TYPE").and_then(|number| number.parse::<u16>().ok()) {
        if is_no_data(RecordType::from(number)) {
            return Err(format!("records of type {number} are for messages, not for zones"));
        }
        return Ok(RecordType::from(number));
    }
    match upper.parse() {
        Ok(RecordType::ANY | RecordType::AXFR | RecordType::IXFR | RecordType::OPT) | Err(_) => {
            Err(format!("expected a record type such as A or TXT, found `{}`", shown(word)))
        }
        Ok(known) => Ok(known),
    }
}

fn record_data(record_type: RecordType, tokens: &[&str], origin: &Name) -> Result<RData, String> {
    if tokens.first() == Some(&"\\#") {
        return generic_data(record_type, &tokens[1..]);
    }
    if tokens.is_empty() {
        return Err(format!("the {record_type} record has no data"));
    }
    if let Some(data) = plain_data(record_type, tokens, origin) {
        let shown = shown(&tokens.join(" "));
        return data.map_err(|reason| format!("not the data of a {record_type} record: `{shown}`: {reason}"));
    }
    let text = tokens.join(" ");
    if text.contains('\\') {
        return Err(format!(
            "escapes in the data of a {record_type} record are not read; write it as `\\# LENGTH HEX`"
        ));
    }
    let wrong =
        |reason: String| format!("not the data of a {record_type} record: `{}`: {reason}", shown(&text));
    // The library reads whole files; a file of one record lets us say which line was wrong.
    let one = format!("x 1 IN {record_type} {text}\n");
    let (_, sets) =
        Parser::new(one, None, Some(origin.clone())).parse().map_err(|error| wrong(error.to_string()))?;
    let mut records =
        sets.into_values().flat_map(|set| set.records_without_rrsigs().cloned().collect::<Vec<_>>());
    match (records.next(), records.next()) {
        (Some(record), None) if record.record_type() == record_type => Ok(record.data),
        _ => Err(wrong("it does not read as one record".to_owned())),
    }
}

/// `\# LENGTH HEX…` (RFC 3597 section 5).
fn generic_data(record_type: RecordType, tokens: &[&str]) -> Result<RData, String> {
    let wrong = || "expected `\\# LENGTH HEX`, the hexadecimal digits being twice the length".to_owned();
    let (length, hex) = tokens.split_first().ok_or_else(wrong)?;
    let length: u16 = length.parse().map_err(|_| wrong())?;
    let digits: String = hex.concat();
    if !digits.is_ascii() || digits.len() != usize::from(length) * 2 {
        return Err(wrong());
    }
    let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().map_err(|_| wrong())?;
    RData::read(&mut BinDecoder::new(&bytes), record_type, Restrict::new(length))
        .map_err(|error| format!("not the data of a {record_type} record: {error}"))
}

/// One token, as written.
struct Token<'a> {
    raw: &'a str,
}

impl Token<'_> {
    fn text(&self) -> &str {
        self.raw
    }
}

/// One entry: a line, or several joined by parentheses.
struct Entry<'a> {
    line: usize,
    begins_blank: bool,
    tokens: Vec<Token<'a>>,
    problem: Option<String>,
}

/// Cuts the text into entries: quotes, comments, parentheses, escapes (RFC 1035 section 5.1).
fn entries(text: &str) -> Vec<Entry<'_>> {
    let bytes = text.as_bytes();
    let mut all = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let mut entry = Entry {
            line,
            begins_blank: bytes[at] == b' ' || bytes[at] == b'\t',
            tokens: Vec::new(),
            problem: None,
        };
        let mut depth = 0usize;
        while at < bytes.len() {
            match bytes[at] {
                b'\n' => {
                    line += 1;
                    at += 1;
                    if depth == 0 {
                        break;
                    }
                }
                b' ' | b'\t' | b'\r' => at += 1,
                b';' => at += bytes[at..].iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len() - at),
                b'(' => {
                    depth += 1;
                    at += 1;
                }
                b')' => {
                    if depth == 0 {
                        entry.problem = Some("a `)` without its `(`".to_owned());
                    }
                    depth = depth.saturating_sub(1);
                    at += 1;
                }
                first => {
                    let length = token_length(&bytes[at..]);
                    let raw = &text[at..at + length];
                    if first == b'"' && (length < 2 || !raw.ends_with('"')) {
                        entry.problem = Some("a quoted text without its closing `\"`".to_owned());
                    }
                    entry.tokens.push(Token { raw });
                    at += length;
                }
            }
        }
        if depth > 0 {
            entry.problem = Some("a `(` without its `)`".to_owned());
        }
        all.push(entry);
    }
    all
}

/// Length of the token that begins here: quoted up to its quote (or the end of the line), else up to a separator.
fn token_length(bytes: &[u8]) -> usize {
    let quoted = bytes[0] == b'"';
    let mut at = usize::from(quoted);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if bytes.get(at + 1).is_some_and(|next| next.is_ascii() && *next != b'\n') => at += 2,
            b'"' if quoted => return at + 1,
            b'\n' => return at,
            b' ' | b'\t' | b'\r' | b'(' | b')' | b';' if !quoted => return at,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests;
