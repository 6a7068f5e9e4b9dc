//! A program of the operator's: it knows what we cannot, and is never trusted to end.
//!
//! It runs in a process group of its own. When its time is up the whole group is killed, so that a script's children
//! do not outlive it. A child that leaves the group, or that a program which ended in time has left behind on purpose,
//! is the operator's.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::said;
use crate::health::Outcome;

/// What is kept of what a program says: its first line is in here.
const SAID_BYTES_MAX: usize = 1024;
/// How long to wait for its last words after its end: a child that it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(50);

pub(super) async fn probe(program: &str, arguments: &[String], environment: [(&str, &str); 3]) -> Outcome {
    let mut command = Command::new(program);
    command.args(arguments).envs(environment);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let child = command.spawn().map_err(|error| format!("cannot start {program}: {}", said(&error)))?;
    let mut running = Running(child);
    let (out, err) = (running.0.stdout.take(), running.0.stderr.take());
    let (mut out_said, mut err_said) = (Vec::new(), Vec::new());
    let ended = {
        // Read to the end, or it would stop at a full pipe.
        let listening = async { tokio::join!(listen(out, &mut out_said), listen(err, &mut err_said)) };
        tokio::pin!(listening);
        tokio::select! {
            ended = running.0.wait() => {
                let _ = tokio::time::timeout(LAST_WORDS, &mut listening).await;
                ended
            }
            _ = &mut listening => running.0.wait().await,
        }
    };
    let ended = ended.map_err(|error| format!("lost {program}: {}", said(&error)))?;
    if ended.success() {
        return Ok(());
    }
    let words = first_line(&out_said).or_else(|| first_line(&err_said));
    let words = words.map(|words| format!(": {words}")).unwrap_or_default();
    Err(format!("{}{words}", how(ended)))
}

/// A program that does not outlive its probe.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // There is no id once it was waited for, so it is nobody else's.
        let Some(id) = self.0.id().and_then(|id| i32::try_from(id).ok()) else { return };
        if let Err(error) = killpg(Pid::from_raw(id), Signal::SIGKILL) {
            tracing::debug!(id, %error, "killing a probe");
        }
    }
}

/// Keeps the beginning of what is said, and takes in the rest.
async fn listen(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; SAID_BYTES_MAX];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let room = SAID_BYTES_MAX - kept.len();
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
}

fn first_line(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    said.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

fn how(ended: ExitStatus) -> String {
    match (ended.code(), ended.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
