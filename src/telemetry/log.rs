//! The log: lines on standard error, as text or as JSON. Must not know what is logged.

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;

use crate::error::{Error, Result};

/// The environment's words win over the configuration: whoever looks for a fault should not have to edit a file.
const ENV: [&str; 2] = ["DRIFTLESS_LOG", "RUST_LOG"];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A level, or directives as `RUST_LOG` takes them.
    pub level: String,
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Text,
    /// One object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: Format::Text }
    }
}

/// Starts the log of this process. A second call changes nothing.
pub fn start(config: &Config) -> Result<()> {
    let from_env = ENV.iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let filter = filter(from_env.as_deref().unwrap_or(&config.level))?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error says that a subscriber is there already, which is as good.
    let _ = match config.format {
        Format::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => log.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Reads `info` or `warn,driftless::source=debug`.
pub fn filter(text: &str) -> Result<EnvFilter> {
    let wrong = || {
        Error::input(format!("`{text}` is not a log level"))
            .with_advice("write one of off, error, warn, info, debug, trace, or module=level, …")
    };
    // The parser would take a misspelt level for the name of a module.
    let is_word = |part: &str| !part.contains(['=', '[']);
    let known = |part: &str| LEVELS.contains(&part.trim().to_ascii_lowercase().as_str());
    if text.split(',').any(|part| is_word(part) && !known(part)) {
        return Err(wrong());
    }
    EnvFilter::builder().parse(text).map_err(|cause| wrong().caused_by(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused_and_directives_are_read() {
        for good in ["info", "WARN", "warn,driftless::source=debug", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["inof", "", "driftless=lots", "info,driftless"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
