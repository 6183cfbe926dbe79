//! The mapping strings: rules `index.field(db.table.column)` and keys `index.field=db.table.column`, in lists separated
//! by commas. Also read on their own, for links of the configuration. Knows no table: whether a column exists is said
//! by whoever has its definition.

use std::collections::{HashMap, HashSet};

use super::ast::{Assignment, Mapping, Name};
use super::lexer::{Kind, Lexer, Text, Token, shortened};
use crate::error::{Error, ErrorKind, Result, Span};

const RULE_FORM: &str = "a rule is written index.field(db.table.column)";
const KEY_FORM: &str = "a key is written index.field=db.table.column";
/// Names that OpenSearch keeps for itself in every document.
const METADATA_FIELDS: &[&str] = &[
    "_id",
    "_index",
    "_type",
    "_source",
    "_size",
    "_routing",
    "_ignored",
    "_field_names",
    "_version",
    "_seq_no",
    "_primary_term",
    "_doc_count",
    "_nested_path",
    "_tier",
    "_data_stream_timestamp",
];

/// Reads `index.field(db.table.column), …`: one index, one table, no field twice. Spans point into `text`.
pub fn mapping_list(text: &str) -> Result<Vec<Assignment>> {
    rules(Lexer::new(text))
}

/// Reads `index.field=db.table.column, …`. Spans point into `text`.
pub fn key_list(text: &str) -> Result<Vec<Assignment>> {
    keys(Lexer::new(text))
}

/// Joins both lists. What is wrong between them is said of the key list, so the error's span points into its text.
pub fn mapping(rules: Vec<Assignment>, keys: Vec<Assignment>) -> Result<Mapping> {
    let Some(first) = rules.first() else {
        return Err(Error::input("the mapping list is empty").with_advice(RULE_FORM));
    };
    let fields: HashMap<_, _> = rules.iter().map(|rule| (&rule.field.text, rule)).collect();
    for key in &keys {
        same_index(first, key)?;
        same_table(first, key)?;
        let rule = fields.get(&key.field.text);
        if let Some(rule) = rule.filter(|rule| !same_column(rule, key)) {
            let (field, mapped) = (&key.field.text, &rule.column.text);
            let message =
                format!("field `{field}` is mapped from column `{mapped}`, not from this one");
            return Err(Error::input(message).at(key.column.span));
        }
    }
    Ok(Mapping { index: first.index.clone(), rules, keys })
}

pub(super) fn rules_inside(text: &Text) -> Result<Vec<Assignment>> {
    rules(Lexer::inside(text))
}

pub(super) fn keys_inside(text: &Text) -> Result<Vec<Assignment>> {
    keys(Lexer::inside(text))
}

fn rules(lexer: Lexer<'_>) -> Result<Vec<Assignment>> {
    let list = List { lexer, form: RULE_FORM, open: '(', close: Some(')') }.read()?;
    for rule in &list {
        if METADATA_FIELDS.contains(&rule.field.text.as_str()) {
            let message = format!("no document can have a field called `{}`", rule.field.text);
            return Err(Error::input(message)
                .at(rule.field.span)
                .with_advice("choose another name"));
        }
    }
    Ok(list)
}

fn keys(lexer: Lexer<'_>) -> Result<Vec<Assignment>> {
    let list = List { lexer, form: KEY_FORM, open: '=', close: None }.read()?;
    let mut columns = HashSet::new();
    for key in &list {
        if !columns.insert(key.column.text.to_lowercase()) {
            let message = format!("column `{}` is in the key list twice", key.column.text);
            return Err(Error::input(message).at(key.source_span()));
        }
    }
    Ok(list)
}

/// What is different between a list of rules and a list of keys.
struct List<'t> {
    lexer: Lexer<'t>,
    form: &'static str,
    open: char,
    close: Option<char>,
}

impl List<'_> {
    fn read(mut self) -> Result<Vec<Assignment>> {
        let mut list: Vec<Assignment> = Vec::new();
        let mut fields = HashSet::new();
        let mut token = self.lexer.next()?;
        if token.kind == Kind::End {
            return Err(Error::input("the list is empty").at(token.span).with_advice(self.form));
        }
        loop {
            let assignment = self.assignment(token)?;
            if let Some(first) = list.first() {
                same_index(first, &assignment)?;
            }
            if !fields.insert(assignment.field.text.clone()) {
                let message =
                    format!("field `{}` is given twice", shortened(&assignment.field.text));
                return Err(Error::input(message).at(assignment.field.span));
            }
            if let Some(first) = list.first() {
                same_table(first, &assignment)?;
            }
            list.push(assignment);
            let separator = self.lexer.next()?;
            match separator.kind {
                Kind::End => return Ok(list),
                Kind::Sign(',') => token = self.lexer.next()?,
                _ => return Err(self.unexpected("`,` or the end", &separator)),
            }
        }
    }

    fn assignment(&mut self, first: Token) -> Result<Assignment> {
        let index = self.name(first, "the name of an index")?;
        check_index(&index)?;
        self.sign('.', "`.` and a field behind the index")?;
        let field = self.field()?;
        let db = self.next_name("the name of a database")?;
        self.sign('.', "`.` and a table behind the database")?;
        let table = self.next_name("the name of a table")?;
        self.sign('.', "`.` and a column behind the table")?;
        let column = self.next_name("the name of a column")?;
        if let Some(close) = self.close {
            self.sign(close, &format!("`{close}` behind the column"))?;
        }
        Ok(Assignment { index, field, db, table, column })
    }

    /// Reads the field and the sign behind it. The index ends at the first dot, so all further dots are the field's.
    fn field(&mut self) -> Result<Name> {
        let mut field = self.next_name("the name of a field")?;
        loop {
            let token = self.lexer.next()?;
            if token.is_sign(self.open) {
                return Ok(field);
            }
            if !token.is_sign('.') {
                return Err(self.unexpected(&format!("`{}` behind the field", self.open), &token));
            }
            let part = self.next_name("the next part of the field's name")?;
            field.text.push('.');
            field.text.push_str(&part.text);
            field.span.end = part.span.end;
        }
    }

    fn next_name(&mut self, expected: &str) -> Result<Name> {
        let token = self.lexer.next()?;
        self.name(token, expected)
    }

    fn name(&self, token: Token, expected: &str) -> Result<Name> {
        match token.kind {
            Kind::Word(text) | Kind::Ticked(text) => Ok(Name { text, span: token.span }),
            _ => Err(self.unexpected(expected, &token)),
        }
    }

    fn sign(&mut self, sign: char, expected: &str) -> Result<()> {
        let token = self.lexer.next()?;
        if token.is_sign(sign) { Ok(()) } else { Err(self.unexpected(expected, &token)) }
    }

    fn unexpected(&self, expected: &str, found: &Token) -> Error {
        let message = format!("expected {expected}, found {}", found.describe());
        Error::input(message).at(found.span).with_advice(self.form)
    }
}

/// Refuses what OpenSearch would refuse as an index name.
pub(super) fn check_index(index: &Name) -> Result<()> {
    let name = index.text.as_str();
    let bad = |c: char| c.is_whitespace() || c.is_control() || "\\/*?\"<>|,#:".contains(c);
    let problem = if name.chars().any(char::is_uppercase) {
        "index names are written in lower case"
    } else if name.starts_with(['_', '-', '+']) {
        "index names do not begin with `_`, `-` or `+`"
    } else if name.contains(bad) {
        "index names hold no white space and none of \\ / * ? \" < > | , # :"
    } else if name.len() > 255 || matches!(name, "." | ".." | "") {
        "index names have 1 to 255 bytes and are not `.` or `..`"
    } else {
        return Ok(());
    };
    let message = format!("`{}` cannot be the name of an index", shortened(name));
    Err(Error::input(message).at(index.span).with_advice(problem))
}

fn same_index(first: &Assignment, other: &Assignment) -> Result<()> {
    if first.index.text == other.index.text {
        return Ok(());
    }
    let message = format!(
        "one link feeds one index, but here are `{}` and `{}`",
        shortened(&first.index.text),
        shortened(&other.index.text)
    );
    Err(Error::input(message).at(other.index.span).with_advice("make a link for each index"))
}

fn same_table(first: &Assignment, other: &Assignment) -> Result<()> {
    if (&first.db.text, &first.table.text) == (&other.db.text, &other.table.text) {
        return Ok(());
    }
    let table = |of: &Assignment| shortened(&format!("{}.{}", of.db.text, of.table.text));
    let message = format!(
        "not yet: joins; a link reads one table, but here are {} and {}",
        table(first),
        table(other)
    );
    let span = Span::new(other.db.span.start, other.table.span.end);
    Err(Error::new(ErrorKind::Unsupported, message).at(span))
}

fn same_column(one: &Assignment, other: &Assignment) -> bool {
    one.column.text.to_lowercase() == other.column.text.to_lowercase()
}
