//! The fuzzer's targets without the fuzzer: the committed corpus, and so many mutations of it (`FUZZ_INPUTS`), the same
//! in every run. `tests/run --long` also runs the targets under libFuzzer.

mod bodies;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Inputs of each target, unless told otherwise.
const INPUTS: u64 = 40_000;

fn inputs() -> u64 {
    std::env::var("FUZZ_INPUTS").map_or(INPUTS, |text| text.parse().expect("FUZZ_INPUTS is a number"))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("a corpus")
        .map(|entry| entry.expect("an entry of it").path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file of it")).collect()
}

/// A small generator of numbers that look random: splitmix64 (Steele, Lea and Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// A few changes of the kinds that parsers stumble over.
fn mutate(corpus: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut data = corpus[numbers.below(corpus.len())].clone();
    for _ in 0..1 + numbers.below(6) {
        let at = numbers.below(data.len());
        let until = (at + 1 + numbers.below(16)).min(data.len());
        match numbers.below(8) {
            _ if data.is_empty() => data.push(numbers.next() as u8),
            0 => data[at] ^= 1 << numbers.below(8),
            1 => data[at] = [0, 1, 0x3f, 0x40, 0xc0, 0xff][numbers.below(6)],
            2 => data.insert(at, numbers.next() as u8),
            3 => drop(data.drain(at..until)),
            4 => {
                let part = data[at..until].to_vec();
                data.splice(at..at, part);
            }
            5 => data.truncate(at),
            6 => {
                let other = &corpus[numbers.below(corpus.len())];
                let from = numbers.below(other.len());
                data.splice(at.., other[from.min(other.len())..].iter().copied());
            }
            _ => data[at] = numbers.next() as u8,
        }
    }
    data
}

fn run(target: &str, body: fn(&[u8])) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 10, "{} inputs in the corpus of {target}", corpus.len());
    for input in &corpus {
        body(input);
    }
    let mut numbers = Numbers(1);
    let wanted = inputs();
    for number in 0..wanted {
        let input = mutate(&corpus, &mut numbers);
        if catch_unwind(|| body(&input)).is_err() {
            panic!("{target}, input {number}: {}", data_encoding::HEXLOWER.encode(&input));
        }
    }
    println!("{target}: {} inputs of the corpus, {wanted} mutations", corpus.len());
}

#[test]
fn any_packet() {
    run("packet", bodies::packet);
}

#[test]
fn any_zone_file() {
    run("zone", bodies::zone);
}

#[test]
fn any_page() {
    run("ssi", bodies::ssi);
}

#[test]
fn any_bytes_at_the_door() {
    run("request", bodies::request);
}

#[test]
fn any_path() {
    run("path", bodies::path);
}

/// The check itself: replies of a door that break a rule are caught.
#[test]
fn a_reply_of_a_door_that_breaks_a_rule_is_caught() {
    let asked = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let good = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 22\r\n\
                date: Fri, 15 Jan 2027 08:00:00 GMT\r\n\r\n<p>the page</p></html>";
    bodies::check_replies(asked, good.as_bytes());
    for (what, from, to) in [
        ("a body that no file has", "the page", "a secret"),
        ("no length", "content-length: 22\r\n", ""),
        ("two lengths", "content-length: 22", "content-length: 22\r\ncontent-length: 22"),
        ("a shorter length: the rest is no reply", "length: 22", "length: 21"),
        ("no date", "date: Fri", "dated: Fri"),
        ("a status that is never answered", "200 OK", "502 Bad"),
        ("a broken line", "text/html", "text\nhtml"),
        ("both", "content-length: 22", "content-length: 22\r\ntransfer-encoding: chunked"),
    ] {
        let broken = good.replacen(from, to, 1);
        assert_ne!(broken, good, "{what}");
        assert!(catch_unwind(|| bodies::check_replies(asked, broken.as_bytes())).is_err(), "{what}");
    }
    assert!(
        catch_unwind(|| bodies::check_replies(asked, good.repeat(3).as_bytes())).is_err(),
        "three replies to one"
    );
}

/// The check itself: replies that break a rule are caught.
#[test]
fn a_reply_that_breaks_a_rule_is_caught() {
    use daemun_dns::Transport::Udp;
    let query = b"\x12\x34\0\0\0\x01\0\0\0\0\0\0\x03www\x04shop\x04test\0\0\x01\0\x01";
    let mut reply = query.to_vec();
    reply[2] = 0x80;
    bodies::check(query, &reply, Udp);
    type Break = fn(&mut Vec<u8>);
    let breaks: [(&str, Break); 7] = [
        ("number", |reply| reply[0] ^= 1),
        ("not a response", |reply| reply[2] = 0),
        ("recursion", |reply| reply[3] = 0x80),
        ("SERVFAIL", |reply| reply[3] = 2),
        ("another question", |reply| reply[13] = b'v'),
        ("an OPT that nobody asked for", |reply| {
            reply[11] = 1;
            reply.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        }),
        ("cut", |reply| reply.truncate(20)),
    ];
    for (what, break_it) in breaks {
        let mut broken = reply.clone();
        break_it(&mut broken);
        assert!(catch_unwind(|| bodies::check(query, &broken, Udp)).is_err(), "{what}");
    }
}
