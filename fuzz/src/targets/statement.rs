//! Statements and mapping strings: every place that an error or a name speaks of must be in the text.

use driftless::error::{Error, Span};
use driftless::statement::{self, Assignment, Name, Rebuild, Statement};

pub fn read(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match statement::parse(&text) {
        Ok(Statement::SyncByMap(mapping)) => {
            for assignment in mapping.rules.iter().chain(&mapping.keys) {
                assert_assignment(assignment, &text);
            }
            assert!(!mapping.rules.is_empty() && !mapping.keys.is_empty());
        }
        Ok(Statement::SyncByTable(sync)) => {
            for name in [&sync.db, &sync.table, &sync.index] {
                assert_name(name, &text);
            }
            for name in sync.columns.iter().flatten() {
                assert_name(name, &text);
            }
        }
        Ok(
            Statement::ShowSyncLinkById { id }
            | Statement::DropSyncLinkById { id }
            | Statement::PauseLink { id }
            | Statement::ResumeLink { id }
            | Statement::ResetLink { id }
            | Statement::DropLink { id, .. },
        ) => assert_name(&id, &text),
        Ok(Statement::SnapshotLink(snapshot)) => {
            assert_name(&snapshot.id, &text);
            for name in snapshot.table.iter().flat_map(|(db, table)| [db, table]) {
                assert_name(name, &text);
            }
            snapshot.condition.iter().for_each(|condition| assert_name(condition, &text));
        }
        Ok(Statement::VerifyLink(verification)) => {
            assert_name(&verification.link, &text);
            if let Some(condition) = &verification.condition {
                assert_name(condition, &text);
            }
        }
        Ok(Statement::RebuildLink(rebuild)) => {
            assert_name(&rebuild.link, &text);
            if let Rebuild::Begin(options) = &rebuild.what {
                options
                    .index
                    .iter()
                    .chain(&options.pipeline)
                    .for_each(|name| assert_name(name, &text));
                for assignment in options.mapping.iter().flatten() {
                    assert_assignment(assignment, &text);
                }
            }
        }
        Ok(Statement::CopyLink(copy)) => {
            for name in [&copy.link, &copy.index].into_iter().chain(&copy.id) {
                assert_name(name, &text);
            }
        }
        Ok(Statement::ShowDeadLetters { link: Some(link) }) => assert_name(&link, &text),
        Ok(
            Statement::RetryDeadLetters { link, document }
            | Statement::DiscardDeadLetters { link, document },
        ) => {
            assert_name(&link, &text);
            document.iter().for_each(|document| assert_name(document, &text));
        }
        Ok(Statement::ShowSyncLink | Statement::ShowDeadLetters { link: None }) => {}
        Err(error) => assert_error(&error, &text),
    }
    let rules = statement::mapping_list(&text);
    let keys = statement::key_list(&text);
    for list in [&rules, &keys] {
        match list {
            Ok(list) => list.iter().for_each(|assignment| assert_assignment(assignment, &text)),
            Err(error) => assert_error(error, &text),
        }
    }
    if let (Ok(rules), Ok(keys)) = (rules, keys) {
        let _ = statement::mapping(rules, keys);
    }
}

fn assert_assignment(assignment: &Assignment, text: &str) {
    let Assignment { index, field, db, table, column } = assignment;
    for name in [index, field, db, table, column] {
        assert_name(name, text);
    }
    assert_span(assignment.source_span(), text);
}

fn assert_name(name: &Name, text: &str) {
    assert_span(name.span, text);
}

fn assert_error(error: &Error, text: &str) {
    assert!(!error.report().is_empty());
    let _ = error.point_into(text);
    if let Some(span) = error.span() {
        assert_span(span, text);
    }
}

fn assert_span(span: Span, text: &str) {
    assert!(text.get(span.start..span.end).is_some(), "{span:?} is not in the text");
    let _ = span.line_column(text);
}
