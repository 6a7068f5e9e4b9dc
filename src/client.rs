//! How verbs find the fleet and ask it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use daemun_fleet::shorten;
use daemun_sync::verbs;
use reqwest::{RequestBuilder, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::orders::{Done, Refused};
use crate::admin::token;
use crate::status::Status;

/// How long a verb waits for one agent: the agent itself waits a while for its peers.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same where the agent asks its peers, and their disks.
const LONG_PATIENCE: Duration = Duration::from_secs(30);

/// Where to ask.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AdminArguments {
    /// Admin URL of a daemun process; several, with commas between, are tried in turn [default: the running lab]
    #[arg(long, env = "DAEMUN_ADMIN", value_name = "URL", value_delimiter = ',')]
    pub(crate) admin: Vec<String>,
    /// File of the admin token: admin.token in the process's data directory [default: the lab's]
    #[arg(long, env = "DAEMUN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Ask the agent of this datacenter
    #[arg(long = "datacenter", value_name = "NAME")]
    ask: Option<String>,
}

/// What an agent made of an operator's word.
pub(crate) enum Told {
    /// It is done, or was planned as asked.
    Done(Box<Done>),
    /// It breaks rules, and was not done.
    Broken(Box<Done>),
    /// It is wrong.
    Wrong(String),
}

#[derive(Clone)]
struct Asker {
    client: reqwest::Client,
    token: String,
    urls: Vec<String>,
    hint: &'static str,
}

impl Asker {
    async fn new(arguments: &AdminArguments) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(PATIENCE).build();
        let wrong = arguments.admin.iter().find(|url| !url.contains("://"));
        if let Some(url) = wrong {
            let found = shorten(url);
            return Err(anyhow!("--admin: expected a URL such as http://127.0.0.1:7480, found `{found}`"));
        }
        let (urls, hint) = match arguments.admin.is_empty() {
            true => (
                crate::lab::admin_urls(),
                "start the lab with `daemun lab`, or name a process with --admin URL",
            ),
            false => (arguments.admin.clone(), "is it running, and is this its admin address?"),
        };
        let token = match &arguments.token_file {
            Some(file) => token::read(file)?,
            // The lab's own, for the lab alone; it may simply not run.
            None if arguments.admin.is_empty() => token::read(&crate::lab::token_path()).unwrap_or_default(),
            None => String::new(),
        };
        let mut asker = Self { client: client.context("making an HTTP client")?, token, urls, hint };
        if let Some(wanted) = &arguments.ask {
            asker.urls = vec![asker.url_of(wanted).await?];
        }
        Ok(asker)
    }

    /// The URL of a datacenter's process.
    async fn url_of(&self, wanted: &str) -> anyhow::Result<String> {
        let mut others = Vec::new();
        for url in &self.urls {
            match self.read::<Status>(self.client.get(path(url, "/v1/status")), url).await {
                Ok(status) if status.datacenter == wanted => return Ok(url.clone()),
                Ok(status) => others.push(status.datacenter),
                Err(error) => others.push(format!("{error:#}")),
            }
        }
        Err(anyhow!(
            "no process of datacenter `{}` at {}: {}",
            shorten(wanted),
            self.urls.join(", "),
            others.join("; ")
        ))
    }

    fn send(&self, request: RequestBuilder) -> RequestBuilder {
        if self.token.is_empty() { request } else { request.bearer_auth(&self.token) }
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder, url: &str) -> anyhow::Result<T> {
        let response = self.send(request).send().await?;
        let code = response.status();
        let body = response.text().await?;
        if !code.is_success() {
            let said =
                serde_json::from_str::<Refused>(&body).map_or_else(|_| shorten(&body), |body| body.error);
            return Err(anyhow!("{url} answered with status {code}: {said}"));
        }
        serde_json::from_str(&body).with_context(|| format!("{url} is not an admin address of daemun"))
    }

    fn nobody(&self, last: anyhow::Error) -> anyhow::Error {
        last.context(format!("no answer from {}: {}", self.urls.join(", "), self.hint))
    }
}

fn path(url: &str, path: &str) -> String {
    format!("{}{path}", url.trim_end_matches('/'))
}

/// What the first process that answers says at a path, and its URL.
pub(crate) async fn get<T: DeserializeOwned>(
    arguments: &AdminArguments,
    at: &str,
) -> anyhow::Result<(String, T)> {
    let asker = Asker::new(arguments).await?;
    let mut last = anyhow!("nobody to ask");
    for url in &asker.urls {
        match asker.read(asker.client.get(path(url, at)), url).await {
            Ok(found) => return Ok((url.clone(), found)),
            Err(error) => last = error,
        }
    }
    Err(asker.nobody(last))
}

/// Several questions to the same processes.
#[derive(Clone)]
pub(crate) struct Line(Asker);

/// What a process said.
pub(crate) struct Said {
    /// The status.
    pub(crate) code: StatusCode,
    body: String,
    url: String,
}

impl Said {
    /// What it means.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let found = serde_json::from_str(&self.body);
        found
            .with_context(|| format!("{} is not an admin address of daemun, or of another version", self.url))
    }

    /// What it says is wrong.
    pub(crate) fn error(&self) -> anyhow::Error {
        let said = serde_json::from_str::<Refused>(&self.body);
        anyhow!("{}", said.map_or_else(|_| shorten(&self.body), |body| body.error))
    }

    /// What it means, if it is a success.
    pub(crate) fn done<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        if self.code.is_success() { self.read() } else { Err(self.error()) }
    }
}

impl Line {
    pub(crate) async fn new(arguments: &AdminArguments) -> anyhow::Result<Self> {
        Ok(Self(Asker::new(arguments).await?))
    }

    /// Asks the first process that can be reached and has an agent.
    pub(crate) async fn get(&self, at: &str) -> anyhow::Result<Said> {
        self.first(at, |client, url| client.get(url)).await
    }

    /// Tells the first process that can be reached and has an agent.
    pub(crate) async fn post(&self, at: &str, body: &impl Serialize) -> anyhow::Result<Said> {
        self.first(at, |client, url| client.post(url).json(body)).await
    }

    /// Tells every process that can be reached; what those said that took it.
    pub(crate) async fn post_all(&self, at: &str, body: &impl Serialize) -> Vec<anyhow::Result<Said>> {
        let mut all = Vec::new();
        for url in &self.0.urls {
            let one = Self(Asker { urls: vec![url.clone()], ..self.0.clone() });
            let said = tokio::time::timeout(PATIENCE, one.post(at, body)).await;
            all.push(said.unwrap_or_else(|_| Err(anyhow!("{url} does not answer"))));
        }
        all
    }

    async fn first(
        &self,
        at: &str,
        request: impl Fn(&reqwest::Client, String) -> RequestBuilder,
    ) -> anyhow::Result<Said> {
        let mut last = anyhow!("nobody to ask");
        for url in &self.0.urls {
            let sent =
                self.0.send(request(&self.0.client, path(url, at))).timeout(LONG_PATIENCE).send().await;
            let response = match sent {
                Ok(response) => response,
                // Nobody has heard it.
                Err(error) if error.is_connect() => {
                    last = error.into();
                    continue;
                }
                Err(error) => return Err(anyhow::Error::from(error).context(format!("asking {url}"))),
            };
            let code = response.status();
            let body = response.text().await.with_context(|| format!("the answer of {url}"))?;
            let said = Said { code, body, url: url.clone() };
            // The next may have an agent.
            if code == StatusCode::SERVICE_UNAVAILABLE {
                last = said.error().context(url.clone());
                continue;
            }
            return Ok(said);
        }
        Err(self.0.nobody(last))
    }
}

/// The status of the process asked, and the URL at which it answered.
pub(crate) async fn status(arguments: &AdminArguments) -> anyhow::Result<(String, Status)> {
    get(arguments, "/v1/status").await
}

/// Tells the first agent that can be reached an operator's word.
pub(crate) async fn tell(arguments: &AdminArguments, told: &verbs::Told) -> anyhow::Result<Told> {
    let asker = Asker::new(arguments).await?;
    let mut last = anyhow!("nobody to tell");
    for url in &asker.urls {
        let response = match asker.send(asker.client.post(path(url, "/v1/verbs")).json(told)).send().await {
            Ok(response) => response,
            // Nobody has heard it.
            Err(error) if error.is_connect() => {
                last = error.into();
                continue;
            }
            Err(error) => {
                let unsure =
                    format!("{url} was told and has not answered: `daemun status` shows whether it is done");
                return Err(anyhow::Error::from(error).context(unsure));
            }
        };
        let code = response.status();
        let body = response.text().await.with_context(|| format!("the answer of {url}"))?;
        let done = || {
            let done = serde_json::from_str::<Done>(&body);
            done.map(Box::new).with_context(|| format!("{url} is not an admin address of daemun"))
        };
        let said =
            || serde_json::from_str::<Refused>(&body).map_or_else(|_| shorten(&body), |body| body.error);
        return match code {
            StatusCode::OK => Ok(Told::Done(done()?)),
            StatusCode::CONFLICT => Ok(Told::Broken(done()?)),
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Told::Wrong(said())),
            // The next may have an agent.
            StatusCode::SERVICE_UNAVAILABLE => {
                last = anyhow!("{url}: {}", said());
                continue;
            }
            StatusCode::PRECONDITION_FAILED => Err(anyhow!("{}", said())),
            _ => Err(anyhow!("{url} answered with status {code}: {}", said())),
        };
    }
    Err(asker.nobody(last))
}
