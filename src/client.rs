//! How verbs find the fleet and ask it.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use daemun_fleet::shorten;

use crate::status::Status;

/// How long a verb waits for one agent.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where to ask.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AdminArguments {
    /// Admin URL of a daemun process [default: the running lab]
    #[arg(long, env = "DAEMUN_ADMIN", value_name = "URL")]
    pub(crate) admin: Option<String>,
}

/// The status of the process asked, and the URL at which it answered.
pub(crate) async fn status(arguments: &AdminArguments) -> anyhow::Result<(String, Status)> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .timeout(PATIENCE)
        .build()
        .context("making an HTTP client")?;
    let (urls, hint) = match &arguments.admin {
        Some(url) if !url.contains("://") => {
            return Err(anyhow!(
                "--admin: expected a URL such as http://127.0.0.1:7480, found `{}`",
                shorten(url)
            ));
        }
        Some(url) => (vec![url.clone()], "is it running, and is this its admin address?"),
        None => {
            (crate::lab::admin_urls(), "start the lab with `daemun lab`, or name a process with --admin URL")
        }
    };
    let mut last = anyhow!("nobody to ask");
    for url in &urls {
        match ask(&client, url).await {
            Ok(status) => return Ok((url.clone(), status)),
            Err(error) => last = error,
        }
    }
    Err(last.context(format!("no answer from {}: {hint}", urls.join(", "))))
}

async fn ask(client: &reqwest::Client, url: &str) -> anyhow::Result<Status> {
    let response = client.get(format!("{}/v1/status", url.trim_end_matches('/'))).send().await?;
    let code = response.status();
    let body = response.text().await?;
    if !code.is_success() {
        return Err(anyhow!("{url} answered with status {code}: {}", shorten(&body)));
    }
    serde_json::from_str(&body).with_context(|| format!("{url} is not an admin address of daemun"))
}
