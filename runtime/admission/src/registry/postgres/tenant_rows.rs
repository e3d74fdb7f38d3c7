//! The table tenants: settings of single tenants. The Python service has no such table: it may be
//! missing, or a table of another program. Then there are no settings.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Client;

use crate::limits::TENANT_ROWS_MAX;
use crate::registry::postgres::connection::{PgError, PgServer};

/// A tenant and its settings as JSON.
pub type TenantRow = (String, String);

/// The observer of the rows: it gets them each time that they were read.
#[derive(Default)]
pub struct TenantRowsObserver {
    observer: OnceLock<Box<dyn Fn(Vec<TenantRow>) + Send + Sync>>,
    was_asked: AtomicBool,
}

impl fmt::Debug for TenantRowsObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TenantRowsObserver")
    }
}

impl TenantRowsObserver {
    /// Sets the observer; only the first is set.
    pub fn set(&self, observer: impl Fn(Vec<TenantRow>) + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    /// True if the table was asked before; marks it as asked.
    pub fn mark_asked(&self) -> bool {
        self.was_asked.swap(true, Ordering::AcqRel)
    }

    /// Passes rows to the observer.
    pub fn notify(&self, rows: Vec<TenantRow>) {
        self.mark_asked();
        if let Some(observer) = self.observer.get() {
            observer(rows);
        }
    }
}

const IS_OURS: &str = "SELECT count(*) = 2 FROM pg_attribute WHERE attrelid = to_regclass('tenants') \
                       AND attname IN ('tenant_id', 'settings') AND NOT attisdropped";

/// Reads the table; gives no rows if there is none of this form.
///
/// # Errors
/// The database's error.
pub async fn read(server: &PgServer, client: &Client) -> Result<Vec<TenantRow>, PgError> {
    let ours = server.within("looking for the table tenants", client.query_one(IS_OURS, &[])).await?;
    if !ours.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let all = "SELECT tenant_id::text, settings::text FROM tenants \
               WHERE tenant_id IS NOT NULL AND settings IS NOT NULL ORDER BY 1 LIMIT $1";
    let rows = server.within("reading the table tenants", client.query(all, &[&TENANT_ROWS_MAX])).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
