//! Who may do what: the one table from statements and requests to roles. Knows no caller.

use axum::http::Method;
use serde::Deserialize;

use crate::statement::Statement;

/// What somebody may do; each may do what the ones before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look and search.
    Read,
    /// Keep the links that there are going.
    Operate,
    /// Say what there is: links, models, pipelines, settings, indexes and their documents.
    Admin,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// Without a wildcard, so that a new statement has to say who may run it.
pub fn of_statement(statement: &Statement) -> Role {
    match statement {
        Statement::ShowSyncLink
        | Statement::ShowSyncLinkById { .. }
        | Statement::ShowDeadLetters { .. } => Role::Read,
        Statement::PauseLink { .. }
        | Statement::ResumeLink { .. }
        | Statement::ResetLink { .. }
        | Statement::SnapshotLink(_)
        | Statement::VerifyLink(_)
        | Statement::RetryDeadLetters { .. } => Role::Operate,
        Statement::SyncByMap(_)
        | Statement::SyncByTable(_)
        | Statement::DropSyncLinkById { .. }
        | Statement::DropLink { .. }
        | Statement::RebuildLink(_)
        | Statement::CopyLink(_)
        | Statement::DiscardDeadLetters { .. } => Role::Admin,
    }
}

/// The role that a request needs; none for what everybody may ask. What is not named here, and may change something,
/// needs the highest: a path that is written in an unusual way only ever asks for more.
pub fn of_request(method: &Method, path: &str) -> Option<Role> {
    let is_look = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    // Paths as they are written: `/ui/` and `/%75i` are already something else.
    let is_open = matches!(
        path,
        "/healthz" | "/readyz" | "/ui" | "/ui/page.css" | "/ui/page.js" | "/ui/mark.svg"
    );
    if is_look && is_open {
        return None;
    }
    // An underscore needs no other spelling: who writes one so hides the name of a request.
    if path.contains("%5f") || path.contains("%5F") {
        return Some(Role::Admin);
    }
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let role = match segments.as_slice() {
        // The statement says what it needs: `of_statement`.
        ["_sql"] => Role::Read,
        ["_refresh"] | [_, "_refresh"] => Role::Operate,
        // Connectors are shown to those who make them: not everybody puts a key where it is kept as a secret.
        ["_plugins", "_ml", "models" | "model_groups" | "tasks", ..] if is_look => Role::Read,
        ["_plugins", ..] if is_look => Role::Admin,
        _ if is_look => Role::Read,
        [_, "_search" | "_count"] if *method == Method::POST => Role::Read,
        ["_plugins", "_ml", "models", _, "_predict"]
        | ["_plugins", "_ml", "_predict", "text_embedding", _]
        | ["_plugins", "_ml", "_predict", "text_embedding", _, "_predict"]
            if *method == Method::POST =>
        {
            Role::Read
        }
        _ => Role::Admin,
    };
    Some(role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_has_its_role() {
        for (text, role) in [
            ("CALL dbms_etl.show_sync_link()", Role::Read),
            ("SHOW DEAD LETTERS", Role::Read),
            ("PAUSE LINK a", Role::Operate),
            ("RESET LINK a", Role::Operate),
            ("VERIFY LINK a REPAIR", Role::Operate),
            ("RETRY DEAD LETTERS OF LINK a", Role::Operate),
            ("DISCARD DEAD LETTERS OF LINK a", Role::Admin),
            ("DROP LINK a WITH INDEX", Role::Admin),
            ("CALL dbms_etl.sync_by_table('search', 'a.b', 'c', '*')", Role::Admin),
        ] {
            let statement = crate::statement::parse(text).unwrap_or_else(|error| {
                panic!("{text}: {}", error.report());
            });
            assert_eq!(of_statement(&statement), role, "{text}");
        }
    }

    #[test]
    fn every_request_has_its_role() {
        let role = |request: &str| {
            let (method, path) = request.split_once(' ').expect("method and path");
            of_request(&method.parse().expect("a method"), path)
        };
        for request in ["GET /healthz", "GET /readyz", "GET /ui", "GET /ui/page.js", "HEAD /ui"] {
            assert_eq!(role(request), None, "{request}");
        }
        for request in [
            "GET /",
            "GET /_links",
            "GET /metrics",
            "POST /_sql",
            "GET /products/_doc/1",
            "GET /products/_search",
            "POST /products/_search",
            "POST /products/_count",
            "GET /_ingest/pipeline",
            "GET /_cluster/settings",
            "GET /_plugins/_ml/models/m",
            "POST /_plugins/_ml/models/m/_predict",
            "POST /_plugins/_ml/_predict/text_embedding/m/_predict",
        ] {
            assert_eq!(role(request), Some(Role::Read), "{request}");
        }
        for request in ["POST /products/_refresh", "GET /_refresh"] {
            assert_eq!(role(request), Some(Role::Operate), "{request}");
        }
        for request in [
            "PUT /products",
            "DELETE /products",
            "POST /_bulk",
            "PUT /products/_doc/1",
            "PUT /_cluster/settings",
            "PUT /_ingest/pipeline/p",
            "POST /_plugins/_ml/connectors/_create",
            "GET /_plugins/_ml/connectors/c",
            "GET /_plugins/_ml/%63onnectors/c",
            "POST /_plugins/_ml/models/m/_deploy",
            "DELETE /_plugins/_ml/models/m",
            "POST /healthz",
            "PATCH /anything",
        ] {
            assert_eq!(role(request), Some(Role::Admin), "{request}");
        }
    }

    #[test]
    fn what_only_looks_like_a_question_needs_the_highest_role() {
        for (method, path) in [
            // A document whose `_id` is called so.
            (Method::POST, "/products/_doc/_search"),
            (Method::PUT, "/products/_create/_search"),
            (Method::PUT, "/products/_search"),
            (Method::POST, "/products/%5Fbulk"),
            (Method::POST, "//_bulk"),
            (Method::PUT, "/_plugins/_ml/models/m/_predict"),
            (Method::POST, "/ui"),
        ] {
            assert_eq!(of_request(&method, path), Some(Role::Admin), "{method} {path}");
        }
        // No file of the page, but an index called ui.
        assert_eq!(of_request(&Method::GET, "/ui/_search"), Some(Role::Read));
        assert_eq!(of_request(&Method::GET, "/ui/"), Some(Role::Read));
        assert_eq!(of_request(&Method::GET, "/healthz/"), Some(Role::Read));
    }
}
