//! Runs a statement: text in, a table or all that is wrong with it out. Every door calls this; none is known here.

use serde_json::{Value, json};

use super::letters;
use super::rebuild;
use super::spec;
use super::table::Table;
use super::verification;
use crate::error::{Error, ErrorKind, Span};
use crate::link::{Control, Origin, Progress, State, Status};
use crate::statement::{self, CopyLink, Name, Rebuild, RebuildLink, SnapshotLink, Statement};
use crate::table::TableId;

/// The columns of `show_sync_link` and `show_sync_link_by_id`.
const LINK_COLUMNS: [&str; 6] =
    ["View Name", "Type", "Status", "Message", "Created_at", "Updated_at"];

/// The columns of what makes or drops a link.
const DONE_COLUMNS: [&str; 3] = ["Link Id", "Status", "Message"];

/// Runs `text`. The errors' spans point into it.
pub async fn execute(control: &Control, text: &str) -> Result<Table, Vec<Error>> {
    let statement = statement::parse(text).map_err(|error| vec![error])?;
    let only_shows =
        matches!(statement, Statement::ShowSyncLink | Statement::ShowSyncLinkById { .. });
    if !only_shows {
        control.leads().map_err(|error| vec![error])?;
    }
    match &statement {
        Statement::SyncByMap(_) | Statement::SyncByTable(_) => {
            let spec =
                spec::of(&statement, text, Origin::Sql).expect("both statements make a link");
            let status = control.create(spec).await?;
            let how_far = "it runs; CALL dbms_etl.show_sync_link() says how far it is";
            Ok(done(&status.id, "created", how_far))
        }
        Statement::ShowSyncLink => Ok(links(&control.statuses())),
        Statement::ShowSyncLinkById { id } => {
            let status = control.status(&id.text).map_err(|error| vec![error.at(id.span)])?;
            Ok(links(&[status]))
        }
        Statement::DropSyncLinkById { id } => drop_link(control, id, false).await,
        Statement::DropLink { id, with_index } => drop_link(control, id, *with_index).await,
        Statement::PauseLink { id } => {
            control.pause(&id.text).await.map_err(|error| vec![error.at(id.span)])?;
            Ok(done(&id.text, "paused", "RESUME LINK lets it go on where it stopped"))
        }
        Statement::ResumeLink { id } => {
            control.resume(&id.text).await.map_err(|error| vec![error.at(id.span)])?;
            Ok(done(&id.text, "resumed", "it goes on where it stopped"))
        }
        Statement::ResetLink { id } => {
            control.reset(&id.text).await.map_err(|error| vec![error.at(id.span)])?;
            let message =
                "its table is copied again, and then the documents without a row are deleted";
            Ok(done(&id.text, "reset", message))
        }
        Statement::ShowDeadLetters { link } => {
            let named = link.as_ref().map(|link| link.text.as_str());
            let at = |error: Error| match link {
                Some(link) => vec![error.at(link.span)],
                None => vec![error],
            };
            Ok(letters::table(&control.dead_letters(named).map_err(at)?))
        }
        Statement::RetryDeadLetters { link, document } => {
            let named = document.as_ref().map(|document| document.text.as_str());
            let retried = control.retry_letters(&link.text, named).await;
            let retried = retried.map_err(|error| vec![letters::at(error, link, document)])?;
            Ok(done(&link.text, "retried", &letters::retried(&retried)))
        }
        Statement::DiscardDeadLetters { link, document } => {
            let named = document.as_ref().map(|document| document.text.as_str());
            let count = control.discard_letters(&link.text, named);
            let count = count.map_err(|error| vec![letters::at(error, link, document)])?;
            Ok(done(&link.text, "discarded", &format!("dead letters forgotten: {count}")))
        }
        Statement::SnapshotLink(snapshot) => {
            let SnapshotLink { id, table, condition } = snapshot;
            let named = |(db, table): &(Name, Name)| TableId::new(&db.text, &table.text);
            let rows = condition.as_ref().map(|condition| condition.text.as_str());
            let ordered = control.order_copy(&id.text, table.as_ref().map(named), rows).await;
            ordered.map_err(|error| {
                let span = whose(snapshot, &error);
                vec![error.at(span)]
            })?;
            let how_far = "the rows are copied beside the stream; CALL dbms_etl.show_sync_link() says how far it is";
            Ok(done(&id.text, "ordered", how_far))
        }
        Statement::RebuildLink(RebuildLink { link, what }) => {
            rebuild_link(control, link, what, text).await
        }
        Statement::CopyLink(CopyLink { link, index, id }) => {
            let named = id.as_ref().map(|id| id.text.as_str());
            let made = control.copy_link(&link.text, &index.text, named, text.to_owned()).await;
            let status = made.map_err(|errors| {
                let at = |error: Error| match error.kind() {
                    ErrorKind::NotFound if error.to_string().contains("unknown link") => {
                        error.at(link.span)
                    }
                    ErrorKind::Input if error.to_string().contains("id") && id.is_some() => {
                        error.at(id.as_ref().map_or(link.span, |id| id.span))
                    }
                    _ => error.at(index.span),
                };
                errors.into_iter().map(at).collect::<Vec<_>>()
            })?;
            let how_far = "it runs; CALL dbms_etl.show_sync_link() says how far it is";
            Ok(done(&status.id, "created", how_far))
        }
        Statement::VerifyLink(statement) => {
            let at = |error: Error| match (error.kind(), &statement.condition) {
                (ErrorKind::NotFound, _) => error.at(statement.link.span),
                (ErrorKind::Input, Some(condition)) => error.at(condition.span),
                _ => error,
            };
            let order = verification::order(statement);
            let verdict = control.verify(&order).await.map_err(|error| vec![at(error)])?;
            Ok(verification::table(&verdict))
        }
    }
}

async fn rebuild_link(
    control: &Control,
    link: &Name,
    what: &Rebuild,
    text: &str,
) -> Result<Table, Vec<Error>> {
    let at = |error: Error| match error.span() {
        Some(_) => error,
        None => error.at(link.span),
    };
    let one = |error: Error| vec![at(error)];
    let id = &link.text;
    match what {
        Rebuild::Begin(options) => {
            let wanted = rebuild::wanted(options, text).map_err(one)?;
            let begun = control.rebuild(id, wanted).await;
            let begun = begun.map_err(|errors| errors.into_iter().map(at).collect::<Vec<_>>())?;
            let message = format!(
                "the link {} fills {}; CALL dbms_etl.show_sync_link() says how far it is",
                begun.shadow, begun.index
            );
            Ok(done(id, "rebuilding", &message))
        }
        Rebuild::Cancel => {
            let index = control.cancel_rebuild(id).await.map_err(one)?;
            Ok(done(id, "cancelled", &format!("{index} is deleted, and all is as it was")))
        }
        Rebuild::Rollback => {
            let index = control.roll_back(id).await.map_err(one)?;
            Ok(done(id, "rolled back", &format!("searches find {index} again")))
        }
    }
}

/// The words that the refusal of a copy speaks of.
fn whose(snapshot: &SnapshotLink, error: &Error) -> Span {
    let SnapshotLink { id, table, condition } = snapshot;
    let speaks_of = |words: &str| error.to_string().contains(words);
    match (table, condition) {
        (Some((db, table)), _) if speaks_of("is of table") => {
            Span::new(db.span.start, table.span.end)
        }
        (_, Some(condition)) if speaks_of("the condition") => condition.span,
        _ => id.span,
    }
}

/// Whether the statement ends with who asked for it; any other is finished although nobody hears of it.
pub fn ends_with_its_caller(text: &str) -> bool {
    matches!(statement::parse(text), Ok(Statement::VerifyLink(_)))
}

async fn drop_link(control: &Control, id: &Name, with_index: bool) -> Result<Table, Vec<Error>> {
    let dropped = control.drop_link(&id.text, with_index).await;
    let comes_back = dropped.map_err(|error| vec![error.at(id.span)])?;
    let mut message =
        if with_index { "its index too" } else { "the index stays as it is" }.to_owned();
    if comes_back {
        message.push_str(
            "; the configuration file has the link, and the next start makes it anew unless it is taken out of there",
        );
    }
    Ok(done(&id.text, "dropped", &message))
}

fn done(id: &str, status: &str, message: &str) -> Table {
    let columns = DONE_COLUMNS.map(str::to_owned).to_vec();
    Table { columns, rows: vec![vec![json!(id), json!(status), json!(message)]] }
}

fn links(statuses: &[Status]) -> Table {
    let columns = LINK_COLUMNS.map(str::to_owned).to_vec();
    Table { columns, rows: statuses.iter().map(row).collect() }
}

fn row(status: &Status) -> Vec<Value> {
    vec![
        json!(status.id),
        json!("search"),
        json!(view_status(status.state)),
        json!(message(status)),
        json!(utc(status.created_at)),
        json!(utc(status.updated_at)),
    ]
}

/// `active`: the link works, or tries to by itself; `failed`: it stands, and somebody must act; `paused`: it stands, because
/// somebody wanted it. Which work, `jobStatus`
/// in the message says.
fn view_status(state: State) -> &'static str {
    match state {
        State::Scheduled
        | State::Snapshotting
        | State::CatchingUp
        | State::Running
        | State::Recovering => "active",
        State::Failed => "failed",
        State::Paused => "paused",
        State::Standby => "standby",
    }
}

/// JSON in a string, and strings in the JSON: the form that scripts around `show_sync_link` read.
fn message(status: &Status) -> String {
    json!({
        "errors": status.errors,
        "others": others(status),
        "latency": status.latency_ms.to_string(),
        "jobStatus": status.state.as_str(),
        "restart_times": status.restarts.to_string(),
    })
    .to_string()
}

fn others(status: &Status) -> String {
    let mut parts = vec![format!("{} -> {}", status.table, status.index)];
    parts.extend(status.snapshot.as_ref().map(|snapshot| progress(status.state, snapshot)));
    if !status.pipeline_mode.is_empty() {
        let name = if status.pipeline.is_empty() { "none" } else { &status.pipeline };
        parts.push(format!("pipeline {name} ({})", status.pipeline_mode));
    }
    if !status.position.is_empty() {
        parts.push(format!("checkpoint {}", status.position));
    }
    if status.dead_letters > 0 {
        parts.push(format!("{} dead letters", status.dead_letters));
    }
    if let Some(verification) = &status.verification {
        parts.push(verification::progress(verification));
    }
    let left = status.verified.map_or(0, |verified| verified.left());
    if left > 0 {
        parts.push(format!(
            "the last verification found {left} documents that differ from the table"
        ));
    }
    if !status.shadow_of.is_empty() {
        parts.push(format!("shadow of {}", status.shadow_of));
    }
    if let Some(rebuild) = &status.rebuild {
        parts.push(rebuild::progress(&status.id, rebuild));
    }
    if !status.note.is_empty() {
        parts.push(status.note.clone());
    }
    parts.join("; ")
}

/// `snapshot 1200 of about 5000 rows, 300 rows/s, 13 s left`, and `snapshot 5007 rows, done`.
fn progress(state: State, progress: &Progress) -> String {
    let Progress { rows, rows_total_estimate, rows_per_s, eta_s, held_at_threads_running } =
        progress;
    if matches!(state, State::CatchingUp | State::Running) {
        return format!("snapshot {rows} rows, done");
    }
    let mut text =
        format!("snapshot {rows} of about {rows_total_estimate} rows, {rows_per_s:.0} rows/s");
    if let Some(eta_s) = eta_s {
        text.push_str(&format!(", {eta_s} s left"));
    }
    if let Some(threads) = held_at_threads_running {
        text.push_str(&format!(", held: the source has {threads} threads running"));
    }
    text
}

/// `2026-03-04 05:06:07`, in UTC.
pub fn utc(unix_seconds: u64) -> String {
    const DAY: u64 = 86_400;
    let (days, seconds) = (unix_seconds / DAY, unix_seconds % DAY);
    let (year, month, day) = date(days);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{:02}", seconds % 60)
}

/// Year, month and day of a day since 1970. Years are taken to begin in March, so that the leap day is the last one.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    /// From 0000-03-01 to 1970-01-01.
    const BEFORE_1970: u64 = 719_468;
    let days = days + BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            id: "products".into(),
            index: "products".into(),
            table: "shop.products".into(),
            state: State::Snapshotting,
            errors: String::new(),
            latency_ms: -1,
            acked_after_ms: -1,
            dead_letters: 0,
            restarts: 2,
            created_at: 1_772_600_767,
            updated_at: 1_772_600_768,
            snapshot: Some(Progress {
                rows: 1200,
                rows_total_estimate: 5000,
                rows_per_s: 299.6,
                eta_s: Some(13),
                held_at_threads_running: None,
            }),
            position: "binlog.000003:157 []".into(),
            pipeline_mode: "emulate",
            pipeline: "p".into(),
            note: String::new(),
            verification: None,
            verified: None,
            rebuild: None,
            shadow_of: String::new(),
            statement: "CALL …".into(),
        }
    }

    #[test]
    fn a_link_is_shown_as_the_seed_shows_it() {
        insta::assert_snapshot!(links(&[status()]).to_text(), @r#"
        +-----------+--------+--------+----------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------+---------------------+---------------------+
        | View Name | Type   | Status | Message                                                                                                                                                                                                                          | Created_at          | Updated_at          |
        +-----------+--------+--------+----------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------+---------------------+---------------------+
        | products  | search | active | {"errors":"","others":"shop.products -> products; snapshot 1200 of about 5000 rows, 300 rows/s, 13 s left; pipeline p (emulate); checkpoint binlog.000003:157 []","latency":"-1","jobStatus":"snapshotting","restart_times":"2"} | 2026-03-04 05:06:07 | 2026-03-04 05:06:08 |
        +-----------+--------+--------+----------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------+---------------------+---------------------+
        "#);
        let mut failed = status();
        failed.state = State::Failed;
        failed.errors = "table \"x\" is gone".into();
        assert_eq!(row(&failed)[2], "failed");
        let message: Value =
            serde_json::from_str(row(&failed)[3].as_str().expect("a string")).expect("JSON");
        assert_eq!(message["errors"], "table \"x\" is gone");
        assert!(message.as_object().expect("an object").values().all(Value::is_string));
    }

    #[test]
    fn moments_are_dates_of_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_772_600_767, "2026-03-04 05:06:07"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (253_402_300_799, "9999-12-31 23:59:59"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }
}
