//! What the user wrote against what the table is: a [`Plan`], or all that is wrong, each with its place in the text.
//! Knows no values.

use std::ops::RangeInclusive;

use super::form::{Form, Forms};
use super::key::{refusal, split};
use super::{Rule, Spec};
use crate::change::Value;
use crate::document::IdHasher;
use crate::error::{Error, ErrorKind, Result, Span, nearest};
use crate::table::{Column, ColumnType, TableDef, TableId};

/// A mapping that is proven against a table's definition.
#[derive(Debug, Clone)]
pub struct Plan {
    table: TableId,
    index: String,
    /// Ordinals in the table's definition, rising.
    wanted: Vec<usize>,
    /// The columns of `wanted`.
    pub(super) columns: Vec<Column>,
    pub(super) fields: Vec<Field>,
    /// Places in `columns` of the key's columns, in the order of `_id`.
    pub(super) keys: Vec<usize>,
    pub(super) hasher: IdHasher,
}

/// One field of the document.
#[derive(Debug, Clone)]
pub(super) struct Field {
    name: String,
    /// The place of its column in [`Plan::columns`].
    pub slot: usize,
    /// What stands before its value: `{"field":` or `,"field":`.
    pub opening: Vec<u8>,
    /// How its values are written.
    pub form: Form,
}

impl Plan {
    /// The same plan with the documents' values in these forms.
    pub fn in_forms(mut self, forms: &Forms) -> Self {
        for field in &mut self.fields {
            field.form = Form::of(&self.columns[field.slot], forms);
        }
        self
    }

    /// The table as the server spells it.
    pub fn table(&self) -> &TableId {
        &self.table
    }

    pub fn index(&self) -> &str {
        &self.index
    }

    /// Ordinals of the columns that are needed, rising. Rows given to this plan hold the values of just these columns,
    /// in this order.
    pub fn wanted(&self) -> &[usize] {
        &self.wanted
    }

    /// Fields in the order of the rules.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.fields.iter().map(|field| (field.name.as_str(), &self.columns[field.slot]))
    }

    /// The ordinals of the columns that make `_id`, in its order.
    pub fn key_ordinals(&self) -> impl Iterator<Item = usize> {
        self.keys.iter().map(|slot| self.wanted[*slot])
    }

    /// The columns that make `_id`, in its order, with their values in a row.
    pub fn key_values<'v, 'a>(
        &self,
        values: &'v [Value<'a>],
    ) -> impl Iterator<Item = (&Column, &'v Value<'a>)> {
        self.keys.iter().filter_map(|slot| Some((&self.columns[*slot], values.get(*slot)?)))
    }

    /// The text of each key column in this `_id`; `None` where no row can have it.
    pub fn key_texts(&self, id: &str) -> Option<Vec<String>> {
        split(id, self.keys.len())
    }

    /// The columns that make `_id`, in its order.
    pub fn keys(&self) -> impl Iterator<Item = &Column> {
        self.keys.iter().map(|slot| &self.columns[*slot])
    }
}

/// Proves `spec` against `def`: all that is wrong, at once, each with its place in the mapping's text.
pub fn compile(spec: &Spec, def: &TableDef) -> Result<Plan, Vec<Error>> {
    let mut problems = Vec::new();
    let rules = resolve(&spec.rules, def, &mut problems);
    let keys = resolve(&spec.keys, def, &mut problems);
    if spec.rules.is_empty() {
        problems.push(Error::input(format!("no column of {} is mapped", def.id)));
    }
    check_keys(spec, &keys, def, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut wanted: Vec<usize> = rules.iter().chain(&keys).copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let slot = |ordinal: &usize| wanted.binary_search(ordinal).expect("wanted has every column");
    let fields = spec.rules.iter().zip(&rules).enumerate();
    Ok(Plan {
        table: def.id.clone(),
        index: spec.index.clone(),
        columns: wanted.iter().map(|ordinal| def.columns[*ordinal].clone()).collect(),
        fields: fields.map(|(at, (rule, ordinal))| field(at, rule, slot(ordinal))).collect(),
        keys: keys.iter().map(slot).collect(),
        hasher: IdHasher,
        wanted,
    })
}

fn field(at: usize, rule: &Rule, slot: usize) -> Field {
    let mut opening = vec![if at == 0 { b'{' } else { b',' }];
    super::escape::write_string(rule.field.as_bytes(), &mut opening).expect("a String is UTF-8");
    opening.push(b':');
    Field { name: rule.field.clone(), slot, opening, form: Form::Usual }
}

/// The ordinals of the columns that the rules name, without those that are wrong.
fn resolve(rules: &[Rule], def: &TableDef, problems: &mut Vec<Error>) -> Vec<usize> {
    let mut ordinals = Vec::with_capacity(rules.len());
    for rule in rules {
        match resolve_one(rule, def) {
            Ok(ordinal) => ordinals.push(ordinal),
            Err(problem) => problems.push(problem.at(rule.span)),
        }
    }
    ordinals
}

fn resolve_one(rule: &Rule, def: &TableDef) -> Result<usize> {
    let lower = |table: &TableId| (table.db.to_lowercase(), table.name.to_lowercase());
    if lower(&rule.table) != lower(&def.id) {
        let message = format!("a link reads one table, here are {} and {}", def.id, rule.table);
        return Err(Error::input(message));
    }
    let Some(ordinal) = def.ordinal(&rule.column) else {
        return Err(unknown_column(&rule.column, def));
    };
    let column = &def.columns[ordinal];
    if let ColumnType::Unsupported { reason } = &column.ty {
        let message = format!(
            "column `{}` of {} is of type {}, which cannot be mapped: {reason}",
            column.name, def.id, column.declared
        );
        let error = Error::new(ErrorKind::Unsupported, message);
        return Err(error.with_advice("leave the column out of the mapping"));
    }
    Ok(ordinal)
}

fn unknown_column(wrong: &str, def: &TableDef) -> Error {
    /// In shorter names every letter counts, so likeness says nothing.
    const LENGTHS_WITH_LIKENESS: RangeInclusive<usize> = 4..=64;
    let mut advice = format!("it has {}", def.column_names());
    if LENGTHS_WITH_LIKENESS.contains(&wrong.len()) {
        let names = def.columns.iter().map(|column| column.name.as_str());
        if let Some(near) = nearest(wrong, names) {
            advice.push_str(&format!("; did you mean `{near}`?"));
        }
    }
    Error::input(format!("unknown column `{wrong}` in {}", def.id)).with_advice(advice)
}

fn check_keys(spec: &Spec, keys: &[usize], def: &TableDef, problems: &mut Vec<Error>) {
    if def.unique_keys.is_empty() {
        let message =
            format!("{} has no primary key and no unique key of NOT NULL columns", def.id);
        let advice =
            format!("add one: ALTER TABLE `{}`.`{}` ADD PRIMARY KEY (…)", def.id.db, def.id.name);
        return problems.push(placed(Error::input(message).with_advice(advice), spec));
    }
    if spec.keys.is_empty() {
        let message = "no key says what the _id is made of";
        return problems.push(Error::input(message).with_advice(unique_keys(def)));
    }
    if keys.len() < spec.keys.len() {
        // Something unknown is among them and has been said; whether the others are enough cannot be.
        return;
    }
    for (rule, column) in spec.keys.iter().zip(keys.iter().map(|ordinal| &def.columns[*ordinal])) {
        if let Some(problem) = check_key_column(column, def) {
            problems.push(problem.at(rule.span));
        }
    }
    let is_unique = |unique: &Vec<usize>| unique.iter().all(|ordinal| keys.contains(ordinal));
    if !def.unique_keys.iter().any(is_unique) {
        let names: Vec<_> =
            keys.iter().map(|ordinal| def.columns[*ordinal].name.as_str()).collect();
        let message =
            format!("two rows of {} can have the same ({}), so one _id", def.id, names.join(", "));
        problems.push(placed(Error::input(message).with_advice(unique_keys(def)), spec));
    }
}

fn check_key_column(column: &Column, def: &TableDef) -> Option<Error> {
    let named = format!("column `{}` of {}", column.name, def.id);
    if let Some(reason) = refusal(column) {
        let message =
            format!("{named} is of type {}, which cannot be a key: {reason}", column.declared);
        let advice = "use a column of integers, decimals, text, bytes or dates";
        return Some(Error::new(ErrorKind::Unsupported, message).with_advice(advice));
    }
    column.nullable.then(|| {
        let message = format!("{named} may be NULL, so it cannot be a key");
        Error::input(message).with_advice(unique_keys(def))
    })
}

/// `the unique keys are (id), (email)`.
fn unique_keys(def: &TableDef) -> String {
    let name = |ordinal: &usize| def.columns.get(*ordinal).map_or("?", |column| &column.name);
    let key =
        |key: &Vec<usize>| format!("({})", key.iter().map(name).collect::<Vec<_>>().join(", "));
    let keys: Vec<_> = def.unique_keys.iter().map(key).collect();
    format!("the unique keys without NULL are {}", keys.join(", "))
}

/// At all of the key list, if there is one.
fn placed(error: Error, spec: &Spec) -> Error {
    match (spec.keys.first(), spec.keys.last()) {
        (Some(first), Some(last)) => error.at(Span::new(first.span.start, last.span.end)),
        _ => error,
    }
}
