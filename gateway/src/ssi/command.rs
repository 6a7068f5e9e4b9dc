//! One command, `<!--# name attribute="value" attribute='value' -->`, as it is written: what it means is for the parser.

use bytes::Bytes;

/// What a command begins with.
pub(super) const OPENING: &[u8] = b"<!--#";
const CLOSING: &[u8] = b"-->";
/// Commands and attributes have short names.
const NAME_BYTES_MAX: usize = 32;
const ATTRIBUTES_MAX: usize = 16;
/// Of one attribute. Where a quote is forgotten, no more than this is read for nothing.
const VALUE_BYTES_MAX: usize = 1024;

/// A command, as it is written.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) name: String,
    attributes: Vec<(String, Bytes)>,
}

/// What a reader of a command comes back with. `end` is where the text goes on.
#[derive(Clone, Debug)]
pub(super) enum Reading {
    /// A command.
    Whole { command: Command, end: usize },
    /// It breaks the rules, and is passed over up to where it closes.
    Malformed { what: String, end: usize },
    /// It does not close, and neither does anything after it.
    Open,
}

impl Command {
    /// Reads the command whose opening ends at `from`.
    pub(super) fn read(body: &Bytes, from: usize) -> Reading {
        let mut reader = Reader { body, at: from };
        match reader.command() {
            Ok(command) => Reading::Whole { command, end: reader.at },
            Err(what) => match find(body, reader.at, CLOSING) {
                Some(at) => Reading::Malformed { what, end: at + CLOSING.len() },
                None => Reading::Open,
            },
        }
    }

    /// The values of these attributes.
    ///
    /// # Errors
    /// It has others, or one twice.
    pub(super) fn take<const N: usize>(&self, names: [&str; N]) -> Result<[Option<Bytes>; N], String> {
        let mut values = [const { None }; N];
        for (name, value) in &self.attributes {
            let at = names.iter().position(|known| known == name);
            match at.and_then(|at| values.get_mut(at)) {
                None => return Err(format!("`{}` has no attribute `{name}`", self.name)),
                Some(Some(_)) => return Err(format!("`{}` with two `{name}`", self.name)),
                Some(free) => *free = Some(value.clone()),
            }
        }
        Ok(values)
    }

    /// Says that an attribute is not there.
    pub(super) fn lacks(&self, name: &str) -> String {
        format!("`{}` without `{name}`", self.name)
    }
}

/// Where `wanted` is, at or after `from`.
pub(super) fn find(body: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    let rest = body.get(from..)?;
    let first = *wanted.first()?;
    let mut at = 0;
    loop {
        at += rest.get(at..)?.iter().position(|byte| *byte == first)?;
        if rest.get(at..)?.starts_with(wanted) {
            return Some(from + at);
        }
        at += 1;
    }
}

struct Reader<'a> {
    body: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn command(&mut self) -> Result<Command, String> {
        self.space();
        let name = self.name()?;
        let mut attributes = Vec::new();
        loop {
            let is_apart = self.space();
            if self.rest().starts_with(CLOSING) {
                self.at += CLOSING.len();
                return Ok(Command { name, attributes });
            }
            if !is_apart {
                return Err(format!("`{name}` is not closed where it should be"));
            }
            if attributes.len() == ATTRIBUTES_MAX {
                return Err(format!("`{name}` has too many attributes"));
            }
            let attribute = self.name().map_err(|what| format!("`{name}`: {what}"))?;
            let value = self.value().map_err(|what| format!("`{name}`: `{attribute}` {what}"))?;
            attributes.push((attribute, value));
        }
    }

    /// Passes over space; whether there was any.
    fn space(&mut self) -> bool {
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let passed = self.rest().iter().take_while(is_space).count();
        self.at += passed;
        passed > 0
    }

    fn name(&mut self) -> Result<String, String> {
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
        let length = self.rest().iter().take(NAME_BYTES_MAX + 1).take_while(is_part).count();
        let name = self.rest().iter().take(length).map(|byte| char::from(*byte)).collect();
        match length {
            0 => Err("no name where one should be".to_owned()),
            _ if length > NAME_BYTES_MAX => Err("a name that is too long".to_owned()),
            _ => {
                self.at += length;
                Ok(name)
            }
        }
    }

    /// `="value"`, with either quote. A backslash keeps its meaning for later; here it only guards a quote.
    fn value(&mut self) -> Result<Bytes, &'static str> {
        self.space();
        let Some(b'=') = self.rest().first() else { return Err("has no `=` after it") };
        self.at += 1;
        self.space();
        let Some(quote @ (b'"' | b'\'')) = self.rest().first().copied() else {
            return Err("has no quote after its `=`");
        };
        let mut is_guarded = false;
        let is_end = |byte: &u8| {
            let is_end = !is_guarded && *byte == quote;
            is_guarded = !is_guarded && *byte == b'\\';
            is_end
        };
        let from = self.at + 1;
        let length = self.rest().iter().skip(1).take(VALUE_BYTES_MAX + 1).position(is_end);
        // A quote was forgotten: the command closes where the next `-->` is, though it be in the quotes.
        let length = length.ok_or("is too long, or its quote is not closed")?;
        self.at = from + length + 1;
        Ok(self.body.slice(from..from + length))
    }

    fn rest(&self) -> &[u8] {
        self.body.get(self.at..).unwrap_or_default()
    }
}
