//! The command line: one file per subcommand. Says which exit code an end has; must not know how anything is done.

mod ask;
mod check;
mod daemon;
#[cfg(feature = "embedded")]
mod demo;
mod run;
mod sql;
mod status;
mod verify;
mod wiring;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

const EXAMPLES: &str = "\
It goes like this:
  driftless check                       look at the configuration and both servers; change nothing
  driftless run                         keep the indexes true, until SIGTERM
  driftless sql \"CALL dbms_etl.sync_by_map('search', 'products.name(shop.products.name)', 'products.id=shop.products.id', '', '')\"
  driftless status                      links with their state, lag and progress
  driftless verify products             compare a table with its index, row by row; --repair mends what differs
  driftless demo                        see all of it at a MySQL of yours, and leave nothing behind

The configuration is the first of: --config, $DRIFTLESS_CONFIG, ./driftless.toml, /etc/driftless/driftless.toml.
Exit codes: 0 done, 1 failed, 64 wrong usage or configuration.";

/// Keeps search indexes true to MySQL.
#[derive(Debug, Parser)]
#[command(name = "driftless", version, after_help = EXAMPLES, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until it is told to stop (SIGTERM, Ctrl-C)
    Run(run::Arguments),
    /// Run one statement at a running daemon
    Sql(sql::Arguments),
    /// Show the links of a running daemon: state, lag, progress, reason
    Status(status::Arguments),
    /// Compare a link's table with its index while both change, and mend what differs
    Verify(verify::Arguments),
    /// Say everything that is wrong with configuration, source, sink, and the links of the file, each with its remedy
    Check(check::Arguments),
    /// Show rows of a MySQL turning into searchable documents: a shop of its own, a link, a page to search
    #[cfg(feature = "embedded")]
    Demo(demo::Arguments),
}

/// Why a command did not do what was asked; it has been said already where the text is empty.
enum Failure {
    /// The command line or the configuration is wrong: exit code 64.
    Usage(String),
    /// Exit code 1.
    Failed(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error.report())
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Help and version are answers too, and go to standard output.
            let _ = answer.print();
            return if answer.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    let done = match arguments.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Sql(arguments) => sql::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        #[cfg(feature = "embedded")]
        Command::Demo(arguments) => demo::run(arguments),
    };
    let (code, reason) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(reason)) => (64, reason),
        Err(Failure::Failed(reason)) => (1, reason),
    };
    if !reason.is_empty() {
        let _ = writeln!(std::io::stderr().lock(), "{}", reason.trim_end());
    }
    ExitCode::from(code)
}

/// Writes to standard output; a reader that has gone (`| head`) is no failure.
fn print(text: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "{text}");
    let _ = out.flush();
}
