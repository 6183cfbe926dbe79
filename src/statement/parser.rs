//! The grammar of statements: `CALL dbms_etl.<procedure>(<strings>)`, what the strings mean being said in `procedures`; or
//! a statement of its own, by its first word.
//! Without recursion, so no input can exhaust the stack.

use super::ast::{Name, Statement};
use super::letters;
use super::lexer::{Kind, Lexer, Token, shortened};
use super::links::{self, link_statement};
use super::procedures::{Argument, id, sync_by_map, sync_by_table};
use super::rebuild;
use super::verify;
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
    if is_word(&lexer.clone().next()?, verify::VERB) {
        let statement = verify::read(&mut lexer)?;
        expect_end(&mut lexer)?;
        return Ok(Statement::VerifyLink(statement));
    }
    if let Some(statement) = link_statement(&mut lexer)? {
        expect_end(&mut lexer)?;
        return Ok(statement);
    }
    if let Some(statement) = letters::read(&mut lexer)? {
        expect_end(&mut lexer)?;
        return Ok(statement);
    }
    if let Some(statement) = rebuild::read(&mut lexer)? {
        expect_end(&mut lexer)?;
        return Ok(statement);
    }
    expect_call(&mut lexer)?;
    let procedure = read_procedure(&mut lexer)?;
    let (arguments, parentheses) = read_arguments(&mut lexer)?;
    expect_end(&mut lexer)?;
    check_count(procedure, &arguments, parentheses)?;
    (procedure.build)(&arguments)
}

fn expect_call(lexer: &mut Lexer<'_>) -> Result<()> {
    let token = lexer.next()?;
    let (error, advice) = match &token.kind {
        Kind::Word(word) if word.eq_ignore_ascii_case("call") => return Ok(()),
        Kind::End => (Error::input("the statement is empty"), all_forms()),
        Kind::Word(word) => (begins_with(&token), likely_forms(word)),
        _ => (begins_with(&token), all_forms()),
    };
    Err(error.at(token.span).with_advice(advice))
}

fn begins_with(token: &Token) -> Error {
    Error::input(format!("unknown statement: it begins with {}", token.describe()))
}

/// How every statement is written, those that are alike in one.
pub fn forms() -> impl Iterator<Item = String> {
    let calls = PROCEDURES
        .iter()
        .map(|call| format!("CALL {SCHEMA}.{}({})", call.name, call.arguments.join(", ")));
    let others = [&links::forms(), verify::FORM, letters::FORMS, rebuild::FORMS]
        .map(|forms| forms.split("; ").map(str::to_owned).collect::<Vec<_>>());
    calls.chain(others.into_iter().flatten())
}

fn all_forms() -> String {
    format!("this version knows {}", forms().collect::<Vec<_>>().join("; "))
}

/// The forms of the verb that was written, or meant.
fn likely_forms(word: &str) -> String {
    let word = shortened(&word.to_uppercase());
    let known: Vec<String> =
        forms().flat_map(|form| verbs(&form).map(str::to_owned).collect::<Vec<_>>()).collect();
    let alike = known.iter().map(String::as_str).filter(|verb| verb.get(..1) == word.get(..1));
    let Some(near) = nearest(&word, alike) else { return all_forms() };
    let found: Vec<String> = forms().filter(|form| verbs(form).any(|verb| verb == near)).collect();
    match near == word {
        true => format!("it can be {}", found.join("; ")),
        false => format!("did you mean {near}? {}", found.join("; ")),
    }
}

/// The words with which statements of this form begin.
fn verbs(form: &str) -> impl Iterator<Item = &str> {
    let words = form.split(' ').take_while(|word| !["LINK", "LINKS", "DEAD"].contains(word));
    words.filter(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()))
}

pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(&token.kind, Kind::Word(found) if found.eq_ignore_ascii_case(word))
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
    // The beginning of a name is meant to be that name, however much is missing.
    let begun = names.clone().find(|name| lower.len() > 4 && name.starts_with(&lower));
    let advice = match begun.or_else(|| nearest(&lower, names.clone())) {
        Some(near) if written.to_lowercase().starts_with("dbms_etl.") => {
            format!("did you mean {near}?")
        }
        Some(near) => format!("did you mean {SCHEMA}.{near}?"),
        None => format!("{SCHEMA} has {}", names.collect::<Vec<_>>().join(", ")),
    };
    Error::input(format!("unknown procedure {}", shortened(written))).at(span).with_advice(advice)
}

pub(super) fn read_name(lexer: &mut Lexer<'_>, expected: &str) -> Result<Name> {
    let token = lexer.next()?;
    match token.kind {
        Kind::Word(text) | Kind::Ticked(text) => Ok(Name { text, span: token.span }),
        _ => Err(unexpected(expected, &token)),
    }
}

pub(super) fn unexpected(expected: &str, found: &Token) -> Error {
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
