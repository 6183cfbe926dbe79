//! What the rounds do: each fault, how it is applied, for how long it lasts, and how it is healed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::chaos::Random;
use crate::chaos::scene::Scene;
use crate::support::proxy;
use crate::support::{SECONDS_10, SECONDS_30, pass, until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Kill,
    KillBetweenBulkAndAnswer,
    KillInCopy,
    Stop,
    StatementAndKill,
    SourceCut,
    SourceAway,
    SourceSlow,
    SourceSilent,
    LogDamaged,
    LogCutInEvent,
    SessionsKilled,
    SourceRestarted,
    SourceKilled,
    FailOver,
    LogsPurged,
    SinkCut,
    SinkAway,
    SinkSlow,
    SinkSilent,
    TooManyRequests,
    Unavailable,
    AnswersLost,
    RequestsLost,
    HalvesRefused,
    WritesBlocked,
    IndexClosed,
    IndexReplaced,
    NodeKilled,
}

use Fault::*;

const ALL: [Fault; 28] = [
    Kill,
    KillBetweenBulkAndAnswer,
    KillInCopy,
    Stop,
    StatementAndKill,
    SourceCut,
    SourceAway,
    SourceSlow,
    SourceSilent,
    LogDamaged,
    LogCutInEvent,
    SessionsKilled,
    SourceRestarted,
    SourceKilled,
    FailOver,
    LogsPurged,
    SinkCut,
    SinkAway,
    SinkSlow,
    SinkSilent,
    TooManyRequests,
    Unavailable,
    AnswersLost,
    RequestsLost,
    HalvesRefused,
    WritesBlocked,
    IndexClosed,
    IndexReplaced,
];

impl Fault {
    /// `DRIFTLESS_CHAOS_FAULT` narrows the choice to those whose name has these words.
    pub fn choices(with_own_node: bool) -> Vec<Self> {
        let only = std::env::var("DRIFTLESS_CHAOS_FAULT").unwrap_or_default();
        let mut choices: Vec<Self> =
            ALL.into_iter().filter(|fault| fault.name().contains(&only)).collect();
        if with_own_node && NodeKilled.name().contains(&only) {
            choices.push(NodeKilled);
        }
        assert!(!choices.is_empty(), "no fault is called like {only}");
        choices
    }

    /// Whether documents may show an older state for a moment (docs/delivery.md): another server's log has versions above all that
    /// were written, and an index that is another one has none.
    pub fn may_show_older(&self) -> bool {
        matches!(self, FailOver | IndexReplaced | NodeKilled)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Kill => "kill -9",
            KillBetweenBulkAndAnswer => "kill -9 between bulk and answer",
            KillInCopy => "kill -9 in a copy",
            Stop => "SIGTERM",
            StatementAndKill => "kill -9 around an ALTER TABLE",
            SourceCut => "source: connections cut",
            SourceAway => "source: away",
            SourceSlow => "source: slow",
            SourceSilent => "source: silent",
            LogDamaged => "source: log damaged on its way",
            LogCutInEvent => "source: cut amid an event",
            SessionsKilled => "source: our sessions killed",
            SourceRestarted => "source: restarted",
            SourceKilled => "source: crashed",
            FailOver => "source: fail-over",
            LogsPurged => "source: log purged while stopped",
            SinkCut => "sink: connections cut",
            SinkAway => "sink: away",
            SinkSlow => "sink: slow",
            SinkSilent => "sink: silent",
            TooManyRequests => "sink: 429",
            Unavailable => "sink: 503",
            AnswersLost => "sink: answers lost",
            RequestsLost => "sink: requests lost",
            HalvesRefused => "sink: partial failures",
            WritesBlocked => "sink: index read-only",
            IndexClosed => "sink: index closed",
            IndexReplaced => "sink: index deleted and made anew",
            NodeKilled => "sink: node killed",
        }
    }

    /// Does it, and gives it time to be felt. A fault that is over at once is healed by this already.
    pub async fn apply(&self, scene: &mut Scene, random: &mut Random) {
        let lasts = Duration::from_millis(200 + random.below(1_800));
        match self {
            Kill | Stop => kill_or_stop(scene, *self == Stop, lasts).await,
            KillBetweenBulkAndAnswer => {
                let gate = scene.sink.hold_next_answer();
                pass_until(SECONDS_10, || gate.has_arrived()).await;
                scene.daemon.kill9();
                gate.open();
                scene.daemon.start_again_unready();
            }
            KillInCopy => {
                if scene.statement("RESET LINK {link}").await.is_ok() {
                    pass(lasts / 8).await;
                }
                scene.daemon.kill9();
                scene.daemon.start_again_unready();
            }
            StatementAndKill => {
                let sqls =
                    ["ALTER TABLE {t} ADD COLUMN x INT FIRST", "ALTER TABLE {t} DROP COLUMN x"];
                for sql in sqls {
                    alter(scene, sql).await;
                    pass(lasts / 20).await;
                    scene.daemon.kill9();
                    scene.daemon.start_again_unready();
                }
            }
            SourceCut => {
                for _ in 0..3 {
                    scene.source.drop_connections();
                    pass(lasts / 4).await;
                }
            }
            SourceAway => {
                scene.source.cut();
                pass(lasts).await;
            }
            SourceSlow => {
                scene.source.delay(Duration::from_millis(30));
                scene.source.throttle(200_000);
                pass(lasts).await;
            }
            // Longer than the silence that counts as death.
            SourceSilent => {
                scene.source.hold();
                pass(lasts + Duration::from_secs(2)).await;
            }
            LogDamaged | LogCutInEvent => {
                let wanted = scene.source.damaged() + 2;
                for _ in 0..2 {
                    match self {
                        LogDamaged => scene.source.flip_in_log(""),
                        _ => scene.source.cut_in_log(""),
                    }
                }
                pass_until(SECONDS_10, || scene.source.damaged() >= wanted).await;
            }
            SessionsKilled => kill_sessions(scene).await,
            SourceRestarted | SourceKilled => {
                scene.stop_server(*self == SourceKilled).await;
                pass(lasts).await;
            }
            // A server that is down has nothing to give.
            FailOver if scene.server_is_down => {}
            FailOver => scene.fail_over().await,
            LogsPurged => purge_while_stopped(scene).await,
            SinkCut => {
                for _ in 0..3 {
                    scene.sink.drop_connections();
                    pass(lasts / 4).await;
                }
            }
            SinkAway => {
                scene.sink.cut();
                pass(lasts).await;
            }
            SinkSlow => {
                scene.sink.delay(Duration::from_millis(150));
                scene.sink.throttle(100_000);
                pass(lasts).await;
            }
            SinkSilent => {
                scene.sink.hold();
                pass(lasts + Duration::from_secs(3)).await;
            }
            TooManyRequests | Unavailable | AnswersLost | RequestsLost | HalvesRefused => {
                for _ in 0..5 + random.below(20) {
                    scene.sink.inject(self.of_request());
                }
                pass(lasts).await;
            }
            WritesBlocked => {
                block(scene, true).await;
                pass(lasts).await;
            }
            IndexClosed => {
                scene.ask_node("POST", "/_close", None).await;
                pass(lasts).await;
            }
            IndexReplaced => {
                scene.ask_node("DELETE", "", None).await;
                pass(lasts / 4).await;
                scene.watcher.forget();
            }
            NodeKilled => {
                scene.node().kill().await;
                pass(lasts).await;
                scene.watcher.forget();
            }
        }
    }

    pub async fn heal(&self, scene: &mut Scene) {
        match self {
            SourceAway => scene.source.mend(),
            SourceSlow => {
                scene.source.delay(Duration::ZERO);
                scene.source.throttle(0);
            }
            SourceSilent => scene.source.release(),
            SourceRestarted | SourceKilled => scene.start_server().await,
            SinkAway => scene.sink.mend(),
            SinkSlow => {
                scene.sink.delay(Duration::ZERO);
                scene.sink.throttle(0);
            }
            SinkSilent => scene.sink.release(),
            LogDamaged | LogCutInEvent => scene.source.forget_faults(),
            KillBetweenBulkAndAnswer
            | TooManyRequests
            | Unavailable
            | AnswersLost
            | RequestsLost
            | HalvesRefused => scene.sink.forget_faults(),
            WritesBlocked => block(scene, false).await,
            IndexClosed => scene.ask_node("POST", "/_open", None).await,
            IndexReplaced => scene.make_index().await,
            NodeKilled => scene.node().start().await,
            Kill | Stop | KillInCopy | StatementAndKill | SourceCut | SessionsKilled | FailOver
            | LogsPurged | SinkCut => {}
        }
    }

    fn of_request(&self) -> proxy::Fault {
        match self {
            TooManyRequests => proxy::Fault::Answer {
                status: 429,
                retry_after_s: None,
                body: "{\"error\":\"told to\"}".to_owned(),
            },
            AnswersLost => proxy::Fault::LoseAnswer,
            RequestsLost => proxy::Fault::LoseRequest,
            HalvesRefused => proxy::Fault::RefuseHalf(429),
            _ => proxy::Fault::status(503),
        }
    }
}

/// Waits for something that faults before it may prevent, and so no longer than this.
async fn pass_until(time: Duration, has_come: impl Fn() -> bool) {
    let began = Instant::now();
    until("it has come or not", SECONDS_30, async || has_come() || began.elapsed() >= time).await;
}

async fn kill_or_stop(scene: &mut Scene, stops: bool, lasts: Duration) {
    if stops && scene.daemon.is_running() {
        let began = Instant::now();
        let status = scene.daemon.stop().await;
        assert!(status.success(), "{status}");
        assert!(began.elapsed() < Duration::from_secs(12), "a stop took {:?}", began.elapsed());
    }
    scene.daemon.kill9();
    pass(lasts / 2).await;
    scene.daemon.start_again_unready();
}

/// Statements that writers would run into stand alone.
async fn alter(scene: &Scene, sql: &str) {
    let mysql = scene.target.write().await;
    // The server may be away.
    mysql.try_exec(&sql.replace("{t}", &format!("{}.t", scene.db))).await.ok();
}

async fn kill_sessions(scene: &Scene) {
    use mysql_async::prelude::Queryable as _;
    let mysql = scene.mysql().await;
    let Ok(mut session) = mysql.try_session().await else { return };
    let sql =
        format!("SELECT id FROM information_schema.processlist WHERE user = '{}'", scene.user);
    let ids: Vec<u64> = session.query(sql).await.unwrap_or_default();
    for id in ids {
        session.query_drop(format!("KILL {id}")).await.ok();
    }
}

/// What was written while nobody read is gone from the log.
async fn purge_while_stopped(scene: &mut Scene) {
    scene.daemon.kill9();
    pass(Duration::from_millis(300)).await;
    if !scene.server_is_down {
        scene.purge().await;
    }
    scene.daemon.start_again_unready();
}

async fn block(scene: &Scene, is_blocked: bool) {
    // As a cluster does it by itself whose disk is full.
    let body = json!({"index": {"blocks": {"read_only_allow_delete": is_blocked}}});
    scene.ask_node("PUT", "/_settings", Some(body)).await;
}
