//! A drill while it runs, from a command line: what happens is told, visits are made from here too, Ctrl-C ends it well.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use daemun_sync::drill::course::Course;
use daemun_sync::drill::drills::Progress;
use daemun_sync::drill::lead::COMMAND_LINE;
use daemun_sync::drill::plan::Asked;
use daemun_sync::drill::report::Report;
use daemun_sync::drill::samples::{Found, Samples};
use daemun_sync::drill::witness::{Sink, Witness};
use daemun_sync::drill::word::{Stage, Word};
use reqwest::StatusCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::encoded;
use crate::Failure;
use crate::admin::drills::{Aborted, Now, Planned, ToAbort, ToRecord, Witnessed};
use crate::client::Line;
use crate::clock;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(300);
/// Who does not answer for so long is asked again.
const PATIENCE: Duration = Duration::from_secs(35);
/// After its time a drill's report is waited for so long: it is written when all is counted.
const LATE: Duration = Duration::from_secs(60);
/// The part of the visits before the faults that must go well for those from here to count.
const WELL_PERCENT: usize = 90;

/// Whether the person at the terminal says so.
pub(super) fn is_confirmed(planned: &Planned) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Wrong(anyhow!("nobody is at a terminal to say so: --yes")));
    }
    eprint!("Run it on {}? Type its name: ", planned.word.target);
    std::io::stderr().flush().context("asking")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("asking")?;
    Ok(answer.trim() == planned.word.target.to_string())
}

/// Runs a drill to its report.
pub(super) async fn run(line: &Line, asked: &Asked, has_witness: bool) -> Result<Report, Failure> {
    // From before anything begins: a Ctrl-C is never the end of us alone.
    let interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let said = line.post("/v1/drills", asked).await?;
    let planned: Planned = match said.code {
        StatusCode::OK => said.read()?,
        StatusCode::UNPROCESSABLE_ENTITY => return Err(Failure::Wrong(said.error())),
        StatusCode::CONFLICT => {
            eprint!("{}", super::show::plan(&said.read::<Planned>()?));
            return Err(super::refused());
        }
        _ => return Err(Failure::Failed(said.error())),
    };
    eprintln!("{} has begun; Ctrl-C ends it and undoes it", planned.word.id);
    let line = Arc::new(Line::clone(line));
    let mut watch = Watch {
        line: Arc::clone(&line),
        asked: asked.clone(),
        word: planned.word.clone(),
        screen: Screen::default(),
        from: 0,
        witness: None,
    };
    if has_witness {
        watch.begin_witness().await;
    }
    let scenario = &planned.word.scenario;
    let all = Duration::from_millis(planned.bound_ms + scenario.recover_ms) + LATE;
    Ok(watch.follow(clock::monotonic() + all, interrupt).await?)
}

struct Watch {
    line: Arc<Line>,
    asked: Asked,
    word: Word,
    screen: Screen,
    from: u64,
    witness: Option<Local>,
}

/// The witness here.
struct Local {
    witness: Arc<Witness>,
    /// Its task ends with this.
    _task: JoinSet<()>,
    /// Which samples were handed in.
    counted: (u64, u64),
    /// What it saw before anything failed, and whether it counts.
    before: Vec<Samples>,
    counts: Option<bool>,
}

impl Watch {
    async fn begin_witness(&mut self) {
        let course = match self.line.get("/v1/drills/course").await.and_then(|said| said.done::<Course>()) {
            Ok(course) => course,
            Err(error) => return self.screen.say(&format!("no visits from here: {error:#}")),
        };
        let sink = Records {
            line: Arc::clone(&self.line),
            id: self.word.id.clone(),
            durability: self.word.scenario.durability.clone(),
        };
        let home = self.word.target.datacenter();
        let witness =
            Witness::new(COMMAND_LINE, course, home, clock::unix_ms(), clock::machine(), Arc::new(sink));
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&witness).run());
        self.witness =
            Some(Local { witness, _task: task, counted: (0, 0), before: Vec::new(), counts: None });
    }

    async fn follow(mut self, until: Duration, mut interrupt: Signal) -> anyhow::Result<Report> {
        let mut interrupted = false;
        while clock::monotonic() < until {
            // Whatever is being asked: who wants it to end is heard at once.
            let looked = tokio::select! {
                looked = self.look() => looked,
                _ = interrupt.recv() => None,
                () = sleep(PATIENCE) => {
                    self.screen.once("nobody answers");
                    continue;
                }
            };
            match looked {
                Some(Some(report)) => return Ok(*report),
                Some(None) => {}
                None if std::mem::replace(&mut interrupted, true) => {
                    return Err(anyhow!("not waited for any longer: `daemun drill report` has it soon"));
                }
                None => self.abort().await,
            }
        }
        self.screen.end();
        let id = &self.word.id;
        Err(anyhow!(
            "no report of {id}: its leader is lost, every agent has undone it by its own timer (`daemun status`)"
        ))
    }

    /// One look at how it goes; the report, once there is one.
    async fn look(&mut self) -> Option<Option<Box<Report>>> {
        sleep(LOOK).await;
        let at = format!("/v1/drills/now?from={}", self.from);
        let now = match self.line.get(&at).await.and_then(|said| said.done::<Now>()) {
            Ok(now) => now,
            Err(error) => {
                // It goes on without us, and undoes itself.
                self.screen.once(&format!("nobody says how it goes: {error:#}"));
                return Some(None);
            }
        };
        let word = now.word.filter(|word| word.id == self.word.id);
        let progress = now.progress.filter(|progress| progress.id == self.word.id);
        let is_counting = progress.as_ref().is_some_and(|progress| progress.is_counting);
        if let (Some(local), true) = (&self.witness, is_counting) {
            local.witness.stop();
        }
        if let Some(word) = &word {
            self.hand_in(word).await;
        }
        if let Some(progress) = progress {
            self.from = progress.lines.last().map_or(self.from, |(number, ..)| number + 1);
            self.screen.show(&progress);
        } else if let Some(why) = now.failure {
            self.screen.once(&format!("who leads it does not say how it goes: {why}"));
        }
        if word.is_some_and(|word| !matches!(word.stage, Stage::Closed(_))) {
            return Some(None);
        }
        let at = format!("/v1/drills/report?id={}", encoded(&self.word.id));
        let report = self.line.get(&at).await.and_then(|said| said.done::<Report>()).ok();
        if report.is_some() {
            self.screen.end();
        }
        Some(report.map(Box::new))
    }

    async fn abort(&mut self) {
        let told = ToAbort { by: self.asked.by.clone(), reason: "Ctrl-C".to_owned() };
        self.screen.say("ending it, and waiting until all is back; Ctrl-C again does not wait");
        match super::abort(&self.line, &told).await {
            Ok(Aborted { id: Some(_) }) => {}
            Ok(Aborted { id: None }) => self.screen.say("nothing fails any more"),
            Err(error) => self.screen.say(&format!("nobody was told ({error:#}): it ends by its own timers")),
        }
    }

    /// What the witness here has seen, if it saw well before anything failed: a command line that does not get to the doors
    /// says nothing of the users.
    async fn hand_in(&mut self, word: &Word) {
        let Some(local) = &mut self.witness else { return };
        let samples = local.witness.samples(local.counted.0, local.counted.1);
        let counted = (samples.life, samples.next);
        if word.stage == Stage::Armed {
            local.counted = counted;
            return local.before.push(samples);
        }
        let counts = *local.counts.get_or_insert_with(|| {
            let visits: Vec<_> = local.before.iter().flat_map(|samples| &samples.visits).collect();
            let well = visits.iter().filter(|visit| visit.failure.is_none()).count();
            let counts = !visits.is_empty() && well * 100 >= visits.len() * WELL_PERCENT;
            if !counts {
                let why = visits.iter().find_map(|visit| visit.failure.clone());
                let why = why.unwrap_or_else(|| "no visit has ended".to_owned());
                self.screen.say(&format!(
                    "visits from here do not count, as they failed before anything did: {why}"
                ));
            }
            counts
        });
        if !counts {
            return self.witness = None;
        }
        // What was not taken is handed in again.
        local.before.push(samples);
        local.counted = counted;
        while let Some(samples) = local.before.first() {
            let told =
                Witnessed { id: self.word.id.clone(), unix_ms: clock::unix_ms(), samples: samples.clone() };
            match self.line.post("/v1/drills/witnessed", &told).await {
                Ok(said) if said.code.is_success() => drop(local.before.remove(0)),
                Ok(said) => {
                    return self.screen.once(&format!("what was seen from here waits: {:#}", said.error()));
                }
                Err(error) => return self.screen.once(&format!("what was seen from here waits: {error:#}")),
            }
        }
    }
}

/// Records of the witness here go by way of the agent that is asked.
struct Records {
    line: Arc<Line>,
    id: String,
    durability: String,
}

impl Sink for Records {
    fn write(
        &self,
        datacenter: &str,
        found: Found,
        patience: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        let (line, id, durability) = (Arc::clone(&self.line), self.id.clone(), self.durability.clone());
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let told = ToRecord { id, datacenter: datacenter.to_owned(), found, durability, patience_ms };
        Box::pin(async move {
            let said = line.post("/v1/drills/record", &told).await.map_err(|error| format!("{error:#}"))?;
            if said.code.is_success() { Ok(()) } else { Err(said.error().to_string()) }
        })
    }
}

/// Where progress is shown: a table that stays in its place on a terminal, else a line for each thing that happens.
#[derive(Default)]
struct Screen {
    /// Lines of the table that stands there now.
    drawn: usize,
    said: String,
    stage: String,
}

impl Screen {
    fn clear(&mut self) {
        if self.drawn > 0 {
            eprint!("\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    fn say(&mut self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    /// The same again is said once.
    fn once(&mut self, text: &str) {
        if self.said != text {
            self.said = text.to_owned();
            self.say(text);
        }
    }

    fn show(&mut self, progress: &Progress) {
        self.clear();
        for (_, at_unix_ms, text) in &progress.lines {
            let at = std::time::UNIX_EPOCH + Duration::from_millis(*at_unix_ms);
            let at = humantime::format_rfc3339_millis(at).to_string();
            eprintln!("{}  {text}", at.get(11..23).unwrap_or_default());
        }
        if !std::io::stderr().is_terminal() {
            if self.stage != progress.stage {
                self.stage.clone_from(&progress.stage);
                eprintln!("{}", progress.stage);
            }
            return;
        }
        let mut table = format!("\n  {}", progress.stage);
        if let Some(left) = progress.left_ms {
            let _ = write!(table, "; every agent undoes it in {} s at the latest", left.div_ceil(1000));
        }
        table.push('\n');
        for (witness, (well, failed)) in &progress.witnesses {
            let _ = writeln!(
                table,
                "  users in {witness:<14} {well:>5} served {failed:>5} failed in ten seconds"
            );
        }
        for (name, state) in &progress.states {
            let served = progress.served.get(name).copied().unwrap_or(0);
            let _ = writeln!(table, "  {name:<23} {state:<12} {served:>5} visits");
        }
        let (acknowledged, failed) = progress.records;
        let _ = writeln!(table, "  {acknowledged} writes acknowledged, {failed} tries failed");
        eprint!("{table}");
        self.drawn = table.matches('\n').count();
    }

    fn end(&mut self) {
        self.clear();
    }
}
