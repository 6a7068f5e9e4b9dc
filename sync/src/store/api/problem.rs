//! What is wrong with a request, or why it was not done: a status and a JSON body that says what, where, and what to do next.

use hyper::StatusCode;
use hyper::header::HeaderName;
use serde_json::{Map, Value};

use super::super::journal::JournalError;
use super::super::op::Key;
use super::super::request::Refusal;
use super::super::stamp::Stamp;

/// After so many seconds it is worth asking again.
const RETRY_SECONDS: u32 = 1;

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The status.
    pub status: StatusCode,
    /// What is wrong, and what to do next.
    pub error: String,
    /// Where: a part of the request, or a key.
    pub at: String,
    /// What else the body says.
    pub more: Map<String, Value>,
    /// What else the head says.
    pub headers: Vec<(HeaderName, String)>,
}

impl Problem {
    /// With a status, what is wrong, and where.
    pub fn new(status: StatusCode, error: impl Into<String>, at: impl Into<String>) -> Self {
        Self { status, error: error.into(), at: at.into(), more: Map::new(), headers: Vec::new() }
    }

    /// The request is wrong (400).
    pub fn bad(error: impl Into<String>, at: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, at)
    }

    /// With one more member of the body.
    pub fn and(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// With a header.
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With the advice to ask again soon.
    pub fn again(self) -> Self {
        self.with(hyper::header::RETRY_AFTER, RETRY_SECONDS.to_string())
    }

    /// A condition does not hold (412), and the stamp that there is.
    pub fn condition(key: &Key, current: Option<Stamp>) -> Self {
        let refusal = Refusal::Condition { key: key.clone(), current };
        let problem = Self::new(StatusCode::PRECONDITION_FAILED, refusal.to_string(), name(key));
        let stamp = current.map(|stamp| stamp.to_string());
        let problem = problem.and("current", stamp.clone());
        match stamp {
            Some(stamp) => problem.with(hyper::header::ETAG, format!("\"{stamp}\"")),
            None => problem,
        }
    }

    /// Nothing was changed.
    pub fn refused(refusal: &Refusal) -> Self {
        let says = refusal.to_string();
        let with = |status, at: &str| Self::new(status, says.clone(), at);
        match refusal {
            Refusal::Condition { key, current } => Self::condition(key, *current),
            Refusal::Kind { key, .. } | Refusal::NotJson { key } => with(StatusCode::CONFLICT, &name(key)),
            Refusal::TooLarge { .. } => with(StatusCode::PAYLOAD_TOO_LARGE, "body"),
            Refusal::Overflow { key } => with(StatusCode::UNPROCESSABLE_ENTITY, &name(key)),
            Refusal::TooFew { .. } => with(StatusCode::UNPROCESSABLE_ENTITY, "durability"),
            Refusal::NotDroppable(_) => with(StatusCode::CONFLICT, "body"),
            Refusal::NotOpen(_) | Refusal::Busy => with(StatusCode::SERVICE_UNAVAILABLE, "store").again(),
            Refusal::Full(_) => {
                let error = format!("{says}: nothing was changed; make room, reading goes on");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error, "store")
            }
            Refusal::Disk(_) => with(StatusCode::INTERNAL_SERVER_ERROR, "store").and("outcome", "unchanged"),
        }
    }

    /// The disk failed while it was written.
    pub fn unknown(why: &str) -> Self {
        let error = format!(
            "{why}: the write may be there after a restart of the store, or not; read it before writing again"
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error, "store").and("outcome", "unknown")
    }

    /// It cannot be read.
    pub fn unreadable(error: &JournalError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), "store")
    }

    /// The body.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Map::new();
        body.insert("error".to_owned(), self.error.as_str().into());
        body.insert("at".to_owned(), self.at.as_str().into());
        body.extend(self.more.clone());
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

fn name(key: &Key) -> String {
    format!("{}/{}", key.bucket(), key.name())
}
