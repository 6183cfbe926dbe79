//! `driftless verify`: has a running daemon compare a link's table with its index; exit code 1 where they differ.

use serde::Deserialize;
use serde_json::Value;

use super::{Failure, ask, print};
use crate::admin::table::Table;

const EXAMPLES: &str = "\
Examples:
  driftless verify products
  driftless verify products --repair
  driftless verify products --where \"updated_at > now() - interval 1 day\" --sample 5%
Exit codes: 0 table and index are the same (or are now, with --repair), 1 they differ, or it failed.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The link's id
    link: String,
    /// Mend what differs
    #[arg(long)]
    repair: bool,
    /// Only rows for which this SQL condition is true
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Only so many of the rows and documents, drawn by lot: 5%
    #[arg(long, value_name = "SHARE")]
    sample: Option<String>,
    /// Compute vectors again and compare them, also where the model costs money
    #[arg(long)]
    with_vectors: bool,
    #[command(flatten)]
    daemon: ask::Daemon,
}

#[derive(Deserialize)]
struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

#[derive(Deserialize)]
struct Summary {
    differences: u64,
    repaired: u64,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let answer = arguments.daemon.ask_sql("json", &statement(&arguments))?;
    let told: Option<Answer> = serde_json::from_str(&answer.text).ok();
    let Some(told) = told.filter(|_| answer.is_ok) else {
        return Err(Failure::Failed(ask::reason(&answer.text)));
    };
    let summary: Option<Summary> =
        told.rows.first().and_then(|row| serde_json::from_str(row.last()?.as_str()?).ok());
    print(Table { columns: told.columns, rows: told.rows }.to_text());
    let summary = summary.ok_or_else(|| {
        Failure::Failed("this is not the answer of a daemon of our version".to_owned())
    })?;
    match summary.differences - summary.repaired.min(summary.differences) {
        0 => Ok(()),
        left => Err(Failure::Failed(format!("{left} documents differ from the table"))),
    }
}

fn statement(arguments: &Arguments) -> String {
    let mut text = format!("VERIFY LINK `{}`", arguments.link.replace('`', "``"));
    if let Some(condition) = &arguments.condition {
        text.push_str(&format!(" WHERE {condition}"));
    }
    if let Some(sample) = &arguments.sample {
        text.push_str(&format!(" SAMPLE {sample}"));
    }
    if arguments.with_vectors {
        text.push_str(" WITH VECTORS");
    }
    if arguments.repair {
        text.push_str(" REPAIR");
    }
    text
}
