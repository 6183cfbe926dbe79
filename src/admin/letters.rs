//! Dead letters as the doors show them. Keeps none.

use serde_json::{Value, json};

use super::execute::utc;
use super::table::Table;
use crate::error::{Error, ErrorKind};
use crate::link::Retried;
use crate::state::LetterRecord;
use crate::statement::Name;

const COLUMNS: [&str; 9] =
    ["Link Id", "Document", "Stage", "Action", "Reason", "Table", "Behind", "At", "Body"];

pub fn table(letters: &[(String, LetterRecord)]) -> Table {
    let columns = COLUMNS.map(str::to_owned).to_vec();
    Table { columns, rows: letters.iter().map(|(link, letter)| row(link, letter)).collect() }
}

fn row(link: &str, letter: &LetterRecord) -> Vec<Value> {
    vec![
        json!(link),
        json!(letter.document),
        json!(letter.stage),
        json!(letter.action),
        json!(letter.reason),
        json!(letter.table),
        json!(letter.behind),
        json!(utc(letter.at)),
        json!(letter.body),
    ]
}

pub fn retried(retried: &Retried) -> String {
    let Retried { tried, left } = retried;
    match left {
        0 => format!("tried: {tried}; all are what their rows say"),
        _ => format!("tried: {tried}; refused again: {left}"),
    }
}

/// Puts the error where the name stands that it speaks of.
pub fn at(error: Error, link: &Name, document: &Option<Name>) -> Error {
    match (error.kind(), document) {
        (ErrorKind::NotFound, Some(document)) if error.to_string().contains("dead letter") => {
            error.at(document.span)
        }
        (ErrorKind::NotFound, _) => error.at(link.span),
        _ => error,
    }
}
