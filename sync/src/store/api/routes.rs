//! The table of all that can be asked. [`route`](super::route) finds requests in it and [`openapi`](super::openapi) describes
//! it, so that the two cannot differ.

/// Where a request goes, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A key.
    Key,
    /// A bucket.
    Bucket,
    /// Changes in watch of a bucket.
    Watch,
    /// Many changes at once.
    Batch,
    /// What lost against a concurrent write.
    Conflicts,
    /// What waits for its time.
    Held,
    /// Whatever waits, to be dropped.
    HeldDrop,
    /// How the store is.
    Store,
    /// This table, for programs.
    OpenApi,
}

impl Place {
    /// The path, with names for its parts.
    pub fn path(self) -> &'static str {
        match self {
            Place::Key => "/v1/kv/{bucket}/{key}",
            Place::Bucket => "/v1/kv/{bucket}",
            Place::Watch => "/v1/kv/{bucket}/watch",
            Place::Batch => "/v1/kv/batch",
            Place::Conflicts => "/v1/conflicts",
            Place::Held => "/v1/held",
            Place::HeldDrop => "/v1/held/drop",
            Place::Store => "/v1/store",
            Place::OpenApi => "/v1/openapi.json",
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// What is under a key.
    Get,
    /// The same, its head alone.
    Head,
    /// A value put.
    Put,
    /// A JSON merge patch.
    Patch,
    /// A key deleted.
    Delete,
    /// A counter or a set changed.
    Change,
    /// Keys of a bucket.
    List,
    /// A bucket cleared.
    Clear,
    /// Changes as they come.
    Watch,
    /// Many changes at once.
    Batch,
    /// What lost.
    Conflicts,
    /// What waits.
    Held,
    /// An operation that waits is dropped.
    Drop,
    /// How the store is.
    Status,
    /// The description for programs.
    OpenApi,
}

/// A parameter of the query, or a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub what: &'static str,
    /// The type of its value, as JSON Schema calls it.
    pub kind: &'static str,
}

const fn parameter(name: &'static str, kind: &'static str, what: &'static str) -> Parameter {
    Parameter { name, what, kind }
}

const TTL: Parameter = parameter(
    "ttl",
    "string",
    "How long the value lives: seconds, or a time such as 30s, 5m, 2h. Without it: for good",
);
const DURABILITY: Parameter = parameter(
    "durability",
    "string",
    "When the write counts as done: memory, local (on the disk here, the default), remote:N (and on the disks of N other datacenters), all",
);
const WAIT: Parameter = parameter(
    "wait",
    "string",
    "How long to wait for that: seconds, or a time such as 500ms; at most 60s. Without it: 5s",
);
const PREFIX: Parameter = parameter("prefix", "string", "Only keys that begin with this");
const WATCH: Parameter =
    parameter("watch", "boolean", "With Accept: text/event-stream, a bucket is watched at its own path too");
const IF_MATCH: Parameter = parameter(
    "If-Match",
    "string",
    "Only if the key's stamp is this one, in double quotes as in ETag; *: only if it has anything",
);
const IF_NONE_MATCH: Parameter = parameter(
    "If-None-Match",
    "string",
    "Only if the key's stamp is not this one, in double quotes as in ETag; *: only if it has nothing",
);
const CONTENT_TYPE: Parameter = parameter(
    "Content-Type",
    "string",
    "application/json: the body is JSON, and must parse; else: any bytes",
);
const PATCH_TYPE: Parameter =
    parameter("Content-Type", "string", "application/merge-patch+json or application/json");
const ACCEPT: Parameter =
    parameter("Accept", "string", "text/event-stream: without it, this is the key named watch");
const LAST_EVENT_ID: Parameter = parameter(
    "Last-Event-ID",
    "string",
    "The id of the last event that was seen, from whatever datacenter: all later changes come. Without it: those from now on",
);

/// One thing that can be asked.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its name.
    pub name: Name,
    /// Its method.
    pub method: &'static str,
    /// Its path.
    pub place: Place,
    /// What it does.
    pub what: &'static str,
    /// The parameters that its query may have.
    pub query: &'static [Parameter],
    /// Headers that it looks at.
    pub headers: &'static [Parameter],
    /// Types of its body; none: it has no body.
    pub body: &'static [&'static str],
    /// Statuses of its own; see also [`OF_ALL`] and [`OF_WRITES`].
    pub statuses: &'static [u16],
    /// Whether it writes.
    pub is_write: bool,
}

/// Statuses that whatever is asked can be answered with.
pub const OF_ALL: &[u16] = &[400, 401, 503];
/// Statuses that every write can be answered with. A refused condition and a key of another kind are of some alone.
pub const OF_WRITES: &[u16] = &[200, 202, 422, 500, 507];

const JSON: &[&str] = &["application/json"];

/// All that can be asked.
pub static ROUTES: &[Route] = &[
    Route {
        name: Name::Get,
        method: "GET",
        place: Place::Key,
        what: "What is under a key: a value as it was put; a counter or set as JSON. ETag is its stamp, X-Expires-Unix-Ms when it ends",
        query: &[],
        headers: &[IF_MATCH, IF_NONE_MATCH],
        body: &[],
        statuses: &[200, 304, 404, 412, 500],
        is_write: false,
    },
    Route {
        name: Name::Head,
        method: "HEAD",
        place: Place::Key,
        what: "The same without the value",
        query: &[],
        headers: &[IF_MATCH, IF_NONE_MATCH],
        body: &[],
        statuses: &[200, 304, 404, 412, 500],
        is_write: false,
    },
    Route {
        name: Name::Put,
        method: "PUT",
        place: Place::Key,
        what: "Puts a value",
        query: &[TTL, DURABILITY, WAIT],
        headers: &[CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH],
        body: &["application/octet-stream", "application/json"],
        statuses: &[408, 412, 413],
        is_write: true,
    },
    Route {
        name: Name::Patch,
        method: "PATCH",
        place: Place::Key,
        what: "Changes a JSON value by a merge patch (RFC 7396); the time that it has left stays",
        query: &[DURABILITY, WAIT],
        headers: &[PATCH_TYPE, IF_MATCH, IF_NONE_MATCH],
        body: &["application/merge-patch+json", "application/json"],
        statuses: &[408, 409, 412, 413, 415],
        is_write: true,
    },
    Route {
        name: Name::Delete,
        method: "DELETE",
        place: Place::Key,
        what: "Deletes a key, whether it has anything or not",
        query: &[DURABILITY, WAIT],
        headers: &[IF_MATCH, IF_NONE_MATCH],
        body: &[],
        statuses: &[412],
        is_write: true,
    },
    Route {
        name: Name::Change,
        method: "POST",
        place: Place::Key,
        what: "Changes a counter, {\"increment\": 1}, or a set, {\"add\": [\"a\"], \"remove\": [\"b\"]}: whoever does so elsewhere at the same time, nothing is lost",
        query: &[DURABILITY, WAIT],
        headers: &[IF_MATCH, IF_NONE_MATCH],
        body: JSON,
        statuses: &[408, 409, 412, 413],
        is_write: true,
    },
    Route {
        name: Name::List,
        method: "GET",
        place: Place::Bucket,
        what: "Keys of a bucket in order, with what is under them; `next` is what to ask after for more, null at the end",
        query: &[
            PREFIX,
            parameter("after", "string", "Only keys after this one"),
            parameter("limit", "integer", "At most so many keys, 1 to 1000. Without it: 100"),
            parameter("values", "boolean", "false: without the values"),
            parameter("count", "boolean", "true: only how many keys there are in all"),
            WATCH,
        ],
        headers: &[],
        body: &[],
        statuses: &[200, 500],
        is_write: false,
    },
    Route {
        name: Name::Clear,
        method: "DELETE",
        place: Place::Bucket,
        what: "Deletes all keys of a bucket, in one write after the other; says how many",
        query: &[PREFIX, DURABILITY, WAIT],
        headers: &[],
        body: &[],
        statuses: &[],
        is_write: true,
    },
    Route {
        name: Name::Watch,
        method: "GET",
        place: Place::Watch,
        what: "Changes as they come, as server-sent events: `put` and `delete` with what is then under the key, `ready` at the start, `reset` when it is not known any more what was missed: then list the bucket anew. The end of a value's time is no change: each put says when it will be",
        query: &[PREFIX, WATCH],
        headers: &[ACCEPT, LAST_EVENT_ID],
        body: &[],
        statuses: &[200],
        is_write: false,
    },
    Route {
        name: Name::Batch,
        method: "POST",
        place: Place::Batch,
        what: "Many changes, of any keys: all of them or none",
        query: &[],
        headers: &[],
        body: JSON,
        statuses: &[408, 409, 412, 413],
        is_write: true,
    },
    Route {
        name: Name::Conflicts,
        method: "GET",
        place: Place::Conflicts,
        what: "Values that lost against one that was written elsewhere at the same time, newest first",
        query: &[
            parameter("before", "integer", "Only those with a lower number"),
            parameter("limit", "integer", "At most so many, 1 to 1000. Without it: 100"),
        ],
        headers: &[],
        body: &[],
        statuses: &[200, 500],
        is_write: false,
    },
    Route {
        name: Name::Held,
        method: "GET",
        place: Place::Held,
        what: "Operations that are stamped later than now: they wait for their time",
        query: &[],
        headers: &[],
        body: &[],
        statuses: &[200, 500],
        is_write: false,
    },
    Route {
        name: Name::Drop,
        method: "POST",
        place: Place::HeldDrop,
        what: "An operation that waits is never applied, anywhere: {\"origin\": \"5e2a91cc\", \"sequence\": 17}",
        query: &[DURABILITY, WAIT],
        headers: &[],
        body: JSON,
        statuses: &[408, 409, 413],
        is_write: true,
    },
    Route {
        name: Name::Status,
        method: "GET",
        place: Place::Store,
        what: "How the store is: open or not, lag to each datacenter, what waits, what was counted",
        query: &[],
        headers: &[],
        body: &[],
        statuses: &[200],
        is_write: false,
    },
    Route {
        name: Name::OpenApi,
        method: "GET",
        place: Place::OpenApi,
        what: "This description",
        query: &[],
        headers: &[],
        body: &[],
        statuses: &[200],
        is_write: false,
    },
];

impl Route {
    /// Every status that it can be answered with.
    pub fn all_statuses(&self) -> Vec<u16> {
        let of_writes = if self.is_write { OF_WRITES } else { &[] };
        let mut all = [self.statuses, OF_ALL, of_writes].concat();
        // The description is there without a store.
        all.retain(|status| *status != 503 || self.name != Name::OpenApi);
        all.sort_unstable();
        all.dedup();
        all
    }
}
