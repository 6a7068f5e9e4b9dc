//! Drills: failures on purpose that undo themselves, and end in a report.
//!
//! ```text
//!  plan ─▶ rules ─▶ word: armed ─▶ (all have a timer) ─▶ steps ─▶ ended ─▶ (all is back) ─▶ closed, report
//!                     │                                    ▲
//!   witnesses in every datacenter: samples ────▶ observed ─┘ limits
//! ```
//!
//! Pure: what a drill would do ([`plan`]), the word by which it is led ([`word`], and [`core::drill`](crate::core::drill)), the
//! users ([`course`]), what was seen ([`samples`]), counted ([`ledger`]) and what follows ([`observed`], [`report`]). The shell:
//! [`witness`] visits, [`records`] keeps, [`drills`] and [`lead`] bring it together, `serve` answers other agents.

pub mod course;
pub mod drills;
pub mod lead;
pub mod ledger;
pub mod observed;
pub mod plan;
pub mod records;
pub mod report;
pub mod samples;
pub(crate) mod serve;
pub mod show;
mod talk;
pub mod witness;
pub mod word;
