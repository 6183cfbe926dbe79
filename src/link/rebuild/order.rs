//! What a statement asks of a rebuild: to begin one, to forget it, to go back. Fills and moves nothing itself.

use crate::error::{Error, ErrorKind, Result};
use crate::link::consequence::{rule_records, spec_of};
use crate::link::control::Control;
use crate::link::rebuild::{Begun, NewRules, Wanted};
use crate::link::status::{State, Status, unix_seconds};
use crate::link::supervisor::lock;
use crate::link::{Beginning, Origin, Overrides, PipelineMode, Rules, Spec, start};
use crate::mapping;
use crate::sink::{Changes, Named};
use crate::state::{LinkRecord, RebuildPhase, RebuildRecord};
use crate::table::TableId;

impl Control {
    /// Begins to fill a new index for the link.
    pub async fn rebuild(&self, link: &str, wanted: Wanted) -> Result<Begun, Vec<Error>> {
        let one = |error: Error| vec![error];
        let inner = &self.inner;
        let _one_at_a_time = inner.moving.lock().await;
        let (record, _) = inner.record_of(link).ok_or_else(|| one(self.unknown(link)))?;
        self.refuse_rebuild(&record).map_err(one)?;
        let present = inner.sink.named(&record.index).await.map_err(one)?;
        refuse_without_alias(&record, &present, &wanted).map_err(one)?;
        if let Some(other) = inner.shares_index(link, &present.uuid).await.map_err(one)? {
            let what = format!("the link `{other}` writes to {} too", present.index);
            let advice = "its documents would be missing in a new index: make an index for each";
            return Err(one(Error::new(ErrorKind::Unsupported, what).with_advice(advice)));
        }
        if inner.lease.is_some() {
            let what = "a rebuild cannot be handed over to a daemon that stands by";
            let advice = "take [standby] out of the configuration until the rebuild is over and its old index is gone";
            return Err(one(Error::new(ErrorKind::Unsupported, what).with_advice(advice)));
        }
        let (table, current) = self.rules_of(&record).map_err(one)?;
        let rules = match &wanted.rules {
            Some(new) => other_rules(&record, &table, &current, new).map_err(one)?,
            None => current.rules,
        };
        let generation = record.generation.max(1) + 1;
        let shadow = format!("{link}~{generation}");
        if inner.record_of(&shadow).is_some() {
            let what = format!("there is a link `{shadow}` already, whose id the rebuild needs");
            return Err(one(Error::input(what).with_advice("drop that link first")));
        }
        let index = self.free_name(&record.index, generation).await.map_err(one)?;
        let changes = Changes {
            settings: wanted.settings.clone(),
            mappings: wanted.mappings.clone(),
            default_pipeline: wanted.pipeline.as_ref().map(|(name, _)| name.clone()),
        };
        inner.sink.make_like(&present.index, &index, &changes).await.map_err(one)?;
        let keys = current.keys;
        let spec = mapping::Spec { index: index.clone(), rules, keys };
        let made =
            self.begin(&record, &present, &wanted, (&shadow, generation, spec, &table)).await;
        if let Err(errors) = made {
            // A statement that is refused changes nothing.
            if let Err(error) = inner.sink.let_go(&index, true).await {
                tracing::warn!(index, error = %error.report(), "the index of a refused rebuild stays");
            }
            let pipeline = wanted.pipeline.as_ref();
            let placed = |error: Error| match pipeline {
                Some((name, span))
                    if error.span().is_none() && error.to_string().contains(name) =>
                {
                    error.at(*span)
                }
                _ => error,
            };
            return Err(errors.into_iter().map(placed).collect());
        }
        inner.start_worker(&shadow).await;
        tracing::info!(link, shadow, index, "a rebuild has begun");
        Ok(Begun { shadow, index })
    }

    /// Stores the link and its shadow.
    async fn begin(
        &self,
        record: &LinkRecord,
        present: &Named,
        wanted: &Wanted,
        (shadow, generation, mapping, table): (&str, u64, mapping::Spec, &TableId),
    ) -> Result<(), Vec<Error>> {
        let one = |error: Error| vec![error];
        let inner = &self.inner;
        let index = mapping.index.clone();
        let spec = spec_like(record, Rules::Map(mapping), wanted.statement.clone());
        let mapping = start::validate(inner, &spec, table).await?;
        let made = inner.sink.named(&index).await.map_err(one)?;
        let now = unix_seconds();
        let has_other_rules = wanted.rules.is_some();
        let shadow = LinkRecord {
            id: shadow.to_owned(),
            origin: Origin::Sql.as_str().to_owned(),
            statement: match has_other_rules {
                true => wanted.statement.clone(),
                false => record.statement.clone(),
            },
            index: index.clone(),
            rules: rule_records(&mapping.rules),
            keys: rule_records(&mapping.keys),
            all_columns: record.all_columns && !has_other_rules,
            state: State::Scheduled.as_str().to_owned(),
            reason: String::new(),
            restarts: 0,
            created_at: now,
            updated_at: now,
            // It is verified by the rebuild.
            verify_every_secs: Some(0),
            verified: None,
            is_reset: false,
            rebuild: None,
            shadow_of: Some(record.id.clone()),
            generation,
            ..record.clone()
        };
        let rebuild = RebuildRecord {
            phase: RebuildPhase::Filling,
            other: shadow.id.clone(),
            index,
            index_uuid: made.uuid,
            present: present.index.clone(),
            present_uuid: present.uuid.clone(),
            replaces: !present.is_alias,
            keep_old_secs: match wanted.keep_old_secs {
                Some((secs, _)) => secs,
                None => inner.parts.link.rebuild_keep_old_secs,
            },
            ..RebuildRecord::default()
        };
        let state = &inner.parts.state;
        // What a rebuild that was cut off has left would pass for this one's.
        state.links().delete(&shadow.id).map_err(one)?;
        state.families().delete(&shadow.id).map_err(one)?;
        {
            let mut links = lock(&inner.links);
            let entry = links.get_mut(&record.id).ok_or_else(|| one(self.unknown(&record.id)))?;
            let mut changed = entry.record.clone();
            changed.rebuild = Some(rebuild);
            state.links().put_all(&[&shadow, &changed]).map_err(one)?;
            entry.record = changed;
            entry.live.set_rebuild("", String::new());
        }
        inner.remember(shadow, State::Scheduled).map_err(one)
    }

    fn refuse_rebuild(&self, record: &LinkRecord) -> Result<()> {
        let id = &record.id;
        let refused = |what: String, advice: String| {
            Err(Error::new(ErrorKind::Unsupported, what).with_advice(advice))
        };
        if self.inner.parts.source.files().is_some() {
            let what =
                "the source is a folder of log files, from which no index can be filled anew";
            return refused(what.to_owned(), "make another link".to_owned());
        }
        if let Some(of) = &record.shadow_of {
            return refused(
                format!("`{id}` is the shadow of the link `{of}`"),
                format!("REBUILD LINK `{of}`"),
            );
        }
        if record.state == State::Paused.as_str() {
            let what = format!("the link `{id}` is paused");
            return refused(what, format!("let it go on: RESUME LINK `{id}`"));
        }
        let Some(rebuild) = &record.rebuild else { return Ok(()) };
        let other = &rebuild.other;
        match rebuild.phase {
            RebuildPhase::Kept => refused(
                format!("the index that `{id}` had before is still kept, by the link `{other}`"),
                format!("DROP LINK `{other}` WITH INDEX if it is not wanted any more"),
            ),
            RebuildPhase::Filling | RebuildPhase::Moving => refused(
                format!("the index of the link `{id}` is being rebuilt already, by `{other}`"),
                format!("wait for its end, or REBUILD LINK `{id}` CANCEL"),
            ),
        }
    }

    /// The link's table, and its rules by the names that the columns have now.
    fn rules_of(&self, record: &LinkRecord) -> Result<(TableId, mapping::Spec)> {
        let as_made = spec_of(&record.index, &record.rules, &record.keys);
        let table = as_made.rules.first().map(|rule| rule.table.clone());
        let table =
            table.ok_or_else(|| Error::new(ErrorKind::State, "the stored link has no rules"))?;
        let current = start::last_rules(&self.inner, record, &table, as_made)?;
        Ok((table, current))
    }

    /// `products_v2`, or the next one that is not there.
    async fn free_name(&self, index: &str, generation: u64) -> Result<String> {
        let stem = stem(index);
        let mut number = generation;
        loop {
            let name = format!("{stem}_v{number}");
            if self.inner.sink.uuid(&name).await?.is_none() {
                return Ok(name);
            }
            number += 1;
        }
    }

    /// Forgets the shadow, and deletes its index.
    pub async fn cancel_rebuild(&self, link: &str) -> Result<String> {
        let inner = &self.inner;
        let _one_at_a_time = inner.moving.lock().await;
        let (record, _) = inner.record_of(link).ok_or_else(|| self.unknown(link))?;
        let rebuild = record.rebuild.ok_or_else(|| no_rebuild(link))?;
        if rebuild.phase != RebuildPhase::Filling {
            let (other, what) = (&rebuild.other, "the name leads to the new index already");
            return Err(Error::new(ErrorKind::Unsupported, what).with_advice(format!(
                "REBUILD LINK `{link}` ROLLBACK goes back; DROP LINK `{other}` WITH INDEX deletes the index that is kept"
            )));
        }
        self.end_rebuild(link, &rebuild).await?;
        tracing::info!(link, index = rebuild.index, "the rebuild is cancelled");
        Ok(rebuild.index)
    }

    /// Moves the name back to the index that is kept; gives that index.
    pub async fn roll_back(&self, link: &str) -> Result<String> {
        let inner = &self.inner;
        let (record, _) = inner.record_of(link).ok_or_else(|| self.unknown(link))?;
        let rebuild = record.rebuild.ok_or_else(|| no_rebuild(link))?;
        if rebuild.phase != RebuildPhase::Kept {
            let what = "the name still leads to the index that it had before";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .with_advice(format!("REBUILD LINK `{link}` CANCEL ends the rebuild")));
        }
        self.move_roles(link, RebuildPhase::Kept).await?;
        Ok(rebuild.index)
    }

    /// Makes another link with the rules of this one, to another index.
    pub async fn copy_link(
        &self,
        link: &str,
        index: &str,
        id: Option<&str>,
        statement: String,
    ) -> Result<Status, Vec<Error>> {
        let one = |error: Error| vec![error];
        let (record, _) = self.inner.record_of(link).ok_or_else(|| one(self.unknown(link)))?;
        let (_, current) = self.rules_of(&record).map_err(one)?;
        let uuid = self.inner.sink.uuid(index).await.map_err(one)?;
        if let Some(uuid) = uuid
            && let Some(other) = self.inner.shares_index("", &uuid).await.map_err(one)?
        {
            let what = format!(
                "the link `{other}` writes to {index}, and two links would overwrite each other's documents"
            );
            return Err(one(Error::input(what).with_advice("name another index")));
        }
        let rules = Rules::Map(mapping::Spec { index: index.to_owned(), ..current });
        let mut spec = spec_like(&record, rules, statement);
        spec.id = id.map(str::to_owned);
        self.create_like(spec, Some(&record)).await
    }
}

/// The order for a link that is like another in all but its rules.
fn spec_like(record: &LinkRecord, rules: Rules, statement: String) -> Spec {
    Spec {
        id: None,
        origin: Origin::Sql,
        statement,
        rules,
        pipeline_mode: PipelineMode::named(&record.pipeline_mode),
        types: mapping::Overrides::default(),
        overrides: Overrides::default(),
        from: Beginning::default(),
        line: None,
    }
}

fn no_rebuild(link: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("there is no rebuild of the link `{link}`"))
        .with_advice(format!("REBUILD LINK `{link}` begins one"))
}

/// The name without the number that a rebuild has put behind it.
fn stem(index: &str) -> &str {
    match index.rsplit_once("_v") {
        Some((stem, number))
            if !stem.is_empty()
                && !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            stem
        }
        _ => index,
    }
}

/// The name of an index is given to another one only by deleting it.
fn refuse_without_alias(record: &LinkRecord, present: &Named, wanted: &Wanted) -> Result<()> {
    let keeps_nothing = matches!(wanted.keep_old_secs, Some((0, _)));
    if present.is_alias || keeps_nothing {
        return Ok(());
    }
    let (id, index) = (&record.id, &present.index);
    let what = format!(
        "{index} is the name of an index and no alias: it can only lead to a new index when the old one is deleted at the same moment, and then nothing is kept to go back to"
    );
    let error = Error::new(ErrorKind::Unsupported, what).with_advice(format!(
        "if that is meant, write KEEP OLD 0: REBUILD LINK `{id}` WITH KEEP OLD 0; from then on {index} is an alias"
    ));
    Err(match wanted.keep_old_secs {
        Some((_, span)) => error.at(span),
        None => error,
    })
}

/// Other rules, of the link's index and table; its keys stay.
fn other_rules(
    record: &LinkRecord,
    table: &TableId,
    current: &mapping::Spec,
    new: &NewRules,
) -> Result<Vec<mapping::Rule>> {
    let (index, span) = &new.index;
    if *index != record.index {
        let what = format!("the link writes to {}, and these rules are for {index}", record.index);
        return Err(Error::input(what).at(*span).with_advice(format!("write {}", record.index)));
    }
    for rule in &new.rules {
        if rule.table != *table {
            let what = format!("the link is of {table}, and this rule is of {}", rule.table);
            let advice = "for another table make another link";
            return Err(Error::input(what).at(rule.span).with_advice(advice));
        }
        let mut keys = current.keys.iter().filter(|key| key.field == rule.field);
        if let Some(key) = keys.find(|key| !key.column.eq_ignore_ascii_case(&rule.column)) {
            let what = format!("field `{}` is the key of column `{}`", key.field, key.column);
            let advice = "the keys stay when an index is rebuilt; choose another field";
            return Err(Error::input(what).at(rule.field_span).with_advice(advice));
        }
    }
    Ok(new.rules.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_rebuild_is_no_part_of_the_name() {
        for (index, expected) in
            [("g", "g"), ("g_v2", "g"), ("g_v", "g_v"), ("_v2", "_v2"), ("g_v2_v31", "g_v2")]
        {
            assert_eq!(stem(index), expected);
        }
    }
}
