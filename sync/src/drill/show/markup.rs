//! HTML and SVG as they are written: every text is escaped and every element closed, as there is no other way to write one.

use super::words::clean;

/// Attributes of an element: name and value.
pub(super) type Attributes<'a> = &'a [(&'a str, &'a str)];

/// A page as it grows.
#[derive(Debug)]
pub(super) struct Markup {
    html: String,
}

impl Markup {
    /// An empty page of HTML.
    pub(super) fn page() -> Self {
        Self { html: "<!doctype html>\n".to_owned() }
    }

    /// An element and what is inside.
    pub(super) fn inside(&mut self, tag: &str, attributes: Attributes<'_>, fill: impl FnOnce(&mut Self)) {
        self.begin(tag, attributes);
        self.html.push('>');
        fill(self);
        self.html.push_str("</");
        self.html.push_str(tag);
        self.html.push('>');
        if matches!(tag, "tr" | "li" | "p" | "section" | "figure" | "svg" | "h2" | "style" | "div" | "g") {
            self.html.push('\n');
        }
    }

    /// An element with nothing but text.
    pub(super) fn leaf(&mut self, tag: &str, attributes: Attributes<'_>, text: &str) {
        self.inside(tag, attributes, |page| page.text(text));
    }

    /// An element with nothing inside.
    pub(super) fn empty(&mut self, tag: &str, attributes: Attributes<'_>) {
        self.begin(tag, attributes);
        self.html.push_str("/>");
    }

    /// Text.
    pub(super) fn text(&mut self, text: &str) {
        escape(&mut self.html, text);
    }

    /// The style sheet, which is our own and needs no escape.
    pub(super) fn style(&mut self, css: &'static str) {
        self.inside("style", &[], |page| page.html.push_str(css));
    }

    /// All of it.
    pub(super) fn finish(self) -> String {
        self.html
    }

    fn begin(&mut self, tag: &str, attributes: Attributes<'_>) {
        self.html.push('<');
        self.html.push_str(tag);
        for (name, value) in attributes {
            self.html.push(' ');
            self.html.push_str(name);
            self.html.push_str("=\"");
            escape(&mut self.html, value);
            self.html.push('"');
        }
    }
}

fn escape(html: &mut String, text: &str) {
    for letter in clean(text).chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
}
