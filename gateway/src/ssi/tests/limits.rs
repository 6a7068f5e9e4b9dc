//! What holds for any page, and what a page that means harm does not get.

use std::borrow::Cow;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::{Fragment, Include, Limits, Sources, Template, assemble, path};
use super::{bytes, filled, table, text};

#[test]
fn work_is_bounded() {
    // Without a budget: 4096 to the fourth.
    let bomb = "<!--# include virtual='/b' --><!--# include virtual='/c' -->".repeat(2048);
    let fragments = [("/a", bomb.as_str()), ("/b", bomb.as_str()), ("/c", bomb.as_str())];
    let assembled = filled("<!--# include virtual='/a' -->", &fragments);
    assert!(!assembled.is_whole && assembled.problems.len() <= 100);
    // Without a limit of values: 2 to the 60th.
    let page =
        "<!--# set var='v' value='xx' -->".to_owned() + &"<!--# set var='v' value='$v$v' -->".repeat(60);
    let assembled = filled(&(page + "<!--# echo var='v' -->"), &[]);
    assert_eq!(assembled.body.len(), 16 * 1024);
    assert!(assembled.problems[0].what.contains("too long"));
    let page: String = (0..300).map(|at| format!("<!--# set var='v{at}' value='' -->")).collect();
    assert!(filled(&page, &[]).problems[0].what.contains("too many"));
    // Problems of all fragments together.
    let many = "<!--# nothing -->".repeat(60);
    let fragments = [("/a", many.as_str()), ("/b", many.as_str())];
    let assembled = filled("<!--# include virtual='/a' --><!--# include virtual='/b' -->", &fragments);
    assert_eq!(assembled.problems.len(), 100);
    // Commands that nothing closes, quotes that nothing closes, more commands than are taken.
    let quote = "<!--# a b=\"".repeat(100_000);
    for page in ["<!--#".repeat(1_000_000), "<!--# a b=\" -->".repeat(100_000), quote.clone(), quote + "-->"]
    {
        let template = Template::parse(&bytes(&page));
        assert!(template.problems().len() <= 100);
        assert!(filled(&page, &[]).body.len() <= page.len());
    }
    let page = "<!--# include virtual='/a' -->".repeat(4097);
    assert_eq!(Template::parse(&bytes(&page)).includes().count(), 4096);
    assert!(text(&filled(&page, &[])).ends_with("<!--# include virtual='/a' -->"));
}

#[test]
fn the_deepest_page_fits_on_a_small_stack() {
    let ifs = "<!--# if expr='a' -->".repeat(7);
    let ends = "<!--# endif -->".repeat(7);
    let body = move |at: usize| {
        let stub = format!("{ifs}<!--# include virtual='/none' stub='s' -->{ends}");
        format!(
            "<!--# block name='s' -->{stub}x<!--# endblock -->{ifs}<!--# include virtual='/{at}' stub='s' -->{ends}"
        )
    };
    let fragments: Vec<_> = (1..10).map(|at| (format!("/{at}"), body(at + 1))).collect();
    let run = move || {
        let fragments: Vec<_> = fragments.iter().map(|(path, body)| (path.as_str(), body.as_str())).collect();
        let limits = Limits { depth: usize::MAX, ..Limits::default() };
        assemble(&Template::parse(&bytes(&body(1))), &table(&fragments), limits)
    };
    let thread = std::thread::Builder::new().stack_size(1024 * 1024).spawn(run).expect("a thread");
    let assembled = thread.join().expect("it fits");
    assert_eq!(text(&assembled), "xxxxxxxx");
    assert!(assembled.problems.iter().any(|problem| problem.what == "`/9` is more than 8 levels deep"));
}

/// Answers most paths with the page itself.
struct Mirror(Bytes);

impl Sources for Mirror {
    fn fragment(&self, include: &Include) -> Fragment {
        if include.path.len().is_multiple_of(3) { Fragment::Missing } else { Fragment::Ready(self.0.clone()) }
    }

    fn variable(&self, name: &str) -> Option<Cow<'_, str>> {
        (name.len() > 1).then(|| Cow::Owned(name.repeat(3)))
    }
}

/// What holds for any page.
fn check(page: &Bytes, limits: Limits) {
    let template = Template::parse(page);
    let problems_are_in_order =
        template.problems().is_sorted_by_key(|problem| (problem.offset, problem.line));
    assert!(problems_are_in_order, "{:?}", template.problems());
    let lines = page.iter().filter(|byte| **byte == b'\n').count() + 1;
    assert!(template.problems().iter().all(|problem| problem.line <= lines && problem.offset < page.len()));
    let assembled = assemble(&template, &Mirror(page.clone()), limits);
    assert!(assembled.body.len() <= limits.bytes);
    assert!(assembled.is_whole || assembled.problems.iter().any(|problem| problem.what.contains("cut")));
    assert!(assembled.problems.len() <= 100);
    let mut paths: Vec<_> = assembled.wanted.iter().map(|include| &include.path).collect();
    assert!(paths.iter().all(|path| path::problem(path.as_bytes()).is_none()));
    assert!(assembled.missing.iter().all(|path| paths.contains(&path)));
    let met = paths.len();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), met, "once each");
    if template.is_plain() && page.len() <= limits.bytes {
        assert_eq!(assembled.body, page);
    }
    assert_eq!(assembled, assemble(&template, &Mirror(page.clone()), limits), "the same each time");
}

const PIECES: [&str; 24] = [
    "<p>text\n</p>",
    "<!--#",
    "-->",
    "\"",
    "'",
    "$",
    "\\",
    "<!--# include virtual=\"/a\" -->",
    "<!--# include virtual=\"/ab\" stub=\"s\" ttl=\"1s\" -->",
    "<!--# include file='/$v/x' -->",
    "<!--# include virtual='/abcd' set='v' -->",
    "<!--# echo var=\"v\" default=\"d\" -->",
    "<!--# echo var='host' encoding='url' -->",
    "<!--# set var=\"v\" value=\"$v${host}\" -->",
    "<!--# if expr=\"$v\" -->",
    "<!--# if expr=\"$v != $host\" -->",
    "<!--# elif expr=\"$host = x\" -->",
    "<!--# else -->",
    "<!--# endif -->",
    "<!--# block name=\"s\" -->",
    "<!--# endblock -->",
    "<!--# config errmsg=\"e\" -->",
    "<!--# exec cmd=\"ls\" -->",
    "ü\0",
];

/// A page of realistic pieces, and a few bytes of it changed.
fn pages() -> impl Strategy<Value = Bytes> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..40);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..6);
    (pieces, changes).prop_map(|(pieces, changes)| {
        let mut page = pieces.concat().into_bytes();
        for (at, byte, is_removed) in changes.into_iter().filter(|_| !pieces.is_empty()) {
            match page.len() {
                0 => {}
                length if is_removed => drop(page.remove(at.index(length))),
                length => page[at.index(length)] = byte,
            }
        }
        page.into()
    })
}

proptest! {
    #[test]
    fn any_bytes(page in prop::collection::vec(any::<u8>(), 0..2000)) {
        check(&page.into(), Limits::default());
    }

    #[test]
    fn any_page(page in pages(), bytes in 0usize..3000, depth in 0usize..5) {
        check(&page, Limits { depth, bytes, steps: 2_000 });
    }

    #[test]
    fn text_without_commands_stays_as_it_is(page in "([^#]|[^-]#){0,300}") {
        let assembled = filled(&page, &[]);
        prop_assert_eq!(text(&assembled), page);
        prop_assert!(assembled.is_whole && assembled.problems.is_empty());
    }

    /// The text between commands comes out, all of it, in order.
    #[test]
    fn text_between_commands_stays(texts in prop::collection::vec("[a-z<!\\-\n ]{0,20}", 1..20)) {
        let page = texts.join("<!--# config timefmt=\"%s\" -->");
        prop_assert_eq!(text(&filled(&page, &[])), texts.concat());
    }
}
