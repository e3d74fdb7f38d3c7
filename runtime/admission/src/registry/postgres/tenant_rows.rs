//! The table tenants: settings of single tenants. It is not one of the Python service's, so it may not
//! be there, or another's of that name may be: then there are no settings.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Client;

use crate::limits::TENANT_ROWS_MAX;
use crate::registry::postgres::connection::{PgError, PgServer};

/// A tenant, and its settings as JSON.
pub type TenantRow = (String, String);

/// Who is told of the rows, each time that they were read.
#[derive(Default)]
pub struct TenantRowsObserver {
    told: OnceLock<Box<dyn Fn(Vec<TenantRow>) + Send + Sync>>,
    was_asked: AtomicBool,
}

impl fmt::Debug for TenantRowsObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TellRows")
    }
}

impl TenantRowsObserver {
    /// From now on this is told; once.
    pub fn to(&self, told: impl Fn(Vec<TenantRow>) + Send + Sync + 'static) {
        let _ = self.told.set(Box::new(told));
    }

    /// Whether the table was asked before; it counts as asked from now on.
    pub fn note_asked(&self) -> bool {
        self.was_asked.swap(true, Ordering::AcqRel)
    }

    pub fn tell(&self, rows: Vec<TenantRow>) {
        self.note_asked();
        if let Some(told) = self.told.get() {
            told(rows);
        }
    }
}

const IS_OURS: &str = "SELECT count(*) = 2 FROM pg_attribute WHERE attrelid = to_regclass('tenants') \
                       AND attname IN ('tenant_id', 'settings') AND NOT attisdropped";

/// Reads the table; nothing where there is none of this form.
///
/// # Errors
/// What the database said.
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
