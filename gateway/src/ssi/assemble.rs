//! A template and what there is of its fragments become a page.
//!
//! Fragments are templates too, so a page could ask for any amount of work: each step counts against one budget, each fragment
//! is parsed once, and what is inside itself is left to its stub.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::expression::{Lookup, Phrase, VALUE_BYTES_MAX};
use super::{
    Arm, Assembled, Encoding, Fragment, Include, Inclusion, Limits, Node, PROBLEMS_MAX, Place, Problem,
    Sources, Template, path,
};

/// More than this is never useful, and each takes some of the stack.
const DEPTH_MAX: usize = 8;
/// Stubs inside one another: a block may include what it stands in for.
const STUBS_MAX: usize = 8;
/// Of one page or fragment.
const VARIABLES_MAX: usize = 256;

/// Why the rest of a page is not assembled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Size,
    Steps,
}

/// A page or a fragment that is being assembled.
struct Scope {
    path: Option<String>,
    variables: BTreeMap<String, Vec<u8>>,
    error_message: Bytes,
}

struct Assembly<'a> {
    sources: &'a dyn Sources,
    limits: Limits,
    body: Vec<u8>,
    /// The size that the body may have now.
    room: usize,
    steps: usize,
    stubs: usize,
    /// The page, the fragment in it, the one in that.
    scopes: Vec<Scope>,
    /// What was asked for; `None`: it is missing.
    fragments: BTreeMap<String, Option<Arc<Template>>>,
    done: Assembled,
}

/// Fills the holes of a template. Where it runs into a limit of size or steps, the beginning comes out, and it says so.
pub fn assemble(template: &Template, sources: &dyn Sources, limits: Limits) -> Assembled {
    let problems = template.problems.clone();
    if template.is_plain && template.body.len() <= limits.bytes {
        let body = template.body.clone();
        return Assembled { body, is_whole: true, problems, ..Assembled::default() };
    }
    let mut assembly = Assembly {
        sources,
        limits: Limits { depth: limits.depth.min(DEPTH_MAX), ..limits },
        body: Vec::new(),
        room: limits.bytes,
        steps: 0,
        stubs: 0,
        scopes: vec![Scope::new(None)],
        fragments: BTreeMap::new(),
        done: Assembled { is_whole: true, problems, ..Assembled::default() },
    };
    if let Err(stop) = assembly.nodes(template, &template.nodes) {
        let what = match stop {
            Stop::Size => format!("the page is cut: it is larger than {} bytes", limits.bytes),
            Stop::Steps => format!("the page is cut: it takes more than {} steps", limits.steps),
        };
        assembly.done.is_whole = false;
        // It is the one that has to be told, however many there are.
        assembly.done.problems.truncate(PROBLEMS_MAX - 1);
        assembly.done.problems.push(Problem { path: None, offset: 0, line: 1, what });
    }
    assembly.done.body = assembly.body.into();
    assembly.done
}

impl Scope {
    fn new(path: Option<String>) -> Self {
        Self { path, variables: BTreeMap::new(), error_message: Bytes::new() }
    }
}

impl Assembly<'_> {
    fn nodes(&mut self, template: &Template, nodes: &[Node]) -> Result<(), Stop> {
        nodes.iter().try_for_each(|node| self.node(template, node))
    }

    fn node(&mut self, template: &Template, node: &Node) -> Result<(), Stop> {
        if self.steps >= self.limits.steps {
            return Err(Stop::Steps);
        }
        self.steps += 1;
        match node {
            Node::Text(text) => self.write(text),
            Node::Include(at) => match template.inclusions.get(*at) {
                Some(inclusion) => self.inclusion(template, inclusion),
                None => Ok(()),
            },
            Node::Echo { variable, encoding, default } => {
                let value = self.variable(variable).unwrap_or(Cow::Borrowed(default));
                let encoded = encode(&value, *encoding).into_owned();
                self.write(&encoded)
            }
            Node::Set { place, variable, value } => match self.expand(value) {
                Some(value) => self.set(*place, variable, value),
                None => self.error(*place, "a value that is too long"),
            },
            Node::Choice(arms) => self.choice(template, arms),
            Node::ErrorMessage(message) => {
                if let Some(scope) = self.scopes.last_mut() {
                    scope.error_message = message.clone();
                }
                Ok(())
            }
            Node::Error => self.write_error(),
        }
    }

    fn choice(&mut self, template: &Template, arms: &[Arm]) -> Result<(), Stop> {
        for arm in arms {
            if self.steps >= self.limits.steps {
                return Err(Stop::Steps);
            }
            self.steps += 1;
            let holds = match &arm.condition {
                None => Some(true),
                Some(condition) => self.with_lookup(|lookup| condition.holds(lookup)),
            };
            match holds {
                Some(true) => return self.nodes(template, &arm.nodes),
                Some(false) => {}
                None => self.error(arm.place, "a condition with a side that is too long")?,
            }
        }
        Ok(())
    }

    fn inclusion(&mut self, template: &Template, inclusion: &Inclusion) -> Result<(), Stop> {
        let place = inclusion.place;
        let include = match self.resolve(inclusion) {
            Ok(include) => include,
            Err(what) => return self.error(place, &format!("`include` of {what}")),
        };
        let (from, room) = (self.body.len(), self.room);
        let Some(variable) = &inclusion.set else {
            self.fragment(place, &include)?;
            return if self.body.len() == from { self.stub(template, place, &include) } else { Ok(()) };
        };
        self.room = room.min(from + VALUE_BYTES_MAX);
        let is_smaller = self.room < room;
        let end = self.fragment(place, &include);
        self.room = room;
        let value = self.body.split_off(from.min(self.body.len()));
        match end {
            Err(Stop::Size) if is_smaller => self.error(place, "a fragment that is too large for a variable"),
            Err(stop) => Err(stop),
            // What is there stays when there is nothing new.
            Ok(()) if value.is_empty() && self.variable(variable).is_some() => Ok(()),
            Ok(()) => self.set(place, variable, value),
        }
    }

    /// An include with its path.
    fn resolve<'a>(&self, inclusion: &'a Inclusion) -> Result<Cow<'a, Include>, &'static str> {
        let Some(phrase) = &inclusion.path else { return Ok(Cow::Borrowed(&inclusion.include)) };
        let path = self.expand(phrase).ok_or("a path that is too long")?;
        match path::problem(&path) {
            Some(what) => Err(what),
            None => {
                let path = String::from_utf8_lossy(&path).into_owned();
                Ok(Cow::Owned(Include { path, ..inclusion.include.clone() }))
            }
        }
    }

    /// Writes what there is of a fragment.
    fn fragment(&mut self, place: Place, include: &Include) -> Result<(), Stop> {
        let is_inside = |scope: &Scope| scope.path.as_ref() == Some(&include.path);
        if self.scopes.iter().any(is_inside) {
            self.problem(place, format!("`{}` is inside itself", include.path));
            return Ok(());
        }
        let depth = self.limits.depth;
        if self.scopes.len() > depth {
            self.problem(place, format!("`{}` is more than {depth} levels deep", include.path));
            return Ok(());
        }
        let Some(template) = self.template(include) else { return Ok(()) };
        self.scopes.push(Scope::new(Some(include.path.clone())));
        let end = self.nodes(&template, &template.nodes);
        self.scopes.pop();
        end
    }

    /// A fragment as a template; asked for and parsed when it is first met.
    fn template(&mut self, include: &Include) -> Option<Arc<Template>> {
        if let Some(known) = self.fragments.get(&include.path) {
            return known.clone();
        }
        self.done.wanted.push(include.clone());
        let template = match self.sources.fragment(include) {
            Fragment::Ready(body) => {
                let template = Template::parse(&body);
                for problem in &template.problems {
                    self.tell(Problem { path: Some(include.path.clone()), ..problem.clone() });
                }
                Some(Arc::new(template))
            }
            Fragment::Missing => {
                self.done.missing.push(include.path.clone());
                None
            }
        };
        self.fragments.insert(include.path.clone(), template.clone());
        template
    }

    fn stub(&mut self, template: &Template, place: Place, include: &Include) -> Result<(), Stop> {
        let Some((name, nodes)) = include.stub.as_ref().and_then(|name| template.blocks.get_key_value(name))
        else {
            return Ok(());
        };
        if self.stubs == STUBS_MAX {
            self.problem(place, format!("block `{}` stands in for itself", name.escape_debug()));
            return Ok(());
        }
        self.stubs += 1;
        let end = self.nodes(template, nodes);
        self.stubs -= 1;
        end
    }

    fn set(&mut self, place: Place, variable: &str, value: Vec<u8>) -> Result<(), Stop> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        let variables = &mut scope.variables;
        if variables.len() >= VARIABLES_MAX && !variables.contains_key(variable) {
            return self.error(place, "one variable too many");
        }
        variables.insert(variable.to_owned(), value);
        Ok(())
    }

    fn variable(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let own = self.scopes.iter().rev().find_map(|scope| scope.variables.get(name));
        own.map(|value| Cow::Borrowed(value.as_slice())).or_else(|| {
            self.sources.variable(name).map(|value| match value {
                Cow::Borrowed(value) => Cow::Borrowed(value.as_bytes()),
                Cow::Owned(value) => Cow::Owned(value.into_bytes()),
            })
        })
    }

    fn with_lookup<T>(&self, read: impl FnOnce(Lookup<'_>) -> T) -> T {
        read(&|name| self.variable(name))
    }

    fn expand(&self, phrase: &Phrase) -> Option<Vec<u8>> {
        self.with_lookup(|lookup| phrase.expand(lookup))
    }

    fn error(&mut self, place: Place, what: &str) -> Result<(), Stop> {
        self.problem(place, what.to_owned());
        self.write_error()
    }

    fn write_error(&mut self) -> Result<(), Stop> {
        let message = self.scopes.last().map(|scope| scope.error_message.clone()).unwrap_or_default();
        self.write(&message)
    }

    fn write(&mut self, text: &[u8]) -> Result<(), Stop> {
        let fits = text.get(..self.room.saturating_sub(self.body.len())).unwrap_or(text);
        self.body.extend_from_slice(fits);
        if fits.len() < text.len() { Err(Stop::Size) } else { Ok(()) }
    }

    fn problem(&mut self, place: Place, what: String) {
        let path = self.scopes.last().and_then(|scope| scope.path.clone());
        let Place { offset, line } = place;
        self.tell(Problem { path, offset, line, what });
    }

    fn tell(&mut self, problem: Problem) {
        let problems = &mut self.done.problems;
        if problems.len() < PROBLEMS_MAX && !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}

fn encode(value: &[u8], encoding: Encoding) -> Cow<'_, [u8]> {
    let is_plain = |byte: &u8| match encoding {
        Encoding::None => true,
        Encoding::Entity => !b"<>&\"'".contains(byte),
        Encoding::Url => byte.is_ascii_graphic() && !b"\"#%'<>\\^`{|}".contains(byte),
    };
    if value.iter().all(is_plain) {
        return Cow::Borrowed(value);
    }
    let mut encoded = Vec::with_capacity(value.len() + value.len() / 4);
    for byte in value {
        match byte {
            _ if is_plain(byte) => encoded.push(*byte),
            b'<' if encoding == Encoding::Entity => encoded.extend_from_slice(b"&lt;"),
            b'>' if encoding == Encoding::Entity => encoded.extend_from_slice(b"&gt;"),
            b'&' if encoding == Encoding::Entity => encoded.extend_from_slice(b"&amp;"),
            b'"' if encoding == Encoding::Entity => encoded.extend_from_slice(b"&quot;"),
            _ if encoding == Encoding::Entity => encoded.extend_from_slice(b"&#39;"),
            byte => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    Cow::Owned(encoded)
}
