//! Programs that end, and some that do not.

use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::*;

fn sh(script: &str) -> Target {
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    target(Check::Exec { program: "/bin/sh".to_owned(), arguments })
}

#[tokio::test]
async fn a_program_exits_with_0() {
    let run = |script: &'static str| async { sh(script).probe(PATIENT).await };
    assert_eq!(run("exit 0").await, Ok(()));
    assert_eq!(run("cat; echo to nobody; exit 0").await, Ok(()), "nothing to read");
    assert_eq!(run("exit 7").await, no("exited with 7"));
    assert_eq!(run("echo; echo disk full; echo more; exit 2").await, no("exited with 2: disk full"));
    assert_eq!(run("echo disk full >&2; exit 2").await, no("exited with 2: disk full"));
    assert_eq!(run("kill -9 $$").await, no("was ended by signal 9"));
    assert_eq!(run("head -c 300000 /dev/zero; exit 0").await, Ok(()), "more than a pipe holds");
    let environment = "echo $DAEMUN_SERVER $DAEMUN_ADDRESS $DAEMUN_DATACENTER; exit 1";
    assert_eq!(run(environment).await, no("exited with 1: api-1 127.0.0.1 seoul"));
    let said = run("head -c 5000 /dev/zero | tr '\\0' x; exit 1").await.unwrap_err();
    assert_eq!(said.chars().count(), REASON_CHARS_MAX + 1, "{said}");
    let said = run("printf '\\033[31mred\\n'; exit 1").await;
    assert_eq!(said, no("exited with 1:  [31mred"), "no control characters");
    let gone = Check::Exec { program: "/no/such/program".to_owned(), arguments: Vec::new() };
    assert_eq!(probe(gone).await, no("cannot start /no/such/program: no such file or directory"));
}

/// Whether a process runs; one that is dead and not yet waited for does not.
fn runs(id: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(id).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

async fn until(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENT, waiting).await.expect("it comes to be");
}

#[tokio::test]
async fn a_program_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ids");
    let script = format!("sleep 1000 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", file.display());
    let ids = || -> Vec<String> {
        let ids = std::fs::read_to_string(&file).unwrap_or_default();
        ids.split_whitespace().map(str::to_owned).collect()
    };
    // A busy machine may not come to start it in one short time-out.
    while ids().is_empty() {
        assert_eq!(sh(&script).probe(HASTY).await, no("no answer within 300 ms"));
    }
    until(|| ids().iter().all(|id| !runs(id))).await;

    // The same when nobody waits for the outcome any more.
    std::fs::remove_file(&file).unwrap();
    let mut tasks = JoinSet::new();
    let target = sh(&script);
    tasks.spawn(async move { target.probe(PATIENT).await });
    until(|| ids().len() == 2).await;
    assert!(ids().iter().all(|id| runs(id)));
    drop(tasks);
    until(|| ids().iter().all(|id| !runs(id))).await;
}

#[tokio::test]
async fn a_child_that_holds_the_pipe_does_not_hold_the_probe() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("id");
    let script = format!("sleep 1000 & echo $! > {}; echo broken; exit 3", file.display());
    assert_eq!(sh(&script).probe(PATIENT).await, no("exited with 3: broken"));
    let id = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(id), Signal::SIGKILL).unwrap();
}
