//! Fuzzing of everything that reads bytes from outside: arguments, and which part does what. Must not know the targets.

mod bound;
mod corpus;
mod engine;
mod run;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: driftless-fuzz run SECONDS [SEED]     all targets, on all cores
       driftless-fuzz one FILE             replays what a run has found: crashes/TARGET/…
       driftless-fuzz take LOG…            seeds out of binlog files, into corpus/
       driftless-fuzz keep                 what runs have found since, into corpus/";

fn main() -> ExitCode {
    if let Some(target) = engine::wanted_target() {
        return engine::fuzz(&target);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["run", seconds] => number(seconds).and_then(|seconds| run::run(seconds, None)),
        ["run", seconds, seed] => {
            number(seconds).and_then(|seconds| run::run(seconds, Some(number(seed)? as u32)))
        }
        ["one", file] => run::one(&PathBuf::from(file)),
        ["take", logs @ ..] if !logs.is_empty() => corpus::take(logs),
        ["keep"] => corpus::keep(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number\n{USAGE}"))
}
