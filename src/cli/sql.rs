//! `driftless sql`: one statement at a running daemon.

use std::io::Read as _;

use clap::ValueEnum;

use super::{Failure, ask, print};
use crate::statement;

const EXAMPLES: &str = "\
Examples:
  driftless sql \"SHOW LINKS\"
  driftless sql --format json \"CALL dbms_etl.show_sync_link_by_id('products')\"
  driftless sql --format jsonl \"EXPORT DEAD LETTERS\" > letters.jsonl
  driftless sql - < link.sql";

/// Every statement, and how some are run.
fn statements() -> String {
    let forms = statement::forms().map(|form| format!("  {form}\n")).collect::<String>();
    format!("Statements (docs/statements.md):\n{forms}\n{EXAMPLES}")
}

#[derive(Debug, clap::Args)]
#[command(after_help = statements())]
pub(super) struct Arguments {
    /// The statement; `-` reads it from standard input
    statement: String,
    #[command(flatten)]
    daemon: ask::Daemon,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = Format::Txt)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Txt,
    Json,
    /// A JSON object on a line for each row
    Jsonl,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut statement = arguments.statement;
    if statement == "-" {
        statement.clear();
        std::io::stdin()
            .read_to_string(&mut statement)
            .map_err(|cause| Failure::Usage(format!("cannot read the statement: {cause}")))?;
    }
    let format = match arguments.format {
        Format::Txt => "txt",
        Format::Json => "json",
        Format::Jsonl => "jsonl",
    };
    let answer = arguments.daemon.ask_sql(format, &statement)?;
    if !answer.is_ok {
        return Err(Failure::Failed(answer.text));
    }
    print(format_args!("{}\n", answer.text.trim_end()));
    Ok(())
}
