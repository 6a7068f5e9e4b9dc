//! The index page: made ready in memory, never in a request, and never blank.
//!
//! The ladder: the operator's page as it is now; the last good one that this process has seen; the last good one that an
//! earlier process has kept; the one that another door has; the page compiled in, which shows the fleet on a map of the world.
//!
//! A page is good (and remembered) if it is not empty, is HTML, has its marker, and has not shrunk to a fraction of what it
//! was; if it does stay so small, or an operator says that it is meant, it is good after all.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use daemun_fleet::Placer;
use daemun_fleet::view::State;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::asset::{Asset, Effort, Kind, digest};
use crate::list::{ListedServer, ServerList};

/// The world's land, an SVG path over 720 × 360 (half a degree a unit), from Natural Earth.
const LAND: &str = include_str!("../assets/land.path");
const STYLE: &str = include_str!("../assets/index.css");

const HTML: &str = "text/html; charset=utf-8";
/// A browser may keep it, and asks each time whether it is still right.
const CACHE: &str = "no-cache";
/// A page that stays as it is for long.
const STEADY: Kind = Kind { media_type: HTML, cache: CACHE, effort: Effort::Once };
/// A page that changes with the fleet, or with its fragments.
const LIVELY: Kind = Kind { media_type: HTML, cache: CACHE, effort: Effort::Often };
/// A page with less than one such part of the last good one's size has shrunk.
const SHRUNK_TO_ONE_IN: usize = 4;
/// How long a shrunken page is not believed.
const SHRUNK_MS: u64 = 5 * 60 * 1000;

/// Where a page came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSource {
    /// The operator's file as it is now.
    Live,
    /// The operator's file as it was when it was last good.
    LastGood,
    /// The same, as an earlier process has kept it on disk.
    Kept,
    /// As another door has it.
    Peer,
    /// Compiled in.
    CompiledIn,
}

impl PageSource {
    /// All of them, from the top of the ladder.
    pub const ALL: [Self; 5] = [Self::Live, Self::LastGood, Self::Kept, Self::Peer, Self::CompiledIn];

    /// Value of `X-Door-Source`.
    pub fn name(self) -> &'static str {
        match self {
            PageSource::Live => "live",
            PageSource::LastGood => "last-good",
            PageSource::Kept => "kept",
            PageSource::Peer => "peer",
            PageSource::CompiledIn => "compiled-in",
        }
    }
}

/// A page, and where it came from.
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
    pub fn page(&self) -> Result<LastGood, String> {
        let body = BASE64.decode(self.body.as_bytes()).map_err(|_| "it is not base64")?;
        if digest(&body) != self.digest {
            return Err("its digest is another".to_owned());
        }
        problem(&body, "")?;
        let asset = Asset::new(&LIVELY, body.into(), self.modified_unix);
        Ok(LastGood { asset: Arc::new(asset), is_kept: true })
    }
}

/// What the operator's file held when it was read; `Err`: why there is nothing.
pub type PageFile = Result<Bytes, String>;

/// Why some bytes cannot be the page: they are none, or no HTML at all, or have not the marker. The file is being written,
/// or it is the wrong one.
///
/// # Errors
/// That.
pub fn problem(body: &[u8], marker: &str) -> Result<(), String> {
    let has = |part: &[u8]| {
        part.is_empty() || body.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
    };
    match (body.trim_ascii().is_empty(), body.contains(&b'<')) {
        (true, _) => Err("it is empty".to_owned()),
        (false, false) => Err("it is not HTML".to_owned()),
        (false, true) if !has(marker.as_bytes()) => {
            Err(format!("it has no `{marker}` (gateway: `marker` says what every good page has)"))
        }
        (false, true) => Ok(()),
    }
}

/// What would be shown now, if it is good.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The page.
    pub body: PageFile,
    /// It is put together from parts that change.
    pub is_assembled: bool,
    /// Parts that are missing, with nothing in their place.
    pub holes: usize,
}

/// The pages of one host, over time.
#[derive(Clone, Debug, Default)]
pub struct Ladder {
    last_good: Option<LastGood>,
    peer: Option<Arc<Asset>>,
    shrunk_since_ms: Option<u64>,
    shown: Option<Page>,
}

impl Ladder {
    /// Begins with what an earlier process has kept.
    pub fn new(kept: Option<LastGood>) -> Self {
        Self { last_good: kept, ..Self::default() }
    }

    /// The last good page, for the next process to begin with.
    pub fn last_good(&self) -> Option<&LastGood> {
        self.last_good.as_ref()
    }

    /// What another door has; from now on it is a rung.
    ///
    /// # Errors
    /// Why it is none.
    pub fn set_peer(&mut self, body: Bytes, marker: &str, now_unix_ms: u64) -> Result<(), String> {
        problem(&body, marker)?;
        self.peer = Some(Arc::new(Asset::new(&LIVELY, body, now_unix_ms / 1000)));
        Ok(())
    }

    /// The best there is, and what is wrong with what would be better. What is as it was before stays as it is: clients
    /// that have it are told so.
    pub fn choose(
        &mut self,
        live: Option<&Candidate>,
        marker: &str,
        is_meant: bool,
        compiled_in: impl FnOnce() -> String,
        now_unix_ms: u64,
    ) -> (Page, Option<String>) {
        let problem = live.and_then(|live| self.judge(live, marker, is_meant, now_unix_ms).err());
        let page = match (live.map(|live| (&live.body, live)), &problem) {
            (Some((Ok(body), live)), None) => {
                let kind = if live.is_assembled { LIVELY } else { STEADY };
                let asset = self.asset(&kind, body.clone(), now_unix_ms);
                // One with holes is better than none, but not to be gone back to.
                if live.holes == 0 {
                    self.last_good = Some(LastGood { asset: Arc::clone(&asset), is_kept: false });
                    self.peer = None;
                }
                Page { source: PageSource::Live, asset }
            }
            (None, _) => self.compiled_in(compiled_in(), now_unix_ms),
            (Some(_), _) => match (&self.last_good, &self.peer) {
                (Some(last), _) => {
                    let source = if last.is_kept { PageSource::Kept } else { PageSource::LastGood };
                    Page { source, asset: Arc::clone(&last.asset) }
                }
                (None, Some(peer)) => Page { source: PageSource::Peer, asset: Arc::clone(peer) },
                (None, None) => self.compiled_in(compiled_in(), now_unix_ms),
            },
        };
        self.shown = Some(page.clone());
        (page, problem)
    }

    fn compiled_in(&self, body: String, now_unix_ms: u64) -> Page {
        Page { source: PageSource::CompiledIn, asset: self.asset(&LIVELY, body.into(), now_unix_ms) }
    }

    /// What is known with these bytes, else made.
    fn asset(&self, kind: &Kind, body: Bytes, now_unix_ms: u64) -> Arc<Asset> {
        let of_last_good = self.last_good.iter().map(|last| &last.asset);
        let known = of_last_good.chain(self.shown.iter().map(|shown| &shown.asset));
        known
            .into_iter()
            .find(|known| *known.body() == body)
            .map_or_else(|| Arc::new(Asset::new(kind, body, now_unix_ms / 1000)), Arc::clone)
    }

    fn judge(
        &mut self,
        live: &Candidate,
        marker: &str,
        is_meant: bool,
        now_unix_ms: u64,
    ) -> Result<(), String> {
        let body = live.body.as_ref().map_err(Clone::clone)?;
        problem(body, marker)?;
        let last = self.last_good.as_ref().map(|last| last.asset.body().len());
        if live.holes > 0 && last.is_some() {
            return Err(format!("{} of its fragments are missing and have no stub", live.holes));
        }
        if is_meant || last.is_none_or(|last| body.len() >= last / SHRUNK_TO_ONE_IN) {
            self.shrunk_since_ms = None;
            return Ok(());
        }
        let since = *self.shrunk_since_ms.get_or_insert(now_unix_ms);
        if now_unix_ms.saturating_sub(since) >= SHRUNK_MS {
            self.shrunk_since_ms = None;
            return Ok(());
        }
        Err(format!(
            "it has shrunk from {} to {} bytes: if that is meant, send the process SIGHUP, or wait 5 minutes",
            last.unwrap_or_default(),
            body.len()
        ))
    }
}

/// JSON for the inside of a script element: nothing in it ends the element.
pub fn for_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// The page compiled in: the fleet under the newest view, and the server list, which its script keeps fresh. It says no more
/// than the server list does: reasons name machines inside, and are for operators. Names in it are letters, digits and
/// hyphens, by the config's own rule.
pub fn compiled_in(placer: &Placer, servers: &ServerList) -> String {
    let config = placer.steering().config();
    let view = placer.view();
    let title = &config.fleet.name;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript><style>{STYLE}</style></head><body>\
         <h1>{title}</h1><p id=\"news\">Generation {} of the fleet view{}</p>\
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
            "<g class=\"{class}\" id=\"at-{name}\"><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{name}</text></g>",
            x + 8.0,
            y + 4.0,
        );
    }
    page.push_str(
        "</svg><table><thead><tr><th>server</th><th>role</th><th>datacenter</th><th>health</th></tr></thead>\
         <tbody id=\"servers\">",
    );
    for server in &servers.servers {
        let ListedServer { name, role, datacenter, url, health, .. } = server;
        let (health, url) = (health.name(), escape(url));
        let _ = write!(
            page,
            "<tr class=\"{health}\"><td><a href=\"{url}\">{name}</a></td><td>{role}</td><td>{datacenter}</td>\
             <td>{health}</td></tr>"
        );
    }
    let list = for_script(&serde_json::to_string(servers).unwrap_or_default());
    let _ = writeln!(
        page,
        "</tbody></table><p>The same for programs: <a href=\"/v1/servers\">/v1/servers</a>, and for pages: \
         <a href=\"/daemun.js\">/daemun.js</a></p>\
         <script type=\"application/json\" id=\"daemun-servers\">{list}</script>\
         <script src=\"/daemun.js\"></script><script src=\"/daemun-page.js\"></script></body></html>"
    );
    page
}

/// Text for an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

fn class(state: State) -> &'static str {
    match state {
        State::Serving => "serving",
        State::Down => "down",
        State::Draining(_) | State::Drained | State::CatchingUp | State::Ramping(_) => "between",
    }
}
