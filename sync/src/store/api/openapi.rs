//! The description of the API for programs (OpenAPI 3.1): made from the table that requests are found in. A test asks the
//! router whether it is true.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::query::{LIMIT, LIMIT_MAX};
use super::routes::{Name, Parameter, Place, ROUTES, Route};

/// As JSON text.
pub fn text() -> Bytes {
    static TEXT: LazyLock<Bytes> =
        LazyLock::new(|| serde_json::to_vec_pretty(&document()).unwrap_or_default().into());
    TEXT.clone()
}

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.place.path()).or_insert_with(|| path(route.place));
        path[route.method.to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "daemun: the store",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Data that is in every datacenter. Keys may hold slashes. A stamp (ETag) names a version of a key; \
                            a condition on it is atomic in one datacenter, and no lock across datacenters. Without \
                            `durability` a write is on the disk of this datacenter when it is answered with 200; 202 says \
                            where it is known to be when the wait was over: it goes on by itself.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

/// What all methods of a path have in common: the parts of its name.
fn path(place: Place) -> Value {
    let part = |name: &str, what: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" }, "description": what });
    let bucket = part("bucket", "1 to 64 of a-z, 0-9, `-`, `_` and `.`, not beginning with a dot");
    match place {
        Place::Key => {
            let key =
                part("key", "1 to 512 bytes of UTF-8 without control characters; slashes are part of it");
            json!({ "parameters": [bucket, key] })
        }
        Place::Bucket | Place::Watch => json!({ "parameters": [bucket] }),
        Place::Batch | Place::Conflicts | Place::Held | Place::HeldDrop | Place::Store | Place::OpenApi => {
            json!({})
        }
    }
}

fn operation(route: &Route) -> Value {
    let of = |place: &'static str| {
        move |parameter: &Parameter| {
            json!({
                "name": parameter.name,
                "in": place,
                "required": false,
                "schema": schema_of(parameter),
                "description": parameter.what,
            })
        }
    };
    let is_parameter = |parameter: &&Parameter| {
        // Their places in a document of this kind are others.
        !matches!(parameter.name, "Accept" | "Content-Type")
    };
    let parameters = route.query.iter().map(of("query"));
    let parameters: Vec<Value> =
        parameters.chain(route.headers.iter().filter(is_parameter).map(of("header"))).collect();
    let mut operation = json!({
        "operationId": format!("{:?}", route.name).to_lowercase(),
        "summary": route.what,
        "parameters": parameters,
        "responses": responses(route),
    });
    if !route.body.is_empty() {
        let content: Map<String, Value> = route
            .body
            .iter()
            .map(|kind| ((*kind).to_owned(), json!({ "schema": body(route, kind) })))
            .collect();
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn schema_of(parameter: &Parameter) -> Value {
    match parameter.name {
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT }),
        "durability" => json!({ "type": "string", "pattern": "^(memory|local|all|remote:[1-9][0-9]?)$" }),
        _ => json!({ "type": parameter.kind }),
    }
}

fn body(route: &Route, kind: &str) -> Value {
    match route.name {
        Name::Batch => json!({ "$ref": "#/components/schemas/Batch" }),
        Name::Change => json!({ "$ref": "#/components/schemas/Change" }),
        Name::Drop => json!({ "$ref": "#/components/schemas/Drop" }),
        _ if kind == "application/octet-stream" => json!({ "type": "string", "format": "binary" }),
        _ => json!(true),
    }
}

fn responses(route: &Route) -> Value {
    let one = |status: u16| {
        let mut response = json!({ "description": meaning(status) });
        let content = match (status, route.name) {
            (304, _) | (_, Name::Head) => None,
            (200, Name::Watch) => Some(("text/event-stream", json!({ "type": "string" }))),
            (200, Name::Get) => Some(("*/*", json!(true))),
            (200, Name::List) => Some(("application/json", reference("Page"))),
            (200 | 202, _) if route.is_write => Some(("application/json", reference("Written"))),
            (200, _) => Some(("application/json", json!({ "type": "object" }))),
            _ => Some(("application/json", reference("Problem"))),
        };
        if let Some((kind, schema)) = content {
            response["content"] = json!({ kind: { "schema": schema } });
        }
        (status.to_string(), response)
    };
    Value::Object(route.all_statuses().into_iter().map(one).collect())
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn meaning(status: u16) -> &'static str {
    match status {
        200 => "Done; a write is as durable as asked",
        202 => {
            "The write is made, and the wait was over before it was as durable as asked: it goes on by itself"
        }
        304 => "It is what you have",
        400 => "Something about the request is wrong: the body says what and where",
        401 => "The token is missing or wrong",
        404 => "There is nothing under this key",
        408 => "The body did not come",
        409 => "The key holds something of another kind, or the operation cannot be dropped",
        412 => "The condition does not hold; `current` is the stamp that there is",
        413 => "Too large",
        415 => "A patch of another kind",
        422 => "It cannot be: more datacenters than there are, or a counter out of its range",
        500 => "The disk failed; `outcome` says what became of a write: unchanged, or unknown",
        503 => "The store is not open, or busy: ask again",
        507 => "The disk is full: nothing was changed, reading goes on",
        _ => "",
    }
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let texts = json!({ "type": "array", "items": text });
    let number = json!({ "type": "integer" });
    let time = json!({ "type": ["string", "integer"] });
    json!({
        "Problem": { "type": "object", "required": ["error", "at"], "properties": {
            "error": text, "at": text, "current": { "type": ["string", "null"] }, "outcome": text, "deleted": number,
        } },
        "Written": { "type": "object", "properties": {
            "stamp": text, "stamps": texts, "deleted": number, "asked": text,
            "durable": { "type": "object", "properties": {
                "local": { "type": "boolean" }, "remote": texts, "missing": texts,
            } },
        } },
        "Item": { "type": "object", "required": ["key", "stamp"], "properties": {
            "key": text, "stamp": text, "kind": { "enum": ["json", "text", "bytes", "counter", "set"] },
            "value": true, "base64": text, "expires_unix_ms": number,
        } },
        "Page": { "type": "object", "properties": {
            "keys": { "type": "array", "items": reference("Item") }, "next": { "type": ["string", "null"] }, "count": number,
        } },
        "Change": { "type": "object", "additionalProperties": false, "properties": {
            "increment": number, "add": texts, "remove": texts,
        } },
        "Drop": { "type": "object", "additionalProperties": false, "required": ["origin", "sequence"], "properties": {
            "origin": text, "sequence": number,
        } },
        "Batch": { "type": "object", "additionalProperties": false, "required": ["changes"], "properties": {
            "durability": text, "wait": time,
            "changes": { "type": "array", "items": {
                "type": "object", "additionalProperties": false, "required": ["op", "bucket", "key"], "properties": {
                    "op": { "enum": ["put", "delete", "patch", "increment", "add", "remove"] },
                    "bucket": text, "key": text, "value": true, "base64": text, "ttl": time, "by": number, "element": text,
                    "if_match": text, "if_none_match": text,
                },
            } },
        } },
    })
}
