//! The doors' inside: statements executed, and the HTTP door. Talks to [`crate::link::Control`] alone; must not know how
//! a link works.
//!
//! [`execute`] runs a statement to a [`table::Table`], [`verification`] makes one of a verdict, [`rebuild`] a line of a rebuild;
//! [`spec`] is what a statement asks for; [`answer`] says what went wrong; [`http`] is the door, [`socket`] its connections,
//! [`tls`] its certificate, [`access`] who may come in, [`host`] the names by which it may be asked for; [`page`] what a
//! browser is shown there; [`search`] what it answers in a search node's place where the indexes are our own.

pub mod access;
pub mod answer;
pub mod execute;
mod host;
pub mod http;
mod letters;
mod page;
mod rebuild;
#[cfg(feature = "embedded")]
pub mod search;
mod socket;
pub mod spec;
pub mod table;
mod tls;
mod verification;
