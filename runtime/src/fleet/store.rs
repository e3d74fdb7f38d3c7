//! The table of gateways in PostgreSQL, and all that is asked of it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_postgres::Client;
use utoipa::ToSchema;

use crate::admission::registry::postgres::connection::{PgError, PgServer};
use crate::core::detail::printable;
use crate::fleet::fleet_books::FleetBooks;
use crate::limits::{FLEET_GATEWAYS_MAX, FLEET_REPORT_S_MAX, FLEET_STALE_REPORTS};

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

const SERVES: &str = "serves";
const DRAINED: &str = "drained";

/// A fault of the fleet's database.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// All of it is in the words, which name the database as this one.
    #[error("{}", words(.0))]
    Database(PgError),
    #[error(
        "fleet.name = {name:?} is in use by the gateway at {}, which was seen {seen_s} s ago; each gateway needs a name of its own",
        printable(address)
    )]
    NameTaken { name: String, address: String, seen_s: i64 },
    #[error("there is no gateway {0:?}; `tidegate fleet list --all` shows all")]
    Unknown(String),
}

impl From<PgError> for FleetError {
    fn from(error: PgError) -> Self {
        Self::Database(error)
    }
}

impl FleetError {
    /// True if an operator learns nothing from the one who knows the other.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::NameTaken { name, address, .. }, Self::NameTaken { name: known, address: at, .. }) => {
                name == known && address == at
            }
            _ => self.to_string() == other.to_string(),
        }
    }
}

/// The database's error, with the keys of this one.
fn words(error: &PgError) -> String {
    let text = error.to_string().replace("the registry's database", "the fleet's database");
    let text = text.replace("`tidegate registry init`", "`tidegate fleet init`");
    let text = text
        .replace("registry.query_timeout_ms", "the time of a query")
        .replace("registry.url", "fleet.postgres");
    printable(&text)
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
    /// The fault of a row that is not as a gateway writes it.
    pub unreadable: Option<String>,
    /// The digest of a secret of its data folder.
    #[serde(skip)]
    pub folder: String,
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

/// A wish about a gateway, with its time: one that says the same again differs from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish(String);

impl Wish {
    pub fn is_drain(&self) -> bool {
        self.0.split(' ').next() == Some(DRAINED)
    }
}

impl Default for Wish {
    /// The wish of a row that was just taken.
    fn default() -> Self {
        Self(SERVES.to_owned())
    }
}

/// The answer to a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The last wish about this gateway.
    pub wish: Wish,
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

/// JSON as the database has it. What cannot be read counts as nothing, and is named.
fn read<T: DeserializeOwned + Default>(what: &str, text: &str, fault: &mut Option<String>) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| {
        fault.get_or_insert_with(|| format!("its {what} cannot be read: {error}"));
        T::default()
    })
}

/// True if the gateway has reported in time. A time that it cannot have, such as one to come, is none.
fn is_fresh(age_s: f64, report_s: i32) -> bool {
    let most_s = f64::from(report_s).min(FLEET_REPORT_S_MAX as f64) * f64::from(FLEET_STALE_REPORTS);
    age_s.abs() <= most_s
}

/// Seconds since a time in a column, as a number that every time has: infinite ones, too.
fn age(column: &str) -> String {
    format!("extract(epoch FROM now())::float8 - extract(epoch FROM {column})::float8")
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
    let query = format!(
        "SELECT folder, state, books::text, past::text, report->>'admin', {}, report_s \
         FROM tidegate_gateways WHERE name = $1 FOR UPDATE",
        age("seen_at")
    );
    let row = server.within(doing, transaction.query_opt(&query, &[&this.name])).await?;
    let mut past = FleetBooks::default();
    if let Some(row) = row {
        let (folder, state): (String, String) = (row.get(0), row.get(1));
        let is_over = !is_fresh(row.get(5), row.get(6)) || matches!(state.as_str(), "stopped" | "retired");
        let same_folder = folder == this.folder;
        let is_free = is_over || same_folder && may_take_own;
        if !is_free {
            let address = row.get::<_, Option<String>>(4).unwrap_or_default();
            let seen_s = row.get::<_, f64>(5) as i64;
            return Err(FleetError::NameTaken { name: this.name.clone(), address, seen_s });
        }
        let mut fault = None;
        past = read("books of earlier starts", row.get(3), &mut fault);
        past.add(&read::<FleetBooks>("books", row.get(2), &mut fault).ended(same_folder));
        if let Some(fault) = fault {
            tracing::warn!(
                gateway = this.name,
                "the row of this gateway: {}; they are gone from the sum",
                printable(&fault)
            );
        }
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
    Ok(row.map(|row| Reported { wish: Wish(row.get(0)), now_ms: row.get(1) }))
}

/// All gateways, by name.
///
/// # Errors
/// The database's.
pub async fn list(server: &PgServer) -> Result<Vec<GatewayRow>, FleetError> {
    let client = server.connect().await?;
    let query = format!(
        "SELECT name, state, {}, {}, clock_ahead_ms, report::text, books::text, past::text, report_s, folder \
         FROM tidegate_gateways ORDER BY name LIMIT {FLEET_GATEWAYS_MAX}",
        age("seen_at"),
        age("started_at")
    );
    let rows = server.within("listing gateways", client.query(&query, &[])).await?;
    let gateways = rows.into_iter().map(|row| {
        let state = GatewayState::of(row.get(1));
        let mut unreadable = None;
        let mut books: FleetBooks = read("books of earlier starts", row.get(7), &mut unreadable);
        let own: FleetBooks = read("books", row.get(6), &mut unreadable);
        let lines_pending = own.lines_pending();
        books.add(&own);
        let (seen_s, started_s): (f64, f64) = (row.get(2), row.get(3));
        GatewayRow {
            name: row.get(0),
            state,
            alive: is_fresh(seen_s, row.get(8))
                && !matches!(state, GatewayState::Stopped | GatewayState::Retired),
            seen_s: seen_s as i64,
            started_s: started_s as i64,
            clock_ahead_ms: row.get(4),
            report: read("report", row.get(5), &mut unreadable),
            lines_pending,
            unreadable,
            folder: row.get(9),
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
    let wanted = if drained { DRAINED } else { SERVES };
    let statement =
        "UPDATE tidegate_gateways SET wanted = $2::text || ' ' || clock_timestamp()::text WHERE name = $1";
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

/// The names of gateways whose rows cannot be read.
pub fn unreadable(gateways: &[GatewayRow]) -> Vec<String> {
    gateways.iter().filter(|row| row.unreadable.is_some()).map(|row| row.name.clone()).collect()
}

/// The books of all gateways together.
pub fn sum(gateways: &[GatewayRow]) -> FleetBooks {
    let mut all = FleetBooks::default();
    gateways.iter().for_each(|gateway| all.add(&gateway.books));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_intervals_of_any_size_are_only_fresh_if_a_gateway_can_have_them() {
        assert!(is_fresh(0.0, 1) && is_fresh(29.0, 10) && is_fresh(-3.0, 1));
        assert!(!is_fresh(31.0, 10) && !is_fresh(0.5, i32::MIN));
        assert!(!is_fresh(f64::INFINITY, i32::MAX) && !is_fresh(f64::NEG_INFINITY, i32::MAX));
        assert!(!is_fresh(20_000.0, i32::MAX), "an interval is an hour at most");
    }

    #[test]
    fn json_that_cannot_be_read_is_named_and_counts_as_nothing() {
        for text in ["[]", "7", r#"{"a":{"lines":{"written":-1}}}"#, r#"{"a":{"lines":{"written":1e99}}}"#] {
            let mut fault = None;
            assert_eq!(read::<FleetBooks>("books", text, &mut fault), FleetBooks::default());
            assert!(fault.unwrap().contains("its books cannot be read"), "{text}");
        }
        let mut fault = None;
        assert_eq!(read::<Value>("report", "{}", &mut fault), serde_json::json!({}));
        assert_eq!(fault, None);
    }

    #[test]
    fn a_fault_names_the_fleet_s_database_once_and_steers_no_terminal() {
        let why = "no \u{1b}[2J".to_owned();
        let fault: FleetError = PgError::Query { doing: "listing gateways", why, state: None }.into();
        let text = format!("{:#}", anyhow::Error::from(fault));
        assert_eq!(text, "listing gateways in the fleet's database: no \\u{1b}[2J");
        let taken = |address: &str, seen_s| FleetError::NameTaken {
            name: "g1".into(),
            address: address.into(),
            seen_s,
        };
        assert!(!taken("\u{1b}[2J", 1).to_string().contains('\u{1b}'));
        assert!(taken("a", 1).is_like(&taken("a", 2)) && !taken("a", 1).is_like(&taken("b", 1)));
    }

    #[test]
    fn each_wish_is_one_of_its_own() {
        let wish = |text: &str| Wish(text.to_owned());
        assert!(wish("drained").is_drain() && wish("drained 2026-01-01").is_drain());
        assert!(!wish("serves 2026-01-01").is_drain() && !Wish::default().is_drain());
        assert_ne!(wish("drained 1"), wish("drained 2"));
    }
}
