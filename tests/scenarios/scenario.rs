//! One scenario file: its blocks, and what comes of them.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use daemun_dns::cookie::Secrets;
use daemun_dns::zone::Zone;
use daemun_dns::{Identity, Metrics, Responder, State, Zones, zone_file};
use daemun_fleet::config::GeoSource;
use daemun_fleet::places::RangeFile;
use daemun_fleet::view::{Health, State as DatacenterState};
use daemun_fleet::{Clock, Config, FleetView, Placer, Places, Steering};

use crate::ask::Ask;
use crate::directory;

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Unix time at the start of every scenario, milliseconds.
const START_UNIX_MS: u64 = 1_800_000_000_000;

fn clock() -> Clock {
    Clock {
        monotonic: || NOW.with(Cell::get),
        unix_ms: || START_UNIX_MS + NOW.with(Cell::get).as_millis() as u64,
    }
}

/// A block: its head without the `== `, and its lines.
struct Block {
    head: String,
    body: String,
}

pub(crate) struct Scenario {
    why: String,
    blocks: Vec<Block>,
}

/// What was answered.
pub(crate) struct Played {
    /// The file as it should be.
    pub(crate) text: String,
    /// All replies.
    pub(crate) replies: Vec<Vec<u8>>,
}

impl Scenario {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut scenario = Self { why: String::new(), blocks: Vec::new() };
        for line in text.split_inclusive('\n') {
            match (line.strip_prefix("== "), scenario.blocks.last_mut()) {
                (Some(head), _) => {
                    scenario.blocks.push(Block { head: head.trim_end().to_owned(), body: String::new() });
                }
                (None, Some(block)) => block.body.push_str(line),
                (None, None) => scenario.why.push_str(line),
            }
        }
        if scenario.why.trim().is_empty() {
            return Err("the file does not begin with what must be so, and where that is written".to_owned());
        }
        Ok(scenario)
    }

    fn bodies<'a>(&'a self, head: &'a str) -> impl Iterator<Item = &'a str> {
        self.blocks.iter().filter(move |block| block.head == head).map(|block| block.body.as_str())
    }

    fn file(&self, path: &str) -> Option<String> {
        let own = self.bodies_of(&format!("file {path}"));
        let zone = path.strip_suffix(".zone").and_then(|name| self.bodies_of(&format!("zone {name}")));
        own.or(zone)
    }

    fn bodies_of(&self, head: &str) -> Option<String> {
        self.blocks.iter().find(|block| block.head == head).map(|block| block.body.clone())
    }

    fn read(name: &str) -> String {
        std::fs::read_to_string(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn config(&self) -> Result<Config, Vec<String>> {
        let dns: String = self.bodies("dns").collect();
        let more: String = self.bodies("config").collect();
        let text = Self::read("fleet.toml").replace("#DNS#", &dns) + "\n" + &more;
        Config::parse("daemun.toml", &text)
            .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
    }

    fn zones(&self, config: &Config, steering: &Steering) -> Result<Zones, Vec<String>> {
        let shop = Self::read("shop.test.zone") + &self.bodies("zone").collect::<String>();
        let load = |path: &str| self.file(path).ok_or_else(|| "there is no such file".to_owned());
        let mut zones: Vec<Zone> = Vec::new();
        let mut errors: Vec<String> = Vec::new();
        for zone in &config.dns.zones {
            let text = if zone.file == "shop.test.zone" { Ok(shop.clone()) } else { load(&zone.file) };
            match text.map(|text| zone_file::parse(&zone.file, &text, &zone.name, &load)) {
                Ok(Ok(zone)) => zones.push(zone),
                Ok(Err(problems)) => errors.extend(problems.iter().map(ToString::to_string)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            return Zones::new(zones, steering, "daemun.toml").map_err(|conflicts| {
                conflicts.all.iter().map(|conflict| conflict.error.to_string()).collect()
            });
        }
        Err(errors)
    }

    fn view(&self, config: &Config) -> Result<FleetView, String> {
        let mut view = FleetView::unobserved(config);
        view.generation = 1;
        for line in self.bodies("view").flat_map(str::lines).filter(|line| !line.trim().is_empty()) {
            let (who, what) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            if who == "fail-open" {
                view.fail_open = true;
            } else if who == "unobserved" {
                view.generation = 0;
            } else if who == "stale" {
                // Of the process, not of the view: see `responder`.
            } else if let Some(server) = view.servers.get_mut(who) {
                server.health = match what {
                    "down" => Health::Down,
                    "up" => Health::Up,
                    other => return Err(format!("view: a server is not `{other}`")),
                };
            } else if let Some(datacenter) = view.datacenters.get_mut(who) {
                let ramping = what.strip_prefix("ramping ").and_then(|share| share.parse().ok());
                datacenter.why = "for the scenario".to_owned();
                match (what, ramping) {
                    ("suspected", _) => datacenter.suspected = true,
                    (_, Some(share)) => datacenter.state = DatacenterState::Ramping(share),
                    ("down", _) => datacenter.state = DatacenterState::Down,
                    ("draining", _) => datacenter.state = DatacenterState::Draining(0),
                    ("drained", _) => datacenter.state = DatacenterState::Drained,
                    ("catching-up", _) => datacenter.state = DatacenterState::CatchingUp,
                    ("serving", _) => datacenter.state = DatacenterState::Serving,
                    (other, _) => return Err(format!("view: a datacenter is not `{other}`")),
                }
            } else {
                return Err(format!("view: there is no `{who}`"));
            }
        }
        Ok(view)
    }

    fn responder(&self) -> Result<Result<Responder, Vec<String>>, String> {
        let config = match self.config() {
            Ok(config) => Arc::new(config),
            Err(problems) => return Ok(Err(problems)),
        };
        let places = match &config.geo {
            GeoSource::Ranges(names) => {
                let texts: Vec<String> = names.iter().map(|name| Self::read(name)).collect();
                let files: Vec<RangeFile<'_>> =
                    names.iter().zip(&texts).map(|(name, text)| RangeFile { name, text }).collect();
                Places::from_ranges(&files).map_err(|error| error.to_string())?
            }
            _ => Places::builtin(),
        };
        let steering = Arc::new(Steering::compile(Arc::clone(&config), Arc::new(places)));
        let zones = match self.zones(&config, &steering) {
            Ok(zones) => zones,
            Err(problems) => return Ok(Err(problems)),
        };
        let placer = Placer::new(steering, Arc::new(self.view(&config)?));
        let state = State {
            zones: Arc::new(zones),
            placer: Arc::new(placer),
            identity: Identity { name: "seoul-1".to_owned(), version: "daemun 1.0".to_owned() },
            secrets: Secrets::parse("000102030405060708090a0b0c0d0e0f\nf0e0d0c0b0a090807060504030201000")?,
            is_stale: self.bodies("view").any(|body| body.lines().any(|line| line.trim() == "stale")),
        };
        let metrics = Metrics::new(&prometheus::Registry::new()).map_err(|error| error.to_string())?;
        Ok(Ok(Responder::new(state, metrics, clock())))
    }

    /// Asks everything, in order.
    pub(crate) fn play(&self) -> Result<Played, String> {
        NOW.with(|now| now.set(Duration::from_secs(1000)));
        let mut played = Played { text: self.why.clone(), replies: Vec::new() };
        let responder = self.responder()?;
        let (mut asked, mut last_cookie) = (0, None);
        for (number, block) in self.blocks.iter().enumerate() {
            played.text += &format!("== {}\n", block.head);
            let (word, rest) = block.head.split_once(' ').unwrap_or((&block.head, ""));
            let result = match (word, &responder) {
                ("dns" | "config" | "zone" | "file" | "view", _) => {
                    played.text += &block.body;
                    continue;
                }
                ("refused", Ok(_)) => "it is taken\n".to_owned(),
                ("refused", Err(problems)) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
                ("wait", _) => {
                    let time = rest.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
                    let time = Duration::from_secs_f64(time.ok_or(format!("not a time: `{rest}`"))?);
                    NOW.with(|now| now.set(now.get() + time));
                    String::new()
                }
                ("ask" | "packet", Ok(responder)) => {
                    let ask = Ask::parse(word, rest, last_cookie.as_deref())?;
                    let (text, replies) = ask.play(responder);
                    for reply in &replies {
                        last_cookie = crate::ask::cookie(reply).or(last_cookie);
                    }
                    played.replies.extend(replies);
                    asked += 1;
                    text
                }
                ("ask" | "packet", Err(problems)) => {
                    return Err(format!("not loaded: {}", problems.join("; ")));
                }
                (other, _) => return Err(format!("unknown block `{other}`")),
            };
            played.text += &result;
            if number + 1 < self.blocks.len() {
                played.text.push('\n');
            }
        }
        if asked == 0 && !self.blocks.iter().any(|block| block.head == "refused") {
            return Err("nothing is asked".to_owned());
        }
        Ok(played)
    }
}
