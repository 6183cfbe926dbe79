//! `SHOW` or `EXPORT DEAD LETTERS [OF LINK x]`, and `RETRY` or `DISCARD DEAD LETTERS OF LINK x [DOCUMENT 'id']`. Knows nothing of what
//! a letter is.

use super::ast::{Name, Statement};
use super::lexer::{Kind, Lexer};
use super::links::read_id;
use super::parser::{is_word, unexpected};
use crate::error::{Error, Result};

const VERBS: [&str; 4] = ["SHOW", "EXPORT", "RETRY", "DISCARD"];

pub(super) const FORMS: &str = "SHOW | EXPORT DEAD LETTERS [OF LINK <id>]; RETRY | DISCARD DEAD LETTERS OF LINK <id> [DOCUMENT '<_id>']";

/// Reads the statement if its first word is one of the verbs.
pub(super) fn read(lexer: &mut Lexer<'_>) -> Result<Option<Statement>> {
    let first = lexer.clone().next()?;
    let Some(verb) = VERBS.iter().find(|verb| is_word(&first, verb)) else { return Ok(None) };
    let mut ahead = lexer.clone();
    ahead.next()?;
    if *verb == "SHOW" && !is_word(&ahead.next()?, "DEAD") {
        // What else can be shown is said with all statements.
        return Ok(None);
    }
    lexer.next()?;
    // The same; a program asks for them in lines.
    let shows = ["SHOW", "EXPORT"].contains(verb);
    let form = |error: Error| error.with_advice(format!("it is written {FORMS}"));
    expect(lexer, "DEAD").and_then(|()| expect(lexer, "LETTERS")).map_err(form)?;
    let link = match is_over(lexer)? {
        true if shows => return Ok(Some(Statement::ShowDeadLetters { link: None })),
        _ => {
            expect(lexer, "OF").and_then(|()| expect(lexer, "LINK")).map_err(form)?;
            read_id(lexer).map_err(form)?
        }
    };
    if shows {
        return Ok(Some(Statement::ShowDeadLetters { link: Some(link) }));
    }
    let document = match is_over(lexer)? {
        true => None,
        false => {
            expect(lexer, "DOCUMENT").map_err(form)?;
            Some(read_document(lexer).map_err(form)?)
        }
    };
    Ok(Some(match *verb {
        "RETRY" => Statement::RetryDeadLetters { link, document },
        _ => Statement::DiscardDeadLetters { link, document },
    }))
}

pub(super) fn expect(lexer: &mut Lexer<'_>, word: &str) -> Result<()> {
    let token = lexer.next()?;
    if is_word(&token, word) { Ok(()) } else { Err(unexpected(word, &token)) }
}

pub(super) fn is_over(lexer: &Lexer<'_>) -> Result<bool> {
    Ok(matches!(lexer.clone().next()?.kind, Kind::End | Kind::Sign(';')))
}

fn read_document(lexer: &mut Lexer<'_>) -> Result<Name> {
    let token = lexer.next()?;
    match token.kind {
        Kind::Text(text) => Ok(Name { text: text.text, span: token.span }),
        Kind::Word(text) | Kind::Ticked(text) => Ok(Name { text, span: token.span }),
        _ => Err(unexpected("the `_id` of a document, in quotes", &token)),
    }
}
