//! `driftless check`: everything that is wrong with configuration, source, tables and indexes, each with its remedy.
//! Changes nothing: where there is no state yet, or a daemon holds it, it looks at an empty one elsewhere.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Failure, print, wiring};
use crate::config::{Config, Loaded};
use crate::error::{Error, Result};
use crate::link::{self, Finding, Found, Level, Spec};
use crate::net;
use crate::state::{SealingKey, State};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: wiring::ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Loaded { config, links } = arguments.config.load()?;
    let file = arguments.config.shown();
    net::http::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::Failed(format!("cannot start: {cause}")))?;
    let looked_at = Looked::at(&config)?;
    let mut findings = looked_at.findings;
    findings.extend(own_key(&config));
    let parts = wiring::parts(config, looked_at.state);
    let found = runtime.block_on(link::check(&parts, &links));
    let is_known = |finding: &Finding| looked_at.knows_pipelines || !is_about_pipeline(finding);
    let named = |Found { finding, link }: Found| match link {
        Some(at) => of_link(&file, &links[at], finding),
        None => finding,
    };
    findings.extend(found.into_iter().map(named).filter(is_known));
    drop(parts);
    if let Some(dir) = looked_at.temporary {
        // It is empty and the system's to clear away if this fails.
        let _ = std::fs::remove_dir_all(dir);
    }
    print(show(&findings, links.len()));
    match findings.iter().any(|finding| finding.level == Level::Error) {
        true => Err(Failure::Failed(String::new())),
        false => Ok(()),
    }
}

/// Credentials that one daemon has sealed are to be opened by the other one.
fn own_key(config: &Config) -> Option<Finding> {
    let is_alone = config.standby.name.is_none();
    let has_key = config.secrets.key_file.is_some() || wiring::has_key_in_env();
    (!is_alone && !has_key).then(|| Finding {
        level: Level::Warning,
        what: "[standby] is there, and each daemon would seal credentials with a key of its own"
            .to_owned(),
        remedy: "give all of this name the same key, by $DRIFTLESS_SECRET_KEY or secrets.key_file"
            .to_owned(),
    })
}

/// Says which link of the file a finding is about.
fn of_link(file: &str, link: &Spec, finding: Finding) -> Finding {
    let id = link.id.as_deref().unwrap_or(link.rules.index());
    let line = link.line.map(|line| format!(":{line}")).unwrap_or_default();
    Finding { what: format!("{file}{line}: link `{id}`: {}", finding.what), ..finding }
}

/// A state to check with.
struct Looked {
    state: State,
    /// Whether the state is the daemon's own, with the pipelines registered there.
    knows_pipelines: bool,
    temporary: Option<PathBuf>,
    findings: Vec<Finding>,
}

impl Looked {
    fn at(config: &Config) -> Result<Self> {
        let dir = config.state_dir();
        if !dir.join("db").is_dir() {
            let (state, temporary) = empty_state()?;
            return Ok(Self {
                state,
                knows_pipelines: true,
                temporary: Some(temporary),
                findings: vec![],
            });
        }
        match wiring::open_state(config, &dir) {
            Ok(state) => {
                Ok(Self { state, knows_pipelines: true, temporary: None, findings: vec![] })
            }
            Err(error) => {
                let (state, temporary) = empty_state()?;
                let findings = vec![finding(&dir, &error)];
                Ok(Self { state, knows_pipelines: false, temporary: Some(temporary), findings })
            }
        }
    }
}

fn empty_state() -> Result<(State, PathBuf)> {
    let dir = std::env::temp_dir().join(format!("driftless-check-{}", uuid::Uuid::new_v4()));
    let state = State::open(&dir, SealingKey::from_bytes([0; 32]))?;
    Ok((state, dir))
}

fn finding(dir: &Path, error: &Error) -> Finding {
    if error.to_string().contains("is in use by another process") {
        return Finding {
            level: Level::Warning,
            what: format!(
                "a daemon holds the state in {}, so the pipelines that are registered there were not looked at",
                dir.display()
            ),
            remedy: "`driftless status` shows its links".to_owned(),
        };
    }
    Finding {
        level: Level::Error,
        what: error.to_string(),
        remedy: error.advice().unwrap_or("look at `state_dir`").to_owned(),
    }
}

fn is_about_pipeline(finding: &Finding) -> bool {
    finding.what.contains("is not registered at Driftless")
}

fn show(findings: &[Finding], links: usize) -> String {
    let mut text: String = findings.iter().map(said).collect();
    let errors = findings.iter().filter(|finding| finding.level == Level::Error).count();
    let links = match links {
        0 => "no link declared in the file".to_owned(),
        links => counted(links, "link"),
    };
    let (errors, warnings) =
        (counted(errors, "error"), counted(findings.len() - errors, "warning"));
    let _ = writeln!(text, "checked configuration, source, sink, {links}: {errors}, {warnings}");
    text
}

/// A finding with its remedy, each on a line.
pub(super) fn said(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    format!("{level}: {}\n  remedy: {}\n", finding.what, finding.remedy)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_its_remedy() {
        let findings = [
            Finding {
                level: Level::Error,
                what: "binlog_format is MIXED".into(),
                remedy: "SET PERSIST binlog_format = ROW".into(),
            },
            finding(
                Path::new("/s"),
                &Error::input("the state directory /s is in use by another process"),
            ),
        ];
        insta::assert_snapshot!(show(&findings, 1), @r#"
        error: binlog_format is MIXED
          remedy: SET PERSIST binlog_format = ROW
        warning: a daemon holds the state in /s, so the pipelines that are registered there were not looked at
          remedy: `driftless status` shows its links
        checked configuration, source, sink, 1 link: 1 error, 1 warning
        "#);
    }
}
