//! What a statement asks for, as the order for a link. Looks no table up.

use crate::error::Span;
use crate::link::{Beginning, Origin, Overrides, Rules, Spec};
use crate::mapping;
use crate::statement::{Assignment, Mapping, Name, Statement, SyncByTable};
use crate::table::TableId;

/// The link that `statement`, read from `text`, asks for; None if it asks for none.
pub fn of(statement: &Statement, text: &str, origin: Origin) -> Option<Spec> {
    let rules = match statement {
        Statement::SyncByMap(mapping) => by_map(mapping),
        Statement::SyncByTable(table) => by_table(table),
        Statement::ShowSyncLink
        | Statement::ShowSyncLinkById { .. }
        | Statement::DropSyncLinkById { .. }
        | Statement::PauseLink { .. }
        | Statement::ResumeLink { .. }
        | Statement::ResetLink { .. }
        | Statement::DropLink { .. }
        | Statement::SnapshotLink(_)
        | Statement::RebuildLink(_)
        | Statement::CopyLink(_)
        | Statement::VerifyLink(_)
        | Statement::ShowDeadLetters { .. }
        | Statement::RetryDeadLetters { .. }
        | Statement::DiscardDeadLetters { .. } => return None,
    };
    let types = mapping::Overrides::default();
    let statement = text.to_owned();
    let overrides = Overrides::default();
    let from = Beginning::default();
    Some(Spec {
        id: None,
        origin,
        statement,
        rules,
        pipeline_mode: None,
        types,
        overrides,
        from,
        line: None,
    })
}

fn by_map(mapping: &Mapping) -> Rules {
    let rules = |list: &[Assignment]| list.iter().map(rule).collect();
    Rules::Map(mapping::Spec {
        index: mapping.index.text.clone(),
        rules: rules(&mapping.rules),
        keys: rules(&mapping.keys),
    })
}

pub(super) fn rule(assignment: &Assignment) -> mapping::Rule {
    mapping::Rule {
        field: assignment.field.text.clone(),
        table: TableId::new(&assignment.db.text, &assignment.table.text),
        column: assignment.column.text.clone(),
        span: assignment.column.span,
        field_span: assignment.field.span,
    }
}

fn by_table(table: &SyncByTable) -> Rules {
    let named =
        |columns: &Vec<Name>| columns.iter().map(|name| (name.text.clone(), name.span)).collect();
    Rules::Table {
        table: TableId::new(&table.db.text, &table.table.text),
        table_span: Span::new(table.db.span.start, table.table.span.end),
        index: table.index.text.clone(),
        columns: table.columns.as_ref().map(named),
        columns_span: table.columns_span,
    }
}
