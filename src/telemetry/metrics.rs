//! Every metric and every label, once; `docs/metrics.md` is compared with this file. Must not know who counts.
//!
//! A link's series are looked up once, when [`Metrics::link`] gives its [`LinkMetrics`]; after that a count is an
//! atomic addition. [`Metrics::forget_link`] takes the series of a dropped link away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// The values of the label `state` of `driftless_link_state`.
pub const LINK_STATES: [&str; 7] =
    ["scheduled", "snapshotting", "catching_up", "running", "recovering", "failed", "paused"];

/// One family, as it is documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    families: Vec<Family>,
    began: Instant,
    resident_memory: IntGauge,

    pub source_events: IntCounter,
    pub source_bytes: IntCounter,
    pub source_connected: IntGauge,
    pub source_reconnects: IntCounter,
    pub source_epoch: IntGauge,
    pub source_links_behind: IntGauge,
    pub source_own_streams: IntGauge,

    pub leader: IntGauge,
    /// Milliseconds; -1 where there is none.
    pub copy_age_ms: IntGauge,

    pub model_requests_ok: IntCounter,
    /// Answers and failures after which the same request is sent again.
    pub model_requests_retried: IntCounter,
    pub model_requests_failed: IntCounter,
    pub model_texts: IntCounter,
    pub embedding_cache_hits: IntCounter,
    pub embedding_cache_misses: IntCounter,
    watchdog_restarts: [IntCounter; STAGES.len()],

    /// Requests at the door of somebody who has not shown who he is.
    pub http_unknown: IntCounter,
    /// Requests at the door for which the role does not suffice.
    pub http_forbidden: IntCounter,

    by_link: LinkFamilies,
    /// Handles that were given out, so that ages can be computed when somebody asks; dropped with the link.
    links: Mutex<BTreeMap<String, LinkMetrics>>,
}

/// One link's series. Clones count into the same series.
#[derive(Clone)]
pub struct LinkMetrics {
    pub rows_insert: IntCounter,
    pub rows_update: IntCounter,
    pub rows_delete: IntCounter,
    pub rows_snapshot: IntCounter,
    pub lag_ms: IntGauge,
    pub snapshot_rows: IntGauge,
    pub snapshot_rows_total_estimate: IntGauge,
    pub sink_bulks: IntCounter,
    pub documents_done: IntCounter,
    /// The index held the same or a newer version of ours already.
    pub documents_conflict: IntCounter,
    pub documents_refused: IntCounter,
    pub dead_letters: IntGauge,
    pub parked_documents: IntGauge,
    pub sink_retries: IntCounter,
    pub sink_inflight_bytes: IntGauge,
    pub sink_concurrency: IntGauge,
    pub sink_bulk_bytes: IntGauge,
    /// Events that wait to be decoded.
    pub queue_events_bytes: IntGauge,
    /// Document operations that wait for a lane.
    pub queue_lanes_bytes: IntGauge,
    pub verify_running: IntGauge,
    pub verify_rows: IntCounter,
    pub verify_documents: IntCounter,
    pub verify_repaired: IntCounter,
    pub verify_ended_at: IntGauge,
    verify_differences: [IntGauge; DIFFERENCE_KINDS.len()],
    states: [IntGauge; LINK_STATES.len()],
    checkpoint_age_ms: IntGauge,
    /// Milliseconds of the process's life at the last checkpoint; -1 before the first.
    checkpoint_at_ms: Arc<AtomicI64>,
    began: Instant,
}

struct LinkFamilies {
    rows: IntCounterVec,
    lag_ms: IntGaugeVec,
    state: IntGaugeVec,
    snapshot_rows: IntGaugeVec,
    snapshot_rows_total_estimate: IntGaugeVec,
    sink_bulks: IntCounterVec,
    sink_documents: IntCounterVec,
    sink_retries: IntCounterVec,
    sink_inflight_bytes: IntGaugeVec,
    sink_concurrency: IntGaugeVec,
    sink_bulk_bytes: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    checkpoint_age_ms: IntGaugeVec,
    dead_letters: IntGaugeVec,
    parked_documents: IntGaugeVec,
    verify_running: IntGaugeVec,
    verify_rows: IntCounterVec,
    verify_documents: IntCounterVec,
    verify_repaired: IntCounterVec,
    verify_ended_at: IntGaugeVec,
    verify_differences: IntGaugeVec,
}

const DIFFERENCE_KINDS: [&str; 6] =
    ["missing", "different", "stale_vector", "extra", "foreign", "unjudged"];
const ROW_KINDS: [&str; 4] = ["insert", "update", "delete", "snapshot"];
const DOCUMENT_OUTCOMES: [&str; 3] = ["done", "conflict", "refused"];
const QUEUES: [&str; 2] = ["events", "lanes"];
/// The values of the label `stage` of `driftless_watchdog_restarts_total`.
pub const STAGES: [&str; 4] = ["tailer", "worker", "lane", "copy"];
const MODEL_OUTCOMES: [&str; 3] = ["ok", "retried", "failed"];

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::new)
}

impl Metrics {
    fn new() -> Self {
        let mut make = Maker { registry: Registry::new(), families: Vec::new() };
        let requests = make.counters(
            "driftless_model_requests_total",
            &["outcome"],
            "Requests to embedding endpoints: `ok`, `retried` (429, 5xx, time-out, broken connection), `failed`",
        );
        let request = MODEL_OUTCOMES.map(|outcome| requests.with_label_values(&[outcome]));
        let [model_requests_ok, model_requests_retried, model_requests_failed] = request;
        let refused = make.counters(
            "driftless_http_refused_total",
            &["status"],
            "Requests at the door that were refused for who asked: `401` (no token, or none of ours), `403` (the role does not suffice)",
        );
        let watchdog_restarts = make.counters(
            "driftless_watchdog_restarts_total",
            &["stage"],
            "Stages that stood still with work to do and were begun again: `tailer`, `worker`, `lane`, `copy`",
        );
        let build_info =
            make.gauges("driftless_build_info", &["version"], "1, with the version as a label");
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let by_link = LinkFamilies::new(&mut make);
        Self {
            resident_memory: make.gauge(
                "driftless_memory_resident_bytes",
                "Memory that the process holds, as the system counts it",
            ),
            source_events: make.counter(
                "driftless_source_events_total",
                "Events read from the source's log, those of unmapped tables too",
            ),
            source_bytes: make
                .counter("driftless_source_bytes_total", "Bytes of log read from the source"),
            source_connected: make.gauge(
                "driftless_source_connected",
                "1 while the replication connection stands, else 0",
            ),
            source_reconnects: make.counter(
                "driftless_source_reconnects_total",
                "Replication connections that broke and were opened again",
            ),
            source_own_streams: make.gauge(
                "driftless_source_own_streams",
                "Links that read the log by themselves until they have caught up, four at most",
            ),
            source_links_behind: make.gauge(
                "driftless_source_links_behind",
                "Links that the shared stream has left behind, and that are not back",
            ),
            source_epoch: make.gauge(
                "driftless_source_epoch",
                "Base of the document versions in force; a change means a new span of the log",
            ),
            leader: make
                .gauge("driftless_leader", "1 where this daemon runs the links, 0 while it stands by"),
            copy_age_ms: make.gauge(
                "driftless_state_copy_age_ms",
                "Time since the copy of the state in the cluster was as the state; -1 where none is kept",
            ),
            model_requests_ok,
            model_requests_retried,
            model_requests_failed,
            model_texts: make
                .counter("driftless_model_texts_total", "Texts sent to embedding endpoints"),
            embedding_cache_hits: make.counter(
                "driftless_embedding_cache_hits_total",
                "Texts whose vector was in the cache",
            ),
            embedding_cache_misses: make.counter(
                "driftless_embedding_cache_misses_total",
                "Texts whose vector had to be asked for",
            ),
            http_unknown: refused.with_label_values(&["401"]),
            http_forbidden: refused.with_label_values(&["403"]),
            watchdog_restarts: STAGES.map(|stage| watchdog_restarts.with_label_values(&[stage])),
            by_link,
            links: Mutex::default(),
            began: Instant::now(),
            registry: make.registry,
            families: make.families,
        }
    }

    /// The handle on a link's series, which appear with it.
    pub fn link(&self, id: &str) -> LinkMetrics {
        let mut links = self.links.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let made = || LinkMetrics::new(&self.by_link, id, self.began);
        links.entry(id.to_owned()).or_insert_with(made).clone()
    }

    /// Takes a dropped link's series away. Handles that are still around count into nothing.
    pub fn forget_link(&self, id: &str) {
        self.links.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(id);
        self.by_link.forget(id);
    }

    /// One of [`STAGES`] stood still, and begins again.
    pub fn watchdog_restarted(&self, stage: &str) {
        debug_assert!(STAGES.contains(&stage), "{stage} is no stage of the metric");
        let of = STAGES.iter().zip(&self.watchdog_restarts).find(|(name, _)| **name == stage);
        of.into_iter().for_each(|(_, counter)| counter.inc());
    }

    /// Everything in Prometheus' text form.
    pub fn render(&self) -> String {
        self.resident_memory.set(resident_bytes().unwrap_or(0));
        for link in self.links.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).values() {
            link.refresh_checkpoint_age();
        }
        let mut text = String::new();
        match TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            Ok(()) => text,
            Err(error) => format!("# the metrics cannot be written: {error}\n"),
        }
    }

    /// What there is, for the reference.
    pub fn families(&self) -> &[Family] {
        &self.families
    }
}

impl LinkMetrics {
    fn new(by_link: &LinkFamilies, id: &str, began: Instant) -> Self {
        let rows = ROW_KINDS.map(|kind| by_link.rows.with_label_values(&[id, kind]));
        let [rows_insert, rows_update, rows_delete, rows_snapshot] = rows;
        let documents = DOCUMENT_OUTCOMES
            .map(|outcome| by_link.sink_documents.with_label_values(&[id, outcome]));
        let [documents_done, documents_conflict, documents_refused] = documents;
        let [queue_events_bytes, queue_lanes_bytes] =
            QUEUES.map(|queue| by_link.queue_bytes.with_label_values(&[id, queue]));
        let link = Self {
            rows_insert,
            rows_update,
            rows_delete,
            rows_snapshot,
            lag_ms: by_link.lag_ms.with_label_values(&[id]),
            snapshot_rows: by_link.snapshot_rows.with_label_values(&[id]),
            snapshot_rows_total_estimate: by_link
                .snapshot_rows_total_estimate
                .with_label_values(&[id]),
            sink_bulks: by_link.sink_bulks.with_label_values(&[id]),
            documents_done,
            documents_conflict,
            documents_refused,
            sink_retries: by_link.sink_retries.with_label_values(&[id]),
            sink_inflight_bytes: by_link.sink_inflight_bytes.with_label_values(&[id]),
            sink_concurrency: by_link.sink_concurrency.with_label_values(&[id]),
            sink_bulk_bytes: by_link.sink_bulk_bytes.with_label_values(&[id]),
            queue_events_bytes,
            queue_lanes_bytes,
            parked_documents: by_link.parked_documents.with_label_values(&[id]),
            dead_letters: by_link.dead_letters.with_label_values(&[id]),
            verify_running: by_link.verify_running.with_label_values(&[id]),
            verify_rows: by_link.verify_rows.with_label_values(&[id]),
            verify_documents: by_link.verify_documents.with_label_values(&[id]),
            verify_repaired: by_link.verify_repaired.with_label_values(&[id]),
            verify_ended_at: by_link.verify_ended_at.with_label_values(&[id]),
            verify_differences: DIFFERENCE_KINDS
                .map(|kind| by_link.verify_differences.with_label_values(&[id, kind])),
            states: LINK_STATES.map(|state| by_link.state.with_label_values(&[id, state])),
            checkpoint_age_ms: by_link.checkpoint_age_ms.with_label_values(&[id]),
            checkpoint_at_ms: Arc::new(AtomicI64::new(-1)),
            began,
        };
        link.lag_ms.set(-1);
        link.verify_differences.iter().for_each(|kind| kind.set(-1));
        link
    }

    /// Says which of [`LINK_STATES`] the link is in.
    pub fn set_state(&self, state: &str) {
        debug_assert!(LINK_STATES.contains(&state), "{state} is not a state of the metric");
        for (name, gauge) in LINK_STATES.iter().zip(&self.states) {
            gauge.set(i64::from(*name == state));
        }
    }

    /// What a verification has found of this kind.
    pub fn set_verify_differences(&self, kind: &str, count: u64) {
        let gauges = DIFFERENCE_KINDS.iter().zip(&self.verify_differences);
        gauges.filter(|(name, _)| **name == kind).for_each(|(_, gauge)| gauge.set(count as i64));
    }

    /// A checkpoint has been written; its age counts from now.
    pub fn checkpoint_written(&self) {
        self.checkpoint_at_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn refresh_checkpoint_age(&self) {
        let at = self.checkpoint_at_ms.load(Ordering::Relaxed);
        self.checkpoint_age_ms.set(if at < 0 { -1 } else { (self.now_ms() - at).max(0) });
    }

    fn now_ms(&self) -> i64 {
        self.began.elapsed().as_millis() as i64
    }
}

impl LinkFamilies {
    fn new(make: &mut Maker) -> Self {
        Self {
            rows: make.counters(
                "driftless_link_rows_total",
                &["link", "kind"],
                "Rows taken: `insert`, `update`, `delete` from the log, `snapshot` from the table",
            ),
            lag_ms: make.gauges(
                "driftless_link_lag_ms",
                &["link"],
                "Age of the oldest unacknowledged change; -1 before the stream",
            ),
            state: make.gauges(
                "driftless_link_state",
                &["link", "state"],
                "1 for the state the link is in: `scheduled`, `snapshotting`, `catching_up`, `running`, `recovering`, `failed`, `paused`",
            ),
            snapshot_rows: make.gauges(
                "driftless_snapshot_rows",
                &["link"],
                "Rows that the snapshot has copied",
            ),
            snapshot_rows_total_estimate: make.gauges(
                "driftless_snapshot_rows_total_estimate",
                &["link"],
                "Rows of the table, as the server estimates them",
            ),
            sink_bulks: make.counters(
                "driftless_sink_bulk_total",
                &["link"],
                "Bulk requests sent",
            ),
            sink_documents: make.counters(
                "driftless_sink_documents_total",
                &["link", "outcome"],
                "Document operations answered: `done`, `conflict` (the index held ours already), `refused`",
            ),
            sink_retries: make.counters(
                "driftless_sink_retries_total",
                &["link"],
                "Bulk requests that had to be sent again, whole or in part",
            ),
            sink_inflight_bytes: make.gauges(
                "driftless_sink_inflight_bytes",
                &["link"],
                "Bytes sent and not yet acknowledged",
            ),
            sink_concurrency: make.gauges(
                "driftless_sink_concurrency",
                &["link"],
                "Requests that may be in flight now: fewer than `sink.lanes` times `sink.inflight` while the sink has too much to do",
            ),
            sink_bulk_bytes: make.gauges(
                "driftless_sink_bulk_bytes",
                &["link"],
                "Bytes that one request may hold now: less than configured while the sink has too much to do, or refuses that as too large",
            ),
            queue_bytes: make.gauges(
                "driftless_queue_bytes",
                &["link", "queue"],
                "Bytes that wait: `events` to be decoded, `lanes` to be written",
            ),
            checkpoint_age_ms: make.gauges(
                "driftless_checkpoint_age_ms",
                &["link"],
                "Time since the last checkpoint was written; -1 before the first of this process",
            ),
            dead_letters: make.gauges(
                "driftless_dead_letters",
                &["link"],
                "Documents that were refused for good and wait for somebody",
            ),
            parked_documents: make.gauges(
                "driftless_parked_documents",
                &["link"],
                "Documents that could not be written for long while others could, and are tried again by themselves",
            ),
            verify_running: make.gauges(
                "driftless_verify_running",
                &["link"],
                "1 while the link is being verified, else 0",
            ),
            verify_rows: make.counters(
                "driftless_verify_rows_total",
                &["link"],
                "Rows whose documents were looked at by verifications",
            ),
            verify_documents: make.counters(
                "driftless_verify_documents_total",
                &["link"],
                "Documents whose rows were looked for by verifications",
            ),
            verify_repaired: make.counters(
                "driftless_verify_repaired_total",
                &["link"],
                "Differences that verifications have mended",
            ),
            verify_ended_at: make.gauges(
                "driftless_verify_ended_timestamp_seconds",
                &["link"],
                "When the last verification that looked at everything has ended, in seconds since 1970; 0 before the first",
            ),
            verify_differences: make.gauges(
                "driftless_verify_differences",
                &["link", "kind"],
                "What the last verification that ended has found: `missing`, `different`, `stale_vector`, `extra`, `foreign`, `unjudged`; -1 before the first of this process",
            ),
        }
    }

    fn forget(&self, id: &str) {
        // Removing says whether the series was there, which does not matter.
        for kind in ROW_KINDS {
            let _ = self.rows.remove_label_values(&[id, kind]);
        }
        for outcome in DOCUMENT_OUTCOMES {
            let _ = self.sink_documents.remove_label_values(&[id, outcome]);
        }
        for queue in QUEUES {
            let _ = self.queue_bytes.remove_label_values(&[id, queue]);
        }
        for state in LINK_STATES {
            let _ = self.state.remove_label_values(&[id, state]);
        }
        for kind in DIFFERENCE_KINDS {
            let _ = self.verify_differences.remove_label_values(&[id, kind]);
        }
        let counters = [
            &self.sink_bulks,
            &self.sink_retries,
            &self.verify_rows,
            &self.verify_documents,
            &self.verify_repaired,
        ];
        for counters in counters {
            let _ = counters.remove_label_values(&[id]);
        }
        let gauges = [
            &self.lag_ms,
            &self.snapshot_rows,
            &self.snapshot_rows_total_estimate,
            &self.sink_inflight_bytes,
            &self.sink_concurrency,
            &self.sink_bulk_bytes,
            &self.checkpoint_age_ms,
            &self.dead_letters,
            &self.parked_documents,
            &self.verify_running,
            &self.verify_ended_at,
        ];
        for gauges in gauges {
            let _ = gauges.remove_label_values(&[id]);
        }
    }
}

/// Makes families and keeps the list of them.
struct Maker {
    registry: Registry,
    families: Vec<Family>,
}

impl Maker {
    fn keep<C: Collector + Clone + 'static>(
        &mut self,
        made: prometheus::Result<C>,
        family: Family,
    ) -> C {
        self.families.push(family);
        let made = made.expect("names and labels of this file are well formed");
        self.registry.register(Box::new(made.clone())).expect("each name is used once");
        made
    }

    fn counter(&mut self, name: &'static str, help: &'static str) -> IntCounter {
        let family = Family { name, kind: "counter", labels: &[], help };
        self.keep(IntCounter::new(name, help), family)
    }

    fn gauge(&mut self, name: &'static str, help: &'static str) -> IntGauge {
        let family = Family { name, kind: "gauge", labels: &[], help };
        self.keep(IntGauge::new(name, help), family)
    }

    fn counters(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> IntCounterVec {
        let family = Family { name, kind: "counter", labels, help };
        self.keep(IntCounterVec::new(Opts::new(name, help), labels), family)
    }

    fn gauges(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> IntGaugeVec {
        let family = Family { name, kind: "gauge", labels, help };
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels), family)
    }
}

/// The second number of `statm` counts resident pages; Linux has 4 KiB pages wherever we run.
fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split_whitespace().nth(1)?.parse::<i64>().ok().map(|pages| pages * 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_series_come_and_go_with_it() {
        let metrics = Metrics::new();
        let link = metrics.link("products");
        link.rows_insert.inc();
        metrics.link("products").rows_insert.inc();
        link.set_state("running");
        link.checkpoint_written();
        let text = metrics.render();
        assert!(
            text.contains("driftless_link_rows_total{kind=\"insert\",link=\"products\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("driftless_link_state{link=\"products\",state=\"running\"} 1\n"));
        assert!(text.contains("driftless_link_state{link=\"products\",state=\"failed\"} 0\n"));
        assert!(text.contains("driftless_link_lag_ms{link=\"products\"} -1\n"));
        metrics.forget_link("products");
        link.rows_insert.inc();
        assert!(!metrics.render().contains("products"));
    }

    #[test]
    fn names_say_what_they_count() {
        let metrics = Metrics::new();
        for family in metrics.families() {
            assert!(family.name.starts_with("driftless_"), "{family:?}");
            assert_eq!(family.name.ends_with("_total"), family.kind == "counter", "{family:?}");
            assert!(!family.help.is_empty() && !family.help.ends_with('.'), "{family:?}");
        }
        assert!(metrics.families().iter().any(|family| family.name == "driftless_source_epoch"));
    }

    /// The reference has one row per family, with the words of this file.
    #[test]
    fn the_reference_lists_every_metric() {
        let page = include_str!("../../docs/metrics.md");
        let families: Vec<String> = Metrics::new().families().iter().map(row).collect();
        let documented: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        for row in &families {
            assert!(documented.contains(&row.as_str()), "docs/metrics.md lacks this row:\n{row}");
        }
        assert_eq!(
            documented.len(),
            families.len(),
            "docs/metrics.md has rows of metrics that do not exist"
        );
    }

    fn row(family: &Family) -> String {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |", family.name, family.kind, labels.join(", "), family.help)
    }
}
