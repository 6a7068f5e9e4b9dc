//! A drill's report for people: as text for a terminal, and as one page that needs nothing else.
//!
//! Pure: a report goes in, a string comes out. Neither says more than the report does, and neither decides anything: whether
//! an objective is met was decided where it was measured. What was not measured is called unknown, never nought.

mod axis;
mod chart;
mod columns;
mod markup;
mod page;
mod sections;
mod strip;
mod text;
mod words;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

pub use page::html;
pub use text::text;
