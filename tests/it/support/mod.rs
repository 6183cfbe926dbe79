//! What the tests share: real servers, the real daemon, a proxy that misbehaves on order. Knows the daemon only from
//! outside: its command line, its configuration, its HTTP door.

// Every test module uses a part of this; none uses all of it.
#![allow(dead_code)]

pub mod browser;
pub mod checker;
pub mod clock;
pub mod daemon;
pub mod model;
pub mod mysql;
pub mod proxy;
pub mod search;
pub mod servers;
pub mod stage;
pub mod tutorial;

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Polls `check` until it says yes, and gives its value. Panics after `deadline`, saying what was waited for and why
/// the last check said no.
///
/// ```ignore
/// until("row 7 is a document", SECONDS_30, async || search.doc("index", "7").await).await;
/// ```
pub async fn until<V: Verdict>(
    what: &str,
    deadline: Duration,
    mut check: impl AsyncFnMut() -> V,
) -> V::Value {
    let started = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let why_not = match check().await.settle() {
            Ok(value) => return value,
            Err(why_not) => why_not,
        };
        let waited = started.elapsed();
        assert!(waited < deadline, "waited {waited:.1?} in vain until {what}: {why_not}");
        // Between two looks at a condition.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Lets this time go by: for how long a fault lasts, or for what would happen by then if it did. Who waits for something
/// waits by [`until`].
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub const SECONDS_10: Duration = Duration::from_secs(10);
pub const SECONDS_30: Duration = Duration::from_secs(30);
pub const MINUTES_2: Duration = Duration::from_secs(120);

/// What a check of [`until`] may give: a yes with its value, or a no with its reason.
pub trait Verdict {
    type Value;
    fn settle(self) -> Result<Self::Value, String>;
}

impl Verdict for bool {
    type Value = ();
    fn settle(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("not yet".to_owned()) }
    }
}

impl<T> Verdict for Option<T> {
    type Value = T;
    fn settle(self) -> Result<T, String> {
        self.ok_or_else(|| "not there yet".to_owned())
    }
}

impl<T, E: Display> Verdict for Result<T, E> {
    type Value = T;
    fn settle(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

/// An HTTP client for the tests; the process-wide TLS provider is chosen once.
pub fn http_client() -> reqwest::Client {
    http_client_builder().build().expect("a plain client can be built")
}

/// The same, for those who want more of it.
pub fn http_client_builder() -> reqwest::ClientBuilder {
    static PROVIDER: std::sync::Once = std::sync::Once::new();
    PROVIDER.call_once(|| {
        // An error says that somebody else has chosen already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().timeout(Duration::from_secs(60))
}

/// A name that no other test of this run, and no other run on the same servers, has: `prefix_4711_3`.
pub fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
