//! Mutation switch of the rule tests: puts the naive reading of a design rule in the place of the right one, so that
//! the rule's test can be seen to go red. Builds without debug assertions do not contain it.

/// The rules of `docs/delivery.md` whose naive reading can be switched on by `DRIFTLESS_NAIVE=rule1,rule5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// Naive: a watermark is the end of the log, not the set of executed transactions.
    Window = 1,
    /// Naive: all operations of one event share the event's version.
    Versions = 2,
    /// Naive: rows of an XA transaction count where they stand in the log, at its PREPARE.
    Prepared = 3,
    /// Naive: every version conflict is a success, and an epoch is the clock alone.
    Conflicts = 4,
    /// Naive: versions alone order a document's operations, so two may be in flight.
    Tombstones = 5,
    /// Naive: a waiting operation is sent although a newer one of its document is there.
    LateOperations = 6,
    /// Naive: a server that goes on with transactions of its own has all that was applied.
    LostTransactions = 7,
    /// Naive: today's definition is good for yesterday's events if the column types agree.
    Definitions = 8,
    /// Naive: what stands in the log of MariaDB was committed.
    HeldGroups = 9,
    /// Naive: TRUNCATE deletes what the index shows at that moment.
    Destructive = 10,
    /// Naive: a row changes only by its events.
    SilentChanges = 11,
    /// Naive: what a foreign key does to a row is in the log.
    Cascades = 12,
    /// Naive: every image has what the `_id` is made of.
    Images = 13,
    /// Naive: errors are classed by HTTP status, and a missing index is created by the write.
    ErrorClasses = 14,
    /// Naive: a document that differs from its row at one look is wrong.
    Verification = 16,
    /// Naive: all readers of the log may have one server id.
    Tailers = 17,
    /// Naive: a consistent snapshot of MariaDB shows what was delivered before it began.
    Snapshot = 18,
    /// Naive: who has held the lease may write.
    Lease = 19,
    /// Naive: the name moves to a new index as soon as it is filled.
    Rebuild = 20,
    /// Naive: every event is had whole before it is looked at.
    Memory = 22,
}

/// Whether the naive reading of `rule` is in force. Always false in a release build.
#[inline]
pub fn is_naive(rule: Rule) -> bool {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        static SET: OnceLock<u32> = OnceLock::new();
        let set = *SET.get_or_init(|| {
            let named = std::env::var("DRIFTLESS_NAIVE").unwrap_or_default();
            named
                .split(',')
                .filter_map(|name| name.trim().strip_prefix("rule")?.parse::<u32>().ok())
                .fold(0, |set, number| set | 1u32.checked_shl(number).unwrap_or(0))
        });
        set & (1 << (rule as u8)) != 0
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = rule;
        false
    }
}

/// Lets a stage stand still for ever, once, where a file of its name lies in the folder `DRIFTLESS_HANG`: nothing outside of
/// the process can make it. For the tests of the watchdog; release builds do not contain it.
#[inline]
pub async fn hang_if_told(stage: &str) {
    #[cfg(debug_assertions)]
    {
        use std::path::PathBuf;
        use std::sync::OnceLock;
        static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
        let folder = FOLDER.get_or_init(|| std::env::var_os("DRIFTLESS_HANG").map(PathBuf::from));
        if let Some(folder) = folder
            && std::fs::remove_file(folder.join(stage)).is_ok()
        {
            std::future::pending::<()>().await;
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = stage;
}
