//! Rows that a foreign key changes without a word in the log (rule 12): the storage engine deletes or changes the rows that
//! refer to a row that goes, and logs that row alone. So they are found by an index of our own and read again.
//!
//! *The index* is kept in the state: by key and form of what is referred to, the rows that refer to it. The copy of the
//! table fills it, the stream keeps it up. An entry may be stale, never missing: it is written when its row is met, and
//! taken away when a checkpoint has passed the event behind which it is not true, so a replay finds it again. Why no entry
//! is missing where it counts: take the last change of a row by a cascade. The row referred to the key that went, and got
//! that reference by a change of its own, which wrote the entry, or by a cascade, at which the row was read again: in the
//! state before the last cascade, which wrote the entry, or behind it, and then its document is right already.
//!
//! *At a change of a parent* the rows that refer to it are read again when its transaction is executed, and are written
//! under the version of its image; one that is not there any more is deleted under that version. Everything else is as
//! with columns that are left out (`left_out`): the row is as of the change or newer, and what made it newer follows.
//!
//! *Further levels.* A row that was found to be gone took those along that refer to it: if they are of its own table, they
//! are looked up in their turn. Where a parent is of another table, what happened to it by its own parents is not in the
//! log, so at a change above a parent the source is asked for all keys that the index knows, and rows of keys that are not
//! there are read again. A parent that was gone meanwhile and came back came back by a change in the log, which is looked
//! up like one that goes.
//!
//! *While the table is copied* a chunk may hold rows as they were before the cascade. Its window records the keys that went
//! like the ids that changed, and rows of the chunk that refer to one are read again when they are written.
//!
//! *Where that is not known* (a definition is not proven, a column is not there) the table is copied again, and documents
//! without a row are deleted. One copy serves all changes before it begins; those in the middle of it are served by the next.
//!
//! A server that runs foreign keys in SQL logs what they change, and says so in each event. There nothing is done, and no
//! index is kept; should the server be told otherwise some day, the table is copied again at the first need.

pub(super) mod form;
pub(super) mod learning;
pub(super) mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::change::{Change, ChangeKind, Value};
use crate::document::IdHasher;
use crate::error::{Error, ErrorKind, Result};
use crate::link::altering::Holding;
use crate::link::cascades::form::{Form, ODD, form, form_of_key};
use crate::link::cascades::watch::{Lookup, Own, Watched};
use crate::link::copying::Copying;
use crate::link::end::End;
use crate::link::left_out::key_part;
use crate::link::worker::Worker;
use crate::naive::{Rule, is_naive};
use crate::position::{Gtid, Version};
use crate::source::binlog::event::RowsEvent;
use crate::source::binlog::rows;
use crate::source::stream::Rows;
use crate::state::{Child, KeyPart, entry_name};
use crate::table::{Action, Column, ColumnType};

/// The place of a parent's change.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub n: u64,
    pub version: Version,
    pub gtid: Option<&'a Gtid>,
}

/// Entries that are written by one batch, and read at once.
const PAGE: usize = 256;

/// Keys that the source is asked for by one statement.
const ASKED_AT_ONCE: usize = 1_024;

/// The server refuses cascades that are deeper.
const CASCADES_MAX: usize = 16;

/// Where an entry of the index stands.
type EntryName = Box<[u8]>;

/// What a change does to the rows that refer to its row by one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hit {
    /// The foreign key and the form of what went; None: of anything.
    Children { key: usize, form: Option<String> },
    /// Rows of a parent may have gone.
    Above,
    /// Nobody knows.
    Unknown,
}

impl Worker {
    /// Whether the table's rows refer to others by keys that cascade, or are referred to by their like.
    pub(super) fn has_cascades(&self) -> bool {
        !self.cascades.family.keys.is_empty() && !is_naive(Rule::Cascades)
    }

    /// The copy that is to come reads everything as it is then.
    pub(super) fn copy_is_ahead(&self) -> bool {
        !self.snapshot.done
            && matches!(self.copying, Copying::Ready)
            && self.snapshot.until.is_none()
            && self.snapshot.filter.is_none()
    }

    /// Takes in rows of a table that the link's rows refer to.
    pub(super) async fn take_parent_rows(&mut self, rows: &Rows) -> Result<(), End> {
        let event = RowsEvent::read(&rows.event)?;
        let table = &rows.map.table;
        let at = self.cascades.parents.iter().position(|parent| parent.table == *table);
        let is_followed = self.has_cascades() && self.holding == Holding::Defined;
        let (Some(at), true) = (at, is_followed && !event.logs_cascades()) else {
            return Ok(());
        };
        self.is_at_boundary = false;
        let Some(plan) = self.parent_plan(at, rows)? else {
            return match event.kind {
                _ if !event.can_cascade() => Ok(()),
                crate::source::binlog::event::RowsKind::Whole(ChangeKind::Insert) => Ok(()),
                _ => self.meet_unknown(&format!("what changed in {table} cannot be read")),
            };
        };
        let mut reader = rows::Reader::new(&event, &plan)?;
        let mut change = Change::reusable(ChangeKind::Insert);
        while reader.next(&mut change)? {
            self.meet_parent(at, &change, rows, event.can_cascade()).await?;
        }
        Ok(())
    }

    /// How rows of a parent are walked; None where its definition is not known for them.
    pub(super) fn parent_plan(
        &mut self,
        at: usize,
        rows: &Rows,
    ) -> Result<Option<Arc<rows::Plan>>> {
        if self.cascades.unproven.is_some() {
            return Ok(None);
        }
        let parent = &mut self.cascades.parents[at];
        if let Some((map, plan)) = &parent.plan
            && Arc::ptr_eq(map, &rows.map)
        {
            return Ok(Some(plan.clone()));
        }
        let Some(def) = &parent.def else { return Ok(None) };
        match rows::Plan::new(def, &parent.wanted, &rows.map) {
            Ok(plan) => {
                let plan = Arc::new(plan);
                parent.plan = Some((rows.map.clone(), plan.clone()));
                Ok(Some(plan))
            }
            Err(error) if error.kind() == ErrorKind::Schema => {
                tracing::warn!(link = self.setup.link, error = %error.report(), "rows of a parent are not read");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A row that others may refer to was changed.
    pub(super) async fn meet_parent(
        &mut self,
        parent: usize,
        change: &Change<'_>,
        rows: &Rows,
        can_cascade: bool,
    ) -> Result<(), End> {
        let offset = match change.kind {
            ChangeKind::Insert => change.after.offset,
            ChangeKind::Update | ChangeKind::Delete => change.before.offset,
        };
        let version = self.at.epoch.version(rows.n, offset);
        let place = Place { n: rows.n, version, gtid: rows.gtid.as_ref() };
        let hits = self.hits(parent, change, can_cascade);
        for hit in hits {
            self.meet(hit, place).await?;
        }
        Ok(())
    }

    /// What a change of a parent does.
    pub(super) fn hits(&self, parent: usize, change: &Change<'_>, can_cascade: bool) -> Vec<Hit> {
        let Some(parent) = self.cascades.parents.get(parent) else { return Vec::new() };
        let mut hits = Vec::new();
        for watched in &parent.watched {
            let Some(places) = &watched.places else {
                if can_cascade && change.kind != ChangeKind::Insert {
                    hits.push(Hit::Unknown);
                }
                continue;
            };
            let key = self.cascades.key(watched.key);
            let is_moved = change.kind == ChangeKind::Update
                && places
                    .iter()
                    .any(|at| change.before.values.get(*at) != change.after.values.get(*at));
            let goes = match change.kind {
                ChangeKind::Delete => key.on_delete != Action::Restrict,
                ChangeKind::Update => is_moved && key.on_update != Action::Restrict,
                ChangeKind::Insert => false,
            };
            let is_own_child = key.child == self.setup.def.id;
            // One that comes may have gone before without a word.
            let comes = is_own_child
                && (change.kind == ChangeKind::Insert || is_moved)
                && (self.cascades.family.is_deep(key) || key.parent == key.child);
            if goes && can_cascade {
                hits.extend(self.hit(watched, &change.before.values, &parent_types(self, parent)));
            }
            if comes {
                hits.extend(self.hit(watched, &change.after.values, &parent_types(self, parent)));
            }
        }
        hits
    }

    fn hit(&self, watched: &Watched, values: &[Value<'_>], types: &[ColumnType]) -> Option<Hit> {
        let key = self.cascades.key(watched.key);
        if key.child != self.setup.def.id {
            return Some(Hit::Above);
        }
        let places = watched.places.as_deref().unwrap_or_default();
        let of = |at: &usize| Some((values.get(*at)?, types.get(*at)?));
        match form(places.iter().filter_map(of), key.is_plain) {
            Form::Nothing => None,
            Form::Of(form) => Some(Hit::Children { key: watched.key, form: Some(form) }),
            Form::Odd => Some(Hit::Children { key: watched.key, form: None }),
        }
    }

    pub(super) async fn meet(&mut self, hit: Hit, place: Place<'_>) -> Result<(), End> {
        if self.holding != Holding::Defined {
            // The table is copied when that is over, and documents without a row are deleted.
            return Ok(());
        }
        self.cascades.newest = self.cascades.newest.max(place.version);
        match hit {
            _ if self.snapshot.unindexed => {
                self.setup.logs_cascades = false;
                self.meet_unknown("the source has logged what foreign keys do until now")
            }
            Hit::Unknown => self.meet_unknown("which rows a foreign key changed cannot be told"),
            Hit::Above => {
                if let Some(window) = self.copying.window() {
                    window.record(ABOVE);
                }
                let orphans = self.cascades.orphans.get_or_insert_default();
                if let Some(gtid) = place.gtid {
                    orphans.insert(gtid);
                }
                Ok(())
            }
            Hit::Children { key, form } => {
                self.record_in_window(key, form.as_deref());
                let forms = match form {
                    Some(form) => vec![Some(form), Some(ODD.to_owned())],
                    None => vec![None],
                };
                for form in forms {
                    self.look_up(key, form, place);
                }
                self.draw_children()?;
                if self.left_out.is_full() {
                    self.fill_left_out().await?;
                }
                Ok(())
            }
        }
    }

    fn look_up(&mut self, key: usize, form: Option<String>, place: Place<'_>) {
        let Place { n, version, gtid } = place;
        let gtid = gtid.cloned();
        self.cascades.lookups.push_back(Lookup { key, form, after: None, version, n, gtid });
    }

    fn record_in_window(&mut self, key: usize, form: Option<&str>) {
        let name = self.cascades.key(key).name.clone();
        if let Some(window) = self.copying.window() {
            window.record(&went(&name, form));
            window.record(&went(&name, Some(ODD)));
        }
    }

    /// Lets rows wait that the lookups find, until there are enough.
    pub(super) fn draw_children(&mut self) -> Result<()> {
        self.write_fresh()?;
        while let Some(lookup) = self.cascades.lookups.front() {
            if self.left_out.is_full() {
                return Ok(());
            }
            let (link, families) = (&self.setup.link, self.setup.state.families());
            let name = &self.cascades.key(lookup.key).name;
            let by = (name.as_str(), lookup.form.as_deref());
            let found = families.children(link, by, lookup.after.as_deref(), PAGE)?;
            let (version, n, gtid) = (lookup.version, lookup.n, lookup.gtid.clone());
            match found.last() {
                Some((last, _)) => {
                    let last = last.clone();
                    if let Some(lookup) = self.cascades.lookups.front_mut() {
                        lookup.after = Some(last);
                    }
                }
                None => {
                    self.cascades.lookups.pop_front();
                }
            }
            for (entry, child) in found {
                self.left_out.wait_gone(&child.id, child.key, version, gtid.as_ref());
                self.cascades.outlive(entry.into(), n);
            }
        }
        Ok(())
    }

    /// A row was looked for by its key and is not there: the rows of the table that refer to it changed with it. Once is
    /// enough: entries that are stale can lead in a circle.
    pub(super) fn meet_gone(&mut self, id: &str, key: &[KeyPart], version: Version) {
        let own = self.setup.def.id.clone();
        let version = version.max(self.cascades.newest);
        let place = Place { n: self.at.n, version, gtid: None };
        let referring: Vec<_> = self
            .cascades
            .own
            .iter()
            .filter(|one| self.cascades.key(one.key).parent == own)
            .cloned()
            .collect();
        if !referring.is_empty() && !self.cascades.gone.insert(IdHasher.key(id)) {
            return;
        }
        for one in referring {
            let foreign_key = self.cascades.key(one.key);
            if foreign_key.on_delete == Action::Restrict {
                continue;
            }
            let form = match form_of_key(key, foreign_key.is_plain) {
                Form::Of(form) if one.refers_to_id => Some(form),
                _ => None,
            };
            self.record_in_window(one.key, form.as_deref());
            self.look_up(one.key, form.clone(), place);
            if form.is_some() {
                self.look_up(one.key, Some(ODD.to_owned()), place);
            }
        }
        let is_above = |key: &crate::table::ForeignKey| key.parent == own && key.child != own;
        if self.cascades.family.keys.iter().any(is_above) {
            self.cascades.orphans.get_or_insert_default();
        }
    }

    /// Keeps the index up with a change of the table itself.
    pub(super) fn track(&mut self, change: &Change<'_>, n: u64) -> Result<()> {
        if !self.has_cascades() {
            return Ok(());
        }
        let plan = self.setup.plan.clone();
        let (mut before, mut after) = (String::new(), String::new());
        if change.kind != ChangeKind::Insert {
            plan.id(&change.before.values, &mut before)?;
        }
        if change.kind != ChangeKind::Delete {
            plan.id(&change.after.values, &mut after)?;
        }
        let all = self.cascades.own.clone();
        for own in all.iter() {
            let form_of = |values: &[Value<'_>]| self.cascades.own_form(own, values);
            let was = (change.kind != ChangeKind::Insert).then(|| form_of(&change.before.values));
            let is = (change.kind != ChangeKind::Delete).then(|| form_of(&change.after.values));
            if was == is && before == after {
                continue;
            }
            let named = match was.flatten() {
                Some(Form::Of(form)) => Some(form),
                Some(Form::Odd) => Some(ODD.to_owned()),
                Some(Form::Nothing) | None => None,
            };
            if let Some(form) = named {
                let name = &self.cascades.key(own.key).name;
                let entry = entry_name(&self.setup.link, name, &form, &before);
                self.cascades.outlive(entry, n);
            }
            if change.kind != ChangeKind::Delete
                && let Some(child) = self.cascades.child(own, &change.after, &plan, &after)?
            {
                self.keep_child(own.key, child)?;
            }
        }
        Ok(())
    }

    /// Keeps the index up with a row that was read.
    pub(super) fn track_read(&mut self, values: &[Value<'_>], id: &str) -> Result<()> {
        if !self.has_cascades() {
            return Ok(());
        }
        if self.setup.logs_cascades {
            self.snapshot.unindexed = true;
            return Ok(());
        }
        let plan = self.setup.plan.clone();
        let all = self.cascades.own.clone();
        for own in all.iter() {
            if let Some(child) = self.cascades.child_of(own, values, &plan, id)? {
                self.keep_child(own.key, child)?;
            }
        }
        Ok(())
    }

    fn keep_child(&mut self, key: usize, child: Child) -> Result<()> {
        let name =
            entry_name(&self.setup.link, &self.cascades.key(key).name, &child.form, &child.id);
        self.cascades.removable.remove(name.as_slice());
        self.cascades.fresh.push((key, child));
        if self.cascades.fresh.len() >= PAGE { self.write_fresh() } else { Ok(()) }
    }

    /// Writes the entries that wait for it; before anything is looked up, and before a checkpoint can be.
    pub(super) fn write_fresh(&mut self) -> Result<()> {
        if self.cascades.fresh.is_empty() {
            return Ok(());
        }
        let fresh = std::mem::take(&mut self.cascades.fresh);
        let named = fresh.iter().map(|(key, child)| (self.cascades.key(*key).name.as_str(), child));
        self.setup.state.families().put_children(&self.setup.link, named)
    }

    /// Whether a row of a chunk may be as it was before a cascade that the window has met.
    pub(super) fn may_be_stale(
        &self,
        window: &crate::source::snapshot::window::Window,
        values: &[Value<'_>],
    ) -> bool {
        if !self.has_cascades() {
            return false;
        }
        self.cascades.own.iter().any(|own| {
            let name = &self.cascades.key(own.key).name;
            let is_recorded = |form: Option<&str>| !window.may_write(&went(name, form));
            match self.cascades.own_form(own, values) {
                Some(Form::Nothing) => false,
                Some(Form::Of(form)) => is_recorded(Some(&form)) || is_recorded(None),
                Some(Form::Odd) | None => is_recorded(Some(ODD)) || is_recorded(None),
            }
        })
    }

    /// Asks the source which of the keys that the index knows are still there, and lets rows wait that refer to others.
    pub(super) async fn find_orphans(&mut self) -> Result<(), End> {
        // Where tables refer to each other in a circle, each round may find more; the server goes no deeper.
        for _ in 0..CASCADES_MAX {
            let Some(transactions) = self.cascades.orphans.take() else { return Ok(()) };
            self.write_fresh()?;
            let asked = |own: &&Own| {
                // Rows that refer to the table itself are found from those that are gone.
                !own.refers_to_id && self.cascades.family.is_deep(self.cascades.key(own.key))
            };
            let keys: Vec<usize> =
                self.cascades.own.iter().filter(asked).map(|own| own.key).collect();
            for key in keys {
                let mut after = None;
                loop {
                    let (page, last) = self.referred_to(key, after)?;
                    after = last;
                    if page.is_empty() {
                        break;
                    }
                    let Some(lost) = self.lost(key, page, &transactions).await? else {
                        return self
                            .meet_unknown("which rows lost what they refer to cannot be told");
                    };
                    let version = self.cascades.newest;
                    for child in lost {
                        if self.is_exact(key) {
                            let place = Place { n: self.at.n, version, gtid: None };
                            self.look_up(key, Some(child.form), place);
                        } else {
                            self.left_out.wait_gone(&child.id, child.key, version, None);
                        }
                    }
                    self.fill_left_out().await?;
                }
            }
        }
        Ok(())
    }

    /// What the rows of the table refer to by this key, a page behind `after`. Where one form is one key, however many
    /// rows refer to it, one of them stands for all.
    fn referred_to(
        &self,
        key: usize,
        after: Option<Box<[u8]>>,
    ) -> Result<(Vec<Child>, Option<EntryName>)> {
        let name = self.cascades.key(key).name.clone();
        let (link, families) = (&self.setup.link, self.setup.state.families());
        if self.is_exact(key) {
            let form = after.as_deref().and_then(|form| std::str::from_utf8(form).ok());
            let page = families.forms(link, &name, form, ASKED_AT_ONCE)?;
            let last = page.last().map(|child| child.form.clone().into_bytes().into());
            return Ok((page, last));
        }
        let found = families.children(link, (&name, None), after.as_deref(), PAGE)?;
        let last = found.last().map(|(name, _)| name.clone());
        Ok((found.into_iter().map(|(_, child)| child).collect(), last))
    }

    /// Whether values of one form are always one key: integers are, texts and bytes need not be.
    fn is_exact(&self, key: usize) -> bool {
        use ColumnType as C;
        let is_integer = |column: &String| {
            let ty = self.setup.def.ordinal(column).map(|at| &self.setup.def.columns[at].ty);
            matches!(
                ty,
                Some(
                    C::TinyInt { .. }
                        | C::SmallInt { .. }
                        | C::MediumInt { .. }
                        | C::Int { .. }
                        | C::BigInt { .. }
                )
            )
        };
        self.cascades.key(key).columns.iter().all(is_integer)
    }

    /// Those of the rows whose key is not there any more; None where it cannot be asked for.
    async fn lost(
        &mut self,
        key: usize,
        page: Vec<Child>,
        transactions: &crate::position::GtidSet,
    ) -> Result<Option<Vec<Child>>, End> {
        let foreign_key = self.cascades.key(key).clone();
        let parents = &self.cascades.parents;
        let parent = parents.iter().find(|parent| parent.table == foreign_key.parent);
        let is_own = foreign_key.parent == self.setup.def.id;
        let def = match parent {
            _ if is_own => Some(self.setup.def.clone()),
            Some(parent) => parent.def.clone(),
            None => None,
        };
        let Some(def) = def else { return Ok(None) };
        let ordinals: Option<Vec<usize>> =
            foreign_key.parent_columns.iter().map(|column| def.ordinal(column)).collect();
        let Some(ordinals) = ordinals else { return Ok(None) };
        // By form the keys that are asked for.
        let mut asked: HashMap<&str, HashSet<&[KeyPart]>> = HashMap::new();
        for child in &page {
            if child.form != ODD && child.refers_to.len() == ordinals.len() {
                asked.entry(&child.form).or_default().insert(&child.refers_to);
            }
        }
        let keys: Vec<_> = asked.values().flatten().map(|key| key.to_vec()).collect();
        // By form the keys that are there.
        let mut there: HashMap<String, HashSet<Vec<KeyPart>>> = HashMap::new();
        if !keys.is_empty() {
            let columns: Vec<_> = ordinals.iter().map(|at| &def.columns[*at]).collect();
            let types: Vec<_> = columns.iter().map(|column| &column.ty).collect();
            let wanted = (def.clone(), ordinals.clone(), ordinals.clone());
            let Some(chunk) = self.read_by_key(wanted, keys, transactions.clone()).await? else {
                return Ok(None);
            };
            for row in 0..chunk.len() {
                let (form, key) = chunk.with_row(row, &types, |values| {
                    let form = form(values.iter().zip(types.iter().copied()), foreign_key.is_plain);
                    let part = |(column, value): (&&Column, &Value<'_>)| key_part(column, value);
                    let key = columns.iter().zip(values).map(part).collect::<Result<Vec<_>>>()?;
                    Ok((form, key))
                })?;
                if let Form::Of(form) = form {
                    there.entry(form).or_default().insert(key);
                }
            }
        }
        let is_there = |child: &Child| {
            let (Some(asked), Some(there)) =
                (asked.get(child.form.as_str()), there.get(&child.form))
            else {
                return false;
            };
            // What was found for one key alone is equal to it, as the server compares. Among several each must be itself.
            asked.contains(child.refers_to.as_slice())
                && (asked.len() == 1 || there.contains(&child.refers_to))
        };
        let is_lost: Vec<bool> = page.iter().map(|child| !is_there(child)).collect();
        let lost = page.into_iter().zip(is_lost).filter(|(_, is_lost)| *is_lost);
        Ok(Some(lost.map(|(child, _)| child).collect()))
    }

    /// Rows of the table were changed, and which cannot be told: it is copied again.
    pub(super) fn meet_unknown(&mut self, why: &str) -> Result<(), End> {
        if !self.snapshot.done {
            // What was read before may be as it was before: the next copy tells rows of this one that are gone by the
            // versions before this change.
            self.stop_chunk();
            self.start_copier()?;
        }
        if self.snapshot.again {
            return Ok(());
        }
        let table = &self.setup.def.id;
        let why = format!("rows of {table} can have been changed by a foreign key, and {why}");
        if self.setup.policy.keeps_documents() {
            return Err(End::Failed(Error::new(ErrorKind::Unsupported, why).with_advice(
                "drop the link and create it again; with on_truncate and on_drop other than \"ignore\" the table is \
                 copied again instead",
            )));
        }
        tracing::warn!(link = self.setup.link, reason = why, "the table is copied again");
        self.setup.live.set_note(format!("the table is copied again: {why}"));
        if self.copy_is_ahead() {
            // It reads every row that is there, but the stream may have written some that are not.
            let below = self.snapshot.sweep_below.unwrap_or_default();
            self.snapshot.sweep_below = Some(below.max(self.at.version().0));
        } else {
            self.snapshot.again = true;
        }
        Ok(())
    }
}

/// The window's word for a change above the parents.
pub(super) const ABOVE: &str = "\0above";

/// The window's word for a key that went; no `_id` begins with a zero byte and a name.
fn went(name: &str, form: Option<&str>) -> String {
    match form {
        Some(form) => format!("\0{name}\0{form}"),
        None => format!("\0{name}"),
    }
}

fn parent_types(worker: &Worker, parent: &watch::Parent) -> Vec<ColumnType> {
    match &parent.def {
        _ if parent.table == worker.setup.def.id => worker.cascades.types.clone(),
        Some(def) => parent.wanted.iter().map(|at| def.columns[*at].ty.clone()).collect(),
        None => Vec::new(),
    }
}
