//! `REBUILD LINK x [WITH option[, option…]]`, `REBUILD LINK x CANCEL | ROLLBACK`, and `COPY LINK x TO INDEX y [AS id]`.
//! Options in any order, each once. Knows no link.

use super::ast::{CopyLink, KeepOld, Name, Rebuild, RebuildLink, RebuildOptions, Statement};
use super::letters::{expect, is_over};
use super::lexer::{Kind, Lexer, Text, Token, shortened};
use super::links::read_id;
use super::mapping::{check_index, rules_inside};
use super::parser::{is_word, unexpected};
use crate::error::{Error, Result, Span};

/// For the list of all statements.
pub(super) const FORMS: &str = "REBUILD LINK <id> [WITH <options>] | CANCEL | ROLLBACK; COPY LINK <id> TO INDEX <index> [AS <id>]";

const FORM: &str = "REBUILD LINK <id> [WITH <option>[, <option>…]], options being INDEX '<JSON of settings, mappings>', MAPPING '<mapping list>', PIPELINE '<name>', KEEP OLD <n> SECOND | MINUTE | HOUR | DAY; REBUILD LINK <id> CANCEL | ROLLBACK";
const COPY_FORM: &str = "COPY LINK <id> TO INDEX <index> [AS <id>]";

const OPTIONS: [&str; 4] = ["INDEX", "MAPPING", "PIPELINE", "KEEP"];

const UNITS: [(&str, u64); 4] = [("SECOND", 1), ("MINUTE", 60), ("HOUR", 3_600), ("DAY", 86_400)];

/// A hundred years, so that no sum of it and the clock overflows.
const KEEP_SECS_MAX: u64 = 36_525 * 86_400;

/// Reads the statement if its first word says so; else leaves the lexer where it is.
pub(super) fn read(lexer: &mut Lexer<'_>) -> Result<Option<Statement>> {
    let first = lexer.clone().next()?;
    if is_word(&first, "REBUILD") {
        let written = |error: Error| match error.advice() {
            None => error.with_advice(format!("it is written {FORM}")),
            Some(_) => error,
        };
        return read_rebuild(lexer).map(Statement::RebuildLink).map(Some).map_err(written);
    }
    if is_word(&first, "COPY") {
        let written = |error: Error| error.with_advice(format!("it is written {COPY_FORM}"));
        return read_copy(lexer).map(Statement::CopyLink).map(Some).map_err(written);
    }
    Ok(None)
}

fn read_copy(lexer: &mut Lexer<'_>) -> Result<CopyLink> {
    lexer.next()?;
    expect(lexer, "LINK")?;
    let link = read_id(lexer)?;
    expect(lexer, "TO")?;
    expect(lexer, "INDEX")?;
    // Names of indexes may hold dots, as ids do.
    let index = read_id(lexer)?;
    check_index(&index)?;
    let id = match is_over(lexer)? {
        true => None,
        false => {
            expect(lexer, "AS")?;
            Some(read_id(lexer)?)
        }
    };
    Ok(CopyLink { link, index, id })
}

fn read_rebuild(lexer: &mut Lexer<'_>) -> Result<RebuildLink> {
    lexer.next()?;
    expect(lexer, "LINK")?;
    let link = read_id(lexer)?;
    if is_over(lexer)? {
        return Ok(begin(link, RebuildOptions::default()));
    }
    let token = lexer.next()?;
    if is_word(&token, "WITH") {
        return Ok(begin(link, read_options(lexer)?));
    }
    let what = match [("CANCEL", Rebuild::Cancel), ("ROLLBACK", Rebuild::Rollback)]
        .into_iter()
        .find(|(word, _)| is_word(&token, word))
    {
        Some((_, what)) => what,
        None => return Err(unexpected("WITH, CANCEL, ROLLBACK or the end", &token)),
    };
    Ok(RebuildLink { link, what })
}

fn begin(link: Name, options: RebuildOptions) -> RebuildLink {
    RebuildLink { link, what: Rebuild::Begin(options) }
}

fn read_options(lexer: &mut Lexer<'_>) -> Result<RebuildOptions> {
    let mut read = RebuildOptions::default();
    loop {
        let token = lexer.next()?;
        let option = OPTIONS.iter().find(|option| is_word(&token, option));
        let is_twice = match option.copied() {
            Some("INDEX") => read.index.replace(read_index(lexer)?).is_some(),
            Some("MAPPING") => {
                let (text, _) = read_text(lexer, "a mapping list in quotes")?;
                read.mapping.replace(rules_inside(&text)?).is_some()
            }
            Some("PIPELINE") => read.pipeline.replace(read_pipeline(lexer)?).is_some(),
            Some(_) => read.keep_old.replace(read_keep_old(lexer, &token)?).is_some(),
            None => return Err(unexpected("INDEX, MAPPING, PIPELINE or KEEP OLD", &token)),
        };
        if is_twice {
            let what = format!("{} is given twice", option.unwrap_or(&""));
            return Err(Error::input(what).at(token.span));
        }
        if is_over(lexer)? {
            return Ok(read);
        }
        let comma = lexer.next()?;
        if !comma.is_sign(',') {
            return Err(unexpected("`,` or the end of the statement", &comma));
        }
    }
}

fn read_text(lexer: &mut Lexer<'_>, expected: &str) -> Result<(Text, Span)> {
    let token = lexer.next()?;
    match token.kind {
        Kind::Text(text) => Ok((text, token.span)),
        _ => Err(unexpected(expected, &token)),
    }
}

fn read_pipeline(lexer: &mut Lexer<'_>) -> Result<Name> {
    let (text, span) = read_text(lexer, "the name of a pipeline in quotes")?;
    if text.text.trim().is_empty() {
        let advice = "`_none` stands for no pipeline";
        return Err(Error::input("the pipeline has no name").at(span).with_advice(advice));
    }
    Ok(Name { text: text.text, span })
}

/// The JSON must be such that it can be put over an index; what is in it the index decides.
fn read_index(lexer: &mut Lexer<'_>) -> Result<Name> {
    let form = "it is written INDEX '{\"settings\": {…}, \"mappings\": {…}}', one of them or both";
    let (text, span) = read_text(lexer, "JSON in quotes")?;
    let value: serde_json::Value = serde_json::from_str(&text.text).map_err(|cause| {
        let place = text.place(offset(&text.text, cause.line(), cause.column()));
        // Its text ends with the place, in its own count.
        let what = cause.to_string();
        let what = what.rsplit_once(" at line").map_or(what.as_str(), |(what, _)| what);
        Error::input(format!("this is not JSON: {what}")).at(place).with_advice(form)
    })?;
    let Some(object) = value.as_object().filter(|object| !object.is_empty()) else {
        return Err(Error::input("INDEX says nothing").at(span).with_advice(form));
    };
    for (name, part) in object {
        if !matches!(name.as_str(), "settings" | "mappings") {
            let what = format!("unknown key `{}`", shortened(name));
            return Err(Error::input(what).at(span).with_advice(form));
        }
        if !part.is_object() {
            let what = format!("`{name}` is not an object");
            return Err(Error::input(what).at(span).with_advice(form));
        }
    }
    Ok(Name { text: text.text, span })
}

/// The byte of one-based line and column, which counts bytes.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (before + column.saturating_sub(1)).min(text.len())
}

/// `OLD 2 DAYS`, `OLD 0`.
fn read_keep_old(lexer: &mut Lexer<'_>, keep: &Token) -> Result<KeepOld> {
    expect(lexer, "OLD")?;
    let token = lexer.next()?;
    let count: Option<u64> = match &token.kind {
        Kind::Word(word) => word.parse().ok(),
        _ => None,
    };
    let count =
        count.ok_or_else(|| unexpected("a number of SECOND, MINUTE, HOUR or DAY", &token))?;
    let mut ahead = lexer.clone();
    let unit = ahead.next()?;
    let secs_of = |(name, secs): &(&str, u64)| {
        (is_word(&unit, name) || is_word(&unit, &format!("{name}S"))).then_some(*secs)
    };
    let (secs, end) = match UNITS.iter().find_map(secs_of) {
        Some(secs) => {
            *lexer = ahead;
            (secs, unit.span.end)
        }
        // Nothing of anything.
        None if count == 0 => (0, token.span.end),
        None => return Err(unexpected("SECOND, MINUTE, HOUR or DAY", &unit)),
    };
    let span = Span::new(keep.span.start, end);
    let secs = count.checked_mul(secs).filter(|secs| *secs <= KEEP_SECS_MAX);
    let secs = secs.ok_or_else(|| Error::input("nothing is kept for so long").at(span))?;
    Ok(KeepOld { secs, span })
}
