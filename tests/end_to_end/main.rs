//! Real processes, seen through packets: what a user, an operator and a resolver see. Each test has a network of its
//! own within 127/8, named at its top, so that they can run side by side.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]
#![expect(clippy::disallowed_methods, reason = "an observer from outside has its own clock")]

mod attacker;
mod audits;
mod browser;
mod client;
mod command_line;
mod curl;
mod deploy;
mod doors;
mod drains;
mod drills;
mod failover;
mod fleet;
mod kv;
mod load;
mod namespaces;
mod network;
mod observer;
mod pages;
mod reload;
mod replication;
mod resolvers;
mod roles;
mod steering;
mod stores;
mod streams;
mod tour;
mod transports;
mod visitors;
mod words;
mod world_map;
