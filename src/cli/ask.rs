//! Asks a running daemon at its HTTP door, and shows who asks. Knows no request.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{Failure, wiring};
use crate::admin::execute;
use crate::net::http::{self, Options, Side};
use crate::net::{secret, tls};

/// Without a flag of its own: other accounts can see the arguments of a process.
const TOKEN_VARIABLE: &str = "DRIFTLESS_TOKEN";
/// Dead letters with their documents can be long.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A statement that makes a link asks the source and the sink.
const PATIENCE: Duration = Duration::from_secs(120);
/// A verification reads a whole table and a whole index.
const PATIENCE_WITH_TABLES: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug, clap::Args)]
pub(super) struct Daemon {
    /// The daemon's HTTP door [default: `http.listen` of the configuration, else http://127.0.0.1:9220]
    #[arg(long, value_name = "URL", env = "DRIFTLESS_ADDRESS")]
    address: Option<String>,
    /// The token to show there, in a file that holds nothing else; or in $DRIFTLESS_TOKEN
    #[arg(long, value_name = "FILE", env = "DRIFTLESS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Authorities that may have signed the door's certificate (PEM), instead of the system's
    #[arg(long, value_name = "FILE", env = "DRIFTLESS_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// A certificate (PEM) to show there
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
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
            Some(address) if address.contains('@') => Err(Failure::Usage(
                "--address holds a user or a token; give that by --token-file or $DRIFTLESS_TOKEN"
                    .to_owned(),
            )),
            Some(address) if address.contains("://") => Ok(address.clone()),
            Some(address) => Ok(format!("http://{address}")),
            None => self.config.address(),
        }
    }

    fn client(&self, patience: Duration) -> Result<reqwest::Client, Failure> {
        http::install_crypto();
        let has_files = self.ca_file.is_some() || self.cert_file.is_some();
        let tls = has_files.then(|| {
            tls::client_config(&tls::Config {
                mode: tls::Mode::VerifyIdentity,
                ca_file: self.ca_file.clone(),
                cert_file: self.cert_file.clone(),
                key_file: self.key_file.clone(),
            })
        });
        let tls = tls.transpose().map_err(|error| Failure::Usage(error.report()))?;
        let tls = tls.map(|settings| (*settings).clone());
        Ok(http::client(Options { timeout: patience, tls, ..Options::default() })?)
    }

    /// The header that shows who asks, if we are somebody.
    fn login(&self) -> Result<Option<HeaderValue>, Failure> {
        let usage = |error: crate::error::Error| Failure::Usage(error.report());
        let in_variable = || {
            let text = std::env::var(TOKEN_VARIABLE).ok().filter(|text| !text.is_empty())?;
            Some(SecretString::from(text.trim()))
        };
        let token = match &self.token_file {
            Some(file) => secret::load("the token", None, Some(file)).map_err(usage)?,
            None => in_variable(),
        };
        let Some(token) = token else { return Ok(None) };
        let mut header = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
            .map_err(|_| Failure::Usage("the token has characters that no token has".to_owned()))?;
        header.set_sensitive(true);
        Ok(Some(header))
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
        let client = self.client(patience)?;
        let request = match body {
            None => client.request(Method::GET, url),
            Some(body) => client
                .request(Method::POST, url)
                .header("content-type", "application/json")
                .body(body),
        };
        let tried = format!("cannot ask the daemon at {address}");
        let failed = |error: &reqwest::Error| {
            let reason = http::error(Side::Sink, &tried, error, patience).report();
            let advice = match reason.contains("certificate") {
                true => {
                    "--ca-file says who may have signed it, --address under which of its names to ask"
                }
                false => "is it running? `driftless run` starts it, --address finds it",
            };
            Failure::Failed(format!("{reason}; {advice}"))
        };
        let response = self.with_login(request)?.send().await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = http::body(response, ANSWER_BYTES_MAX).await.map_err(|error| failed(&error))?;
        let body =
            body.ok_or_else(|| Failure::Failed(format!("{tried}: its answer is too long")))?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(Failure::Failed(reason(&text)));
        }
        Ok(Answer { is_ok: status.is_success(), text })
    }

    fn with_login(&self, request: RequestBuilder) -> Result<RequestBuilder, Failure> {
        Ok(match self.login()? {
            Some(login) => request.header(AUTHORIZATION, login),
            None => request,
        })
    }
}

/// What went wrong in the door's words: the pointer into the statement, where the answer has one. A text stays as it is.
pub(super) fn reason(text: &str) -> String {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let said = |key: &str| answer["error"][key].as_str().map(str::to_owned);
    let with_advice = || {
        let reason = said("reason")?;
        Some(said("advice").map_or(reason.clone(), |advice| format!("{reason}; {advice}")))
    };
    match said("pointer").or_else(with_advice) {
        Some(reason) => format!("error: {reason}"),
        None => text.to_owned(),
    }
}
