//! Statements on one link: a verb, `LINK`, and the link's id. Knows nothing of what a link is.

use super::ast::{Name, SnapshotLink, Statement};
use super::lexer::{Kind, Lexer, Token};
use super::parser::{is_word, read_name, unexpected};
use super::verify::read_condition;
use crate::error::Result;

type Build = fn(Name) -> Statement;

const VERBS: &[(&str, Build)] = &[
    ("PAUSE", |id| Statement::PauseLink { id }),
    ("RESUME", |id| Statement::ResumeLink { id }),
    ("RESET", |id| Statement::ResetLink { id }),
    (DROP, |id| Statement::DropLink { id, with_index: false }),
    (SNAPSHOT, |id| Statement::SnapshotLink(SnapshotLink { id, table: None, condition: None })),
];

const DROP: &str = "DROP";
const SNAPSHOT: &str = "SNAPSHOT";

/// How these statements are written, for messages.
pub(super) fn forms() -> String {
    let verbs = VERBS.iter().map(|(verb, _)| *verb).filter(|verb| ![DROP, SNAPSHOT].contains(verb));
    let verbs = verbs.collect::<Vec<_>>().join(" | ");
    format!(
        "SHOW LINKS; {verbs} LINK <id>; {DROP} LINK <id> [WITH INDEX]; {SNAPSHOT} LINK <id> [TABLE <db.table>] [WHERE <condition>]"
    )
}

/// Reads the statement if its first word is one of the verbs; else leaves the lexer where it is.
pub(super) fn link_statement(lexer: &mut Lexer<'_>) -> Result<Option<Statement>> {
    let mut ahead = lexer.clone();
    let Kind::Word(word) = ahead.next()?.kind else { return Ok(None) };
    if word.eq_ignore_ascii_case("SHOW") && is_word(&ahead.next()?, "LINKS") {
        *lexer = ahead;
        return Ok(Some(Statement::ShowSyncLink));
    }
    let Some((_, build)) = VERBS.iter().find(|(verb, _)| verb.eq_ignore_ascii_case(&word)) else {
        return Ok(None);
    };
    let token = ahead.next()?;
    match is_word(&token, "LINK") {
        true => {}
        // Of what else is dropped nothing is meant here.
        false if word.eq_ignore_ascii_case(DROP) => return Ok(None),
        false => {
            let verb = word.to_uppercase();
            return Err(unexpected("LINK", &token).with_advice(format!("write {verb} LINK <id>")));
        }
    }
    *lexer = ahead;
    let mut statement = build(read_id(lexer)?);
    if let Statement::SnapshotLink(snapshot) = &mut statement {
        read_rows(lexer, snapshot)?;
    }
    if let Statement::DropLink { with_index, .. } = &mut statement
        && take_word(lexer, "WITH")?.is_some()
    {
        let index = lexer.next()?;
        if !is_word(&index, "INDEX") {
            return Err(unexpected("INDEX behind WITH", &index));
        }
        *with_index = true;
    }
    Ok(Some(statement))
}

/// The next token, if it is this word.
fn take_word(lexer: &mut Lexer<'_>, expected: &str) -> Result<Option<Token>> {
    let mut ahead = lexer.clone();
    let token = ahead.next()?;
    if !is_word(&token, expected) {
        return Ok(None);
    }
    *lexer = ahead;
    Ok(Some(token))
}

/// `TABLE db.table WHERE condition`, both of which may be missing.
fn read_rows(lexer: &mut Lexer<'_>, snapshot: &mut SnapshotLink) -> Result<()> {
    if take_word(lexer, "TABLE")?.is_some() {
        let db = read_name(lexer, "the name of a database")?;
        let dot = lexer.next()?;
        if !dot.is_sign('.') {
            return Err(unexpected("`.` and a table behind the database", &dot));
        }
        snapshot.table = Some((db, read_name(lexer, "the name of a table")?));
    }
    if let Some(clause) = take_word(lexer, "WHERE")? {
        snapshot.condition = Some(read_condition(lexer, &clause, &[])?);
    }
    Ok(())
}

/// A link's id: a word, in which dots may stand, or anything in back-ticks or quotes.
pub(super) fn read_id(lexer: &mut Lexer<'_>) -> Result<Name> {
    let token = lexer.next()?;
    let mut id = match token.kind {
        Kind::Ticked(text) => return Ok(Name { text, span: token.span }),
        Kind::Text(text) => return Ok(Name { text: text.text, span: token.span }),
        Kind::Word(text) => Name { text, span: token.span },
        _ => return Err(unexpected("the id of a link", &token)),
    };
    loop {
        let mut ahead = lexer.clone();
        let next = ahead.next()?;
        let is_next_to_it = next.span.start == id.span.end;
        match next.kind {
            Kind::Sign('.') if is_next_to_it => id.text.push('.'),
            Kind::Word(part) if is_next_to_it => id.text.push_str(&part),
            _ => return Ok(id),
        }
        id.span.end = next.span.end;
        *lexer = ahead;
    }
}
