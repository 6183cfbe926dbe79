//! `VERIFY LINK x [WHERE condition] [SAMPLE n%] [WITH VECTORS] [REPAIR]`: the clauses in any order, each once. The condition
//! is SQL for the source and stays text; it ends at the next clause outside of its parentheses.

use super::ast::{Name, VerifyLink};
use super::lexer::{Kind, Lexer, Token};
use super::links::read_id;
use super::parser::{is_word, unexpected};
use crate::error::{Error, Result, Span};

pub(super) const VERB: &str = "VERIFY";
pub(super) const FORM: &str =
    "VERIFY LINK <id> [WHERE <condition>] [SAMPLE <n>%] [WITH VECTORS] [REPAIR]";

const CLAUSES: [&str; 4] = ["WHERE", "SAMPLE", "WITH", "REPAIR"];

/// Reads up to the end of the last clause.
pub(super) fn read(lexer: &mut Lexer<'_>) -> Result<VerifyLink> {
    let form = |error: Error| error.with_advice(format!("it is written {FORM}"));
    lexer.next()?;
    let word = lexer.next()?;
    if !is_word(&word, "LINK") {
        return Err(form(unexpected("LINK behind VERIFY", &word)));
    }
    let link = read_id(lexer).map_err(form)?;
    let mut read =
        VerifyLink { link, condition: None, sample_ppm: None, with_vectors: false, repair: false };
    loop {
        let token = lexer.clone().next()?;
        let Some(clause) = CLAUSES.iter().find(|clause| is_word(&token, clause)) else {
            return match &token.kind {
                Kind::End | Kind::Sign(';') => Ok(read),
                _ => Err(form(unexpected("a clause or the end of the statement", &token))),
            };
        };
        lexer.next()?;
        let is_twice = match *clause {
            "WHERE" => read.condition.replace(read_condition(lexer, &token, &CLAUSES)?).is_some(),
            "SAMPLE" => read.sample_ppm.replace(read_share(lexer)?).is_some(),
            "WITH" => {
                let vectors = lexer.next()?;
                if !is_word(&vectors, "VECTORS") {
                    return Err(form(unexpected("VECTORS behind WITH", &vectors)));
                }
                std::mem::replace(&mut read.with_vectors, true)
            }
            _ => std::mem::replace(&mut read.repair, true),
        };
        if is_twice {
            return Err(form(Error::input(format!("{clause} is given twice")).at(token.span)));
        }
    }
}

/// What stands behind `clause`, up to the end of the statement or to one of the words in `ends`.
pub(super) fn read_condition(lexer: &mut Lexer<'_>, clause: &Token, ends: &[&str]) -> Result<Name> {
    let mut span: Option<Span> = None;
    let mut open: Vec<Span> = Vec::new();
    loop {
        let mut ahead = lexer.clone();
        let token = ahead.next()?;
        let is_over = matches!(token.kind, Kind::End | Kind::Sign(';'))
            || open.is_empty() && ends.iter().any(|clause| is_word(&token, clause));
        if is_over {
            break;
        }
        if token.is_sign('(') {
            open.push(token.span);
        }
        if token.is_sign(')') && open.pop().is_none() {
            return Err(Error::input("this parenthesis closes nothing").at(token.span));
        }
        span = Some(Span::new(span.map_or(token.span.start, |span| span.start), token.span.end));
        *lexer = ahead;
    }
    if let Some(open) = open.pop() {
        return Err(Error::input("this parenthesis is not closed").at(open));
    }
    let span = span.ok_or_else(|| {
        Error::input("the condition is empty")
            .at(clause.span)
            .with_advice("write a condition on the columns of the table: WHERE id < 1000")
    })?;
    Ok(Name { text: lexer.written(span).to_owned(), span })
}

/// `5%`, `0.5 %`: of a million.
fn read_share(lexer: &mut Lexer<'_>) -> Result<u32> {
    let first = lexer.next()?;
    let (mut text, mut span) = match first.kind {
        Kind::Word(text) => (text, first.span),
        _ => return Err(unexpected("a share like 5%", &first)),
    };
    while !text.ends_with('%') {
        let mut ahead = lexer.clone();
        let token = ahead.next()?;
        match &token.kind {
            Kind::Word(word) => text.push_str(word),
            Kind::Sign('.') => text.push('.'),
            _ => break,
        }
        span.end = token.span.end;
        *lexer = ahead;
    }
    let number =
        text.strip_suffix('%').filter(|text| text.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    let share: Option<f64> = number.and_then(|number| number.parse().ok());
    let ppm = share.map_or(0.0, |share| (share * 10_000.0).round());
    if (1.0..=1_000_000.0).contains(&ppm) {
        return Ok(ppm as u32);
    }
    let message = "a sample is a share like 5%, of at least 0.0001% and at most 100%";
    Err(Error::input(message).at(span))
}
