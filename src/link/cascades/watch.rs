//! What a link's worker must look at for its foreign keys: which columns of its own rows, which of its parents'. Made of
//! definitions; holds what is open between two of the stream's items.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::change::{Row, Value};
use crate::link::cascades::form::{Form, ODD, form};
use crate::mapping;
use crate::position::{Gtid, GtidSet, Version};
use crate::source::binlog::{TableMap, rows};
use crate::state::Child;
use crate::table::{Column, ColumnType, Family, ForeignKey, TableDef, TableId};

/// The foreign keys that reach into a link's table.
pub(in crate::link) struct Cascades {
    pub family: Family,
    /// What was read of the keys is not proven before the stream has covered this.
    pub unproven: Option<GtidSet>,
    /// Ordinals of the columns that are decoded: those of the mapping first.
    pub wanted: Vec<usize>,
    pub types: Vec<ColumnType>,
    columns: Vec<Column>,
    /// The keys by which the table's own rows refer.
    pub own: Arc<[Own]>,
    pub parents: Vec<Parent>,
    /// Index lookups that are not done yet.
    pub lookups: VecDeque<Lookup>,
    /// Rows that were found to be gone, since all lookups were last done.
    pub gone: HashSet<String>,
    /// Entries that were written by no batch yet.
    pub fresh: Vec<(usize, Child)>,
    /// Rows above the parents went, in these transactions: which parents went with them must be asked.
    pub orphans: Option<GtidSet>,
    /// By entry the counted bytes of log before the event that made it untrue.
    pub removable: HashMap<Box<[u8]>, u64>,
    /// The highest version of anything that was taken in.
    pub newest: Version,
}

/// A key of the table's own rows.
#[derive(Clone)]
pub(in crate::link) struct Own {
    /// Its place in the family.
    pub key: usize,
    /// Where its columns stand in a row; None where the table has no such columns.
    places: Option<Vec<usize>>,
    /// The rows that are referred to are of the table itself, and by what makes the `_id`.
    pub refers_to_id: bool,
}

/// A table whose rows are referred to.
pub(in crate::link) struct Parent {
    pub table: TableId,
    /// None for the link's own table, and for one whose definition could not be read.
    pub def: Option<Arc<TableDef>>,
    /// Ordinals of the columns that are decoded.
    pub wanted: Vec<usize>,
    pub watched: Vec<Watched>,
    pub plan: Option<(Arc<TableMap>, Arc<rows::Plan>)>,
}

/// A key that refers to a table.
#[derive(Clone)]
pub(in crate::link) struct Watched {
    /// Its place in the family.
    pub key: usize,
    /// Where the columns that are referred to stand in a row; None where there are no such columns.
    pub places: Option<Vec<usize>>,
}

/// Rows to be found by what they refer to.
pub(in crate::link) struct Lookup {
    pub key: usize,
    /// None: all rows that refer to anything by this key.
    pub form: Option<String>,
    pub after: Option<Box<[u8]>>,
    pub version: Version,
    pub n: u64,
    pub gtid: Option<Gtid>,
}

/// What is kept of entries that can be taken away. Those beyond stay until their rows are read again.
const REMOVABLE_MAX: usize = 100_000;

impl Cascades {
    pub fn new(family: Family, unproven: Option<GtidSet>) -> Self {
        Self {
            family,
            unproven,
            wanted: Vec::new(),
            types: Vec::new(),
            columns: Vec::new(),
            own: Arc::default(),
            parents: Vec::new(),
            lookups: VecDeque::new(),
            gone: HashSet::new(),
            fresh: Vec::new(),
            orphans: None,
            removable: HashMap::new(),
            newest: Version::default(),
        }
    }

    /// Takes other keys in the place of those known.
    pub fn learn(&mut self, family: Family, unproven: GtidSet) {
        self.family = family;
        self.unproven = Some(unproven);
        self.orphans = None;
    }

    /// Finds the columns of the keys in the definitions.
    pub fn bind(&mut self, def: &TableDef, plan: &mapping::Plan) {
        self.wanted = plan.wanted().to_vec();
        let family = self.family.clone();
        self.own = family
            .of_child(&def.id)
            .map(|(at, key)| Own {
                key: at,
                places: self.places(def, &key.columns),
                refers_to_id: key.parent == def.id
                    && ordinals(def, &key.parent_columns)
                        .is_some_and(|ordinals| ordinals.into_iter().eq(plan.key_ordinals())),
            })
            .collect();
        let mut tables: Vec<&TableId> = family.keys.iter().map(|key| &key.parent).collect();
        tables.sort_unstable();
        tables.dedup();
        self.parents = tables.into_iter().map(|table| self.parent(&family, table, def)).collect();
        self.columns = self.wanted.iter().map(|at| def.columns[*at].clone()).collect();
        self.types = self.columns.iter().map(|column| column.ty.clone()).collect();
    }

    fn parent(&mut self, family: &Family, table: &TableId, own: &TableDef) -> Parent {
        let keys = || family.keys.iter().enumerate().filter(|(_, key)| key.parent == *table);
        let (mut wanted, mut watched) = (Vec::new(), Vec::new());
        let def = family.ancestor(table).cloned().map(Arc::new);
        for (key, found) in keys() {
            let places = match &def {
                _ if *table == own.id => self.places(own, &found.parent_columns),
                Some(def) => places_in(def, &found.parent_columns, &mut wanted),
                None => None,
            };
            watched.push(Watched { key, places });
        }
        Parent { table: table.clone(), def, wanted, watched, plan: None }
    }

    fn places(&mut self, def: &TableDef, columns: &[String]) -> Option<Vec<usize>> {
        places_in(def, columns, &mut self.wanted)
    }

    pub fn is_own_parent(&self, own: &TableId) -> Option<usize> {
        self.parents.iter().position(|parent| parent.table == *own)
    }

    pub fn key(&self, at: usize) -> &ForeignKey {
        &self.family.keys[at]
    }

    /// What a row of the table refers to by a key. None where that cannot be seen.
    pub fn own_form(&self, own: &Own, values: &[Value<'_>]) -> Option<Form> {
        let places = own.places.as_ref()?;
        let of = |at: &usize| Some((values.get(*at)?, self.types.get(*at)?));
        if places.iter().filter_map(of).any(|(value, _)| *value == Value::LeftOut) {
            return None;
        }
        Some(form(places.iter().filter_map(of), self.key(own.key).is_plain))
    }

    /// The entry of a row that refers to something.
    pub fn child(
        &self,
        own: &Own,
        row: &Row<'_>,
        plan: &mapping::Plan,
        id: &str,
    ) -> crate::error::Result<Option<Child>> {
        self.child_of(own, &row.values, plan, id)
    }

    pub fn child_of(
        &self,
        own: &Own,
        values: &[Value<'_>],
        plan: &mapping::Plan,
        id: &str,
    ) -> crate::error::Result<Option<Child>> {
        let form = match self.own_form(own, values) {
            None | Some(Form::Nothing) => return Ok(None),
            Some(Form::Of(form)) => form,
            Some(Form::Odd) => ODD.to_owned(),
        };
        let places = own.places.as_deref().unwrap_or_default();
        let part = |at: &usize| {
            let (column, value) = (self.columns.get(*at)?, values.get(*at)?);
            super::super::left_out::key_part(column, value).ok()
        };
        // What cannot be asked for is read again in any case.
        let refers_to = places.iter().map(part).collect::<Option<_>>().unwrap_or_default();
        let key = super::super::left_out::key_of_values(plan, values)?;
        Ok(Some(Child { form, id: id.to_owned(), key, refers_to }))
    }

    /// An entry is not true behind `n`, and can go when a checkpoint has passed that.
    pub fn outlive(&mut self, entry: Vec<u8>, n: u64) {
        if self.removable.len() < REMOVABLE_MAX {
            self.removable.insert(entry.into(), n);
        }
    }

    /// The entries that a checkpoint at `n` needs no more.
    pub fn take_removable(&mut self, n: u64) -> Vec<Box<[u8]>> {
        self.removable.extract_if(|_, at| *at < n).map(|(entry, _)| entry).collect()
    }
}

fn ordinals(def: &TableDef, columns: &[String]) -> Option<Vec<usize>> {
    columns.iter().map(|column| def.ordinal(column)).collect()
}

/// Where the columns stand among those that are decoded, to which they are added.
fn places_in(def: &TableDef, columns: &[String], wanted: &mut Vec<usize>) -> Option<Vec<usize>> {
    let ordinals = ordinals(def, columns)?;
    let place = |ordinal: usize| {
        wanted.iter().position(|one| *one == ordinal).unwrap_or_else(|| {
            wanted.push(ordinal);
            wanted.len() - 1
        })
    };
    Some(ordinals.into_iter().map(place).collect())
}
