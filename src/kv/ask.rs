//! Finding the store and asking it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use daemun_fleet::shorten;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::Failure;
use crate::admin::token;

/// How long to wait for an answer: a write waits up to a minute to be as durable as asked.
const PATIENCE: Duration = Duration::from_secs(75);
/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Where to ask, and how to print it.
#[derive(Args, Clone, Debug)]
pub(super) struct Ask {
    /// URL of a datacenter's API for applications; several, with commas between, are tried in turn [default: the running lab]
    #[arg(long, env = "DAEMUN_API", value_name = "URL", value_delimiter = ',')]
    api: Vec<String>,
    /// File of the token for applications: store.token in the process's data directory [default: the lab's]
    #[arg(long, env = "DAEMUN_STORE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Ask the store of this datacenter
    #[arg(long, value_name = "NAME")]
    datacenter: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// An answer, whole.
pub(super) struct Said {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    url: String,
}

impl Said {
    /// It was done; else why not, as the failure that it is.
    pub(super) fn done(self) -> Result<Self, Failure> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(problem(&self.url, self.status, &self.body))
    }

    pub(super) fn json(&self) -> Result<Value, Failure> {
        let parsed = serde_json::from_slice(&self.body);
        Ok(parsed.with_context(|| format!("{} is not the API for applications of daemun", self.url))?)
    }
}

/// What the store has said is wrong.
fn problem(url: &str, status: StatusCode, body: &[u8]) -> Failure {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = match (said["error"].as_str(), said["at"].as_str()) {
        (Some(error), Some(at)) => anyhow!("{at}: {error}"),
        _ => {
            let text = shorten(&String::from_utf8_lossy(body));
            anyhow!("{url} answered with status {status}: {text}")
        }
    };
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::Wrong(error)
        }
        _ => Failure::Failed(error),
    }
}

/// Asks one of the stores.
pub(super) struct Asker {
    client: reqwest::Client,
    token: String,
    urls: Vec<String>,
    hint: &'static str,
}

impl Asker {
    pub(super) async fn new(ask: &Ask) -> Result<Self, Failure> {
        if let Some(url) = ask.api.iter().find(|url| !url.starts_with("http://")) {
            let found = shorten(url);
            let error = anyhow!("--api: expected a URL such as http://127.0.0.1:7420, found `{found}`");
            return Err(Failure::Wrong(error));
        }
        let client =
            reqwest::Client::builder().no_proxy().tls_certs_only([]).connect_timeout(CONNECT).build();
        let (urls, hint) = match ask.api.is_empty() {
            true => {
                (crate::lab::store_urls(), "start the lab with `daemun lab`, or name a store with --api URL")
            }
            false => (ask.api.clone(), "is it running, and is this its address for applications?"),
        };
        let token = match &ask.token_file {
            Some(file) => token::read(file).map_err(Failure::Wrong)?,
            // The lab's own, for the lab alone; it may simply not run.
            None if ask.api.is_empty() => token::read(&crate::lab::store_token_path()).unwrap_or_default(),
            None => String::new(),
        };
        let mut asker = Self { client: client.context("making an HTTP client")?, token, urls, hint };
        if let Some(wanted) = &ask.datacenter {
            asker.urls = vec![asker.url_of(wanted).await?];
        }
        Ok(asker)
    }

    /// The URL of a datacenter's store.
    async fn url_of(&self, wanted: &str) -> Result<String, Failure> {
        let mut others = Vec::new();
        for url in &self.urls {
            let one = Self {
                client: self.client.clone(),
                token: self.token.clone(),
                urls: vec![url.clone()],
                hint: self.hint,
            };
            match one.read("/v1/store").await {
                Ok(status) => {
                    let origin = status["origin"].as_str().unwrap_or_default();
                    let datacenter = origin.split('/').next().unwrap_or_default();
                    if datacenter == wanted {
                        return Ok(url.clone());
                    }
                    others.push(shorten(datacenter));
                }
                Err(Failure::Failed(error) | Failure::Wrong(error)) => others.push(format!("{error:#}")),
            }
        }
        let (wanted, urls) = (shorten(wanted), self.urls.join(", "));
        Err(Failure::Failed(anyhow!("no store of datacenter `{wanted}` at {urls}: {}", others.join("; "))))
    }

    fn request(&self, method: Method, url: &str, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", url.trim_end_matches('/')));
        if self.token.is_empty() { request } else { request.bearer_auth(&self.token) }
    }

    /// What the first store that can be reached says. One that has not begun anything is passed over.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<Said, Failure> {
        let mut last = anyhow!("nobody to ask");
        for url in &self.urls {
            let mut request = self.request(method.clone(), url, path).timeout(PATIENCE);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            let response = match request.body(body.clone()).send().await {
                Ok(response) => response,
                Err(error) if error.is_connect() || method == Method::GET => {
                    last = error.into();
                    continue;
                }
                Err(error) => {
                    let unsure =
                        format!("{url} was asked and has not answered: read the key before writing it again");
                    return Err(anyhow::Error::from(error).context(unsure).into());
                }
            };
            let status = response.status();
            let body = response.bytes().await.with_context(|| format!("the answer of {url}"))?.to_vec();
            if status == StatusCode::SERVICE_UNAVAILABLE {
                // It takes nothing yet; the next may.
                let (Failure::Failed(error) | Failure::Wrong(error)) = problem(url, status, &body);
                last = error.context(url.clone());
                continue;
            }
            return Ok(Said { status, body, url: url.clone() });
        }
        Err(self.nobody(last).into())
    }

    /// What a path says, as JSON.
    pub(super) async fn read(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, &[], Vec::new()).await?.done()?.json()
    }

    /// The head of an answer whose body goes on; the stores are tried in turn.
    pub(super) async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response, Failure> {
        let mut last = anyhow!("nobody to ask");
        for url in &self.urls {
            let mut request = self.request(Method::GET, url, path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            match request.send().await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let status = response.status();
                    let body = response.bytes().await.unwrap_or_default();
                    let failure = problem(url, status, &body);
                    match failure {
                        Failure::Failed(error) if status == StatusCode::SERVICE_UNAVAILABLE => last = error,
                        failure => return Err(failure),
                    }
                }
                Err(error) => last = error.into(),
            }
        }
        Err(self.nobody(last).into())
    }

    fn nobody(&self, last: anyhow::Error) -> anyhow::Error {
        last.context(format!("no answer from {}: {}", self.urls.join(", "), self.hint))
    }
}

/// Text as a part of a URL: everything but what is never special.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_key_is_one_part_of_a_url() {
        assert_eq!(encoded("a/b c?ü+%"), "a%2Fb%20c%3F%C3%BC%2B%25");
        let url = format!("http://h/v1/kv/b/{}", encoded("x/../y/./z"));
        assert_eq!(url::Url::parse(&url).unwrap().path(), "/v1/kv/b/x%2F..%2Fy%2F.%2Fz");
    }

    #[test]
    fn what_is_wrong_with_the_request_is_wrong_usage() {
        let body = br#"{"error": "it is given twice", "at": "query `ttl`"}"#;
        let told = |status| match problem("http://h", status, body) {
            Failure::Failed(error) => (1, error.to_string()),
            Failure::Wrong(error) => (2, error.to_string()),
        };
        let said = "query `ttl`: it is given twice".to_owned();
        assert_eq!(told(StatusCode::BAD_REQUEST), (2, said.clone()));
        assert_eq!(told(StatusCode::PRECONDITION_FAILED), (1, said));
    }
}
