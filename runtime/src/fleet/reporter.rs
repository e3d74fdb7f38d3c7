//! The task by which a gateway keeps its row. The database may be away for as long as it likes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::admission::registry::postgres::connection::PgServer;
use crate::config::in_force::ConfigInForce;
use crate::core::receive_clock::wall_ns;
use crate::fleet::report;
use crate::fleet::store::{self, FleetError, GatewayReport, GatewayStart, GatewayState, Wish};
use crate::limits::FLEET_FINISH_TIMEOUT_MS;
use crate::telemetry::handles::Handles;

/// The reporter of one start.
pub struct Reporter {
    server: PgServer,
    this: GatewayStart,
    handles: Arc<Handles>,
    config: ConfigInForce,
    connection: Option<Connection>,
    /// The last report that the database has; `None`: the row is not ours.
    sent: Option<GatewayReport>,
    /// The row was ours, and another gateway took it.
    was_taken: bool,
    clock_ahead_ms: i64,
    /// The wish that was followed.
    followed: Wish,
    /// The switch of the drain, which others turn, too.
    switch: watch::Receiver<bool>,
    /// The fault that was logged.
    fault: Option<FleetError>,
}

struct Connection {
    client: Client,
    wishes: UnboundedReceiver<String>,
}

impl Reporter {
    pub fn new(server: PgServer, this: GatewayStart, handles: Arc<Handles>, config: ConfigInForce) -> Self {
        let switch = handles.drain.watch();
        Self {
            server,
            this,
            handles,
            config,
            connection: None,
            sent: None,
            was_taken: false,
            clock_ahead_ms: 0,
            followed: Wish::default(),
            switch,
            fault: None,
        }
    }

    /// Reports each interval, when the gateway is told of a wish, and when a drain begins or ends, until it is dropped.
    pub async fn run(&mut self) {
        let interval = Duration::from_secs(self.this.report_s);
        loop {
            self.step(None).await;
            let Self { connection, switch, this, .. } = &mut *self;
            let wish = async {
                match connection {
                    Some(connection) => {
                        while let Some(name) = connection.wishes.recv().await {
                            if name == this.name {
                                return;
                            }
                        }
                        // The connection has ended: the next report finds out why.
                        std::future::pending().await
                    }
                    None => std::future::pending().await,
                }
            };
            let news = async {
                tokio::select! {
                    () = wish => {}
                    Ok(()) = switch.changed() => {}
                }
            };
            let _ = tokio::time::timeout(interval, news).await;
        }
    }

    /// Reports that the gateway has stopped, with its last books.
    pub async fn finish(&mut self) {
        if self.sent.is_none() {
            return;
        }
        let most = Duration::from_millis(FLEET_FINISH_TIMEOUT_MS);
        if tokio::time::timeout(most, self.step(Some(GatewayState::Stopped))).await.is_err() {
            tracing::warn!("the fleet's database was not told of the stop in time");
        }
    }

    /// One report. A fault is logged once until another one comes.
    async fn step(&mut self, last: Option<GatewayState>) {
        match self.report(last).await {
            Ok(()) => {
                if self.fault.take().is_some() {
                    tracing::info!(gateway = self.this.name, "the fleet's database has our row again");
                }
            }
            Err(error) => {
                self.connection = None;
                if !self.fault.as_ref().is_some_and(|known| known.is_like(&error)) {
                    tracing::warn!(gateway = self.this.name, %error, "the fleet does not see this gateway; its messages do not depend on that");
                }
                self.fault = Some(error);
            }
        }
    }

    async fn report(&mut self, last: Option<GatewayState>) -> Result<(), FleetError> {
        let mut content = self.content().await;
        content.state = last.unwrap_or(content.state);
        let Connection { client, .. } = match &mut self.connection {
            Some(connection) => connection,
            connection => connection.insert(connect(&self.server).await?),
        };
        if self.sent.is_none() {
            store::claim(&self.server, client, &self.this, &content, !self.was_taken).await?;
            self.sent = Some(content.clone());
            (self.was_taken, self.followed) = (false, Wish::default());
        }
        let news = (self.sent.as_ref() != Some(&content)).then_some(&content);
        let asked_ms = wall_ns() / 1_000_000;
        let reported = store::report(&self.server, client, &self.this, news, self.clock_ahead_ms).await?;
        let Some(reported) = reported else {
            // The next report claims the row, and says whose it is.
            (self.sent, self.was_taken) = (None, true);
            return Ok(());
        };
        self.clock_ahead_ms = rounded((asked_ms + wall_ns() / 1_000_000) / 2 - reported.now_ms);
        self.sent = Some(content);
        // A wish that is new is the last word, whatever was said here before it.
        if reported.wish != self.followed {
            self.handles.drain.switch(reported.wish.is_drain());
            self.followed = reported.wish;
        }
        Ok(())
    }

    /// The report of this moment, made off the threads of the stream.
    async fn content(&self) -> GatewayReport {
        let (handles, config, origin) = (self.handles.clone(), self.config.current(), self.config.origin());
        let made =
            tokio::task::spawn_blocking(move || report::make(&handles, &config, origin.as_ref())).await;
        made.unwrap_or_else(|error| {
            tracing::error!(%error, "a report for the fleet failed");
            let errors = serde_json::json!({"errors": ["its report failed"]});
            GatewayReport { state: GatewayState::Serves, report: errors, books: Default::default() }
        })
    }
}

/// A difference of clocks without the noise of a network.
fn rounded(ahead_ms: i64) -> i64 {
    ahead_ms / 100 * 100
}

async fn connect(server: &PgServer) -> Result<Connection, FleetError> {
    let (sender, wishes) = unbounded_channel();
    let client = server.connect_listening(Some(sender)).await?;
    let listen = format!("LISTEN {}", store::CHANNEL);
    server.within("LISTEN", client.batch_execute(&listen)).await?;
    Ok(Connection { client, wishes })
}
