//! Server-side includes: a page with holes in it, and what goes into them. The commands are those of nginx
//! (`ngx_http_ssi_module`), so that a page written for it works here; `include` also takes `timeout` and `ttl`.
//!
//! Any bytes are a template. What is wrong in one is told to its operator ([`Problem`]), never to its readers. Work and memory
//! are bounded by the page, its fragments and [`Limits`], whatever they hold. It fetches nothing and knows no clock: whoever
//! assembles says what a fragment holds now ([`Sources`]), and is told which ones were asked for.
//!
//! Where it is not as in nginx:
//! - the text for a command that cannot be done is empty, unless the page sets one (`config errmsg`);
//! - a fragment sees the variables of its page, but what it sets stays in it, and so do its blocks;
//! - a block may come after the include that it stands in for, and both `if` and `block` may be nested, a few levels deep;
//! - an `include` without its block or with a bad `timeout` or `ttl` is done all the same, and a bad `if` is false;
//! - `echo` has `entity` as its encoding unless it says another, whatever the one before said, and `'` is escaped too;
//! - conditions have no regular expressions, and there are no variables for dates;
//! - a path is absolute, in `file` too;
//! - what is not closed is text.

mod assemble;
mod command;
mod expression;
mod parse;
mod path;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use expression::{Condition, Phrase};

pub use assemble::assemble;

/// Levels of `if` and `block` inside one another; what is deeper is left out.
const NESTING_MAX: usize = 8;
/// Commands in one template; what comes after the last is text.
const COMMANDS_MAX: usize = 4096;
/// Problems told of one page; more would say nothing new.
const PROBLEMS_MAX: usize = 100;

/// A fragment that a page includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// Path and query: absolute, without `..`, in printable ASCII.
    pub path: String,
    /// How long it may take; `None`: as usual.
    pub timeout: Option<Duration>,
    /// How long it is fresh; `None`: as usual.
    pub ttl: Option<Duration>,
    /// The block that stands in for it when there is nothing else.
    pub stub: Option<String>,
}

/// What is wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The fragment that it is in; `None`: the page itself.
    pub path: Option<String>,
    /// Where the command begins, in bytes.
    pub offset: usize,
    /// The line where it begins; the first is 1.
    pub line: usize,
    /// What is wrong, in one line.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(formatter, "{path}, ")?;
        }
        write!(formatter, "line {}: {}", self.line, self.what)
    }
}

/// Where a command begins.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: usize,
    line: usize,
}

/// A page or a fragment, parsed. Its text stays where it is: the parts are slices of the body.
#[derive(Clone, Debug)]
pub struct Template {
    body: Bytes,
    nodes: Vec<Node>,
    blocks: BTreeMap<String, Vec<Node>>,
    inclusions: Vec<Inclusion>,
    problems: Vec<Problem>,
    is_plain: bool,
}

impl Template {
    /// Reads a body, in time and memory proportional to its size.
    pub fn parse(body: &Bytes) -> Self {
        parse::parse(body)
    }

    /// There is no command in it: it is sent as it is.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// What is wrong with it, in the order of the lines.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Every include whose path is known before the page is assembled, in blocks and in any branch of an `if` too.
    pub fn includes(&self) -> impl Iterator<Item = &Include> {
        self.inclusions.iter().filter(|found| found.path.is_none()).map(|found| &found.include)
    }
}

/// A piece of a template.
#[derive(Clone, Debug)]
enum Node {
    Text(Bytes),
    /// Its place among the inclusions.
    Include(usize),
    Echo {
        variable: String,
        encoding: Encoding,
        default: Bytes,
    },
    Set {
        place: Place,
        variable: String,
        value: Phrase,
    },
    Choice(Vec<Arm>),
    /// From here on this is the text for a command that cannot be done.
    ErrorMessage(Bytes),
    /// A command that cannot be done.
    Error,
}

/// An `include`.
#[derive(Clone, Debug)]
struct Inclusion {
    place: Place,
    /// A path with variables in it, which is known only when the page is assembled.
    path: Option<Phrase>,
    include: Include,
    /// The variable that takes the fragment, instead of the page.
    set: Option<String>,
}

/// A branch of an `if`.
#[derive(Clone, Debug)]
struct Arm {
    place: Place,
    /// `None`: `else`.
    condition: Option<Condition>,
    nodes: Vec<Node>,
}

/// How `echo` writes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    None,
    Url,
    Entity,
}

/// What there is of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// The newest body that was good.
    Ready(Bytes),
    /// Nothing.
    Missing,
}

/// What a page is assembled from.
pub trait Sources {
    /// The fragment as it is now. It is asked for once, however often a page includes it.
    fn fragment(&self, include: &Include) -> Fragment;

    /// A variable that no page has set; its name is in small letters, as names of variables are in any letters.
    fn variable(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// What assembling may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fragments inside one another, 8 at most; what is deeper is left to its stub.
    pub depth: usize,
    /// Size of the page.
    pub bytes: usize,
    /// Commands done and texts written, in the page and all its fragments.
    pub steps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 3, bytes: 4 * 1024 * 1024, steps: 20_000 }
    }
}

/// A page with its holes filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// The page; if it is not whole, its beginning.
    pub body: Bytes,
    /// Nothing was cut off by a limit of size or steps.
    pub is_whole: bool,
    /// Every include met, in order, the first of each path.
    pub wanted: Vec<Include>,
    /// Paths of which there was nothing: a stub stands there, or nothing.
    pub missing: Vec<String>,
    /// What is wrong, in the page and in its fragments.
    pub problems: Vec<Problem>,
}

#[cfg(test)]
mod tests;
