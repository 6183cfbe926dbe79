//! What statements on its table mean for a link: which definition holds behind each, which columns the rules then read,
//! and whether the table must be copied again. Pure; asks nobody.
//!
//! A definition is taken in one of three ways. (1) The server's, if the log between the statement and the read has no
//! other statement on the table. (2) A chain: each statement applied to the definition before it, taken only if the end
//! equals the server's definition column for column; then every link of the chain is proven too. Where a table of an online
//! copy takes the name, the rows behind it say what it is, if the log names its columns. (3) Otherwise nobody
//! knows what the rows between the statement and the read mean: they are not decoded, and behind them the table is
//! copied again under the server's definition.

use crate::error::{Error, ErrorKind, Result};
use crate::link::policy::{AddColumns, OnGone, Policy};
use crate::mapping::{self, Rule, Spec};
use crate::naive;
use crate::position::GtidSet;
use crate::source::ahead::Met;
use crate::source::ddl::apply::{Altered, Defaults, apply, can_change, renames};
use crate::source::ddl::fate::{Fate, Named, fate, is_online_copy};
use crate::source::schema::Seen;
use crate::source::snapshot::chunk;
use crate::state::{Copy, RuleRecord, SchemaRecord};
use crate::table::{ColumnType, TableDef, TableId};

/// A link as it stands before the statements.
pub(super) struct Standing<'a> {
    /// The last definition that was known.
    pub def: &'a TableDef,
    /// Rows are decoded with `def` up to the first statement.
    pub holds: bool,
    pub spec: &'a Spec,
    /// The table by its name.
    pub named: &'a Named,
    pub policy: Policy,
    pub all_columns: bool,
}

/// What holds behind one statement.
struct Step {
    def: TableDef,
    spec: Spec,
    copy: Copy,
    reason: String,
}

/// The records that begin with `met`, the first of which the link has met, and the others of which lie between it and
/// the moment of `seen`.
pub(super) fn records(
    standing: &Standing<'_>,
    met: &[Met],
    seen: &Seen,
) -> Result<Vec<SchemaRecord>> {
    let Some((first, further)) = met.split_first() else { return Ok(Vec::new()) };
    let Some(def) = &seen.def else {
        refuse_destructive(standing, met)?;
        let reason = format!("no table is called {} behind: {}", standing.def.id, told(first));
        let mut record = gone(first, &seen.read_at, reason);
        // What the rows up to the statement by which it went mean is not known.
        record.copy = Copy::RowsAndSweep;
        return Ok(vec![record]);
    };
    if further.is_empty() {
        let step = single(standing, first, def, seen)?;
        return Ok(vec![step.into_record(first, &seen.read_at)]);
    }
    if let Some(chain) = chain(standing, met, def, seen)? {
        return Ok(chain);
    }
    refuse_destructive(standing, met)?;
    let (last, count) = (met.last().unwrap_or(first), met.len());
    let reason = format!(
        "what {count} statements on {} did one after the other is not proven, the first of them: {}; the last: {}; rows \
         between them are not read, and the table is copied again",
        def.id,
        told(first),
        told(last)
    );
    let mut step = by_name(standing, met, def)?;
    step.reason = reason;
    let mut record = step.into_record(first, &seen.read_at);
    record.skipped = Some(seen.read_at.clone());
    Ok(vec![record])
}

/// The record of a table that has no name of ours any more.
pub(super) fn gone(met: &Met, read_at: &GtidSet, reason: String) -> SchemaRecord {
    SchemaRecord {
        definition: None,
        behind: alone(met),
        read_at: read_at.clone(),
        skipped: None,
        rules: None,
        copy: Copy::No,
        reason,
    }
}

fn alone(met: &Met) -> GtidSet {
    let mut set = GtidSet::default();
    set.insert(&met.gtid);
    set
}

impl Step {
    fn into_record(self, met: &Met, read_at: &GtidSet) -> SchemaRecord {
        SchemaRecord {
            definition: Some(self.def),
            behind: alone(met),
            read_at: read_at.clone(),
            skipped: None,
            rules: Some((rule_records(&self.spec.rules), rule_records(&self.spec.keys))),
            copy: self.copy,
            reason: self.reason,
        }
    }
}

/// Statements that the policy stops at, where what follows takes them for done.
fn refuse_destructive(standing: &Standing<'_>, met: &[Met]) -> Result<()> {
    for one in met {
        let policy = match fate(&one.statement, &one.db, standing.named) {
            Fate::Emptied => standing.policy.on_truncate,
            Fate::Gone { to: None } => standing.policy.on_drop,
            Fate::Altered
                if apply(&one.statement, &one.db, standing.def, Defaults::default())
                    .is_some_and(|altered| altered.moves_rows) =>
            {
                standing.policy.on_truncate
            }
            _ => continue,
        };
        if policy == OnGone::Fail {
            return Err(destroyed(&standing.def.id, one));
        }
    }
    Ok(())
}

/// The table's rows went, and the link is to stop then.
pub(super) fn destroyed(table: &TableId, met: &Met) -> Error {
    let what = format!("the rows of {table} went by: {}", told(met));
    Error::new(ErrorKind::Schema, what).with_advice(
        "to have the documents deleted with them, set on_truncate and on_drop to \"delete\" (or \"ignore\" to keep \
         them), restart Driftless and say RESUME LINK; else drop the link",
    )
}

/// The statement is the only one, so `def` holds behind it.
fn single(standing: &Standing<'_>, met: &Met, def: &TableDef, seen: &Seen) -> Result<Step> {
    match fate(&met.statement, &met.db, standing.named) {
        Fate::Altered if standing.holds => {
            let charset = seen.charset.as_deref();
            let defaults = Defaults { charset, is_mariadb: seen.is_mariadb };
            let around = Around { defaults, has_generated: seen.has_generated };
            match altered(standing, (standing.def, standing.spec), met, around, Some(def))? {
                Some(step) => Ok(step),
                None => by_name(standing, std::slice::from_ref(met), def),
            }
        }
        Fate::Taken { by } if is_online_copy(&by, &standing.def.id) => {
            online_copy((standing.def, standing.spec), met, def)
        }
        Fate::Altered
        | Fate::Taken { .. }
        | Fate::Made { .. }
        | Fate::Nothing
        | Fate::Emptied
        | Fate::Gone { .. } => by_name(standing, std::slice::from_ref(met), def),
    }
}

/// Every statement applied in turn, if that ends at `end`.
fn chain(
    standing: &Standing<'_>,
    met: &[Met],
    end: &TableDef,
    seen: &Seen,
) -> Result<Option<Vec<SchemaRecord>>> {
    if !standing.holds {
        return Ok(None);
    }
    // The default of the end is that of every moment only if nothing speaks of it.
    let speaks = |met: &Met| {
        let text = met.statement.to_ascii_uppercase();
        ["CHARSET", "CHARACTER", "COLLATE"].iter().any(|word| text.contains(word))
    };
    let charset = seen.charset.as_deref().filter(|_| !met.iter().any(speaks));
    let defaults = Defaults { charset, is_mariadb: seen.is_mariadb };
    let around = Around { defaults, has_generated: seen.has_generated };
    let (mut def, mut spec) = (standing.def.clone(), standing.spec.clone());
    let mut records = Vec::new();
    let Some(last) = met.last() else { return Ok(None) };
    for one in met {
        match fate(&one.statement, &one.db, standing.named) {
            Fate::Nothing | Fate::Emptied | Fate::Made { if_absent: true } => continue,
            Fate::Altered => {}
            Fate::Taken { by } if is_online_copy(&by, &standing.def.id) => {
                let is_last = std::ptr::eq(one, last);
                let Some(taken) = announced(one, &def, end, is_last) else { return Ok(None) };
                let Ok(step) = online_copy((&def, &spec), one, &taken) else { return Ok(None) };
                def = step.def.clone();
                records.push(step.into_record(one, &seen.read_at));
                continue;
            }
            Fate::Gone { .. } | Fate::Made { .. } | Fate::Taken { .. } => return Ok(None),
        }
        // A statement that the link cannot go on behind stops it when it is met, not now, if the chain is right.
        let Ok(Some(step)) = altered(standing, (&def, &spec), one, around, None) else {
            return Ok(None);
        };
        (def, spec) = (step.def.clone(), step.spec.clone());
        records.push(step.into_record(one, &seen.read_at));
    }
    if !is_same(&def, end) {
        return Ok(None);
    }
    if let Some(last) = records.last_mut() {
        compiled(&spec, end, met.last().unwrap_or(&met[0]))?;
        last.definition = Some(end.clone());
    }
    Ok(Some(records))
}

/// What the statement's own text does not say of the table.
#[derive(Clone, Copy)]
struct Around<'a> {
    defaults: Defaults<'a>,
    /// There are columns that are computed from others.
    has_generated: bool,
}

/// The table that took the name, as the first rows behind the statement announce it. The log names columns and types, not
/// everything that the server says of them, so each is the column of that name before or at the end. None where one is
/// neither, or where nothing says which columns there are. Behind the last statement the server's is the one.
fn announced(met: &Met, before: &TableDef, end: &TableDef, is_last: bool) -> Option<TableDef> {
    if is_last {
        return Some(end.clone());
    }
    let mut def = met.announced.as_deref()?.clone();
    for column in &mut def.columns {
        let is_it = |known: &&crate::table::Column| {
            known.name.to_lowercase() == column.name.to_lowercase()
                && known.ty == column.ty
                && known.nullable == column.nullable
        };
        let known = end.columns.iter().find(is_it).or(before.columns.iter().find(is_it));
        match known {
            Some(known) => *column = known.clone(),
            // Nobody knows how it is declared. It may come and go, but no rule may read it.
            None => column.ty = ColumnType::Unsupported { reason: "it is only announced".into() },
        }
    }
    let key = |def: &TableDef| {
        def.primary_key.iter().map(|at| def.columns[*at].name.to_lowercase()).collect::<Vec<_>>()
    };
    for known in [end, before] {
        if key(known) == key(&def) {
            let by_name = |at: &usize| def.ordinal(&known.columns[*at].name);
            let keys = known.unique_keys.iter();
            def.unique_keys = keys.filter_map(|key| key.iter().map(by_name).collect()).collect();
            break;
        }
    }
    Some(def)
}

/// One ALTER applied; `None` where it is not understood, or does not end at `server`.
fn altered(
    standing: &Standing<'_>,
    (before, spec): (&TableDef, &Spec),
    met: &Met,
    around: Around<'_>,
    server: Option<&TableDef>,
) -> Result<Option<Step>> {
    let Some(altered) = apply(&met.statement, &met.db, before, around.defaults) else {
        return Ok(None);
    };
    if server.is_some_and(|server| !is_same(&altered.def, server)) {
        return Ok(None);
    }
    let def = server.unwrap_or(&altered.def).clone();
    let mut fresh = Vec::new();
    let mut rebind = |rules: &[Rule]| -> Result<Vec<Rule>> {
        rules.iter().map(|rule| rebound(rule, before, &altered, met, &mut fresh)).collect()
    };
    let (rules, keys) = (rebind(&spec.rules)?, rebind(&spec.keys)?);
    let mut spec = Spec { index: spec.index.clone(), rules, keys };
    let reads = |rules: &[Rule], ordinal: &usize| {
        rules.iter().any(|rule| def.ordinal(&rule.column) == Some(*ordinal))
    };
    let changed: Vec<usize> = altered.revalued.iter().chain(&fresh).copied().collect();
    // A key may be one of the columns that are computed from others.
    let mut copy = if changed.iter().any(|at| reads(&spec.keys, at))
        || (around.has_generated && !changed.is_empty())
    {
        Copy::RowsAndSweep
    } else if changed.iter().any(|at| reads(&spec.rules, at)) {
        Copy::Rows
    } else {
        Copy::No
    };
    let added = add_fields(standing, &altered, &def, &mut spec);
    if copy == Copy::No && added.iter().any(|at| altered.filled.contains(at)) {
        copy = Copy::Rows;
    }
    if altered.moves_rows {
        match standing.policy.on_truncate {
            OnGone::Delete => copy = Copy::RowsAndSweep,
            OnGone::Fail => return Err(destroyed(&def.id, met)),
            OnGone::Ignore => {}
        }
    }
    if naive::is_naive(naive::Rule::SilentChanges) {
        copy = Copy::No;
    }
    compiled(&spec, &def, met)?;
    let reason = match copy {
        Copy::No => String::new(),
        Copy::Rows | Copy::RowsAndSweep => {
            format!(
                "the table is copied again, because rows changed without events by: {}",
                told(met)
            )
        }
    };
    Ok(Some(Step { def, spec, copy, reason }))
}

/// The rule behind the statement: it reads the column that it has read, whatever that is called now. One that was
/// dropped and added anew is another column of that name; it goes to `fresh`.
fn rebound(
    rule: &Rule,
    before: &TableDef,
    altered: &Altered,
    met: &Met,
    fresh: &mut Vec<usize>,
) -> Result<Rule> {
    let origin = before.ordinal(&rule.column);
    let now = altered.origins.iter().position(|one| one.is_some() && *one == origin);
    let column = match now {
        Some(at) => altered.def.columns[at].name.clone(),
        None => {
            let at = altered.def.ordinal(&rule.column).ok_or_else(|| missing(rule, met))?;
            fresh.push(at);
            rule.column.clone()
        }
    };
    Ok(Rule { column, ..rule.clone() })
}

fn missing(rule: &Rule, met: &Met) -> Error {
    let what = format!(
        "column `{}` of {}, which field `{}` is made of, is gone by: {}",
        rule.column,
        rule.table,
        rule.field,
        told(met)
    );
    Error::new(ErrorKind::Schema, what)
        .with_advice("drop the link and create it again for the table as it is now")
}

/// The new columns become fields, where the link is to have them all.
fn add_fields(
    standing: &Standing<'_>,
    altered: &Altered,
    def: &TableDef,
    spec: &mut Spec,
) -> Vec<usize> {
    if !standing.all_columns || standing.policy.add_columns == AddColumns::Ignore {
        return Vec::new();
    }
    let mut added = Vec::new();
    for (at, column) in def.columns.iter().enumerate() {
        let is_new = altered.origins.get(at).is_some_and(Option::is_none);
        let is_field = spec.rules.iter().any(|rule| {
            rule.column.to_lowercase() == column.name.to_lowercase() || rule.field == column.name
        });
        if !is_new || is_field || matches!(column.ty, ColumnType::Unsupported { .. }) {
            continue;
        }
        spec.rules.push(Rule {
            field: column.name.clone(),
            table: def.id.clone(),
            column: column.name.clone(),
            span: Default::default(),
            field_span: Default::default(),
        });
        added.push(at);
    }
    added
}

/// The rules read the columns of their names, which renamings that can be read have changed; and every row is copied.
fn by_name(standing: &Standing<'_>, met: &[Met], def: &TableDef) -> Result<Step> {
    let mut spec = standing.spec.clone();
    for one in met {
        let renames = renames(&one.statement, &one.db, &def.id);
        for rule in spec.rules.iter_mut().chain(&mut spec.keys) {
            let is = |(before, _): &&(String, String)| {
                before.to_lowercase() == rule.column.to_lowercase()
            };
            if let Some((_, now)) = renames.iter().find(is) {
                rule.column.clone_from(now);
            }
        }
    }
    let last = met.last().expect("a statement was met");
    compiled(&spec, def, last)?;
    let reason = format!("the table is copied again, because of: {}", told(last));
    Ok(Step { def: def.clone(), spec, copy: Copy::RowsAndSweep, reason })
}

/// What gh-ost and pt-online-schema-change put in the table's place has the same rows, but for what their ALTER changed.
fn online_copy((before, spec): (&TableDef, &Spec), met: &Met, def: &TableDef) -> Result<Step> {
    compiled(spec, def, met)?;
    let pair = |rule: &Rule| Some((before.ordinal(&rule.column)?, def.ordinal(&rule.column)?));
    let pairs = |rules: &[Rule]| rules.iter().filter_map(pair).collect::<Vec<_>>();
    let (fields, keys) = (pairs(&spec.rules), pairs(&spec.keys));
    let differs = |(old, new): &(usize, usize)| {
        let (old, new) = (&before.columns[*old], &def.columns[*new]);
        old.ty != new.ty || can_change(old, new)
    };
    let mut order: Vec<_> = fields.iter().chain(&keys).collect();
    order.sort_unstable();
    // Columns that have changed places may have changed names.
    let keeps_order = order.windows(2).all(|pair| pair[0].1 <= pair[1].1);
    let copy = if keys.iter().any(differs) || !keeps_order {
        Copy::RowsAndSweep
    } else if fields.iter().any(differs) {
        Copy::Rows
    } else {
        Copy::No
    };
    let reason = match copy {
        Copy::No => String::new(),
        _ => format!(
            "the table is copied again, because its columns are others behind: {}",
            told(met)
        ),
    };
    Ok(Step { def: def.clone(), spec: spec.clone(), copy, reason })
}

/// Whether two definitions have the same columns, as far as the first knows them.
fn is_same(ours: &TableDef, server: &TableDef) -> bool {
    let is_same_column = |(ours, server): (&crate::table::Column, &crate::table::Column)| {
        let is_same_type = match (&ours.ty, &server.ty) {
            (ColumnType::Enum { .. } | ColumnType::Set { .. }, _) => ours.ty == server.ty,
            (ColumnType::Unsupported { .. }, _) => ours.declared == server.declared,
            (one, other) => one == other && ours.declared == server.declared,
        };
        ours.name.to_lowercase() == server.name.to_lowercase()
            && ours.nullable == server.nullable
            && is_same_type
    };
    ours.columns.len() == server.columns.len()
        && ours.columns.iter().zip(&server.columns).all(is_same_column)
        && ours.primary_key == server.primary_key
}

/// The rules must still be sound, and the table must still be one that can be copied.
fn compiled(spec: &Spec, def: &TableDef, met: &Met) -> Result<()> {
    let mut reasons: Vec<String> = match mapping::compile(spec, def) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(Error::report).collect(),
    };
    reasons.extend(chunk::check_key(def).err().map(|error| error.report()));
    if reasons.is_empty() {
        return Ok(());
    }
    let what = format!("{} was changed by: {}; {}", def.id, told(met), reasons.join("; "));
    Err(Error::new(ErrorKind::Schema, what)
        .with_advice("drop the link and create it again for the table as it is now"))
}

/// The statement as a message shows it.
fn told(met: &Met) -> String {
    const SHOWN: usize = 300;
    let statement = met.statement.trim();
    match statement.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &statement[..end]),
        None => statement.to_owned(),
    }
}

pub(super) fn rule_records(rules: &[Rule]) -> Vec<RuleRecord> {
    rules
        .iter()
        .map(|rule| RuleRecord {
            field: rule.field.clone(),
            db: rule.table.db.clone(),
            table: rule.table.name.clone(),
            column: rule.column.clone(),
        })
        .collect()
}

/// The mapping that the records hold.
pub(super) fn spec_of(index: &str, rules: &[RuleRecord], keys: &[RuleRecord]) -> Spec {
    let rule = |rule: &RuleRecord| Rule {
        field: rule.field.clone(),
        table: TableId::new(&rule.db, &rule.table),
        column: rule.column.clone(),
        span: Default::default(),
        field_span: Default::default(),
    };
    Spec {
        index: index.to_owned(),
        rules: rules.iter().map(rule).collect(),
        keys: keys.iter().map(rule).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Gtid, Sid};
    use crate::table::Column;

    fn column(name: &str) -> Column {
        let is_key = name == "id";
        let (ty, declared) = match is_key {
            true => (ColumnType::Int { unsigned: false }, "int"),
            false => (ColumnType::Text, "varchar(9)"),
        };
        Column { name: name.into(), ty, nullable: !is_key, declared: declared.into() }
    }

    fn table(columns: &[&str]) -> TableDef {
        let columns: Vec<_> = columns.iter().map(|name| column(name)).collect();
        let key = columns.iter().position(|column| column.name == "id").into_iter().collect();
        TableDef {
            id: TableId::new("d", "t"),
            columns,
            primary_key: key,
            unique_keys: vec![vec![0]],
        }
    }

    fn met(statements: &[&str]) -> Vec<Met> {
        let gtid = |gno| Gtid::new(Sid::untagged([7; 16]), gno);
        let one = |(gno, statement): (u64, &&str)| Met {
            statement: (*statement).to_owned(),
            db: "d".into(),
            gtid: gtid(gno),
            announced: None,
        };
        (1..).zip(statements).map(one).collect()
    }

    /// For each record: the columns that id, a and b are read from, and what is copied.
    fn told(statements: &[&str], end: &[&str]) -> Vec<String> {
        told_of(&met(statements), end)
    }

    /// The statements with what the rows behind the first announce.
    fn with(statements: &[&str], announced: &[&str]) -> Vec<Met> {
        let mut met = met(statements);
        met[0].announced = Some(Box::new(table(announced)));
        met
    }

    fn told_of(met: &[Met], end: &[&str]) -> Vec<String> {
        let (def, named) = (
            table(&["id", "a", "b"]),
            Named { table: TableId::new("d", "t"), ignores_case: false },
        );
        let rule = |column: &str| RuleRecord {
            field: column.into(),
            db: "d".into(),
            table: "t".into(),
            column: column.into(),
        };
        let spec = spec_of("i", &["id", "a", "b"].map(rule), &[rule("id")]);
        let standing = Standing {
            def: &def,
            holds: true,
            spec: &spec,
            named: &named,
            policy: crate::link::Config::default().policy(),
            all_columns: false,
        };
        let seen = Seen {
            def: (!end.is_empty()).then(|| table(end)),
            charset: Some("utf8mb4".into()),
            has_generated: false,
            is_mariadb: false,
            read_at: GtidSet::default(),
        };
        let records = match records(&standing, met, &seen) {
            Ok(records) => records,
            Err(error) => return vec![error.report()],
        };
        let one = |record: &SchemaRecord| {
            let Some((rules, _)) = &record.rules else { return "gone".to_owned() };
            let columns: Vec<_> = rules.iter().map(|rule| rule.column.as_str()).collect();
            let skips = if record.skipped.is_some() { " skipping" } else { "" };
            format!("{} {:?}{skips}", columns.join(","), record.copy)
        };
        records.iter().map(one).collect()
    }

    #[test]
    fn one_statement_is_taken_with_what_the_server_shows() {
        let swap = "ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a";
        for (statement, end, expected) in [
            ("ALTER TABLE t ADD c VARCHAR(9)", &["id", "a", "b", "c"][..], "id,a,b No"),
            (swap, &["id", "b", "a"], "id,b,a No"),
            ("ALTER TABLE t DROP a, ADD a VARCHAR(9)", &["id", "b", "a"], "id,a,b Rows"),
            // What the server shows is not what we make of the statement.
            (swap, &["id", "a", "b"], "id,b,a RowsAndSweep"),
            ("ALTER TABLE t STRANGE", &["id", "a", "b"], "id,a,b RowsAndSweep"),
            ("ALTER TABLE t DROP PARTITION p", &["id", "a", "b"], "id,a,b RowsAndSweep"),
            ("RENAME TABLE t TO _t_del, _t_gho TO t", &["id", "a", "c", "b"], "id,a,b No"),
            ("RENAME TABLE t TO _t_del, _t_gho TO t", &["id", "b", "a"], "id,a,b RowsAndSweep"),
            ("RENAME TABLE t TO x, u TO t", &["id", "a", "b"], "id,a,b RowsAndSweep"),
            ("CREATE TABLE t (id INT)", &["id", "a", "b"], "id,a,b RowsAndSweep"),
        ] {
            assert_eq!(told(&[statement], end), [expected], "{statement}");
        }
        let error = &told(&["ALTER TABLE t DROP b"], &["id", "a"])[0];
        assert!(
            error.contains("column `b` of d.t, which field `b` is made of, is gone"),
            "{error}"
        );
    }

    #[test]
    fn several_are_a_chain_only_if_they_end_where_the_server_is() {
        let swap = "ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a";
        let add = "ALTER TABLE t ADD c INT FIRST";
        let drop = "ALTER TABLE t DROP c";
        let expected = ["id,b,a No", "id,b,a No", "id,b,a No"];
        assert_eq!(told(&[swap, add, "TRUNCATE t", drop], &["id", "b", "a"]), expected);
        // One that is not known between them, and an end that is another.
        let skips = ["id,b,a RowsAndSweep skipping"];
        assert_eq!(told(&[swap, "ALTER TABLE t STRANGE"], &["id", "b", "a"]), skips);
        assert_eq!(told(&[swap, add], &["id", "b", "a"]), skips);
        let twice = ["RENAME TABLE t TO _t_del, _t_gho TO t"; 2];
        assert_eq!(
            told_of(&with(&twice, &["id", "a", "c", "b"]), &["id", "a", "b"]),
            ["id,a,b No"; 2]
        );
        // Columns that have changed places may have changed names.
        let moved = told_of(&with(&twice, &["id", "b", "a"]), &["id", "a", "b"]);
        assert_eq!(moved, ["id,a,b RowsAndSweep"; 2]);
        assert_eq!(
            told_of(&with(&twice, &["id", "a"]), &["id", "a", "b"]),
            ["id,a,b RowsAndSweep skipping"]
        );
        assert_eq!(told(&twice, &["id", "a", "b"]), ["id,a,b RowsAndSweep skipping"]);
        assert_eq!(told(&[swap, "RENAME TABLE t TO u"], &[]), ["gone"]);
        let error = &told(&[swap, "DROP TABLE t"], &[])[0];
        assert!(error.contains("on_drop"), "{error}");
    }
}
