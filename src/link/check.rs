//! Looks everything up that a link needs, and says all that is wrong at once, each with its remedy. Starts nothing.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::link::pipeline_mode::{self, PipelineMode, Way};
use crate::link::{Parts, Rules, Spec, beginning, definition, start};
use crate::mapping;
use crate::pipeline;
use crate::sink;
use crate::source::preflight::{self, Finding, Level};
use crate::source::server::Server;
use crate::source::snapshot::chunk;
use crate::source::{control, files};
use crate::table::TableId;

/// What is wrong, and with which of the links, if it is with one.
#[derive(Debug)]
pub struct Found {
    pub finding: Finding,
    /// Its place among the links that were looked at.
    pub link: Option<usize>,
}

fn finding(error: &Error) -> Finding {
    let remedy = error.advice().unwrap_or_else(|| usual_remedy(error.kind())).to_owned();
    Finding { level: Level::Error, what: without_advice(error), remedy }
}

fn usual_remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::SourceUnreachable => {
            "see that the source runs, and check source.host and source.port"
        }
        ErrorKind::SourceRefused => "check source.user, its password and its privileges",
        ErrorKind::SinkBusy => "see that the sink runs, and check sink.addresses",
        ErrorKind::SinkBlocked => "check sink.user, its password, and what the sink says",
        ErrorKind::ModelBusy | ErrorKind::ModelAnswer | ErrorKind::ModelRefused => {
            "check the connector of the model: endpoint, credential, parameters"
        }
        ErrorKind::State | ErrorKind::StateFull | ErrorKind::Io => {
            "check state_dir: its owner, its disk"
        }
        ErrorKind::NotFound | ErrorKind::Input => "correct the name",
        ErrorKind::Unsupported
        | ErrorKind::SourceLost
        | ErrorKind::Schema
        | ErrorKind::Undecodable
        | ErrorKind::DocumentRefused
        | ErrorKind::ForeignVersion
        | ErrorKind::Stopped => "see what the message names",
    }
}

fn without_advice(error: &Error) -> String {
    let report = error.report();
    match error.advice() {
        Some(advice) => report
            .strip_suffix(advice)
            .map_or(report.clone(), |r| r.trim_end_matches("; ").to_owned()),
        None => report,
    }
}

/// Checks the source's settings and privileges, and for each link its table, key, index and vector dimension.
pub async fn check(parts: &Parts, links: &[Spec]) -> Vec<Found> {
    let mut findings = Vec::new();
    let tables: Vec<TableId> =
        links.iter().filter_map(|link| link.rules.table().cloned()).collect();
    let mut conn = match connection(parts).await {
        Ok(conn) => conn,
        Err(error) => {
            findings.push(finding(&error));
            None
        }
    };
    if let Some(conn) = &mut conn {
        match preflight::preflight(conn, &tables).await {
            Ok(found) => findings.extend(found),
            Err(error) => findings.push(finding(&error)),
        }
    }
    let pipelines = match pipeline::Api::new(parts.state.clone(), parts.pipeline.clone()) {
        Ok(pipelines) => Some(pipelines),
        Err(error) => {
            findings.push(finding(&error));
            None
        }
    };
    let sink = match sink::build(&parts.sink) {
        Ok(sink) => Some(sink),
        Err(error) => {
            findings.push(finding(&error));
            None
        }
    };
    let sink = match sink {
        Some(sink) => match sink.greet().await {
            Ok(()) => Some(sink),
            Err(error) => {
                findings.push(finding(&error));
                None
            }
        },
        None => None,
    };
    let mut all: Vec<Found> =
        findings.into_iter().map(|finding| Found { finding, link: None }).collect();
    for (at, link) in links.iter().enumerate() {
        let mut findings = Vec::new();
        if let Some(dir) = parts.source.files() {
            findings.extend(check_in_files(dir, link));
        }
        if let Some(conn) = &mut conn {
            findings.extend(check_mapping(conn, link).await);
            findings.extend(check_beginning(parts, conn, link).await);
        }
        if let (Some(sink), Some(pipelines)) = (&sink, &pipelines) {
            findings.extend(
                check_index(sink.as_ref(), pipelines, link, parts.link.pipeline_mode).await,
            );
        }
        // What the preflight has said of a table is not said again of its link.
        findings.retain(|new| !all.iter().any(|old| old.finding.what == new.what));
        all.extend(findings.into_iter().map(|finding| Found { finding, link: Some(at) }));
    }
    all
}

/// Whether the link can begin where it is to begin.
async fn check_beginning(
    parts: &Parts,
    conn: &mut mysql_async::Conn,
    link: &Spec,
) -> Option<Finding> {
    let table = link.rules.table()?;
    let possible = async {
        let server = Server::of(conn).await?;
        beginning::place(&parts.source, conn, &server, (link, table)).await
    };
    possible.await.err().map(|error| finding(&error))
}

/// None where there is no server to be asked.
async fn connection(parts: &Parts) -> Result<Option<mysql_async::Conn>> {
    match parts.source.files() {
        Some(_) => Ok(None),
        None => control::connect(&parts.source).await.map(Some),
    }
}

fn check_in_files(dir: &Path, link: &Spec) -> Vec<Finding> {
    let Some(table) = link.rules.table() else { return Vec::new() };
    match files::first_definition(dir, table) {
        Ok(def) => start::mapped(link, &def).1.iter().map(finding).collect(),
        Err(error) => vec![finding(&error)],
    }
}

async fn check_mapping(conn: &mut mysql_async::Conn, link: &Spec) -> Vec<Finding> {
    let Some(table) = link.rules.table() else { return Vec::new() };
    // A table that is missing was named by the preflight.
    let Ok(def) = definition::read(conn, table).await else { return Vec::new() };
    let spec = match &link.rules {
        Rules::Map(spec) => spec.clone(),
        Rules::Table { index, columns, columns_span, .. } => {
            mapping::Spec::of_table(index, &def, columns.as_deref(), *columns_span)
        }
    };
    let mut errors = Vec::new();
    match mapping::compile(&spec, &def) {
        Ok(plan) => match start::key_refusal(conn, &def, &plan).await {
            Ok(refusal) => errors.extend(refusal),
            Err(error) => errors.push(error),
        },
        Err(found) => errors = found,
    }
    // A missing key was named by the preflight.
    errors.extend(chunk::check_key(&def).err().filter(|_| !def.primary_key.is_empty()));
    errors.iter().map(finding).collect()
}

async fn check_index(
    sink: &dyn sink::Sink,
    pipelines: &pipeline::Api,
    link: &Spec,
    default_mode: PipelineMode,
) -> Vec<Finding> {
    let index = link.rules.index();
    let target = match sink.inspect(index).await {
        Ok(target) => target,
        Err(error) => return vec![finding(&error)],
    };
    let mode = link.pipeline_mode.unwrap_or(default_mode);
    let name = match pipeline_mode::settle(mode, sink, pipelines, index, &target).await {
        Ok(Way::Emulated(name)) => name,
        Ok(Way::Plain | Way::Delegated(_)) => return Vec::new(),
        Err(error) => return vec![finding(&error)],
    };
    let Some(pipeline) = pipelines.pipeline(&name) else { return Vec::new() };
    match pipeline.check(&target.dimensions).await {
        Ok(()) => Vec::new(),
        Err(error) if error.kind() == ErrorKind::ModelBusy => {
            let mut finding = finding(&error);
            finding.level = Level::Warning;
            vec![finding]
        }
        Err(error) => vec![finding(&error)],
    }
}
