//! The grammar of statements: `CALL dbms_etl.<procedure>(<strings>)`. Without recursion, so no input can exhaust the
//! stack.

use super::ast::{Name, Statement, SyncByTable};
use super::lexer::{Kind, Lexer, Text, Token, shortened};
use super::mapping::{check_index, keys_inside, mapping, rules_inside};
use crate::error::{Error, ErrorKind, Result, Span, nearest};

/// Far above any mapping that a person writes, and small enough to be read at once.
const MAX_STATEMENT_BYTES: usize = 1 << 20;

const SCHEMA: &str = "dbms_etl";

struct Procedure {
    name: &'static str,
    arguments: &'static [&'static str],
    build: fn(&[Argument]) -> Result<Statement>,
}

const PROCEDURES: &[Procedure] = &[
    Procedure {
        name: "sync_by_map",
        arguments: &["\"search\"", "mapping list", "key list", "\"\"", "\"\""],
        build: sync_by_map,
    },
    Procedure {
        name: "sync_by_table",
        arguments: &["\"search\"", "db.table", "index", "column list"],
        build: sync_by_table,
    },
    Procedure { name: "show_sync_link", arguments: &[], build: |_| Ok(Statement::ShowSyncLink) },
    Procedure {
        name: "show_sync_link_by_id",
        arguments: &["id"],
        build: |arguments| Ok(Statement::ShowSyncLinkById { id: id(&arguments[0])? }),
    },
    Procedure {
        name: "drop_sync_link_by_id",
        arguments: &["id"],
        build: |arguments| Ok(Statement::DropSyncLinkById { id: id(&arguments[0])? }),
    },
];

/// A quoted string between the parentheses of a call.
struct Argument {
    text: Text,
    /// With its quotes.
    span: Span,
}

impl Argument {
    fn name(&self) -> Name {
        let mut span = self.span;
        span.start += 1;
        span.end -= 1;
        Name { text: self.text.text.clone(), span }
    }
}

/// Reads one statement; the error's span points into `text`.
pub fn parse(text: &str) -> Result<Statement> {
    if text.len() > MAX_STATEMENT_BYTES {
        let message = format!(
            "the statement has {} bytes; the longest that is read has {MAX_STATEMENT_BYTES}",
            text.len()
        );
        return Err(Error::input(message));
    }
    let mut lexer = Lexer::new(text);
    expect_call(&mut lexer)?;
    let procedure = read_procedure(&mut lexer)?;
    let (arguments, parentheses) = read_arguments(&mut lexer)?;
    expect_end(&mut lexer)?;
    check_count(procedure, &arguments, parentheses)?;
    (procedure.build)(&arguments)
}

fn expect_call(lexer: &mut Lexer<'_>) -> Result<()> {
    let token = lexer.next()?;
    let error = match &token.kind {
        Kind::Word(word) if word.eq_ignore_ascii_case("call") => return Ok(()),
        Kind::End => Error::input("the statement is empty"),
        _ => Error::input(format!("unknown statement: it begins with {}", token.describe())),
    };
    Err(error.at(token.span).with_advice(possible()))
}

fn possible() -> String {
    let names = PROCEDURES.iter().map(|p| format!("{}({})", p.name, p.arguments.join(", ")));
    format!("this version knows CALL {SCHEMA}.{}", names.collect::<Vec<_>>().join(", "))
}

fn read_procedure(lexer: &mut Lexer<'_>) -> Result<&'static Procedure> {
    let schema = read_name(lexer, &format!("{SCHEMA}.<procedure>"))?;
    let mut ahead = lexer.clone();
    if !ahead.next()?.is_sign('.') {
        return Err(unknown_procedure(&schema.text, schema.span, &schema.text));
    }
    *lexer = ahead;
    let name = read_name(lexer, "the name of a procedure")?;
    let procedure = PROCEDURES.iter().find(|p| p.name.eq_ignore_ascii_case(&name.text));
    let whole = Span::new(schema.span.start, name.span.end);
    if schema.text.eq_ignore_ascii_case(SCHEMA) {
        if name.text.eq_ignore_ascii_case("sync_by_sql") {
            let message = format!("not yet: {SCHEMA}.sync_by_sql");
            return Err(Error::new(ErrorKind::Unsupported, message).at(name.span));
        }
        let written = format!("{SCHEMA}.{}", name.text);
        return procedure.ok_or_else(|| unknown_procedure(&written, name.span, &name.text));
    }
    Err(unknown_procedure(&format!("{}.{}", schema.text, name.text), whole, &name.text))
}

fn unknown_procedure(written: &str, span: Span, name: &str) -> Error {
    let names = PROCEDURES.iter().map(|procedure| procedure.name);
    let lower = shortened(&name.to_lowercase());
    let advice = match nearest(&lower, names.clone()) {
        Some(near) if written.to_lowercase().starts_with("dbms_etl.") => {
            format!("did you mean {near}?")
        }
        Some(near) => format!("did you mean {SCHEMA}.{near}?"),
        None => format!("{SCHEMA} has {}", names.collect::<Vec<_>>().join(", ")),
    };
    Error::input(format!("unknown procedure {}", shortened(written))).at(span).with_advice(advice)
}

fn read_name(lexer: &mut Lexer<'_>, expected: &str) -> Result<Name> {
    let token = lexer.next()?;
    match token.kind {
        Kind::Word(text) | Kind::Ticked(text) => Ok(Name { text, span: token.span }),
        _ => Err(unexpected(expected, &token)),
    }
}

fn unexpected(expected: &str, found: &Token) -> Error {
    Error::input(format!("expected {expected}, found {}", found.describe())).at(found.span)
}

/// Reads `("…", "…")`; also says where the parentheses are.
fn read_arguments(lexer: &mut Lexer<'_>) -> Result<(Vec<Argument>, Span)> {
    let open = lexer.next()?;
    if !open.is_sign('(') {
        return Err(unexpected("`(` behind the procedure", &open));
    }
    let mut arguments = Vec::new();
    let mut token = lexer.next()?;
    while !(token.is_sign(')') && arguments.is_empty()) {
        match token.kind {
            Kind::Text(text) => arguments.push(Argument { text, span: token.span }),
            _ => {
                let expected = format!("argument {} as a quoted string", arguments.len() + 1);
                return Err(unexpected(&expected, &token));
            }
        }
        let separator = lexer.next()?;
        if separator.is_sign(')') {
            token = separator;
            break;
        }
        if !separator.is_sign(',') {
            return Err(unexpected("`,` or `)` behind the argument", &separator));
        }
        token = lexer.next()?;
    }
    Ok((arguments, Span::new(open.span.start, token.span.end)))
}

fn expect_end(lexer: &mut Lexer<'_>) -> Result<()> {
    let mut token = lexer.next()?;
    let mut closed = false;
    while token.is_sign(';') {
        closed = true;
        token = lexer.next()?;
    }
    match token.kind {
        Kind::End => Ok(()),
        _ if closed => Err(Error::input("one statement at a time").at(token.span)),
        _ => Err(unexpected("the end of the statement", &token)),
    }
}

fn check_count(procedure: &Procedure, arguments: &[Argument], parentheses: Span) -> Result<()> {
    let wanted = procedure.arguments.len();
    if arguments.len() == wanted {
        return Ok(());
    }
    // Too many: those that are too much. Too few: the parenthesis that comes too early.
    let span = match (arguments.get(wanted), arguments.last()) {
        (Some(extra), Some(last)) => Span::new(extra.span.start, last.span.end),
        _ => Span::new(parentheses.end.saturating_sub(1), parentheses.end),
    };
    let (plural, name) = (if wanted == 1 { "" } else { "s" }, procedure.name);
    let message =
        format!("{SCHEMA}.{name} takes {wanted} argument{plural}, here are {}", arguments.len());
    let form = format!("{SCHEMA}.{name}({})", procedure.arguments.join(", "));
    Err(Error::input(message).at(span).with_advice(format!("it is written {form}")))
}

fn sync_by_map(arguments: &[Argument]) -> Result<Statement> {
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

fn sync_by_table(arguments: &[Argument]) -> Result<Statement> {
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
    let mut seen = std::collections::HashSet::new();
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

fn id(argument: &Argument) -> Result<Name> {
    let name = argument.name();
    let text = name.text.trim();
    if text.is_empty() {
        let advice = "CALL dbms_etl.show_sync_link() lists the links";
        return Err(Error::input("the id is empty").at(argument.span).with_advice(advice));
    }
    Ok(Name { text: text.to_owned(), ..name })
}
