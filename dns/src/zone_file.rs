//! Master files (RFC 1035 section 5): entries, directives, and what each error says.
//!
//! The reader here cuts the text into entries and knows the line of each; `rdata` reads the record
//! data. Going entry by entry finds every error of a file, not only the first.

use std::collections::HashMap;
use std::fmt;

use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};

use crate::rdata::{domain_name as name, record_data, shown, time_to_live, type_of};
use crate::zone::{Node, Zone};

/// `$INCLUDE` within `$INCLUDE`: deeper than this is a loop.
const INCLUDES_MAX: usize = 8;
/// A message has at most 65,535 bytes; the rest is for a question, an OPT record and a CNAME before.
const RECORD_SET_BYTES_MAX: usize = 64_000;
/// Records of one name and type, the smallest of 11 bytes: more fit no message, and would only take time.
const RECORD_SET_MAX: usize = 6000;
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
    for (name, node) in &nodes {
        for kind in node.types() {
            let bytes = node.bytes(kind);
            if bytes > RECORD_SET_BYTES_MAX {
                let (file, line) = owner_lines.get(name).cloned().unwrap_or_default();
                let message =
                    format!("the {kind} records of {name} are {bytes} bytes long: no message can hold them");
                errors.push(ZoneFileError { file, line, message });
            }
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
            let result = match (entry.problem.clone(), entry.tokens.first().map(Token::text)) {
                (Some(problem), _) => Err(problem),
                (None, None) => continue,
                (None, Some(word)) if word.starts_with('$') && !entry.begins_blank => {
                    self.directive(&entry, &mut context, depth)
                }
                (None, Some(_)) => self.record(&entry, file, &mut context),
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
                let path = path.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(path);
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
        if node.records(record_type).len() >= RECORD_SET_MAX {
            return Err(format!(
                "more than {RECORD_SET_MAX} {record_type} records: no message can hold them"
            ));
        }
        let mut record = Record::from_rdata(owner, ttl, data);
        record.dns_class = DNSClass::IN;
        node.add(record);
        self.owner_lines.entry(lower).or_insert_with(|| (file.to_owned(), entry.line));
        Ok(())
    }
}

/// The tokens of one entry's data on its own.
pub(crate) fn split(text: &str) -> Result<Vec<&str>, String> {
    let mut all = entries(text);
    match (all.len(), all.pop()) {
        (_, Some(Entry { problem: Some(problem), .. })) => Err(problem),
        (1, Some(entry)) => Ok(entry.tokens.into_iter().map(|token| token.raw).collect()),
        _ => Err("expected one line".to_owned()),
    }
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
            // A quoted value of a parameter: key="value".
            b'"' if at > 0 && bytes[at - 1] == b'=' => at += token_length(&bytes[at..]),
            b'\n' => return at,
            b' ' | b'\t' | b'\r' | b'(' | b')' | b';' if !quoted => return at,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests;
