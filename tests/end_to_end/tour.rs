//! The tour passes, and fails when it should. Networks 127.20 and 127.21.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::fleet::{daemun, text};

#[test]
fn the_tour_passes() {
    let directory = TempDir::new().unwrap();
    let output =
        daemun().args(["lab", "--tour", "--network", "127.20", "--directory"]).arg(directory.path()).output();
    let output = output.unwrap();
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}{}", text(&output.stderr));
    for part in [
        "is sent to seoul",
        "is sent to frankfurt",
        "is sent to virginia",
        "all up",
        "SIGKILL",
        "to frankfurt again",
        "All of it was so",
    ] {
        assert!(told.contains(part), "no `{part}` in\n{told}");
    }
    println!("{told}");
}

#[test]
fn a_process_that_dies_on_the_way_fails_the_tour_and_names_the_step() {
    let directory = TempDir::new().unwrap();
    let mut tour = daemun()
        .args(["lab", "--tour", "--network", "127.21", "--directory"])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seoul = None;
    for line in BufReader::new(tour.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("start   seoul") {
            seoul = line.rsplit(' ').next().and_then(|pid| pid.parse::<i32>().ok());
        }
        if line.contains("frankfurt's process is killed") {
            kill(Pid::from_raw(seoul.expect("its pid was printed")), Signal::SIGKILL).unwrap();
        }
    }
    let mut said = String::new();
    tour.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(tour.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("step 4, lose") && said.contains("the process of seoul ended"), "{said}");
}
