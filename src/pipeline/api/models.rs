//! Model groups, models and tasks by HTTP. Knows no endpoint.

use std::sync::PoisonError;

use serde_json::{Map, Value, json};

use super::{Answer, Api, Handled, Request, connectors::written, fault::Fault};
use crate::connector::{Hashing, Kind, new_id, now_ms};

/// The one node that the original's answers name.
const NODE: &str = "driftless";
/// Tasks end before they are asked about; the last of them are remembered.
const TASKS_MAX: usize = 1000;
/// The algorithm of the built-in models, where others say REMOTE.
const HASHING: &str = "HASHING";

impl Api {
    pub(super) async fn register_group(&self, request: &Request<'_>) -> Handled {
        let given = request.object(Fault::parse("request body is required"))?;
        let Some(name) = name(&given) else {
            return Err(Fault::argument("model group name must not be null"));
        };
        let _turn = self.inner.changes.lock().await;
        let catalog = self.inner.models.catalog();
        let taken =
            catalog.list(Kind::ModelGroup)?.into_iter().find(|(_, group)| group["name"] == name);
        if let Some((id, _)) = taken {
            let reason = format!(
                "The name you provided is already being used by a model group with ID: {id}."
            );
            return Err(Fault::argument(reason));
        }
        let now = now_ms();
        let mut group = json!({"name": name, "latest_version": 0});
        copy(&given, "description", &mut group);
        group["access"] = json!("public");
        group["created_time"] = json!(now);
        group["last_updated_time"] = json!(now);
        let id = new_id();
        catalog.put(Kind::ModelGroup, &id, group).await?;
        Ok(Answer::ok(json!({"model_group_id": id, "status": "CREATED"})))
    }

    pub(super) fn get_group(&self, id: &str) -> Handled {
        match self.inner.models.catalog().get(Kind::ModelGroup, id)? {
            Some(group) => Ok(Answer::ok(group)),
            None => Err(Fault::not_found(format!("Failed to find model group with ID: {id}"))),
        }
    }

    pub(super) async fn register_model(&self, request: &Request<'_>) -> Handled {
        let given = request.object(Fault::parse("request body is required"))?;
        let Some(name) = name(&given) else { return Err(Fault::argument("model name is null")) };
        if Hashing::named(name).is_some() {
            return Err(Fault::argument(format!(
                "the name {name} is the built-in model's, which needs no registration: write it as the model_id, or choose another name"
            )));
        }
        let function = given.get("function_name").and_then(Value::as_str).unwrap_or_default();
        if !function.eq_ignore_ascii_case("remote") {
            return Err(Fault::argument(format!(
                "function_name [{function}] is not there: this version has [remote], a model behind a connector"
            )));
        }
        let _turn = self.inner.changes.lock().await;
        let group = self.group_of(&given)?;
        let connector_id = self.connector_of(&given).await?;
        let now = now_ms();
        let mut model = json!({"name": name});
        copy(&given, "model_group_id", &mut model);
        model["algorithm"] = json!("REMOTE");
        model["model_version"] = json!(self.next_version(group).await?.to_string());
        copy(&given, "description", &mut model);
        model["model_state"] = json!("REGISTERED");
        model["created_time"] = json!(now);
        model["last_updated_time"] = json!(now);
        model["connector_id"] = json!(connector_id);
        if request.flag("deploy") {
            set_state(&mut model, "DEPLOYED");
        }
        let id = new_id();
        self.inner.models.catalog().put(Kind::Model, &id, model).await?;
        let task = self.task("REGISTER_MODEL", &id, false);
        Ok(Answer::ok(json!({"task_id": task, "status": "CREATED", "model_id": id})))
    }

    fn group_of(&self, given: &Map<String, Value>) -> Result<Option<(String, Value)>, Fault> {
        let Some(id) = given.get("model_group_id").and_then(Value::as_str) else { return Ok(None) };
        match self.inner.models.catalog().get(Kind::ModelGroup, id)? {
            Some(group) => Ok(Some((id.to_owned(), group))),
            None => {
                let reason = format!("Model Group Response is empty for {id}");
                Err(Fault::new(500, "m_l_resource_not_found_exception", reason))
            }
        }
    }

    /// The connector's id; one that is given inside the model's definition is created.
    async fn connector_of(&self, given: &Map<String, Value>) -> Result<String, Fault> {
        match (given.get("connector_id").and_then(Value::as_str), given.get("connector")) {
            (Some(id), _) => match self.inner.models.catalog().get(Kind::Connector, id)? {
                Some(_) => Ok(id.to_owned()),
                None => Err(Fault::not_found(format!("Failed to find connector:{id}"))),
            },
            (None, Some(Value::Object(connector))) => self.new_connector(connector.clone()).await,
            _ => Err(Fault::argument(
                "You must provide connector content when creating a remote model without connector id!",
            )),
        }
    }

    async fn next_version(&self, group: Option<(String, Value)>) -> Result<u64, Fault> {
        let Some((id, mut group)) = group else { return Ok(1) };
        let version = group["latest_version"].as_u64().unwrap_or_default() + 1;
        group["latest_version"] = json!(version);
        group["last_updated_time"] = json!(now_ms());
        self.inner.models.catalog().put(Kind::ModelGroup, &id, group).await?;
        Ok(version)
    }

    pub(super) fn get_model(&self, id: &str) -> Handled {
        if let Some(hashing) = Hashing::named(id) {
            return Ok(Answer::ok(built_in(id, hashing?)));
        }
        let reason = format!("Failed to find model with the provided model id: {id}");
        let model = self
            .inner
            .models
            .catalog()
            .get(Kind::Model, id)?
            .ok_or_else(|| Fault::not_found(reason))?;
        Ok(Answer::ok(shown(model)))
    }

    fn stored_model(&self, id: &str) -> Result<Value, Fault> {
        self.inner
            .models
            .catalog()
            .get(Kind::Model, id)?
            .ok_or_else(|| Fault::not_found("Failed to find model"))
    }

    pub(super) async fn delete_model(&self, id: &str) -> Handled {
        refuse_built_in(id)?;
        let _turn = self.inner.changes.lock().await;
        if self.stored_model(id)?["model_state"] == "DEPLOYED" {
            let reason = "Model cannot be deleted in deploying or deployed state. Try undeploy model first then delete";
            return Err(Fault::new(400, "status_exception", reason));
        }
        self.inner.models.catalog().delete(Kind::Model, id).await?;
        self.inner.models.forget_model(id);
        Ok(Answer::ok(written(".plugins-ml-model", id, "deleted")))
    }

    pub(super) async fn deploy(&self, id: &str) -> Handled {
        match Hashing::named(id) {
            Some(hashing) => drop(hashing?),
            None => self.set_model_state(id, "DEPLOYED").await?,
        }
        let task = self.task("DEPLOY_MODEL", id, true);
        Ok(Answer::ok(json!({"task_id": task, "task_type": "DEPLOY_MODEL", "status": "COMPLETED"})))
    }

    pub(super) async fn undeploy(&self, id: &str) -> Handled {
        refuse_built_in(id)?;
        self.set_model_state(id, "UNDEPLOYED").await?;
        Ok(Answer::ok(json!({NODE: {"stats": {id: "undeployed"}}})))
    }

    /// A prediction deploys a model, as the original does it.
    pub(super) async fn deploy_if_needed(&self, id: &str) -> Result<(), Fault> {
        if Hashing::named(id).is_none() && self.stored_model(id)?["model_state"] != "DEPLOYED" {
            self.set_model_state(id, "DEPLOYED").await?;
        }
        Ok(())
    }

    async fn set_model_state(&self, id: &str, state: &str) -> Result<(), Fault> {
        let _turn = self.inner.changes.lock().await;
        let mut model = self.stored_model(id)?;
        set_state(&mut model, state);
        Ok(self.inner.models.catalog().put(Kind::Model, id, model).await?)
    }

    fn task(&self, kind: &str, model: &str, is_async: bool) -> String {
        let (id, now) = (new_id(), now_ms());
        let function = if Hashing::named(model).is_some() { HASHING } else { "REMOTE" };
        let task = json!({
            "model_id": model, "task_type": kind, "function_name": function, "state": "COMPLETED",
            "worker_node": [NODE], "create_time": now, "last_update_time": now, "is_async": is_async
        });
        let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len() == TASKS_MAX {
            tasks.pop_front();
        }
        tasks.push_back((id.clone(), task));
        id
    }

    pub(super) fn get_task(&self, id: &str) -> Handled {
        let tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        match tasks.iter().find(|(known, _)| known == id) {
            Some((_, task)) => Ok(Answer::ok(task.clone())),
            None => Err(Fault::not_found("Failed to find task")),
        }
    }
}

fn name(given: &Map<String, Value>) -> Option<&str> {
    given.get("name").and_then(Value::as_str).filter(|name| !name.trim().is_empty())
}

fn copy(given: &Map<String, Value>, key: &str, to: &mut Value) {
    if let Some(value) = given.get(key).filter(|value| !value.is_null()) {
        to[key] = value.clone();
    }
}

fn set_state(model: &mut Value, state: &str) {
    let now = now_ms();
    model["model_state"] = json!(state);
    model["last_updated_time"] = json!(now);
    model["last_deployed_time"] = json!(now);
}

/// The built-in model as a model is shown.
fn built_in(id: &str, hashing: Hashing) -> Value {
    json!({
        "name": id,
        "algorithm": HASHING,
        "model_version": "1",
        "description": "built in: hashed words and pieces of words; finds texts of like letters, not of like meaning",
        "model_state": "DEPLOYED",
        "model_config": {"model_type": "hashing", "embedding_dimension": hashing.dimension()},
        "planning_worker_node_count": 1,
        "current_worker_node_count": 1,
        "planning_worker_nodes": [NODE],
        "is_hidden": false
    })
}

fn refuse_built_in(id: &str) -> Result<(), Fault> {
    let Some(hashing) = Hashing::named(id) else { return Ok(()) };
    hashing?;
    let reason = format!("the model {id} is built in: it is always deployed and cannot be removed");
    Err(Fault::new(400, "status_exception", reason))
}

/// A stored model with what the original tells beside, in its order.
fn shown(model: Value) -> Value {
    let deployed = model["model_state"] == "DEPLOYED";
    let ever_deployed = model.get("last_deployed_time").is_some();
    let mut shown = Map::new();
    let stored = [
        "name",
        "model_group_id",
        "algorithm",
        "model_version",
        "description",
        "model_state",
        "created_time",
    ];
    for key in stored.into_iter().chain(["last_updated_time", "last_deployed_time"]) {
        if let Some(value) = model.get(key) {
            shown.insert(key.to_owned(), value.clone());
        }
    }
    let mut add = |key: &str, value: Value| shown.insert(key.to_owned(), value);
    if ever_deployed {
        add("auto_redeploy_retry_times", json!(0));
        add("planning_worker_node_count", json!(u8::from(deployed)));
        add("current_worker_node_count", json!(u8::from(deployed)));
        if deployed {
            add("planning_worker_nodes", json!([NODE]));
        }
        add("deploy_to_all_nodes", json!(true));
    }
    add("is_hidden", json!(false));
    add("connector_id", model["connector_id"].clone());
    shown.into()
}
