//! `daemun kv`: the store, from the command line, through the same API as applications. What a script reads is alone on
//! stdout: `get` prints the value and nothing else.

mod ask;
mod rebuild;
mod show;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::Failure;
use ask::{Ask, Asker, encoded};

/// Keys of a page.
const PAGE: usize = 500;

/// The store.
#[derive(Args)]
pub(crate) struct KvArguments {
    #[command(subcommand)]
    verb: KvVerb,
}

/// What is done with it.
#[derive(Subcommand)]
enum KvVerb {
    /// Print what is under a key: the value alone, as it was put; exit code 1 if there is nothing
    Get {
        #[command(flatten)]
        key: KeyArguments,
        #[command(flatten)]
        ask: Ask,
    },
    /// Put a value; prints its stamp
    Put {
        #[command(flatten)]
        key: KeyArguments,
        /// The value; `-`: what comes on stdin
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// The value is JSON: it can be patched, and must parse
        #[arg(long)]
        as_json: bool,
        /// The value lives for so long, such as 30s
        #[arg(long, value_name = "TIME")]
        ttl: Option<String>,
        #[command(flatten)]
        conditions: Conditions,
        #[command(flatten)]
        done: Done,
        #[command(flatten)]
        ask: Ask,
    },
    /// Delete a key
    Del {
        #[command(flatten)]
        key: KeyArguments,
        #[command(flatten)]
        conditions: Conditions,
        #[command(flatten)]
        done: Done,
        #[command(flatten)]
        ask: Ask,
    },
    /// Add to a counter
    Incr {
        #[command(flatten)]
        key: KeyArguments,
        /// How much; below 0: take away
        #[arg(default_value_t = 1, allow_hyphen_values = true)]
        by: i64,
        #[command(flatten)]
        conditions: Conditions,
        #[command(flatten)]
        done: Done,
        #[command(flatten)]
        ask: Ask,
    },
    /// Put elements into a set
    Add {
        #[command(flatten)]
        key: KeyArguments,
        /// The elements
        #[arg(required = true, value_name = "ELEMENT")]
        elements: Vec<String>,
        #[command(flatten)]
        conditions: Conditions,
        #[command(flatten)]
        done: Done,
        #[command(flatten)]
        ask: Ask,
    },
    /// Take elements out of a set
    Remove {
        #[command(flatten)]
        key: KeyArguments,
        /// The elements
        #[arg(required = true, value_name = "ELEMENT")]
        elements: Vec<String>,
        #[command(flatten)]
        conditions: Conditions,
        #[command(flatten)]
        done: Done,
        #[command(flatten)]
        ask: Ask,
    },
    /// List the keys of a bucket
    List {
        /// The bucket
        bucket: String,
        /// Only keys that begin with this
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
        /// Only keys after this one
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        /// At most so many [default: all]
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Only how many there are
        #[arg(long, conflicts_with_all = ["after", "limit"])]
        count: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Show what changes in a bucket, as it does, until Ctrl-C
    Watch {
        /// The bucket
        bucket: String,
        /// Only keys that begin with this
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
        /// Go on after this id, of an event that was shown with --json [default: from now on]
        #[arg(long, value_name = "ID")]
        from: Option<String>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Values that lost against one that was written elsewhere at the same time, newest first
    Conflicts {
        /// Only those with a lower number
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        ask: Ask,
    },
    /// Operations that are stamped later than now: they wait for their time
    Held {
        #[command(flatten)]
        ask: Ask,
    },
    /// An operation that waits is never applied, anywhere; `daemun kv held` shows them
    Drop {
        /// Its origin, such as 5e2a91cc
        origin: String,
        /// Its number there
        sequence: u64,
        #[command(flatten)]
        done: Done,
        #[command(flatten)]
        ask: Ask,
    },
    /// Set the store of a stopped process aside: at its next start it takes back everything from its peers
    Rebuild {
        /// The data directory of the process
        #[arg(long, value_name = "DIRECTORY")]
        data: PathBuf,
        /// Do it
        #[arg(long)]
        yes: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A key.
#[derive(Args)]
struct KeyArguments {
    /// The bucket
    bucket: String,
    /// The key; it may hold slashes
    key: String,
}

impl KeyArguments {
    fn path(&self) -> Result<String, Failure> {
        if matches!(&*self.key, "." | "..") {
            return Err(Failure::Wrong(anyhow!(
                "the key `{}` cannot be in a URL: POST /v1/kv/batch takes it",
                self.key
            )));
        }
        Ok(format!("/v1/kv/{}/{}", encoded(&self.bucket), encoded(&self.key)))
    }
}

/// What must be so.
#[derive(Args)]
struct Conditions {
    /// Only if the key's stamp is this one; `*`: only if it has anything
    #[arg(long, value_name = "STAMP", conflicts_with = "if_none_match")]
    if_match: Option<String>,
    /// Only if the key's stamp is not this one; `*`: only if it has nothing
    #[arg(long, value_name = "STAMP")]
    if_none_match: Option<String>,
}

impl Conditions {
    fn headers(&self) -> Vec<(&'static str, String)> {
        let tag = |stamp: &String| match stamp.as_str() {
            "*" => "*".to_owned(),
            stamp => format!("\"{}\"", stamp.trim_matches('"')),
        };
        let is = self.if_match.as_ref().map(|stamp| ("if-match", tag(stamp)));
        let is_not = self.if_none_match.as_ref().map(|stamp| ("if-none-match", tag(stamp)));
        is.into_iter().chain(is_not).collect()
    }
}

/// When a write is done.
#[derive(Args)]
struct Done {
    /// When it is done: memory, local, remote:N, all [default: local]
    #[arg(long, value_name = "WHERE")]
    durability: Option<String>,
    /// How long to wait for that [default: 5s]
    #[arg(long, value_name = "TIME")]
    wait: Option<String>,
}

impl Done {
    fn query(&self) -> Vec<(&'static str, String)> {
        let durability = self.durability.clone().map(|text| ("durability", text));
        durability.into_iter().chain(self.wait.clone().map(|text| ("wait", text))).collect()
    }
}

pub(crate) fn kv(arguments: KvArguments) -> Result<(), Failure> {
    if let KvVerb::Rebuild { data, yes, json } = arguments.verb {
        return rebuild::rebuild(&data, yes, json);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    runtime.block_on(run(arguments.verb))
}

async fn run(verb: KvVerb) -> Result<(), Failure> {
    match verb {
        KvVerb::Get { key, ask } => get(&key, &ask).await,
        KvVerb::Put { key, value, as_json, ttl, conditions, done, ask } => {
            let body = if value == "-" { stdin()? } else { value.into_bytes() };
            let mut query = done.query();
            query.extend(ttl.map(|ttl| ("ttl", ttl)));
            let mut headers = conditions.headers();
            headers.extend(as_json.then(|| ("content-type", "application/json".to_owned())));
            write(&ask, Method::PUT, &key.path()?, &query, &headers, body).await
        }
        KvVerb::Del { key, conditions, done, ask } => {
            write(&ask, Method::DELETE, &key.path()?, &done.query(), &conditions.headers(), Vec::new()).await
        }
        KvVerb::Incr { key, by, conditions, done, ask } => {
            change(&ask, &key, &conditions, &done, &json!({ "increment": by })).await
        }
        KvVerb::Add { key, elements, conditions, done, ask } => {
            change(&ask, &key, &conditions, &done, &json!({ "add": elements })).await
        }
        KvVerb::Remove { key, elements, conditions, done, ask } => {
            change(&ask, &key, &conditions, &done, &json!({ "remove": elements })).await
        }
        KvVerb::List { bucket, prefix, count: true, ask, .. } => count(&ask, &bucket, &prefix).await,
        KvVerb::List { bucket, prefix, after, limit, ask, .. } => {
            list(&ask, &bucket, &prefix, after, limit).await
        }
        KvVerb::Watch { bucket, prefix, from, ask } => show::watch(&ask, &bucket, &prefix, from).await,
        KvVerb::Conflicts { before, limit, ask } => {
            let before = before.map(|before| format!("&before={before}")).unwrap_or_default();
            let found = read(&ask, &format!("/v1/conflicts?limit={limit}{before}")).await?;
            print(&ask, &found, show::conflicts)
        }
        KvVerb::Held { ask } => {
            let found = read(&ask, "/v1/held").await?;
            print(&ask, &found, show::held)
        }
        KvVerb::Drop { origin, sequence, done, ask } => {
            let body = json!({ "origin": origin, "sequence": sequence }).to_string();
            write(&ask, Method::POST, "/v1/held/drop", &done.query(), &[], body.into_bytes()).await
        }
        KvVerb::Rebuild { .. } => Ok(()),
    }
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("reading stdin")?;
    Ok(bytes)
}

async fn get(key: &KeyArguments, ask: &Ask) -> Result<(), Failure> {
    let asker = Asker::new(ask).await?;
    if ask.json {
        // In a list it comes with all that is known of it.
        let path = format!("/v1/kv/{}?limit=1&prefix={}", encoded(&key.bucket), encoded(&key.key));
        let page = asker.read(&path).await?;
        let item = page["keys"].get(0).filter(|item| item["key"] == *key.key);
        let item = item.ok_or_else(|| nothing(key))?;
        println!("{item}");
        return Ok(());
    }
    let said = asker.send(Method::GET, &key.path()?, &[], Vec::new()).await?;
    if said.status == StatusCode::NOT_FOUND {
        return Err(nothing(key));
    }
    let said = said.done()?;
    let mut out = std::io::stdout().lock();
    out.write_all(&said.body).and_then(|()| out.flush()).context("writing to stdout")?;
    Ok(())
}

fn nothing(key: &KeyArguments) -> Failure {
    let (bucket, key) = (&key.bucket, &key.key);
    Failure::Failed(anyhow!(
        "there is nothing under {bucket}/{key}; `daemun kv list {bucket}` shows what there is"
    ))
}

async fn change(
    ask: &Ask,
    key: &KeyArguments,
    conditions: &Conditions,
    done: &Done,
    body: &Value,
) -> Result<(), Failure> {
    let (path, body) = (key.path()?, body.to_string().into_bytes());
    write(ask, Method::POST, &path, &done.query(), &conditions.headers(), body).await
}

async fn write(
    ask: &Ask,
    method: Method,
    path: &str,
    query: &[(&str, String)],
    headers: &[(&str, String)],
    body: Vec<u8>,
) -> Result<(), Failure> {
    let asker = Asker::new(ask).await?;
    let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let path = if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) };
    let said = asker.send(method, &path, headers, body).await?.done()?;
    let is_done = said.status == StatusCode::OK;
    let told = said.json()?;
    if ask.json {
        println!("{told}");
    } else {
        println!("{}", told["stamp"].as_str().unwrap_or_default());
    }
    let places = show::places(&told["durable"]);
    if is_done {
        return Ok(());
    }
    Err(Failure::Failed(anyhow!(
        "written, and not yet as durable as asked ({}): it is {places}; it goes on by itself, do not write it again",
        told["asked"].as_str().unwrap_or_default()
    )))
}

async fn read(ask: &Ask, path: &str) -> Result<Value, Failure> {
    Asker::new(ask).await?.read(path).await
}

fn print(ask: &Ask, found: &Value, show: fn(&Value) -> String) -> Result<(), Failure> {
    if ask.json {
        println!("{}", serde_json::to_string_pretty(found).context("writing JSON")?);
    } else {
        print!("{}", show(found));
    }
    Ok(())
}

async fn count(ask: &Ask, bucket: &str, prefix: &str) -> Result<(), Failure> {
    let path = format!("/v1/kv/{}?count=true&prefix={}", encoded(bucket), encoded(prefix));
    let found = read(ask, &path).await?;
    print(ask, &found, |found| format!("{}\n", found["count"]))
}

async fn list(
    ask: &Ask,
    bucket: &str,
    prefix: &str,
    mut after: Option<String>,
    limit: Option<usize>,
) -> Result<(), Failure> {
    let asker = Asker::new(ask).await?;
    let mut left = limit.unwrap_or(usize::MAX);
    while left > 0 {
        let page = left.min(PAGE);
        let mut path = format!("/v1/kv/{}?limit={page}&prefix={}", encoded(bucket), encoded(prefix));
        if let Some(after) = &after {
            path += &format!("&after={}", encoded(after));
        }
        let found = asker.read(&path).await?;
        let keys = found["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut text = String::new();
        for key in keys {
            // With --json a line for each: a bucket may be larger than memory.
            text += &if ask.json { format!("{key}\n") } else { show::key(key) };
        }
        std::io::stdout().lock().write_all(text.as_bytes()).context("writing to stdout")?;
        left -= keys.len().min(left);
        after = found["next"].as_str().map(ToOwned::to_owned);
        if after.is_none() {
            break;
        }
    }
    Ok(())
}
