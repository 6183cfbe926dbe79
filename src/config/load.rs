//! Reads a file to a checked [`Config`] and the links that it declares, or to everything that is wrong with it. Knows
//! no key.

use std::fs::File;
use std::io::{Error as IoError, Read as _};
use std::path::Path;

use toml::de::DeTable;

use super::text::Env;
use super::value::{Source, deserialize};
use super::{Config, Problems, check, links};
use crate::admin::http;
use crate::error::{Error, Span};
use crate::link::Spec;

/// A thousand links in words; more is another file than was meant.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file that can be run.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub links: Vec<Spec>,
}

/// Reads `file`; `${NAME}` in its strings is the process's environment.
pub fn load(file: &Path) -> Result<Loaded, Problems> {
    let (name, text) = read(file)?;
    parse(&text, &|variable| std::env::var(variable).ok())
        .map_err(|errors| Problems::new(name, text.clone(), errors))
}

/// The door of the daemon of `file`, for those who only want to talk to it: the rest of the file may be wrong for them, a
/// password's variable unset.
pub fn door(file: &Path) -> Result<http::Config, Problems> {
    let (name, text) = read(file)?;
    let table = DeTable::parse(&text)
        .map_err(|wrong| Problems::new(name, text.clone(), vec![not_toml(&wrong)]))?;
    let source = Source { text: &text, table: &table, env: &|_| None };
    Ok(deserialize::<Config>(&source).0.http)
}

fn read(file: &Path) -> Result<(String, String), Problems> {
    let name = file.display().to_string();
    match read_bounded(file) {
        Ok(text) => Ok((name, text)),
        Err(cause) => {
            let error = Error::input("cannot read the configuration")
                .caused_by(cause)
                .with_advice("name an existing file with --config");
            Err(Problems::new(name, String::new(), vec![error]))
        }
    }
}

fn read_bounded(file: &Path) -> Result<String, IoError> {
    let mut text = String::new();
    File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(IoError::other("it has more than 4 MiB")),
        false => Ok(text),
    }
}

/// Reads a text that is there already.
pub(super) fn parse(text: &str, env: Env<'_>) -> Result<Loaded, Vec<Error>> {
    let (table, wrong) = DeTable::parse_recoverable(text);
    if !wrong.is_empty() {
        // What cannot be read as TOML would make all sorts of other things wrong.
        return Err(wrong.iter().map(not_toml).collect());
    }
    let source = Source { text, table: &table, env };
    let (config, mut errors) = deserialize::<Config>(&source);
    errors.extend(check::check(&config, &table));
    let links = links::specs(&source, &config.links, &mut errors);
    if errors.is_empty() { Ok(Loaded { config, links }) } else { Err(errors) }
}

fn not_toml(wrong: &toml::de::Error) -> Error {
    let message = wrong.message().trim_end_matches('.').replace('\n', ", ");
    let error = Error::input(format!("not valid TOML: {message}"));
    match wrong.span() {
        Some(span) => error.at(Span::new(span.start, span.end)),
        None => error,
    }
}
