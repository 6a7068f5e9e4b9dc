//! Runs the scenario files beside it: see their README.

mod ask;
mod scenario;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hickory_proto::op::Message;
use scenario::Scenario;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// All scenario files, in the order of their names.
fn files() -> Vec<PathBuf> {
    let inside = |path: PathBuf| {
        fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry of it").path())
    };
    let mut files: Vec<PathBuf> = inside(directory())
        .filter(|path| path.is_dir())
        .flat_map(inside)
        .filter(|path| path.extension().is_some_and(|extension| extension == "scenario"))
        .collect();
    files.sort();
    files
}

#[test]
fn what_is_answered_is_what_is_written() {
    let is_update = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let mut wrong = Vec::new();
    for file in files() {
        let name = file.strip_prefix(directory()).unwrap().display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        let played = Scenario::parse(&text).and_then(|scenario| scenario.play());
        match played {
            Ok(played) if played.text == text => {}
            Ok(played) if is_update => fs::write(&file, played.text).unwrap(),
            Ok(played) => wrong.push(format!("{name}:\n{}", difference(&text, &played.text))),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} scenarios are not so:\n{}", wrong.len(), wrong.join("\n"));
}

/// The lines that differ: `-` as written, `+` as answered.
fn difference(written: &str, answered: &str) -> String {
    let (written, answered): (Vec<&str>, Vec<&str>) = (written.lines().collect(), answered.lines().collect());
    let same = written.iter().zip(&answered).take_while(|(a, b)| a == b).count();
    let same_end =
        written[same..].iter().rev().zip(answered[same..].iter().rev()).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str], sign: &str| -> String {
        lines[same..lines.len() - same_end].iter().map(|line| format!("  {sign} {line}\n")).collect()
    };
    format!("  line {}\n{}{}", same + 1, part(&written, "-"), part(&answered, "+"))
}

#[test]
fn there_are_enough_and_none_says_the_same_as_another() {
    let files = files();
    assert!(files.len() >= 150, "{} scenarios", files.len());
    let mut seen = std::collections::HashMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let blocks: String = text.split_inclusive('\n').skip_while(|line| !line.starts_with("== ")).collect();
        if let Some(other) = seen.insert(blocks, file.clone()) {
            panic!("{} and {} are the same", file.display(), other.display());
        }
    }
}

const RIGHT: &str = "Static data.\n\n== ask mail.shop.test A\nNOERROR aa\nquestion mail.shop.test. IN A\nanswer mail.shop.test. 300 A 192.0.2.25\n";

#[test]
fn a_wrong_expectation_is_caught() {
    let play = |text: &str| Scenario::parse(text).and_then(|scenario| scenario.play()).unwrap().text;
    assert_eq!(play(RIGHT), RIGHT);
    for (from, to) in [("300", "301"), ("aa", ""), ("192.0.2.25", "192.0.2.26"), ("NOERROR", "NXDOMAIN")] {
        let broken = RIGHT.replace(from, to);
        assert_ne!(play(&broken), broken, "{from} as {to}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_said_to_be_so() {
    for (text, said) in [
        ("x\n\n== aks a A\n", "aks"),
        ("x\n\n== ask a\n", "NAME TYPE"),
        ("x\n\n== ask a A +tpc\n", "+tpc"),
        ("x\n\n== view\nseoul asleep\n\n== ask a A\n", "asleep"),
        ("x\n\n== ask bad..name A\n", "bad..name"),
    ] {
        let error = Scenario::parse(text).and_then(|scenario| scenario.play()).err().unwrap_or_default();
        assert!(error.contains(said), "{text}: {error}");
    }
}

/// Whatever we answer, two other implementations parse it and write it again without loss.
#[test]
fn every_answer_survives_hickory_and_dnspython() {
    let mut replies: Vec<Vec<u8>> = Vec::new();
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        if let Ok(played) = Scenario::parse(&text).and_then(|scenario| scenario.play()) {
            replies.extend(played.replies);
        }
    }
    assert!(replies.len() > 100);
    for reply in &replies {
        let message = match Message::from_vec(reply) {
            Ok(message) => message,
            // A record may have no data (RFC 3597 section 5 shows one); the library does not know any.
            Err(error) if format!("{error:?}").contains("InvalidEmptyRecord") => continue,
            Err(error) => panic!("hickory-proto: {error}: {reply:02x?}"),
        };
        let again = Message::from_vec(&message.to_vec().unwrap()).unwrap();
        assert_eq!(message, again);
    }
    let broken = reencode(&replies);
    assert!(broken.is_empty(), "dnspython: {broken}");
    // The checker itself: a reply with a record cut off, and one with a wrong count, are caught.
    let whole = replies.iter().find(|reply| reply[7] > 0 && reply[11] == 0).unwrap();
    let cut = whole[..whole.len() - 1].to_vec();
    let mut more = whole.clone();
    more[7] += 1;
    assert_eq!(reencode(&[cut, more]).lines().count(), 2);
}

/// What dnspython finds wrong, a line each.
fn reencode(replies: &[Vec<u8>]) -> String {
    let mut child = Command::new("/usr/bin/python3")
        .arg(directory().join("reencode.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 (package python3-dnspython)");
    let lines: String = replies.iter().map(|reply| data_encoding::HEXLOWER.encode(reply) + "\n").collect();
    let mut input = child.stdin.take().expect("it is piped");
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads all");
    assert!(output.status.success(), "reencode.py failed: is python3-dnspython installed?");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
