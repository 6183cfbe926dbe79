//! The procedures: what their arguments mean. Knows no statement around them.

use std::collections::HashSet;

use super::ast::{Name, Statement, SyncByTable};
use super::lexer::{Kind, Lexer, Text, shortened};
use super::mapping::{check_index, keys_inside, mapping, rules_inside};
use super::parser::{read_name, unexpected};
use crate::error::{Error, ErrorKind, Result, Span};

/// A quoted string between the parentheses of a call.
pub(super) struct Argument {
    pub text: Text,
    /// With its quotes.
    pub span: Span,
}

impl Argument {
    fn name(&self) -> Name {
        let mut span = self.span;
        span.start += 1;
        span.end -= 1;
        Name { text: self.text.text.clone(), span }
    }
}

pub(super) fn sync_by_map(arguments: &[Argument]) -> Result<Statement> {
    let [target, rules, keys, joins, filter] = arguments else { return Err(miscounted()) };
    expect_search(target)?;
    for (argument, what) in
        [(joins, "join conditions (argument 4)"), (filter, "a row filter (argument 5)")]
    {
        if !argument.text.text.trim().is_empty() {
            let error = Error::new(ErrorKind::Unsupported, format!("not yet: {what}"));
            return Err(error.at(argument.span).with_advice("leave it empty: \"\""));
        }
    }
    for (argument, what) in [(rules, "mapping"), (keys, "key")] {
        if argument.text.text.trim().is_empty() {
            let form = match what {
                "key" => "name the columns that make _id: index.field=db.table.column",
                _ => "name at least one column: index.field(db.table.column)",
            };
            let message = format!("the {what} list is empty");
            return Err(Error::input(message).at(argument.span).with_advice(form));
        }
    }
    let mapping = mapping(rules_inside(&rules.text)?, keys_inside(&keys.text)?)?;
    Ok(Statement::SyncByMap(mapping))
}

pub(super) fn sync_by_table(arguments: &[Argument]) -> Result<Statement> {
    let [target, source, index, columns] = arguments else { return Err(miscounted()) };
    expect_search(target)?;
    let (db, table) = read_table(source)?;
    let index = read_whole(index, "the name of an index")?;
    check_index(&index)?;
    let columns_span = columns.span;
    let columns = read_columns(columns)?;
    Ok(Statement::SyncByTable(SyncByTable { db, table, index, columns, columns_span }))
}

/// The count of arguments is checked before a statement is built.
fn miscounted() -> Error {
    Error::input("wrong number of arguments")
}

fn expect_search(target: &Argument) -> Result<()> {
    if target.text.text.trim().eq_ignore_ascii_case("search") {
        return Ok(());
    }
    let message = format!("unknown target `{}`", shortened(&target.text.text));
    Err(Error::input(message)
        .at(target.span)
        .with_advice("the first argument is always \"search\""))
}

fn read_table(source: &Argument) -> Result<(Name, Name)> {
    let form = |error: Error| error.with_advice("the second argument is written db.table");
    let mut lexer = Lexer::inside(&source.text);
    let db = read_name(&mut lexer, "the name of a database").map_err(form)?;
    let dot = lexer.next()?;
    if !dot.is_sign('.') {
        return Err(form(unexpected("`.` and a table behind the database", &dot)));
    }
    let table = read_name(&mut lexer, "the name of a table").map_err(form)?;
    let end = lexer.next()?;
    if end.kind != Kind::End {
        return Err(form(unexpected("the end behind the table", &end)));
    }
    Ok((db, table))
}

/// One name that fills the argument; without back-ticks it may hold dots.
fn read_whole(argument: &Argument, expected: &str) -> Result<Name> {
    let mut lexer = Lexer::inside(&argument.text);
    let mut name = read_name(&mut lexer, expected)?;
    loop {
        let token = lexer.next()?;
        match token.kind {
            Kind::End => return Ok(name),
            Kind::Sign('.') => name.text.push('.'),
            Kind::Word(part) if token.span.start == name.span.end => name.text.push_str(&part),
            _ => return Err(unexpected("the end of the argument", &token)),
        }
        name.span.end = token.span.end;
    }
}

/// `None` stands for all columns.
fn read_columns(argument: &Argument) -> Result<Option<Vec<Name>>> {
    let mut lexer = Lexer::inside(&argument.text);
    let first = lexer.clone().next()?;
    if first.kind == Kind::End {
        return Ok(None);
    }
    if first.is_sign('*') {
        lexer.next()?;
        let end = lexer.next()?;
        return match end.kind {
            Kind::End => Ok(None),
            _ => Err(unexpected("nothing behind `*`", &end)),
        };
    }
    let mut columns: Vec<Name> = Vec::new();
    let mut seen = HashSet::new();
    loop {
        let column = read_name(&mut lexer, "the name of a column")?;
        if !seen.insert(column.text.to_lowercase()) {
            let message = format!("column `{}` is given twice", shortened(&column.text));
            return Err(Error::input(message).at(column.span));
        }
        columns.push(column);
        let separator = lexer.next()?;
        match separator.kind {
            Kind::End => return Ok(Some(columns)),
            Kind::Sign(',') => (),
            _ => return Err(unexpected("`,` or the end of the column list", &separator)),
        }
    }
}

pub(super) fn id(argument: &Argument) -> Result<Name> {
    let name = argument.name();
    let text = name.text.trim();
    if text.is_empty() {
        let advice = "CALL dbms_etl.show_sync_link() lists the links";
        return Err(Error::input("the id is empty").at(argument.span).with_advice(advice));
    }
    Ok(Name { text: text.to_owned(), ..name })
}
