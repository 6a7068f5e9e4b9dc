//! Texts with variables in them, and the conditions of `if`.

use std::borrow::Cow;

use bytes::Bytes;

/// Of a text with its variables filled in.
pub(super) const VALUE_BYTES_MAX: usize = 16 * 1024;

/// The value of a variable, by its name.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<Cow<'a, [u8]>>;

/// A text with variables in it: `to $name`, `${name}s`. A backslash takes its meaning from `$`, from quotes and from itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Phrase(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Bytes),
    Variable(String),
}

impl Phrase {
    /// # Errors
    /// A `$` without a name.
    pub(super) fn parse(text: &Bytes) -> Result<Self, String> {
        let (mut parts, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let (part, end) = match text.get(at) {
                Some(b'$') => variable(text, at + 1)?,
                _ => literal(text, at),
            };
            parts.push(part);
            at = end;
        }
        Ok(Self(parts))
    }

    /// The text, if there are no variables in it.
    pub(super) fn literal(&self) -> Option<Bytes> {
        match self.0.as_slice() {
            [] => Some(Bytes::new()),
            [Part::Text(text)] => Some(text.clone()),
            _ => None,
        }
    }

    /// With its variables filled in; those that nobody knows are empty. `None`: it is too long.
    pub(super) fn expand(&self, lookup: Lookup<'_>) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        for part in &self.0 {
            let found = match part {
                Part::Text(text) => Cow::Borrowed(text.as_ref()),
                Part::Variable(name) => lookup(name).unwrap_or_default(),
            };
            if value.len() + found.len() > VALUE_BYTES_MAX {
                return None;
            }
            value.extend_from_slice(&found);
        }
        Some(value)
    }
}

/// A variable whose `$` is just before `from`, and where it ends.
fn variable(text: &Bytes, from: usize) -> Result<(Part, usize), String> {
    let is_braced = text.get(from) == Some(&b'{');
    let from = from + usize::from(is_braced);
    let rest = text.get(from..).unwrap_or_default();
    let length = rest.iter().take_while(|byte| is_of_name(**byte)).count();
    let name = rest.get(..length).and_then(name);
    match name {
        None => Err("a `$` without the name of a variable; as a character it is written `\\$`".to_owned()),
        Some(name) if is_braced && rest.get(length) != Some(&b'}') => {
            Err(format!("`${{{name}` is not closed"))
        }
        Some(name) => Ok((Part::Variable(name), from + length + usize::from(is_braced))),
    }
}

/// The name of a variable: letters, digits and `_`, of any size.
pub(super) fn name(text: &[u8]) -> Option<String> {
    let is_name = !text.is_empty() && text.iter().copied().all(is_of_name);
    is_name.then(|| text.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Text up to the next variable, and where it ends.
fn literal(text: &Bytes, from: usize) -> (Part, usize) {
    let rest = text.get(from..).unwrap_or_default();
    let mut is_guarded = false;
    let is_end = |byte: &u8| {
        let is_end = !is_guarded && *byte == b'$';
        is_guarded = !is_guarded && *byte == b'\\';
        is_end
    };
    let end = from + rest.iter().position(is_end).unwrap_or(rest.len());
    let raw = text.slice(from..end);
    if !raw.contains(&b'\\') {
        return (Part::Text(raw), end);
    }
    let (mut plain, mut is_guarded) = (Vec::with_capacity(raw.len()), false);
    for byte in raw {
        if byte == b'\\' && !is_guarded {
            is_guarded = true;
            continue;
        }
        if is_guarded && !matches!(byte, b'\\' | b'\'' | b'"' | b'$') {
            plain.push(b'\\');
        }
        plain.push(byte);
        is_guarded = false;
    }
    (Part::Text(plain.into()), end)
}

/// The condition of an `if`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// `$a`: it is not empty.
    Filled(Phrase),
    /// `$a = text`, `$a != text`.
    Compared { left: Phrase, right: Phrase, is_equal: bool },
    /// It was not understood.
    Never,
}

impl Condition {
    /// # Errors
    /// It is none.
    pub(super) fn parse(text: &Bytes) -> Result<Self, String> {
        let is_left = |byte: &&u8| is_of_name(**byte) || matches!(byte, b'$' | b'{' | b'}' | b'"' | b'\'');
        let from = text.iter().take_while(is_left).count();
        let left = Phrase::parse(&text.slice(..from))?;
        let spaces = |from: usize| text.iter().skip(from).take_while(|byte| **byte == b' ').count();
        let at = from + spaces(from);
        let (is_equal, from) = match text.get(at..).unwrap_or_default() {
            [] => return Ok(Self::Filled(left)),
            [b'=', ..] => (true, at + 1),
            [b'!', b'=', ..] => (false, at + 2),
            _ => return Err("a condition is `$a`, `$a = text` or `$a != text`".to_owned()),
        };
        let from = from + spaces(from);
        let from = match text.get(from..).unwrap_or_default() {
            [b'/', _, ..] => {
                return Err(
                    "regular expressions are not known; a text that begins with `/` is written `\\/`"
                        .to_owned(),
                );
            }
            [b'\\', b'/', ..] => from + 1,
            _ => from,
        };
        Ok(Self::Compared { left, right: Phrase::parse(&text.slice(from..))?, is_equal })
    }

    /// Whether it holds. `None`: a side is too long.
    pub(super) fn holds(&self, lookup: Lookup<'_>) -> Option<bool> {
        match self {
            Self::Never => Some(false),
            Self::Filled(phrase) => Some(!phrase.expand(lookup)?.is_empty()),
            Self::Compared { left, right, is_equal } => {
                Some((left.expand(lookup)? == right.expand(lookup)?) == *is_equal)
            }
        }
    }
}
