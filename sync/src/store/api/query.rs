//! The query of a request, and the words in it: durations, limits, durabilities. Bodies use the same words.

use std::borrow::Cow;
use std::time::Duration;

use daemun_fleet::config::nearest;
use daemun_fleet::shorten;

use super::super::request::{Durability, NotADurability};
use super::problem::Problem;
use super::routes::Route;

/// How long a write waits to become as durable as asked, unless told otherwise.
pub const WAIT: Duration = Duration::from_secs(5);
/// The longest it waits: within the time-outs of most clients and proxies.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest a value can live that does not live for good: a century.
pub const TTL_MAX: Duration = Duration::from_secs(36_525 * 86_400);
/// Keys of a page, unless told otherwise.
pub const LIMIT: usize = 100;
/// The most keys of a page.
pub const LIMIT_MAX: usize = 1000;
/// When a write counts as done, and how long to wait for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// When it counts as done.
    pub durability: Durability,
    /// How long to wait.
    pub patience: Duration,
}

impl Default for Asked {
    fn default() -> Self {
        Self { durability: Durability::default(), patience: WAIT }
    }
}

/// The parameters of a query, each known to its route and given once.
pub(super) struct Query<'q>(Vec<(&'static str, Cow<'q, str>)>);

impl<'q> Query<'q> {
    pub(super) fn parse(route: &'static Route, query: Option<&'q str>) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, Cow<'q, str>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, true, "query")?;
            let known = known(route).find(|known| *known == name);
            let Some(known) = known else { return Err(unknown(route, &name)) };
            let at = format!("query `{known}`");
            if found.iter().any(|(name, _)| *name == known) {
                return Err(Problem::bad("it is given twice", at));
            }
            found.push((known, decode(value, true, &at)?));
        }
        Ok(Self(found))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    pub(super) fn ttl(&self) -> Result<Option<Duration>, Problem> {
        self.get("ttl").map(|text| ttl(text, "query `ttl`")).transpose()
    }

    pub(super) fn asked(&self) -> Result<Asked, Problem> {
        let durability = self.get("durability").map(|text| durability(text, "query `durability`"));
        let patience = self.get("wait").map(|text| patience(text, "query `wait`"));
        Ok(Asked {
            durability: durability.transpose()?.unwrap_or_default(),
            patience: patience.transpose()?.unwrap_or(WAIT),
        })
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let error = || format!("expected a number, found `{}`", shorten(text));
        number.map(Some).ok_or_else(|| Problem::bad(error(), format!("query `{name}`")))
    }

    pub(super) fn limit(&self) -> Result<usize, Problem> {
        match self.number("limit")? {
            None => Ok(LIMIT),
            Some(limit) => {
                let limit = usize::try_from(limit).ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                let error =
                    || format!("a page has 1 to {LIMIT_MAX}: ask for the next with the last one's name");
                limit.ok_or_else(|| Problem::bad(error(), "query `limit`"))
            }
        }
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => {
                let error = format!("expected true or false, found `{}`", shorten(other));
                Err(Problem::bad(error, format!("query `{name}`")))
            }
        }
    }
}

/// Names that a route's query may have.
fn known(route: &'static Route) -> impl Iterator<Item = &'static str> {
    route.query.iter().map(|parameter| parameter.name)
}

fn unknown(route: &'static Route, name: &str) -> Problem {
    let shown = shorten(name);
    let names = known(route).collect::<Vec<_>>().join(", ");
    let hint = match nearest(name, known(route)) {
        Some(right) => format!("did you mean `{right}`?"),
        None if names.is_empty() => "it takes none".to_owned(),
        None => format!("it takes {names}"),
    };
    let error = format!("{} {} has no parameter `{shown}`: {hint}", route.method, route.place.path());
    Problem::bad(error, format!("query `{shown}`"))
}

/// A time as people write it, or seconds.
pub(super) fn duration(text: &str, at: &str) -> Result<Duration, Problem> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = match is_number {
        true => text.parse().ok().map(Duration::from_secs),
        false => humantime::parse_duration(text).ok(),
    };
    let error = || format!("expected seconds or a time such as 500ms, 30s or 2h, found `{}`", shorten(text));
    parsed.ok_or_else(|| Problem::bad(error(), at))
}

/// How long a value lives.
pub(super) fn ttl(text: &str, at: &str) -> Result<Duration, Problem> {
    let ttl = duration(text, at)?;
    if ttl < Duration::from_millis(1) || ttl > TTL_MAX {
        let error = format!(
            "a value lives for 1ms to 100 years, found `{}`: without ttl it lives for good",
            shorten(text)
        );
        return Err(Problem::bad(error, at));
    }
    Ok(ttl)
}

/// How long to wait.
pub(super) fn patience(text: &str, at: &str) -> Result<Duration, Problem> {
    let patience = duration(text, at)?;
    if patience > WAIT_MAX {
        let error = format!(
            "a write waits for at most {}s, found `{}`: what is not done then goes on by itself",
            WAIT_MAX.as_secs(),
            shorten(text)
        );
        return Err(Problem::bad(error, at));
    }
    Ok(patience)
}

/// When a write counts as done.
pub(super) fn durability(text: &str, at: &str) -> Result<Durability, Problem> {
    text.parse().map_err(|error: NotADurability| Problem::bad(error.to_string(), at))
}

/// Text with its percent signs taken out; `+` is a space where a query says so.
pub(super) fn decode<'t>(text: &'t str, is_query: bool, at: &str) -> Result<Cow<'t, str>, Problem> {
    if !text.bytes().any(|byte| byte == b'%' || (is_query && byte == b'+')) {
        return Ok(text.into());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        match (first, rest) {
            (b'%', [high, low, behind @ ..]) => {
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(escape(at)) };
                decoded.push(high << 4 | low);
                rest = behind;
            }
            (b'%', _) => return Err(escape(at)),
            (b'+', _) if is_query => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
    }
    let wrong = |_| Problem::bad("what is percent-encoded must be UTF-8", at);
    String::from_utf8(decoded).map(Cow::from).map_err(wrong)
}

fn escape(at: &str) -> Problem {
    Problem::bad("`%` must be followed by two hexadecimal digits; write `%` itself as %25", at)
}
