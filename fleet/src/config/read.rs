//! Reading a TOML document with the place of everything, going on after an error so that all are found at once.
//!
//! serde stops at the first error and forgets where the others are; here a [`Section`] is asked for its keys one by
//! one, notes what is wrong, and at the end names the keys that nobody asked for.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::problem::Problem;
use crate::shorten;

/// Keys at most this many edits away are offered as the right one.
const NEAREST_EDITS_MAX: usize = 3;

/// The document being read, and what was found wrong with it so far.
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text, problems: RefCell::default() }
    }

    /// Notes a problem at a byte range of the text.
    pub(super) fn problem(&self, span: &Range<usize>, message: impl Into<String>) {
        let (line, column) = self.place(span.start);
        let problem = Problem { file: self.name.to_owned(), line, column, message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    /// Line and column, from 1, of a byte offset.
    pub(super) fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// All problems, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        problems
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// What a value may be: how to read it, and how to say what was expected.
pub(super) struct Kind<T> {
    expected: String,
    read: Box<ReadValue<T>>,
}

type ReadValue<T> = dyn Fn(&DeValue<'_>) -> Option<T>;

impl<T: 'static> Kind<T> {
    fn new(expected: impl Into<String>, read: impl Fn(&DeValue<'_>) -> Option<T> + 'static) -> Self {
        Self { expected: expected.into(), read: Box::new(read) }
    }

    /// What a text means.
    pub(super) fn parse(&self, text: &str) -> Option<T> {
        (self.read)(&DeValue::String(std::borrow::Cow::Borrowed(text)))
    }

    /// A string that `read` understands.
    pub(super) fn parsed(expected: impl Into<String>, read: impl Fn(&str) -> Option<T> + 'static) -> Self {
        Self::new(expected, move |value| value.as_str().and_then(&read))
    }
}

/// A string that is not empty.
pub(super) fn text(expected: &str) -> Kind<String> {
    Kind::parsed(expected, |text| (!text.trim().is_empty()).then(|| text.to_owned()))
}

/// A whole number in a range.
pub(super) fn integer(what: &str, range: RangeInclusive<i64>) -> Kind<i64> {
    let expected = format!("{what} from {} to {}", range.start(), range.end());
    Kind::new(expected, move |value| {
        let integer = value.as_integer()?;
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
        range.contains(&number).then_some(number)
    })
}

/// A number, whole or not, in a range.
pub(super) fn number(what: &str, range: RangeInclusive<f64>) -> Kind<f64> {
    let expected = format!("{what} from {} to {}", range.start(), range.end());
    Kind::new(expected, move |value| {
        let text = match value {
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            DeValue::Float(float) => float.as_str(),
            _ => return None,
        };
        text.parse::<f64>().ok().filter(|number| range.contains(number))
    })
}

/// A duration in a range, `"500ms"`, `"2s"`, `"5m"`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> Kind<Duration> {
    let show = |duration: &Duration| humantime::format_duration(*duration).to_string();
    let expected = format!("a duration from \"{}\" to \"{}\"", show(range.start()), show(range.end()));
    Kind::parsed(expected, move |text| {
        humantime::parse_duration(text).ok().filter(|found| range.contains(found))
    })
}

/// A prefix; an address alone is a prefix of full length.
pub(super) fn prefix() -> Kind<IpNet> {
    Kind::parsed("an address prefix such as \"192.0.2.0/24\" with no bits set behind the slash", |text| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
        (net.trunc() == net).then_some(net)
    })
}

/// An `http` or `https` URL with a host.
pub(super) fn url() -> Kind<Url> {
    Kind::parsed("an http or https URL with a host, such as \"https://api.example.net\"", |text| {
        let url = Url::parse(text).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
    })
}

/// Texts that are the same for all, or by name.
pub(super) enum Texts {
    /// One list for all.
    Alike(Vec<String>),
    /// Lists under the operator's own words.
    ByName(Vec<(Located<String>, Vec<String>)>),
}

/// One of a few words.
pub(super) fn one_of<T: Copy + 'static>(words: &'static [(&'static str, T)]) -> Kind<T> {
    let mut expected = String::from("one of");
    for (at, (word, _)) in words.iter().enumerate() {
        let _ = write!(expected, "{} \"{word}\"", if at == 0 { "" } else { "," });
    }
    Kind::parsed(expected, |text| words.iter().find(|(word, _)| *word == text).map(|&(_, value)| value))
}

/// The word `true`, for a key that is given or not.
pub(super) fn only_true() -> Kind<bool> {
    Kind::new("true", |value| value.as_bool().filter(|&given| given))
}

/// `true` or `false`.
pub(super) fn boolean() -> Kind<bool> {
    Kind::new("true or false", |value| value.as_bool())
}

/// A name of our own making: what is fit for a DNS label, a metric and a file name.
pub(super) fn name() -> Kind<String> {
    Kind::parsed("a name of 1 to 63 lower-case letters, digits and inner hyphens", |text| {
        is_name(text).then(|| text.to_owned())
    })
}

/// Whether a text may be the name of a fleet, a datacenter, a server: 1 to 63 lower-case letters, digits and inner hyphens.
pub fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// One table of the document.
pub(super) struct Section<'a> {
    pub(super) source: &'a Source<'a>,
    table: Option<&'a DeTable<'a>>,
    pub(super) span: Range<usize>,
    path: String,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The document itself.
    pub(super) fn root(source: &'a Source<'a>, table: &'a DeTable<'a>) -> Self {
        Self { source, table: Some(table), span: 0..0, path: String::new(), known: Vec::new() }
    }

    /// Path of a key below this table, for messages.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table?.get(key)
    }

    /// True when the key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Where the value of a key stands; without it, the table.
    pub(super) fn place_of(&self, key: &str) -> Range<usize> {
        self.table.and_then(|table| table.get(key)).map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// Notes that what stands at `span` is wrong.
    pub(super) fn wrong(&self, key: &str, span: &Range<usize>, message: impl AsRef<str>) {
        self.source.problem(span, format!("{}: {}", self.path(key), message.as_ref()));
    }

    fn read<T>(&self, key: &str, kind: &Kind<T>, value: &Spanned<DeValue<'a>>) -> Option<Located<T>> {
        let read = (kind.read)(value.get_ref());
        if read.is_none() {
            self.wrong(
                key,
                &value.span(),
                format!("expected {}, found {}", kind.expected, found(value.get_ref())),
            );
        }
        read.map(|read| Located { value: read, span: value.span() })
    }

    /// The value of a key that may be missing.
    pub(super) fn optional<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<Located<T>> {
        let value = self.get(key)?;
        self.read(key, kind, value)
    }

    /// The value of a key that must be there; `None` means that a problem was noted.
    pub(super) fn required<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<Located<T>> {
        match self.get(key) {
            Some(value) => self.read(key, kind, value),
            None => {
                self.missing(key, &kind.expected);
                None
            }
        }
    }

    /// Notes that a key is missing; the nearest unknown key, if any, is reported by [`finish`](Self::finish).
    pub(super) fn missing(&self, key: &str, expected: &str) {
        self.wrong(key, &self.span, format!("missing: expected {expected}"));
    }

    /// A list of values, or none of them. Missing: `None`.
    pub(super) fn list_or_none<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<Vec<Located<T>>> {
        match self.get(key)?.get_ref() {
            DeValue::Array(items) if items.is_empty() => Some(Vec::new()),
            _ => self.list(key, kind),
        }
    }

    /// A list of values, at least one; one value alone is a list of one. Missing: `None`.
    pub(super) fn list<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<Vec<Located<T>>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Array(items) if items.is_empty() => {
                let message = format!("expected at least one, each {}", kind.expected);
                self.wrong(key, &value.span(), message);
                Some(Vec::new())
            }
            DeValue::Array(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .filter_map(|(at, item)| self.read(&format!("{key}[{at}]"), kind, item))
                    .collect(),
            ),
            _ => Some(self.read(key, kind, value).into_iter().collect()),
        }
    }

    /// The entries of a table whose keys are the operator's own words.
    pub(super) fn entries<T>(
        &mut self,
        key: &'static str,
        kind: &Kind<T>,
    ) -> Option<Vec<(Located<String>, Located<T>)>> {
        let value = self.get(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(key, &value.span(), format!("expected a table, found {}", found(value.get_ref())));
            return None;
        };
        let read = |(word, value): (&Spanned<_>, &Spanned<DeValue<'a>>)| {
            let name: &std::borrow::Cow<'_, str> = word.get_ref();
            let located = Located { value: name.clone().into_owned(), span: word.span() };
            Some((located, self.read(&format!("{key}.{name}"), kind, value)?))
        };
        Some(table.iter().filter_map(read).collect())
    }

    /// All keys of this table, which are the operator's own words, with their values.
    pub(super) fn members(&self) -> Vec<(Located<String>, &'a Spanned<DeValue<'a>>)> {
        let located = |key: &Spanned<std::borrow::Cow<'_, str>>| Located {
            value: key.get_ref().clone().into_owned(),
            span: key.span(),
        };
        self.table.into_iter().flatten().map(|(key, value)| (located(key), value)).collect()
    }

    /// Reads a member that is one text, a list of them, or a table of such.
    pub(super) fn texts(&self, key: &str, value: &Spanned<DeValue<'a>>, kind: &Kind<String>) -> Texts {
        let list = |key: &str, value: &Spanned<DeValue<'a>>| -> Vec<String> {
            let one = |key: &str, value| self.read(key, kind, value).map(|text| text.value);
            match value.get_ref() {
                DeValue::Array(items) => items
                    .iter()
                    .enumerate()
                    .filter_map(|(at, item)| one(&format!("{key}[{at}]"), item))
                    .collect(),
                _ => one(key, value).into_iter().collect(),
            }
        };
        let DeValue::Table(table) = value.get_ref() else { return Texts::Alike(list(key, value)) };
        let entry = |(word, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'a>>)| {
            let name = word.get_ref().clone().into_owned();
            let texts = list(&format!("{key}.{name}"), value);
            (Located { value: name, span: word.span() }, texts)
        };
        Texts::ByName(table.iter().map(entry).collect())
    }

    /// A table; an empty one stands in when it is missing.
    pub(super) fn table(&mut self, key: &'static str) -> Section<'a> {
        let path = self.path(key);
        match self.get(key) {
            Some(value) => self.section(path, value),
            None => {
                Section { source: self.source, table: None, span: self.span.clone(), path, known: Vec::new() }
            }
        }
    }

    /// A string, without a complaint if it is none: for a first look.
    pub(super) fn peek_text(&self, key: &str) -> Option<String> {
        self.table?.get(key)?.get_ref().as_str().map(str::to_owned)
    }

    /// The tables of an array of tables; missing: none.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(items) => items
                .iter()
                .enumerate()
                .map(|(at, item)| self.section(format!("{}[{at}]", self.path(key)), item))
                .collect(),
            other => {
                self.wrong(
                    key,
                    &value.span(),
                    format!("expected `[[{key}]]` tables, found {}", found(other)),
                );
                Vec::new()
            }
        }
    }

    fn section(&self, path: String, value: &'a Spanned<DeValue<'a>>) -> Section<'a> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let message = format!("{path}: expected a table, found {}", found(value.get_ref()));
            self.source.problem(&value.span(), message);
        }
        Section { source: self.source, table, span: value.span(), path, known: Vec::new() }
    }

    /// Names the keys that nobody asked for. Call it when all have been.
    pub(super) fn finish(self) {
        for (key, _) in self.table.into_iter().flatten() {
            let word = key.get_ref();
            if self.known.contains(&word.as_ref()) {
                continue;
            }
            let hint = match nearest(word, self.known.iter().copied()) {
                Some(right) => format!("did you mean `{right}`?"),
                None => format!("the keys here are {}", self.known.join(", ")),
            };
            self.source.problem(&key.span(), format!("unknown key `{}`: {hint}", self.path(&shorten(word))));
        }
    }
}

/// The word that was probably meant.
pub fn nearest<'w>(wrong: &str, right: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    right
        .map(|word| (strsim::damerau_levenshtein(wrong, word), word))
        .filter(|&(edits, word)| edits <= NEAREST_EDITS_MAX.min(word.chars().count() / 2 + 1))
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, word)| word)
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", shorten(text)),
        DeValue::Integer(integer) => format!("the integer {}", shorten(integer.as_str())),
        DeValue::Float(float) => format!("the number {}", shorten(float.as_str())),
        DeValue::Boolean(boolean) => format!("{boolean}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(items) => format!("a list of {}", items.len()),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
