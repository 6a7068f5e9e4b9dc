//! A body becomes a template: one way through it, from command to command, with a short stack of what is open.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bytes::Bytes;

use super::command::{Command, OPENING, Reading, find};
use super::expression::{Condition, Phrase, name};
use super::{
    Arm, COMMANDS_MAX, Encoding, Include, Inclusion, NESTING_MAX, Node, PROBLEMS_MAX, Place, Problem,
    Template, path,
};

/// nginx writes this for a variable that nobody knows.
const UNKNOWN: &[u8] = b"(none)";

/// What is open.
enum Frame {
    /// The last arm is the open one.
    Choice {
        place: Place,
        arms: Vec<Arm>,
    },
    Block {
        place: Place,
        name: String,
        nodes: Vec<Node>,
    },
}

struct Parser<'a> {
    body: &'a Bytes,
    template: Template,
    frames: Vec<Frame>,
    /// So many commands are open that were nested too deeply: all in them is left out.
    skipped: usize,
    /// The newest place, from which the next line is counted.
    place: Place,
}

/// Never fails: whatever is not understood is text, or a problem.
pub(super) fn parse(body: &Bytes) -> Template {
    let template = Template {
        body: body.clone(),
        nodes: Vec::new(),
        blocks: BTreeMap::new(),
        inclusions: Vec::new(),
        problems: Vec::new(),
        is_plain: true,
    };
    let place = Place { offset: 0, line: 1 };
    let mut parser = Parser { body, template, frames: Vec::new(), skipped: 0, place };
    parser.run();
    parser.finish()
}

impl Parser<'_> {
    fn run(&mut self) {
        let (mut from, mut commands) = (0, 0);
        while let Some(offset) = find(self.body, from, OPENING) {
            let place = self.reach(offset);
            let reading = Command::read(self.body, offset + OPENING.len());
            if commands == COMMANDS_MAX {
                self.problem(place, format!("more than {COMMANDS_MAX} commands: the rest is text"));
                break;
            }
            commands += 1;
            from = match reading {
                Reading::Whole { command, end } => {
                    self.text(from, offset);
                    if let Err(what) = self.command(place, &command) {
                        self.error(place, what);
                    }
                    end
                }
                Reading::Malformed { what, end } => {
                    self.text(from, offset);
                    self.error(place, what);
                    end
                }
                Reading::Open => {
                    self.problem(place, "a command that is not closed: the rest is text".to_owned());
                    break;
                }
            };
            self.template.is_plain = false;
        }
        self.text(from, self.body.len());
    }

    fn command(&mut self, place: Place, command: &Command) -> Result<(), String> {
        if self.skipped > 0 {
            match command.name.as_str() {
                "if" | "block" => self.skipped += 1,
                "endif" | "endblock" => self.skipped -= 1,
                _ => {}
            }
            return Ok(());
        }
        match command.name.as_str() {
            "include" => self.include(place, command),
            "echo" => self.echo(command),
            "set" => self.set(place, command),
            "config" => self.config(command),
            "if" => {
                self.open_if(place, command);
                Ok(())
            }
            "elif" => self.elif(place, command),
            "else" => self.last_arm(place, command),
            "endif" => self.endif(command),
            "block" => {
                self.open_block(place, command);
                Ok(())
            }
            "endblock" => self.endblock(command),
            "exec" => Err("`exec` is never done".to_owned()),
            other => Err(format!("no command is called `{other}`")),
        }
    }

    fn include(&mut self, place: Place, command: &Command) -> Result<(), String> {
        let names = ["virtual", "file", "wait", "set", "stub", "timeout", "ttl"];
        let [found, file, wait, set, stub, timeout, ttl] = command.take(names)?;
        let path = match (found, file) {
            (Some(_), Some(_)) => return Err("`include` with both `virtual` and `file`".to_owned()),
            (None, None) => return Err("`include` without `virtual` or `file`".to_owned()),
            (Some(path), None) | (None, Some(path)) => Phrase::parse(&path)?,
        };
        if set.is_some() && stub.is_some() {
            return Err("`include` with both `set` and `stub`".to_owned());
        }
        let known = match path.literal() {
            Some(literal) => match path::problem(&literal) {
                Some(what) => return Err(format!("`include` of {what}")),
                None => Some(String::from_utf8_lossy(&literal).into_owned()),
            },
            None => None,
        };
        if !wait.is_none_or(|wait| wait.eq_ignore_ascii_case(b"yes") || wait.eq_ignore_ascii_case(b"no")) {
            self.problem(place, "`wait` is yes or no".to_owned());
        }
        let set = set.map(|set| variable(&set)).transpose()?;
        let include = Include {
            path: known.clone().unwrap_or_default(),
            timeout: self.duration(place, "timeout", timeout),
            ttl: self.duration(place, "ttl", ttl),
            stub: stub.map(|stub| String::from_utf8_lossy(&stub).into_owned()),
        };
        let path = known.is_none().then_some(path);
        self.push(Node::Include(self.template.inclusions.len()));
        self.template.inclusions.push(Inclusion { place, path, include, set });
        Ok(())
    }

    /// A duration as people write them. A bad one is as none: better the fragment late than not at all.
    fn duration(&mut self, place: Place, name: &str, text: Option<Bytes>) -> Option<Duration> {
        let text = text?;
        let parsed = std::str::from_utf8(&text).ok().and_then(|text| humantime::parse_duration(text).ok());
        if parsed.is_none() {
            self.problem(place, format!("`{name}` is a duration, as `500ms` or `10s`"));
        }
        parsed
    }

    fn echo(&mut self, command: &Command) -> Result<(), String> {
        let [var, default, encoding] = command.take(["var", "default", "encoding"])?;
        let variable = variable(&var.ok_or_else(|| command.lacks("var"))?)?;
        let encoding = match encoding.as_deref() {
            None | Some(b"entity") => Encoding::Entity,
            Some(b"url") => Encoding::Url,
            Some(b"none") => Encoding::None,
            Some(_) => return Err("`encoding` is none, url or entity".to_owned()),
        };
        let default = default.unwrap_or(Bytes::from_static(UNKNOWN));
        self.push(Node::Echo { variable, encoding, default });
        Ok(())
    }

    fn set(&mut self, place: Place, command: &Command) -> Result<(), String> {
        let [var, value] = command.take(["var", "value"])?;
        let variable = variable(&var.ok_or_else(|| command.lacks("var"))?)?;
        let value = Phrase::parse(&value.ok_or_else(|| command.lacks("value"))?)?;
        self.push(Node::Set { place, variable, value });
        Ok(())
    }

    fn config(&mut self, command: &Command) -> Result<(), String> {
        let [message, _time_format] = command.take(["errmsg", "timefmt"])?;
        if let Some(message) = message {
            self.push(Node::ErrorMessage(message));
        }
        Ok(())
    }

    fn open_if(&mut self, place: Place, command: &Command) {
        if self.deepens(place) {
            let arm = self.arm(place, command);
            self.frames.push(Frame::Choice { place, arms: vec![arm] });
        }
    }

    fn elif(&mut self, place: Place, command: &Command) -> Result<(), String> {
        let arm = self.arm(place, command);
        self.next_arm(arm, "elif")
    }

    fn last_arm(&mut self, place: Place, command: &Command) -> Result<(), String> {
        let [] = command.take([])?;
        self.next_arm(Arm { place, condition: None, nodes: Vec::new() }, "else")
    }

    fn next_arm(&mut self, arm: Arm, name: &str) -> Result<(), String> {
        match self.frames.last_mut() {
            Some(Frame::Choice { arms, .. }) => {
                if arms.last().is_some_and(|last| last.condition.is_none()) {
                    return Err(format!("`{name}` after `else`"));
                }
                arms.push(arm);
                Ok(())
            }
            _ => Err(format!("`{name}` without `if`")),
        }
    }

    /// The arm of `if` and `elif`. Where its condition is not understood, it never holds.
    fn arm(&mut self, place: Place, command: &Command) -> Arm {
        let condition = match command.take(["expr"]) {
            Ok([Some(expression)]) => Condition::parse(&expression),
            Ok([None]) => Err(command.lacks("expr")),
            Err(what) => Err(what),
        };
        let condition = condition.unwrap_or_else(|what| {
            self.error(place, what);
            Condition::Never
        });
        Arm { place, condition: Some(condition), nodes: Vec::new() }
    }

    fn endif(&mut self, command: &Command) -> Result<(), String> {
        let [] = command.take([])?;
        match self.frames.pop() {
            Some(Frame::Choice { arms, .. }) => {
                self.push(Node::Choice(arms));
                Ok(())
            }
            other => {
                self.frames.extend(other);
                Err("`endif` without `if`".to_owned())
            }
        }
    }

    fn open_block(&mut self, place: Place, command: &Command) {
        if !self.deepens(place) {
            return;
        }
        let name = match command.take(["name"]) {
            Ok([Some(name)]) => Ok(String::from_utf8_lossy(&name).into_owned()),
            Ok([None]) => Err(command.lacks("name")),
            Err(what) => Err(what),
        };
        let name = name.unwrap_or_else(|what| {
            self.error(place, what);
            String::new()
        });
        self.frames.push(Frame::Block { place, name, nodes: Vec::new() });
    }

    /// Closes the innermost block, with every `if` in it that is still open.
    fn endblock(&mut self, command: &Command) -> Result<(), String> {
        let [] = command.take([])?;
        if !self.frames.iter().any(|frame| matches!(frame, Frame::Block { .. })) {
            return Err("`endblock` without `block`".to_owned());
        }
        while let Some(frame) = self.frames.pop() {
            match frame {
                Frame::Choice { place, arms } => {
                    self.problem(place, "`if` without `endif`".to_owned());
                    self.push(Node::Choice(arms));
                }
                Frame::Block { place, name, nodes } => {
                    self.define(place, name, nodes);
                    break;
                }
            }
        }
        Ok(())
    }

    fn define(&mut self, place: Place, name: String, nodes: Vec<Node>) {
        match self.template.blocks.entry(name) {
            Entry::Vacant(free) => {
                free.insert(nodes);
            }
            Entry::Occupied(first) => {
                let what = format!("a second block `{}`", first.key().escape_debug());
                self.problem(place, what);
            }
        }
    }

    /// Whether one more may be open. If not, all up to its end is left out.
    fn deepens(&mut self, place: Place) -> bool {
        let is_deep = self.frames.len() == NESTING_MAX;
        if is_deep {
            self.error(place, format!("nested more than {NESTING_MAX} levels deep"));
            self.skipped = 1;
        }
        !is_deep
    }

    fn text(&mut self, from: usize, until: usize) {
        if from < until {
            self.push(Node::Text(self.body.slice(from..until)));
        }
    }

    fn error(&mut self, place: Place, what: String) {
        self.problem(place, what);
        self.push(Node::Error);
    }

    fn push(&mut self, node: Node) {
        let nodes = match self.frames.last_mut() {
            _ if self.skipped > 0 => return,
            None => &mut self.template.nodes,
            Some(Frame::Block { nodes, .. }) => nodes,
            Some(Frame::Choice { arms, .. }) => match arms.last_mut() {
                Some(arm) => &mut arm.nodes,
                None => return,
            },
        };
        nodes.push(node);
    }

    fn problem(&mut self, place: Place, what: String) {
        if self.template.problems.len() < PROBLEMS_MAX {
            let Place { offset, line } = place;
            self.template.problems.push(Problem { path: None, offset, line, what });
        }
    }

    /// The place at an offset that is not before the last one.
    fn reach(&mut self, offset: usize) -> Place {
        let between = self.body.get(self.place.offset..offset).unwrap_or_default();
        let lines = between.iter().filter(|byte| **byte == b'\n').count();
        self.place = Place { offset, line: self.place.line + lines };
        self.place
    }

    fn finish(mut self) -> Template {
        self.skipped = 0;
        while let Some(frame) = self.frames.pop() {
            match frame {
                Frame::Choice { place, arms } => {
                    self.problem(place, "`if` without `endif`".to_owned());
                    self.push(Node::Choice(arms));
                }
                Frame::Block { place, name, nodes } => {
                    self.problem(place, "`block` without `endblock`".to_owned());
                    self.define(place, name, nodes);
                }
            }
        }
        let blocks = &self.template.blocks;
        let unknown = |found: &Inclusion| {
            let stub = found.include.stub.as_deref()?;
            (!blocks.contains_key(stub)).then(|| (found.place, stub.escape_debug().to_string()))
        };
        let unknown: Vec<_> = self.template.inclusions.iter().filter_map(unknown).collect();
        for (place, stub) in unknown {
            self.problem(place, format!("no block is called `{stub}`"));
        }
        self.template.problems.sort_by_key(|problem| problem.offset);
        self.template
    }
}

/// The name of a variable, in small letters.
fn variable(text: &[u8]) -> Result<String, String> {
    name(text).ok_or_else(|| "the name of a variable has letters, digits and `_`".to_owned())
}
