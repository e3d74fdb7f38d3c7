//! The table of gateways in PostgreSQL, and all that is asked of it.

use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Client;
use utoipa::ToSchema;

use crate::admission::registry::postgres::connection::{PgError, PgServer};
use crate::fleet::fleet_books::FleetBooks;
use crate::limits::{FLEET_GATEWAYS_MAX, FLEET_STALE_REPORTS};

/// The channel that tells a gateway of another wish; the payload is its name.
pub const CHANNEL: &str = "tidegate_fleet";

/// The name of the table is one that no other program has.
const INIT: &str = "
CREATE TABLE IF NOT EXISTS tidegate_gateways (
    name text PRIMARY KEY,
    folder text NOT NULL,
    start text NOT NULL,
    state text NOT NULL,
    wanted text NOT NULL DEFAULT 'serves',
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    report_s integer NOT NULL,
    clock_ahead_ms bigint NOT NULL DEFAULT 0,
    report jsonb NOT NULL,
    books jsonb NOT NULL,
    past jsonb NOT NULL DEFAULT '{}');";

/// A fault of the fleet's database.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("{}", words(.0))]
    Database(#[from] PgError),
    #[error(
        "fleet.name = {name:?} is in use by the gateway at {address}, which was seen {seen_s} s ago; each gateway needs a name of its own"
    )]
    NameTaken { name: String, address: String, seen_s: i64 },
    #[error("there is no gateway {0:?}; `tidegate fleet list --all` shows all")]
    Unknown(String),
}

/// The database's error, with the keys of this one.
fn words(error: &PgError) -> String {
    let text = error.to_string().replace("the registry's database", "the fleet's database");
    let text = text.replace("`tidegate registry init`", "`tidegate fleet init`");
    text.replace("registry.query_timeout_ms", "the time of a query").replace("registry.url", "fleet.postgres")
}

/// The state of a gateway, by its own last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GatewayState {
    Serves,
    Draining,
    Drained,
    Stopped,
    /// Gone for good; its books stay in the sum.
    Retired,
}

impl GatewayState {
    pub const ALL: [Self; 5] = [Self::Serves, Self::Draining, Self::Drained, Self::Stopped, Self::Retired];

    pub fn name(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Stopped => "stopped",
            Self::Retired => "retired",
        }
    }

    fn of(name: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.name() == name).unwrap_or(Self::Serves)
    }
}

/// A gateway as the database has it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GatewayRow {
    pub name: String,
    pub state: GatewayState,
    /// False if it has not reported for three times its interval, and has not said that it stops.
    pub alive: bool,
    /// Seconds since its last report.
    pub seen_s: i64,
    /// Seconds since its start.
    pub started_s: i64,
    /// Its clock minus the database's.
    pub clock_ahead_ms: i64,
    /// Its own report: version, addresses, backlog, decoders, budgets, certificates, errors.
    pub report: Value,
    /// Lines that wait on its disk.
    pub lines_pending: u64,
    /// Messages and lines of its present start and of the earlier ones.
    #[serde(skip)]
    pub books: FleetBooks,
}

/// The identity of one start of one gateway.
#[derive(Clone, Debug)]
pub struct GatewayStart {
    pub name: String,
    /// The digest of a secret of its data folder.
    pub folder: String,
    /// Random.
    pub start: String,
    pub report_s: u64,
}

/// The content of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayReport {
    pub state: GatewayState,
    pub report: Value,
    pub books: FleetBooks,
}

/// The answer to a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The gateway is to be drained.
    pub wants_drain: bool,
    /// The database's clock in milliseconds.
    pub now_ms: i64,
}

/// Creates the table where there is none.
///
/// # Errors
/// The database's.
pub async fn init(server: &PgServer) -> Result<(), FleetError> {
    let client = server.connect().await?;
    Ok(server.within("creating the table of gateways", client.batch_execute(INIT)).await?)
}

/// Books as the database has them; those that cannot be read count as none.
fn books_of(text: &str) -> FleetBooks {
    serde_json::from_str(text).unwrap_or_default()
}

/// JSON as text, which the statements cast.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and texts are JSON")
}

/// Takes the row of a name for a start. The books of the start before become past ones. `may_take_own`: a row of the
/// same data folder is taken even if it is fresh, because a new start follows the one before.
///
/// # Errors
/// The name is another gateway's; the database's.
pub async fn claim(
    server: &PgServer,
    client: &mut Client,
    this: &GatewayStart,
    first: &GatewayReport,
    may_take_own: bool,
) -> Result<(), FleetError> {
    let doing = "taking the row of a gateway";
    let transaction = server.within(doing, client.transaction()).await?;
    let query = "SELECT folder, state, books::text, past::text, report->>'admin', \
         extract(epoch FROM now() - seen_at)::bigint, \
         now() - seen_at > make_interval(secs => report_s * $2::int) \
         FROM tidegate_gateways WHERE name = $1 FOR UPDATE";
    let row = server.within(doing, transaction.query_opt(query, &[&this.name, &FLEET_STALE_REPORTS])).await?;
    let mut past = FleetBooks::default();
    if let Some(row) = row {
        let (folder, state): (String, String) = (row.get(0), row.get(1));
        let is_over = row.get::<_, bool>(6) || matches!(state.as_str(), "stopped" | "retired");
        let same_folder = folder == this.folder;
        let is_free = is_over || same_folder && may_take_own;
        if !is_free {
            let (address, seen_s) = (row.get::<_, Option<String>>(4).unwrap_or_default(), row.get(5));
            return Err(FleetError::NameTaken { name: this.name.clone(), address, seen_s });
        }
        past = books_of(row.get(3));
        past.add(&books_of(row.get(2)).ended(same_folder));
    }
    let statement = "INSERT INTO tidegate_gateways (name, folder, start, state, report_s, report, books, past) \
         VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, $8::text::jsonb) \
         ON CONFLICT (name) DO UPDATE SET folder = $2, start = $3, state = $4, wanted = 'serves', \
         started_at = now(), seen_at = now(), report_s = $5, report = $6::text::jsonb, books = $7::text::jsonb, past = $8::text::jsonb";
    let report_s = i32::try_from(this.report_s).unwrap_or(i32::MAX);
    server
        .within(
            doing,
            transaction.execute(
                statement,
                &[
                    &this.name,
                    &this.folder,
                    &this.start,
                    &first.state.name(),
                    &report_s,
                    &json(&first.report),
                    &json(&first.books),
                    &json(&past),
                ],
            ),
        )
        .await?;
    Ok(server.within(doing, transaction.commit()).await?)
}

/// Reports. `content`: what has changed since the last report; `None`: nothing but the time. Gives `None` if the row is
/// another start's.
///
/// # Errors
/// The database's.
pub async fn report(
    server: &PgServer,
    client: &Client,
    this: &GatewayStart,
    content: Option<&GatewayReport>,
    clock_ahead_ms: i64,
) -> Result<Option<Reported>, FleetError> {
    let doing = "reporting";
    let returning = "RETURNING wanted, (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let row = match content {
        None => {
            let statement = format!(
                "UPDATE tidegate_gateways SET seen_at = now(), clock_ahead_ms = $3 \
                 WHERE name = $1 AND start = $2 {returning}"
            );
            server
                .within(doing, client.query_opt(&statement, &[&this.name, &this.start, &clock_ahead_ms]))
                .await?
        }
        Some(content) => {
            let statement = format!(
                "UPDATE tidegate_gateways SET seen_at = now(), clock_ahead_ms = $3, state = $4, \
                 report = $5::text::jsonb, books = $6::text::jsonb WHERE name = $1 AND start = $2 {returning}"
            );
            let (state, report, books) = (content.state.name(), json(&content.report), json(&content.books));
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                [&this.name, &this.start, &clock_ahead_ms, &state, &report, &books];
            server.within(doing, client.query_opt(&statement, &values)).await?
        }
    };
    Ok(row.map(|row| Reported { wants_drain: row.get::<_, String>(0) == "drained", now_ms: row.get(1) }))
}

/// All gateways, by name.
///
/// # Errors
/// The database's.
pub async fn list(server: &PgServer) -> Result<Vec<GatewayRow>, FleetError> {
    let client = server.connect().await?;
    let query = format!(
        "SELECT name, state, extract(epoch FROM now() - seen_at)::bigint, \
         extract(epoch FROM now() - started_at)::bigint, clock_ahead_ms, report::text, books::text, past::text, \
         now() - seen_at <= make_interval(secs => report_s * $1::int) \
         FROM tidegate_gateways ORDER BY name LIMIT {FLEET_GATEWAYS_MAX}"
    );
    let rows = server.within("listing gateways", client.query(&query, &[&FLEET_STALE_REPORTS])).await?;
    let gateways = rows.into_iter().map(|row| {
        let state = GatewayState::of(row.get(1));
        let mut books = books_of(row.get(7));
        let own = books_of(row.get(6));
        let lines_pending = own.lines_pending();
        books.add(&own);
        GatewayRow {
            name: row.get(0),
            state,
            alive: row.get::<_, bool>(8) && !matches!(state, GatewayState::Stopped | GatewayState::Retired),
            seen_s: row.get(2),
            started_s: row.get(3),
            clock_ahead_ms: row.get(4),
            report: serde_json::from_str(row.get(5)).unwrap_or_default(),
            lines_pending,
            books,
        }
    });
    Ok(gateways.collect())
}

/// Wishes that a gateway be drained, or serve again, and tells it.
///
/// # Errors
/// There is no such gateway; the database's.
pub async fn wish(server: &PgServer, name: &str, drained: bool) -> Result<(), FleetError> {
    let client = server.connect().await?;
    let wanted = if drained { "drained" } else { "serves" };
    let statement = "UPDATE tidegate_gateways SET wanted = $2 WHERE name = $1";
    let changed = server.within("wishing", client.execute(statement, &[&name, &wanted])).await?;
    if changed == 0 {
        return Err(FleetError::Unknown(name.to_owned()));
    }
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&CHANNEL, &name];
    server.within("telling a gateway", client.execute("SELECT pg_notify($1, $2)", &values)).await?;
    Ok(())
}

/// Marks a gateway as gone for good.
///
/// # Errors
/// The database's.
pub async fn retire(server: &PgServer, name: &str) -> Result<(), FleetError> {
    let client = server.connect().await?;
    let statement = "UPDATE tidegate_gateways SET state = 'retired' WHERE name = $1";
    match server.within("retiring", client.execute(statement, &[&name])).await? {
        0 => Err(FleetError::Unknown(name.to_owned())),
        _ => Ok(()),
    }
}

/// The books of all gateways together.
pub fn sum(gateways: &[GatewayRow]) -> FleetBooks {
    let mut all = FleetBooks::default();
    gateways.iter().for_each(|gateway| all.add(&gateway.books));
    all
}
