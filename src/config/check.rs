//! Values that can be read and cannot be meant: said before anything starts, each at its place. Opens no connection.

use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;
use url::Url;

use super::{Config, value};
use crate::error::{Error, Result};
use crate::link::{PipelineMode, nobody_to_delegate_to};
use crate::net::trust::Trust;
use crate::sink;
use crate::telemetry::log;

/// Less would not hold one bulk request per lane.
const MEMORY_LIMIT_MIN: usize = 16 << 20;

/// Shorter ones run out while a cluster is slow for a moment.
const LEASE_SECS_MIN: u64 = 3;
const LEASE_SECS_MAX: u64 = 600;

pub(super) fn check(config: &Config, table: &Spanned<DeTable<'_>>) -> Vec<Error> {
    let mut checks = Checks { table, errors: Vec::new() };
    checks.not_zero(config);
    for (path, error) in config.http.check() {
        checks.say(path, error);
    }
    checks.source(config);
    checks.sink(config);
    checks.standby(config);
    checks.rest(config);
    checks.errors
}

struct Checks<'c> {
    table: &'c Spanned<DeTable<'c>>,
    errors: Vec<Error>,
}

impl Checks<'_> {
    /// Says `error` at the value of `path`, or at nothing if the value is a default.
    fn say(&mut self, path: &str, error: Error) {
        let placed = match value::place(self.table, path) {
            Some(span) => error.at(span),
            None => error,
        };
        self.errors.push(placed);
    }

    fn refuse(&mut self, path: &str, message: &str, advice: &str) {
        self.say(path, Error::input(format!("`{path}` {message}")).with_advice(advice));
    }

    fn not_zero(&mut self, config: &Config) {
        let Config { source, snapshot, pipeline, sink, link, .. } = config;
        let counts = [
            ("source.port", u64::from(source.port)),
            ("source.connect_timeout_ms", source.connect_timeout_ms),
            ("source.heartbeat_ms", source.heartbeat_ms),
            ("source.read_timeout_ms", source.read_timeout_ms),
            ("source.server_id", source.server_id.map_or(1, u64::from)),
            ("snapshot.chunk_rows", u64::from(snapshot.chunk_rows)),
            ("snapshot.chunk_target_ms", snapshot.chunk_target_ms),
            ("snapshot.chunk_bytes", snapshot.chunk_bytes as u64),
            ("snapshot.recorded_bytes", snapshot.recorded_bytes as u64),
            ("pipeline.batch_texts", pipeline.batch_texts as u64),
            ("pipeline.concurrency", pipeline.concurrency as u64),
            ("pipeline.connect_timeout_ms", pipeline.connect_timeout_ms),
            ("pipeline.timeout_ms", pipeline.timeout_ms),
            ("sink.lanes", sink.lanes as u64),
            ("sink.inflight", sink.inflight as u64),
            ("sink.bulk_bytes", sink.bulk_bytes as u64),
            ("sink.bulk_documents", sink.bulk_documents as u64),
            ("sink.connect_timeout_ms", sink.connect_timeout_ms),
            ("sink.timeout_ms", sink.timeout_ms),
            ("link.checkpoint_interval_ms", link.checkpoint_interval_ms),
        ];
        for (path, _) in counts.iter().filter(|(_, count)| *count == 0) {
            self.refuse(path, "is 0", "write a number above 0, or leave the key out");
        }
    }

    fn source(&mut self, config: &Config) {
        let source = &config.source;
        if source.files().is_some_and(|path| path.as_os_str().is_empty()) {
            let advice = "name the folder that the log's files are in";
            self.refuse("source.path", "is missing for `type = \"binlog_files\"`", advice);
        }
        for (path, text) in [("source.host", &source.host), ("source.user", &source.user)] {
            if text.trim().is_empty() {
                self.refuse(path, "is empty", "say where the source is and who we are there");
            }
        }
        if source.tls.cert_file.is_some() != source.tls.key_file.is_some() {
            self.refuse(
                "source.tls",
                "has one of `cert_file` and `key_file`",
                "set both for a client certificate, or none",
            );
        }
        self.one_password("source", source.password.is_some(), source.password_file.as_deref());
        self.file("source.tls.ca_file", source.tls.ca_file.as_deref());
        self.file("source.tls.cert_file", source.tls.cert_file.as_deref());
        self.file("source.tls.key_file", source.tls.key_file.as_deref());
    }

    fn sink(&mut self, config: &Config) {
        let sink = &config.sink;
        if !sink::KINDS.contains(&sink.kind.as_str()) {
            self.say("sink.type", sink::unknown_kind(&sink.kind));
        }
        if sink.addresses.is_empty() {
            self.refuse(
                "sink.addresses",
                "is empty",
                "write at least one, as \"http://127.0.0.1:9200\"",
            );
        }
        for (at, address) in sink.addresses.iter().enumerate() {
            if let Err(error) = check_address(address) {
                self.say(&format!("sink.addresses.{at}"), error);
            }
        }
        let is_embedded = sink.kind == "embedded";
        if is_embedded && config.link.pipeline_mode == PipelineMode::Delegate {
            self.say("link.pipeline_mode", nobody_to_delegate_to());
        }
        self.one_password("sink", sink.password.is_some(), sink.password_file.as_deref());
        self.one_login(sink);
        self.file("sink.ca_file", sink.ca_file.as_deref());
    }

    fn standby(&mut self, config: &Config) {
        let standby = &config.standby;
        let Some(name) = &standby.name else { return };
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
            let advice = "write 1 to 64 lower case letters, digits, - and _, as \"shop\"";
            self.refuse("standby.name", "is not such a name", advice);
        }
        if !(LEASE_SECS_MIN..=LEASE_SECS_MAX).contains(&standby.lease_secs) {
            let advice = "the default is 10";
            self.refuse("standby.lease_secs", "is not between 3 and 600", advice);
        }
        if config.sink.kind == "embedded" {
            let advice = "leave the section out, or write to an OpenSearch or Elasticsearch";
            let what = "needs a sink that several daemons can reach, and an embedded index is on this disk";
            self.refuse("standby.name", what, advice);
        }
        if config.source.files().is_some() {
            let advice = "leave the section out: the files can be read again from the first on";
            self.refuse("standby.name", "needs a server as its source, not files", advice);
        }
    }

    fn rest(&mut self, config: &Config) {
        if config.memory_limit_bytes < MEMORY_LIMIT_MIN {
            self.refuse("memory_limit_bytes", "is below 16 MiB", "the default is \"512MiB\"");
        }
        if let Err(error) = log::filter(&config.log.level) {
            self.say("log.level", error);
        }
        for (at, pattern) in config.pipeline.trusted_endpoints.iter().enumerate() {
            if let Err(error) = Trust::new(std::slice::from_ref(pattern), false) {
                let report = error.report();
                // The reason is the last line of a picture.
                let reason = report.lines().last().unwrap_or("").trim_start_matches("error: ");
                let error =
                    Error::input(format!("`{pattern}` is not a regular expression: {reason}"));
                self.say(&format!("pipeline.trusted_endpoints.{at}"), error);
            }
        }
        self.file("secrets.key_file", config.secrets.key_file.as_deref());
    }

    fn one_password(&mut self, section: &str, is_given: bool, file: Option<&Path>) {
        let path = format!("{section}.password_file");
        if is_given && file.is_some() {
            self.refuse(&path, "stands beside `password`", "leave one of them out");
        }
        self.file(&path, file);
    }

    fn one_login(&mut self, sink: &sink::Config) {
        let file = sink.api_key_file.as_deref();
        if sink.api_key.is_some() && file.is_some() {
            self.refuse("sink.api_key_file", "stands beside `api_key`", "leave one of them out");
        }
        let key = match file {
            Some(_) => "sink.api_key_file",
            None => "sink.api_key",
        };
        if sink.user.is_some() && (sink.api_key.is_some() || file.is_some()) {
            self.refuse(key, "stands beside `user`", "leave one of them out");
        }
        self.file("sink.api_key_file", file);
    }

    fn file(&mut self, path: &str, file: Option<&Path>) {
        let Some(file) = file else { return };
        if let Err(cause) = std::fs::File::open(file) {
            let message = format!("cannot read the file of `{path}`, {}", file.display());
            self.say(path, Error::input(message).caused_by(cause));
        }
    }
}

fn check_address(address: &str) -> Result<()> {
    let wrong = |message: String| {
        Err(Error::input(message).with_advice("write it as \"http://127.0.0.1:9200\""))
    };
    // The address itself is not repeated: a password may stand in it.
    let Ok(url) = Url::parse(address) else {
        return wrong("an address of the sink is not a URL".to_owned());
    };
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return wrong("an address of the sink is not an http or https URL".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::input("an address of the sink holds a user or a password")
            .with_advice("give them as `user` and `password_file`"));
    }
    Ok(())
}
