use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{Assembled, Fragment, Include, Limits, Sources, Template, assemble};

mod limits;

/// Fragments and variables by their names.
#[derive(Default)]
struct Table {
    fragments: BTreeMap<String, Bytes>,
    variables: BTreeMap<String, String>,
    asked: RefCell<Vec<String>>,
}

impl Sources for Table {
    fn fragment(&self, include: &Include) -> Fragment {
        self.asked.borrow_mut().push(include.path.clone());
        self.fragments.get(&include.path).map_or(Fragment::Missing, |body| Fragment::Ready(body.clone()))
    }

    fn variable(&self, name: &str) -> Option<Cow<'_, str>> {
        self.variables.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }
}

fn table(fragments: &[(&str, &str)]) -> Table {
    let fragments = fragments.iter().map(|(path, body)| ((*path).to_owned(), bytes(body))).collect();
    let variables =
        [("host", "shop.test"), ("arg_q", "<a href=\"x\">'&"), ("empty", ""), ("uri", "/a b/ü?q")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Table { fragments, variables: variables.into(), asked: RefCell::default() }
}

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn filled(page: &str, fragments: &[(&str, &str)]) -> Assembled {
    assemble(&Template::parse(&bytes(page)), &table(fragments), Limits::default())
}

fn text(assembled: &Assembled) -> String {
    String::from_utf8(assembled.body.to_vec()).expect("text")
}

/// What comes out of a page in which nothing is wrong.
fn shown(page: &str) -> String {
    let assembled = filled(page, &[("/a", "[A]"), ("/b", "[B]"), ("/empty", "")]);
    assert_eq!(assembled.problems, [], "{page}");
    assert!(assembled.is_whole);
    text(&assembled)
}

/// The one thing that is wrong with a page, and what comes out.
fn wrong(page: &str) -> (String, String) {
    let assembled = filled(&format!("<!--# config errmsg=\"E\" -->{page}"), &[("/a", "[A]")]);
    assert_eq!(assembled.problems.len(), 1, "{page}: {:?}", assembled.problems);
    assert!(assembled.is_whole);
    (assembled.problems[0].what.clone(), text(&assembled))
}

#[test]
fn how_commands_are_written() {
    for (page, expected) in [
        ("x<!--#include virtual=\"/a\"-->y", "x[A]y"),
        ("x<!--# \t\r\ninclude\n virtual = '/a' \n-->y", "x[A]y"),
        (
            "<!--# set var=\"v\" value='a \"b\" -->' --><!--# echo var=\"v\" encoding=\"none\" -->",
            "a \"b\" -->",
        ),
        (r#"<!--# set var="v" value="\"\$\\\'\n" --><!--# echo var="v" encoding="none" -->"#, r#""$\'\n"#),
        (r"<!--# set var='v' value='\\' --><!--# echo var='v' -->", "\\"),
        ("<<!<!-<!--<!-- # a --><!--# set var='v' value='' -->", "<<!<!-<!--<!-- # a -->"),
        ("<!-<!--# include virtual='/a' --->", "<!-<!--# include virtual='/a' --->"),
        ("<!--#include virtual='/a'--><!--#include virtual='/b'-->", "[A][B]"),
    ] {
        // A command that is not closed as it should be is a problem, looked at below.
        if page.ends_with("--->") {
            assert_eq!(wrong(page).1, "<!-E");
        } else {
            assert_eq!(shown(page), expected, "{page}");
        }
    }
}

#[test]
fn what_is_not_closed_is_text() {
    for page in
        ["a<!--#", "a<!--# include virtual=\"/a\" --", "a<!--# include virtual=\"/a -", "<!--# <!--# if"]
    {
        let template = Template::parse(&bytes(page));
        assert!(template.is_plain());
        assert_eq!(template.problems().len(), 1);
        assert_eq!(text(&filled(page, &[])), page);
    }
    let page = "<!--# include virtual='/a' --> <!--# include virtual='/a";
    assert_eq!(text(&filled(page, &[("/a", "A")])), "A <!--# include virtual='/a");
}

#[test]
fn a_forgotten_quote_takes_no_more_than_its_command() {
    let page = "<!--# include virtual=\"/a -->x<!--# include virtual='/a' -->y";
    let assembled = filled(page, &[("/a", "[A]")]);
    assert_eq!(text(&assembled), "x[A]y");
    assert!(assembled.problems[0].what.contains("quote"));
}

#[test]
fn what_is_wrong_with_a_command() {
    for (command, word) in [
        ("", "no name"),
        ("nothing", "no command is called `nothing`"),
        ("INCLUDE virtual=\"/a\"", "no command"),
        ("exec cmd=\"ls\"", "never"),
        ("region nav", "no `=`"),
        ("echo var", "no `=`"),
        ("echo var=a", "no quote"),
        ("echo var=\"a\"default=\"b\"", "not closed"),
        ("echo var=\"a\" - -", "no name"),
        ("echo name=\"a\"", "no attribute `name`"),
        ("echo var=\"a\" var=\"b\"", "two `var`"),
        ("echo", "without `var`"),
        ("echo var=\"a-b\"", "letters"),
        ("echo var=\"a\" encoding=\"html\"", "none, url or entity"),
        ("set var=\"a\"", "without `value`"),
        ("set value=\"a\"", "without `var`"),
        ("set var=\"a\" value=\"$\"", "without the name"),
        ("set var=\"a\" value=\"${}\"", "without the name"),
        ("set var=\"a\" value=\"${a\"", "not closed"),
        ("include", "without `virtual` or `file`"),
        ("include virtual=\"/a\" file=\"/a\"", "both"),
        ("include virtual=\"/a\" set=\"a\" stub=\"b\"", "both"),
        ("include virtual=\"\"", "does not begin"),
        ("include virtual=\"a\"", "does not begin"),
        ("include virtual=\"http://a/\"", "does not begin"),
        ("include virtual=\"/a/../b\"", ".."),
        ("include virtual=\"/$empty../b\"", ".."),
        ("include virtual=\"$host/b\"", "does not begin"),
        ("else", "without `if`"),
        ("elif expr=\"$a\"", "without `if`"),
        ("endif", "without `if`"),
        ("endblock", "without `block`"),
        ("config font=\"a\"", "no attribute"),
    ] {
        let (what, page) = wrong(&format!("x<!--# {command} -->y"));
        assert!(what.contains(word), "{command}: {what}");
        assert_eq!(page, "xEy", "{command}");
    }
    let long = "a".repeat(1025);
    assert!(wrong(&format!("<!--# echo var=\"{long}\" -->")).0.contains("too long"));
    assert!(wrong(&format!("<!--# {} -->", &long[..33])).0.contains("too long"));
    let many = "a='' ".repeat(17);
    assert!(wrong(&format!("<!--# echo {many} -->")).0.contains("too many"));
}

#[test]
fn the_text_for_an_error_is_empty_unless_the_page_sets_one() {
    assert_eq!(text(&filled("a<!--# nothing -->b", &[])), "ab");
    let page = "<!--# nothing --><!--# config errmsg=\"[1]\" timefmt=\"%s\" --><!--# nothing -->\
                <!--# include virtual=\"/a\" --><!--# config errmsg=\"[2]\" --><!--# nothing -->";
    let assembled = filled(page, &[("/a", "<!--# nothing -->")]);
    assert_eq!(text(&assembled), "[1][2]", "a fragment has its own");
    assert_eq!(assembled.problems.len(), 4);
    assert_eq!(shown("<!--# if expr=\"$empty\" --><!--# config errmsg=\"[1]\" --><!--# endif -->"), "");
}

#[test]
fn problems_say_where_they_are() {
    let page = "a\n<!--# x -->\n\n<!--# if expr=\"$a\" --> <!--# y -->\n<!--# include virtual=\"/a\" -->";
    let assembled = filled(&page.replace("expr=\"$a\"", "expr=\"a\""), &[("/a", "\n\n <!--# z -->")]);
    let places: Vec<_> = assembled
        .problems
        .iter()
        .map(|problem| (problem.path.as_deref(), problem.offset, problem.line))
        .collect();
    assert_eq!(places, [(None, 2, 2), (None, 15, 4), (None, 37, 4), (Some("/a"), 3, 3)]);
    let said: Vec<_> = assembled.problems.iter().map(ToString::to_string).collect();
    assert_eq!(said[0], "line 2: no command is called `x`");
    assert_eq!(said[1], "line 4: `if` without `endif`");
    assert_eq!(said[3], "/a, line 3: no command is called `z`");
}

#[test]
fn echo() {
    for (command, expected) in [
        ("var='host'", "shop.test"),
        ("var='HOST'", "shop.test"),
        ("var='arg_q'", "&lt;a href=&quot;x&quot;&gt;&#39;&amp;"),
        ("var='arg_q' encoding='entity'", "&lt;a href=&quot;x&quot;&gt;&#39;&amp;"),
        ("var='arg_q' encoding='none'", "<a href=\"x\">'&"),
        ("var='uri' encoding='url'", "/a%20b/%C3%BC?q"),
        ("var='arg_q' encoding='url'", "%3Ca%20href=%22x%22%3E%27&"),
        ("var='unknown'", "(none)"),
        ("var='unknown' default=''", ""),
        ("var='unknown' default='<$host>'", "&lt;$host&gt;"),
        ("var='empty' default='x'", ""),
    ] {
        assert_eq!(shown(&format!("<!--# echo {command} -->")), expected, "{command}");
    }
    let page = "<!--# echo var='arg_q' encoding='none' --><!--# echo var='arg_q' -->";
    assert!(shown(page).ends_with("&amp;"), "an encoding is for one echo");
}

#[test]
fn set() {
    let echo = "<!--# echo var='v' encoding='none' -->";
    for (value, expected) in [
        ("a b", "a b"),
        ("", ""),
        ("$host", "shop.test"),
        ("x${host}y", "xshop.testy"),
        ("$host$host.", "shop.testshop.test."),
        ("$hostx", ""),
        ("${HOST}", "shop.test"),
        (r"\$host", "$host"),
        ("a}", "a}"),
    ] {
        let set = format!("<!--# set var='V' value='{value}' -->");
        assert_eq!(shown(&format!("{set}{echo}")), expected, "{value}");
    }
    let page = "<!--# set var='host' value='mine' --><!--# set var='v' value='$host' -->";
    assert_eq!(shown(&format!("{page}{echo}")), "mine", "a page's own come first");
    let page = "<!--# set var='v' value='1' --><!--# set var='v' value='${v}2' -->";
    assert_eq!(shown(&format!("{page}{echo}")), "12");
}

#[test]
fn conditions() {
    for (expression, expected) in [
        ("$host", true),
        ("${host}", true),
        ("$HOST", true),
        ("$empty", false),
        ("$unknown", false),
        ("text", true),
        ("", false),
        ("$host ", true),
        ("$host = shop.test", true),
        ("$host=shop.test", true),
        ("$host = shop.test ", false),
        ("$host = other", false),
        ("$host != shop.test", false),
        ("$host != other", true),
        ("$empty =", true),
        ("$host =", false),
        ("$unknown = $empty", true),
        ("$host = $host", true),
        ("a$host = ashop.test", true),
        ("$empty != a b", true),
        ("/ = /", false),
        (r"$empty/ = \/", false),
        ("$host = /", false),
    ] {
        let page = format!("<!--# if expr='{expression}' -->yes<!--# else -->no<!--# endif -->");
        let assembled = filled(&page, &[]);
        assert_eq!(text(&assembled), if expected { "yes" } else { "no" }, "{expression}");
        assert_eq!(assembled.problems.is_empty(), !expression.contains("/ ="), "{expression}");
    }
    let page = r"<!--# set var='v' value='/x' --><!--# if expr='$v = \/x' -->yes<!--# endif -->";
    assert_eq!(shown(page), "yes");
    for expression in
        ["$host = /shop/", "$host != /x/", "$host = /x", "$host > a", " $host", "$", "${host", "! $a"]
    {
        let page = format!("<!--# if expr='{expression}' -->yes<!--# else -->no<!--# endif -->");
        let (what, page) = wrong(&page);
        assert_eq!(page, "Eno", "{expression}");
        let is_regular = expression.contains("/x") || expression.contains("/shop");
        assert_eq!(what.contains("regular expressions"), is_regular, "{what}");
    }
}

#[test]
fn branches() {
    let page = |one: &str, two: &str| {
        format!(
            "(<!--# if expr='{one}' -->1<!--# elif expr='{two}' -->2<!--# include virtual='/a' --><!--# else -->3<!--# endif -->)"
        )
    };
    assert_eq!(shown(&page("a", "a")), "(1)");
    assert_eq!(shown(&page("", "a")), "(2[A])");
    assert_eq!(shown(&page("", "")), "(3)");
    assert_eq!(
        shown("<!--# if expr='' -->1<!--# elif expr='' -->2<!--# elif expr='a' -->3<!--# endif -->"),
        "3"
    );
    assert_eq!(shown("<!--# if expr='' -->1<!--# endif -->2"), "2");
    let page = "<!--# if expr='a' -->1<!--# else -->2<!--# else -->3<!--# endif -->4";
    assert!(wrong(page).0.contains("`else` after `else`"));
    assert_eq!(wrong(page).1, "14");
    let page = "<!--# if -->1<!--# else -->2<!--# endif -->";
    assert_eq!(wrong(page), ("`if` without `expr`".to_owned(), "E2".to_owned()));
    let page = "1<!--# if expr='a' -->2";
    assert_eq!(wrong(page), ("`if` without `endif`".to_owned(), "12".to_owned()));
}

#[test]
fn nesting() {
    let inner = "<!--# if expr='' -->1<!--# else -->2<!--# endif -->";
    assert_eq!(shown(&format!("<!--# if expr='a' -->[{inner}]<!--# else -->{inner}<!--# endif -->")), "[2]");
    let nested =
        |depth| format!("{}x{}y", "<!--# if expr='a' -->".repeat(depth), "<!--# endif -->".repeat(depth));
    assert_eq!(shown(&nested(8)), "xy");
    let (what, page) = wrong(&nested(9));
    assert!(what.contains("8 levels"), "{what}");
    assert_eq!(page, "Ey");
    assert_eq!(wrong(&nested(1000)).1, "Ey");
    let page = format!("{}x<!--# include virtual='/a' -->", "<!--# if expr='a' -->".repeat(9));
    assert_eq!(Template::parse(&bytes(&page)).includes().count(), 0, "it is left out");
}

#[test]
fn blocks_stand_in_for_what_is_not_there() {
    let block = "<!--# block name='s' -->(<!--# echo var='host' -->)<!--# endblock -->";
    let of = |path: &str| format!("<!--# include virtual='{path}' stub='s' -->");
    assert_eq!(shown(block), "", "by itself it is not shown");
    for (path, expected) in [("/a", "[A]"), ("/none", "(shop.test)"), ("/empty", "(shop.test)")] {
        assert_eq!(shown(&format!("{block}{}", of(path))), expected);
        assert_eq!(shown(&format!("{}{block}", of(path))), expected, "it may come later");
    }
    assert_eq!(shown("x<!--# include virtual='/none' -->y"), "xy");
    let page = format!("{block}{0}{0}", of("/none"));
    let assembled = filled(&page, &[]);
    assert_eq!(text(&assembled), "(shop.test)(shop.test)");
    assert_eq!(assembled.missing, ["/none"]);
    let assembled = filled(&format!("{block}{}", of("/empty")), &[("/empty", "")]);
    assert!(assembled.missing.is_empty(), "it is there, and empty");
    assert_eq!(wrong(&of("/a")), ("no block is called `s`".to_owned(), "[A]".to_owned()));
    let page = format!("{block}<!--# block name='s' -->second<!--# endblock -->{}", of("/none"));
    assert_eq!(wrong(&page), ("a second block `s`".to_owned(), "(shop.test)".to_owned()));
    let page = format!("<!--# block name='s' -->{}", of("/none"));
    assert_eq!(wrong(&page), ("`block` without `endblock`".to_owned(), String::new()));
    let page = "<!--# block -->1<!--# endblock -->2";
    assert_eq!(wrong(page), ("`block` without `name`".to_owned(), "E2".to_owned()));
    let page = format!("<!--# block name='s' -->1<!--# if expr='a' -->2<!--# endblock -->{}", of("/none"));
    assert_eq!(wrong(&page), ("`if` without `endif`".to_owned(), "12".to_owned()));
    let page = format!(
        "<!--# block name='t' -->1<!--# block name='s' -->2<!--# endblock -->3<!--# endblock -->{}",
        of("/none")
    );
    assert_eq!(shown(&page), "2", "one in another");
}

#[test]
fn a_stub_may_include_but_not_itself() {
    let page = "<!--# block name='s' --><!--# include virtual='/a' --><!--# endblock -->\
                <!--# include virtual='/none' stub='s' -->";
    assert_eq!(shown(page), "[A]");
    let page = "<!--# block name='s' -->x<!--# include virtual='/none' stub='s' --><!--# endblock -->\
                <!--# include virtual='/none' stub='s' -->";
    let (what, page) = wrong(page);
    assert_eq!((what.as_str(), page.as_str()), ("block `s` stands in for itself", "xxxxxxxx"));
}

#[test]
fn includes_are_told() {
    let page = "<!--# include virtual='/a' timeout='500ms' ttl='10s' wait='yes' -->\
                <!--# if expr='$empty' --><!--# include file='/b' stub='s' --><!--# endif -->\
                <!--# block name='s' --><!--# include virtual='/c' --><!--# endblock -->\
                <!--# include virtual='/$host/x' --><!--# include virtual='/a' ttl='1h' -->";
    let template = Template::parse(&bytes(page));
    assert!(!template.is_plain());
    let paths: Vec<_> = template.includes().map(|include| include.path.as_str()).collect();
    assert_eq!(paths, ["/a", "/b", "/c", "/a"]);
    let first = Include {
        path: "/a".to_owned(),
        timeout: Some(Duration::from_millis(500)),
        ttl: Some(Duration::from_secs(10)),
        stub: None,
    };
    assert_eq!(template.includes().next(), Some(&first));
    assert_eq!(template.includes().nth(1).and_then(|include| include.stub.as_deref()), Some("s"));
    let table = table(&[("/a", "<!--# include virtual='/d' -->")]);
    let assembled = assemble(&template, &table, Limits::default());
    let wanted: Vec<_> = assembled.wanted.iter().map(|include| include.path.as_str()).collect();
    assert_eq!(wanted, ["/a", "/d", "/shop.test/x"], "those met, in order, once");
    assert_eq!(assembled.wanted[0], first);
    assert_eq!(assembled.missing, ["/d", "/shop.test/x"]);
    assert_eq!(*table.asked.borrow(), wanted, "and asked for once");
}

#[test]
fn an_include_is_done_though_its_times_are_not_understood() {
    for (attribute, word) in
        [("timeout='soon'", "`timeout`"), ("ttl=''", "`ttl`"), ("wait='maybe'", "`wait`")]
    {
        let (what, page) = wrong(&format!("<!--# include virtual='/a' {attribute} -->"));
        assert!(what.contains(word), "{what}");
        assert_eq!(page, "[A]");
    }
}

#[test]
fn a_fragment_may_go_into_a_variable() {
    let echo = "(<!--# echo var='v' encoding='none' -->)";
    assert_eq!(shown(&format!("<!--# include virtual='/a' set='V' -->{echo}")), "([A])");
    assert_eq!(shown(&format!("<!--# include virtual='/none' set='v' -->{echo}")), "()");
    let page = format!("<!--# set var='v' value='1' --><!--# include virtual='/none' set='v' -->{echo}");
    assert_eq!(shown(&page), "(1)");
    let page = format!("<!--# include virtual='/large' set='v' -->{echo}");
    let assembled = filled(&page, &[("/large", &"x".repeat(16 * 1024))]);
    assert_eq!(assembled.body.len(), 16 * 1024 + 2);
    let assembled = filled(&page, &[("/large", &"x".repeat(16 * 1024 + 1))]);
    assert_eq!(text(&assembled), "((none))");
    assert!(assembled.is_whole && assembled.problems[0].what.contains("too large"));
    let command = "<!--# echo var='host' -->";
    let page = format!("<!--# set var='v' value='<!--# echo var=\"host\" --\\>' -->{echo}");
    assert!(!text(&filled(&page, &[])).contains("shop.test"), "values are no commands: {command}");
}

#[test]
fn a_fragment_sees_the_variables_of_its_page_and_keeps_its_own() {
    let page = "<!--# set var='v' value='1' --><!--# include virtual='/f' --><!--# echo var='v' --><!--# echo var='w' -->";
    let fragment = "<!--# echo var='v' --><!--# set var='v' value='2' --><!--# set var='w' value='3' --><!--# echo var='v' -->,";
    assert_eq!(text(&filled(page, &[("/f", fragment)])), "12,1(none)");
}

#[test]
fn fragments_are_inside_one_another_three_deep() {
    let chain = [
        ("/a", "a<!--# include virtual='/b' -->"),
        ("/b", "b<!--# include virtual='/c' -->"),
        ("/c", "c<!--# block name='s' -->stub<!--# endblock --><!--# include virtual='/d' stub='s' -->"),
        ("/d", "d"),
    ];
    let assembled = filled("<!--# include virtual='/a' -->.", &chain);
    assert_eq!(text(&assembled), "abcstub.");
    assert_eq!(assembled.problems.len(), 1);
    assert_eq!(assembled.problems[0].path.as_deref(), Some("/c"));
    assert_eq!(assembled.problems[0].what, "`/d` is more than 3 levels deep");
    assert!(assembled.is_whole && assembled.missing.is_empty());
    assert_eq!(assembled.wanted.len(), 3, "what is never shown is not fetched");
    let limits = Limits { depth: 4, ..Limits::default() };
    let template = Template::parse(&bytes("<!--# include virtual='/a' -->."));
    assert_eq!(text(&assemble(&template, &table(&chain), limits)), "abcd.");
    let none = assemble(&template, &table(&chain), Limits { depth: 0, ..limits });
    assert_eq!(text(&none), ".");
}

#[test]
fn a_fragment_is_not_inside_itself() {
    let assembled = filled("<!--# include virtual='/a' -->.", &[("/a", "a<!--# include virtual='/a' -->b")]);
    assert_eq!(text(&assembled), "ab.");
    assert_eq!(assembled.problems.len(), 1);
    assert_eq!(assembled.problems[0].what, "`/a` is inside itself");
    let two = [("/a", "a<!--# include virtual='/b' -->"), ("/b", "b<!--# include virtual='/a' -->")];
    assert_eq!(text(&filled("<!--# include virtual='/a' --><!--# include virtual='/b' -->", &two)), "abba");
}

#[test]
fn a_page_is_cut_at_its_limit() {
    let limits = Limits { bytes: 10, ..Limits::default() };
    let cut = |page: &str| assemble(&Template::parse(&bytes(page)), &table(&[("/a", "0123456789")]), limits);
    for (page, expected, is_whole) in [
        ("0123456789", "0123456789", true),
        ("0123456789a", "0123456789", false),
        ("<!--# include virtual='/a' -->", "0123456789", true),
        ("a<!--# include virtual='/a' -->", "a012345678", false),
        ("<!--# include virtual='/a' --><!--# echo var='empty' -->", "0123456789", true),
        ("<!--# include virtual='/a' --><!--# echo var='host' -->", "0123456789", false),
        ("a<!--# include virtual='/a' set='v' -->", "a012345678", false),
    ] {
        let assembled = cut(page);
        let body = if page.contains("set=") { "a" } else { expected };
        assert_eq!((text(&assembled).as_str(), assembled.is_whole), (body, is_whole), "{page}");
        assert_eq!(assembled.problems.iter().any(|problem| problem.what.contains("cut")), !is_whole);
    }
}

#[test]
fn a_page_without_commands_is_sent_as_it_is() {
    let page = bytes("<!doctype html><!-- a comment --><p>");
    let template = Template::parse(&page);
    assert!(template.is_plain());
    let assembled = assemble(&template, &table(&[]), Limits::default());
    assert!(std::ptr::eq(assembled.body.as_ptr(), page.as_ptr()), "not copied");
    assert!(!Template::parse(&bytes("<!--# config -->")).is_plain());
    assert!(!Template::parse(&bytes("<!--# nothing -->")).is_plain());
}
