//! Asks a running daemon at its HTTP door. Knows no request.

use std::time::Duration;

use reqwest::Method;

use super::{Failure, wiring};
use crate::admin::execute;
use crate::net::http::{self, Options, Side};

/// A statement that makes a link asks the source and the sink.
const PATIENCE: Duration = Duration::from_secs(120);
/// A verification reads a whole table and a whole index.
const PATIENCE_WITH_TABLES: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug, clap::Args)]
pub(super) struct Daemon {
    /// The daemon's HTTP door [default: `http.listen` of the configuration, else http://127.0.0.1:9220]
    #[arg(long, value_name = "URL", env = "DRIFTLESS_ADDRESS")]
    address: Option<String>,
    #[command(flatten)]
    config: wiring::ConfigFile,
}

pub(super) struct Answer {
    pub is_ok: bool,
    pub text: String,
}

impl Daemon {
    /// One request to `path`, with a body or without.
    pub fn ask(&self, path: &str, body: Option<String>) -> Result<Answer, Failure> {
        self.ask_for(PATIENCE, path, body)
    }

    /// One statement; its answer may be long in coming.
    pub fn ask_sql(&self, format: &str, statement: &str) -> Result<Answer, Failure> {
        let is_long = execute::ends_with_its_caller(statement);
        let patience = if is_long { PATIENCE_WITH_TABLES } else { PATIENCE };
        let body = serde_json::json!({ "query": statement }).to_string();
        self.ask_for(patience, &format!("/_sql?format={format}"), Some(body))
    }

    fn ask_for(
        &self,
        patience: Duration,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|cause| Failure::Failed(format!("cannot start: {cause}")))?;
        runtime.block_on(self.send(patience, path, body))
    }

    fn address(&self) -> Result<String, Failure> {
        match &self.address {
            Some(address) if address.contains("://") => Ok(address.clone()),
            Some(address) => Ok(format!("http://{address}")),
            None => Ok(format!("http://{}", self.config.listen()?)),
        }
    }

    async fn send(
        &self,
        patience: Duration,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, Failure> {
        let address = self.address()?;
        let url = url::Url::parse(&address).and_then(|base| base.join(path)).map_err(|_| {
            Failure::Usage(format!("`{address}` is no address; write http://host:port"))
        })?;
        let client = http::client(Options { timeout: patience, ..Options::default() })?;
        let request = match body {
            None => client.request(Method::GET, url),
            Some(body) => client
                .request(Method::POST, url)
                .header("content-type", "application/json")
                .body(body),
        };
        let tried = format!("cannot ask the daemon at {address}");
        let failed = |error: &reqwest::Error| {
            let reason = http::error(Side::Sink, &tried, error, patience);
            Failure::Failed(format!(
                "{}; is it running? `driftless run` starts it, --address finds it",
                reason.report()
            ))
        };
        let response = request.send().await.map_err(|error| failed(&error))?;
        let is_ok = response.status().is_success();
        let text = response.text().await.map_err(|error| failed(&error))?;
        Ok(Answer { is_ok, text })
    }
}
