//! Connectors by HTTP: create, show, change, delete. Credentials come in and never go out. Knows no call of an endpoint.

use serde_json::{Map, Value, json};

use super::{Answer, Api, Handled, Request, fault::Fault};
use crate::connector::{Connector, Kind, Secrets, new_id, now_ms, split_credential};

impl Api {
    pub(super) async fn create_connector(&self, request: &Request<'_>) -> Handled {
        let empty = Fault::new(500, "i_o_exception", "Create Connector request has empty body");
        let given = request.object(empty)?;
        let _turn = self.inner.changes.lock().await;
        let id = self.new_connector(given).await?;
        Ok(Answer::ok(json!({"connector_id": id})))
    }

    /// Checks and keeps a connector; its id.
    pub(super) async fn new_connector(
        &self,
        mut given: Map<String, Value>,
    ) -> Result<String, Fault> {
        let secrets = split_credential(&mut given)?.unwrap_or_default();
        let mut definition = Connector::normalised(&given);
        self.check(&definition, &secrets)?;
        let now = now_ms();
        definition.insert("created_time".to_owned(), json!(now));
        definition.insert("last_updated_time".to_owned(), json!(now));
        let id = new_id();
        self.inner.models.catalog().put_connector(&id, definition.into(), secrets).await?;
        Ok(id)
    }

    fn check(&self, definition: &Map<String, Value>, secrets: &Secrets) -> Result<(), Fault> {
        let connector = Connector::parse(definition, secrets.clone())?;
        Ok(self.inner.models.check_url(&connector)?)
    }

    pub(super) fn get_connector(&self, id: &str) -> Handled {
        Ok(Answer::ok(self.stored_connector(id)?.into()))
    }

    fn stored_connector(&self, id: &str) -> Result<Map<String, Value>, Fault> {
        match self.inner.models.catalog().get(Kind::Connector, id)? {
            Some(Value::Object(definition)) => Ok(definition),
            _ => Err(Fault::not_found(format!(
                "Failed to find connector with the provided connector id: {id}"
            ))),
        }
    }

    /// What is named is changed; parameters and credentials one by one. Models use the new definition from their next
    /// request on.
    pub(super) async fn update_connector(&self, id: &str, request: &Request<'_>) -> Handled {
        let mut given = request.object(Fault::new(
            500,
            "i_o_exception",
            "Update Connector request has empty body",
        ))?;
        let _turn = self.inner.changes.lock().await;
        let before = self.stored_connector(id)?;
        let catalog = self.inner.models.catalog();
        let mut secrets = catalog.secrets(id)?;
        secrets.extend(split_credential(&mut given)?.unwrap_or_default());
        if let (Some(Value::Object(parameters)), Some(Value::Object(more))) =
            (before.get("parameters"), given.get("parameters"))
        {
            let mut merged = parameters.clone();
            merged.extend(more.clone());
            given.insert("parameters".to_owned(), merged.into());
        }
        let mut merged = before.clone();
        merged.extend(given);
        let mut definition = Connector::normalised(&merged);
        self.check(&definition, &secrets)?;
        // The time names the definition in the cache of vectors, so no two definitions may share one.
        let changed = before.get("last_updated_time").and_then(Value::as_u64).unwrap_or_default();
        definition.insert(
            "created_time".to_owned(),
            before.get("created_time").cloned().unwrap_or_default(),
        );
        definition.insert("last_updated_time".to_owned(), json!(now_ms().max(changed + 1)));
        catalog.put_connector(id, definition.into(), secrets).await?;
        self.inner.models.forget_connector(id);
        Ok(Answer::ok(written(".plugins-ml-connector", id, "updated")))
    }

    pub(super) async fn delete_connector(&self, id: &str) -> Handled {
        let _turn = self.inner.changes.lock().await;
        self.stored_connector(id)?;
        let catalog = self.inner.models.catalog();
        let uses =
            |(_, model): &(String, Value)| model.get("connector_id").is_some_and(|used| used == id);
        let users: Vec<String> =
            catalog.list(Kind::Model)?.into_iter().filter(uses).map(|(id, _)| id).collect();
        if !users.is_empty() {
            let reason = format!(
                "{} models are still using this connector, please delete or update the models first: [{}]",
                users.len(),
                users.join(", ")
            );
            return Err(Fault::new(409, "status_exception", reason));
        }
        catalog.delete_connector(id).await?;
        self.inner.models.forget_connector(id);
        Ok(Answer::ok(written(".plugins-ml-connector", id, "deleted")))
    }
}

/// What the original says of a document of its own index; the numbers mean nothing here.
pub(super) fn written(index: &str, id: &str, result: &str) -> Value {
    json!({
        "_index": index, "_id": id, "_version": 2, "result": result, "forced_refresh": true,
        "_shards": {"total": 1, "successful": 1, "failed": 0}, "_seq_no": 1, "_primary_term": 1
    })
}
