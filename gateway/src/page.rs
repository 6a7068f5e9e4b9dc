//! The index page: made ready in memory, never in a request, and never blank.
//!
//! The ladder: the operator's page as it is on disk; the last good one that this process has seen; the last good one that an
//! earlier process has kept; the page compiled in, which shows the fleet on a map of the world.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use daemun_fleet::Placer;
use daemun_fleet::view::State;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::asset::{Asset, Effort, digest};

/// The world's land, an SVG path over 720 × 360 (half a degree a unit), from Natural Earth.
const LAND: &str = include_str!("../assets/land.path");
const STYLE: &str = include_str!("../assets/index.css");

const HTML: &str = "text/html; charset=utf-8";
/// A browser may keep it, and asks each time whether it is still right.
const CACHE: &str = "no-cache";

/// Where a page came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSource {
    /// The operator's file as it is now.
    Live,
    /// The operator's file as it was when it was last good.
    LastGood,
    /// The same, as an earlier process has kept it on disk.
    Kept,
    /// Compiled in.
    CompiledIn,
}

impl PageSource {
    /// Value of `X-Door-Source`.
    pub fn name(self) -> &'static str {
        match self {
            PageSource::Live => "live",
            PageSource::LastGood => "last-good",
            PageSource::Kept => "kept",
            PageSource::CompiledIn => "compiled-in",
        }
    }
}

/// A page ready to be sent.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it came from.
    pub source: PageSource,
    /// The page, in every form.
    pub asset: Arc<Asset>,
}

/// A page that was good, and where it is from.
#[derive(Clone, Debug)]
pub struct LastGood {
    /// The page.
    pub asset: Arc<Asset>,
    /// It was read from where an earlier process has kept it.
    pub is_kept: bool,
}

/// A good page as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPage {
    /// In base64.
    body: String,
    /// Of the body: a page that a bad disk has changed is none.
    digest: String,
    modified_unix: u64,
}

impl KeptPage {
    /// To be kept.
    pub fn of(asset: &Asset) -> Self {
        Self {
            body: BASE64.encode(asset.body()),
            digest: digest(asset.body()),
            modified_unix: asset.modified_unix(),
        }
    }

    /// The page, if it is as it was kept and could be served now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn page(&self) -> Result<LastGood, &'static str> {
        let body = BASE64.decode(self.body.as_bytes()).map_err(|_| "it is not base64")?;
        if digest(&body) != self.digest {
            return Err("its digest is another");
        }
        if let Some(problem) = problem(&body) {
            return Err(problem);
        }
        let asset = Asset::new(HTML, CACHE, body.into(), self.modified_unix, Effort::Once);
        Ok(LastGood { asset: Arc::new(asset), is_kept: true })
    }
}

/// What the operator's file held when it was read; `Err`: why there is nothing.
pub type PageFile = Result<Bytes, String>;

/// Why a file cannot be the page: it is empty, or no HTML at all. It is being written, or it is the wrong one.
pub fn problem(body: &[u8]) -> Option<&'static str> {
    match (body.trim_ascii().is_empty(), body.contains(&b'<')) {
        (true, _) => Some("it is empty"),
        (false, false) => Some("it is not HTML"),
        (false, true) => None,
    }
}

/// What is on top of the ladder: the file if it is good, else the last good one, else the page compiled in. What is as it was
/// before stays as it is: clients that have it are told so.
pub fn choose(
    file: Option<&PageFile>,
    last_good: Option<&LastGood>,
    before: Option<&Page>,
    placer: &Placer,
    now_unix: u64,
) -> Page {
    let (source, body, effort) = match (file, last_good) {
        (Some(Ok(body)), _) if problem(body).is_none() => (PageSource::Live, body.clone(), Effort::Once),
        (Some(_), Some(last)) => {
            let source = if last.is_kept { PageSource::Kept } else { PageSource::LastGood };
            return Page { source, asset: Arc::clone(&last.asset) };
        }
        _ => (PageSource::CompiledIn, Bytes::from(compiled_in(placer)), Effort::Often),
    };
    let known = last_good.map(|last| &last.asset).into_iter().chain(before.map(|before| &before.asset));
    let asset = known
        .into_iter()
        .find(|known| *known.body() == body)
        .cloned()
        .unwrap_or_else(|| Arc::new(Asset::new(HTML, CACHE, body, now_unix, effort)));
    Page { source, asset }
}

/// The page compiled in: the fleet under the newest view. It says no more than the server list does: reasons name
/// machines inside, and are for operators. Names in it are letters, digits and hyphens, by the config's own rule.
fn compiled_in(placer: &Placer) -> String {
    let config = placer.steering().config();
    let view = placer.view();
    let title = &config.fleet.name;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"5\"><style>{STYLE}</style></head><body>\
         <h1>{title}</h1><p>Generation {} of the fleet view{}</p>\
         <svg viewBox=\"0 20 720 280\" role=\"img\" aria-label=\"Datacenters on a map of the world\">\
         <path class=\"land\" d=\"{}\"/>",
        view.generation,
        if view.fail_open { ": everything looks down, so everything is used." } else { "." },
        LAND.trim_end(),
    );
    for datacenter in &config.fleet.datacenters {
        let state = view.datacenters.get(&datacenter.name).map_or(State::Serving, |found| found.state);
        let (x, y) = ((datacenter.point.longitude + 180.0) * 2.0, (90.0 - datacenter.point.latitude) * 2.0);
        let (name, class) = (&datacenter.name, class(state));
        let _ = write!(
            page,
            "<g class=\"{class}\"><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/><text x=\"{:.1}\" y=\"{:.1}\">{name}</text></g>",
            x + 8.0,
            y + 4.0,
        );
    }
    page.push_str("</svg><table><thead><tr><th>datacenter</th><th>state</th></tr></thead><tbody>");
    for datacenter in &config.fleet.datacenters {
        let state = view.datacenters.get(&datacenter.name).map_or(State::Serving, |found| found.state);
        let (name, class) = (&datacenter.name, class(state));
        let _ = write!(page, "<tr class=\"{class}\"><td>{name}</td><td>{state}</td></tr>");
    }
    page.push_str("</tbody></table><p>The list of servers for you: <a href=\"/v1/servers\">/v1/servers</a></p></body></html>\n");
    page
}

fn class(state: State) -> &'static str {
    match state {
        State::Serving => "serving",
        State::Down => "down",
        State::Draining(_) | State::Drained | State::CatchingUp | State::Ramping(_) => "between",
    }
}
