//! `driftless demo`: a small shop in a MySQL, its rows as documents in the embedded index, and a page to search them while
//! they change. Whatever it makes it takes away again. Knows the daemon only from outside: what it asks of it, it asks
//! at the HTTP door.

mod catalogue;
mod changes;
mod door;
mod folder;
mod server;
mod shop;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::changes::Writer;
use self::door::Door;
use self::folder::Folder;
use self::shop::Shop;
use super::daemon::{Daemon, Signals, block_on};
use super::{Failure, check, print, wiring};
use crate::admin::http;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::link::{self, Level};
use crate::net;
use crate::telemetry::log;

/// How long taking the shop away may last.
const CLEAR_MAX: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  make demo                                            with a MySQL of its own, fetched, started and stopped
  driftless demo --mysql mysql://root@127.0.0.1:3306   with one of yours
  DRIFTLESS_DEMO_MYSQL=mysql://me:secret@db:3306 driftless demo --listen 127.0.0.1:9300

It makes the database driftless_shop there, and drops it when it ends (Ctrl-C). The account needs all privileges on
driftless_shop, and REPLICATION SLAVE and REPLICATION CLIENT; a missing one is named with its GRANT. The state lies in a
temporary folder, which goes too.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The MySQL server, and an account there: mysql://user:password@host:port
    #[arg(
        long,
        value_name = "URL",
        env = "DRIFTLESS_DEMO_MYSQL",
        hide_env_values = true,
        default_value = "mysql://root@127.0.0.1:3306"
    )]
    mysql: String,
    /// Where the page and the HTTP door are
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9220")]
    listen: SocketAddr,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut config = Config::default();
    config.source = server::config(&arguments.mysql)
        .map_err(|error| Failure::Usage(format!("--mysql: {}", error.report())))?;
    if !arguments.listen.ip().is_loopback() {
        return Err(Failure::Usage(
            "--listen: the demo has no tokens, so it listens on this machine alone; write 127.0.0.1:PORT".to_owned(),
        ));
    }
    config.http.listen = arguments.listen;
    config.sink.kind = "embedded".to_owned();
    // The story is on standard output; the log only says what is wrong.
    config.log.level = "warn".to_owned();
    log::start(&config.log).map_err(|error| Failure::Usage(error.report()))?;
    net::http::install_crypto();
    let folder = Folder::make()?;
    config.state_dir = Some(folder.path().to_owned());
    let played = block_on(play(config))?;
    drop(folder);
    played
}

/// What the demo has made so far, and takes away at its end.
struct Stage {
    config: Config,
    daemon: Option<Daemon>,
    writer: Option<Writer>,
    /// Set before the first statement that makes something.
    has_shop: bool,
}

async fn play(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut stage = Stage { config, daemon: None, writer: None, has_shop: false };
    let played = tokio::select! {
        ended = perform(&mut stage) => ended,
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
    };
    print("\ntaking everything away\n");
    let cleared = clear(stage, &mut signals).await;
    played?;
    Ok(cleared?)
}

/// Everything up to the page, and then changes until somebody ends it.
async fn perform(stage: &mut Stage) -> Result<(), Failure> {
    let began = Instant::now();
    let config = stage.config.clone();
    let state = wiring::open_state(&config, &config.state_dir())?;
    refuse_wrong_server(&config, &state).await?;
    let bound = http::bind(&config.http).await.map_err(|error| {
        error.with_advice("end what listens there, or choose another place: --listen 127.0.0.1:PORT (make demo LISTEN=…)")
    })?;
    let mut shop = Shop::open(&config.source).await?;
    shop.refuse_foreign().await?;
    let daemon = stage.daemon.insert(Daemon::start(config, state, bound, Vec::new())?);
    let door = Door::at(wiring::from_here(daemon.listen()))?;
    print(format_args!(
        "MySQL {} at {}:{}\n\n",
        shop.version(),
        stage.config.source.host,
        stage.config.source.port
    ));
    stage.has_shop = true;
    shop.make().await?;
    print(step(1, "a table", &format!("{} with {} rows", shop::TABLE, catalogue::ROWS)));
    door.make_pipeline().await?;
    print(step(2, "a pipeline", door::PIPELINE_SAID));
    door.make_index().await?;
    print(step(3, "an index", door::INDEX_SAID));
    door.make_link().await?;
    print(step(4, "a link", &format!("one statement\n\n{}\n", indented(door::STATEMENT))));
    door.until_copied(catalogue::ROWS).await?;
    print(format_args!(
        "All rows are documents, {:.1} s after the start. Now they change, several a second.\n\n  {}/ui\n\n\
         Open it in a browser and search: waterproof tent, hedphones, slepping bag. Rows that you write into\n\
         {} are found as well. Ctrl-C ends it and takes everything away.\n",
        began.elapsed().as_secs_f64(),
        door.address(),
        shop::TABLE,
    ));
    stage.writer = Some(Writer::start(shop));
    Err(daemon.broken().await.into())
}

/// Says all that is wrong with the server at once, as `driftless check` does.
async fn refuse_wrong_server(config: &Config, state: &crate::state::State) -> Result<(), Failure> {
    let parts = wiring::parts(config.clone(), state.clone());
    let found = link::check(&parts, &[]).await;
    let mut wrong: Vec<_> = found.into_iter().map(|found| found.finding).collect();
    wrong.retain(|finding| finding.level == Level::Error);
    if wrong.is_empty() {
        return Ok(());
    }
    let mut text: String = wrong.iter().map(check::said).collect();
    let _ = write!(
        text,
        "The server is the one of --mysql (DRIFTLESS_DEMO_MYSQL, make demo MYSQL=…): mysql://user:password@host:port"
    );
    Err(Failure::Failed(text))
}

/// Stops what runs and drops the shop, in bounded time.
async fn clear(stage: Stage, signals: &mut Signals) -> Result<()> {
    if let Some(writer) = stage.writer {
        writer.stop().await;
    }
    if let Some(daemon) = stage.daemon {
        daemon.stop(signals).await;
    }
    if !stage.has_shop {
        return Ok(());
    }
    let dropped = tokio::time::timeout(CLEAR_MAX, shop::remove(&stage.config.source)).await;
    dropped
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::SourceUnreachable, "no answer in time")))
        .map_err(|error| {
            error
                .context(format!("cannot drop the database {}", shop::DATABASE))
                .with_advice(format!("DROP DATABASE {}; the next demo does so too", shop::DATABASE))
        })
}

fn step(number: usize, what: &str, how: &str) -> String {
    format!("{number}  {what:<11} {how}\n")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("     {line}\n")).collect()
}
