//! The vocabulary of daemun and the decisions that two or more of its parts need: what the operator declared
//! ([`config`]), where clients are ([`places`]), what is true of the fleet now ([`view`]), and who is sent where
//! ([`steering`], [`placement`]).
//!
//! Everything here is pure: no sockets, no files, no clock, no randomness. The shells in the other crates read and
//! write, and hand in what they found.

pub mod client;
mod clock;
pub mod config;
pub mod connections;
pub mod drill;
pub mod impaired;
pub mod location;
pub mod meter;
pub mod placement;
pub mod places;
pub mod prefix_table;
mod rendezvous;
pub mod steering;
mod tables;
pub mod tls;
pub mod view;

pub use client::Client;
pub use clock::Clock;
pub use config::Config;
pub use placement::{Placement, Placer};
pub use places::Places;
pub use rendezvous::affinity;
pub use steering::Steering;
pub use view::FleetView;

/// Foreign text for a message: cut to what a person reads, control characters made visible.
pub fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN_MAX {
        shown.push('…');
    }
    shown
}
