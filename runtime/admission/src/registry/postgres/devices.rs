//! The table device_registry: read in batches by the gateway, changed by `tidegate device`.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::registry::file::DeviceRecord;
use crate::registry::postgres::connection::{PgError, PgServer};
use crate::registry::row::{RegistryRow, TokenHash};
use tidegate_core::ids::{DeviceId, TenantId};

/// One connection for look-ups, with its statement prepared.
#[derive(Debug)]
pub struct DeviceQueries {
    client: Client,
    statement: Statement,
}

const LOOKUP: &str = "SELECT k.place, d.site_id::text, d.status::text, d.provision_token_hash::text \
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (tenant, device, place) \
    JOIN device_registry AS d ON d.tenant_id = k.tenant AND d.device_id = k.device";

impl DeviceQueries {
    /// Connects, and prepares the statement.
    ///
    /// # Errors
    /// The server cannot be reached, or the table has another form.
    pub async fn open(server: &PgServer) -> Result<Self, PgError> {
        let client = server.connect().await?;
        let statement = server.within("reading device_registry", client.prepare(LOOKUP)).await?;
        Ok(Self { client, statement })
    }

    /// The rows of these devices, in their order; None: there is no such device.
    ///
    /// # Errors
    /// The database's error.
    pub async fn look_up(
        &self,
        server: &PgServer,
        devices: &[(TenantId, DeviceId)],
    ) -> Result<Vec<Option<RegistryRow>>, PgError> {
        match self.query(server, devices).await {
            // A name that the database's encoding cannot hold must not spoil the others.
            Err(error) if error.is_about_a_value() && devices.len() > 1 => {
                let mut rows = Vec::with_capacity(devices.len());
                for device in devices {
                    rows.extend(match self.query(server, std::slice::from_ref(device)).await {
                        Err(error) if error.is_about_a_value() => vec![None],
                        answer => answer?,
                    });
                }
                Ok(rows)
            }
            Err(error) if error.is_about_a_value() && devices.len() == 1 => Ok(vec![None]),
            answer => answer,
        }
    }

    async fn query(
        &self,
        server: &PgServer,
        devices: &[(TenantId, DeviceId)],
    ) -> Result<Vec<Option<RegistryRow>>, PgError> {
        // PostgreSQL's text holds no U+0000: a device with one in its name cannot exist.
        let text = |name: &str| if name.contains('\0') { None } else { Some(name.to_owned()) };
        let tenants: Vec<Option<String>> = devices.iter().map(|(tenant, _)| text(tenant.as_str())).collect();
        let names: Vec<Option<String>> = devices.iter().map(|(_, device)| text(device.as_str())).collect();
        let values: [&(dyn ToSql + Sync); 2] = [&tenants, &names];
        let answer = self.client.query(&self.statement, &values);
        let mut rows: Vec<Option<RegistryRow>> = devices.iter().map(|_| None).collect();
        for found in server.within("reading device_registry", answer).await? {
            let place: i64 = found.get(0);
            // NULL where the schema allows none means no site, or a status that is not ACTIVE.
            let text = |column| found.get::<_, Option<String>>(column).unwrap_or_default();
            let token: Option<String> = found.get(3);
            let row =
                RegistryRow { site_id: text(1), status: text(2), token: TokenHash::parse(token.as_deref()) };
            if let Some(place) = rows.get_mut((place - 1) as usize) {
                *place = Some(row);
            }
        }
        Ok(rows)
    }

    /// True if the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Adds unknown devices, with their sites and without a token; gives the number of those added.
    /// Another gateway may have been faster.
    ///
    /// # Errors
    /// The database's error.
    pub async fn provision(
        &self,
        server: &PgServer,
        devices: &[(TenantId, DeviceId, String)],
    ) -> Result<u64, PgError> {
        // Sorted, so that two gateways never deadlock.
        let mut devices: Vec<_> = devices
            .iter()
            .map(|(tenant, device, site)| (tenant.as_str(), device.as_str(), site.as_str()))
            .filter(|(tenant, device, site)| ![tenant, device, site].iter().any(|text| text.contains('\0')))
            .collect();
        devices.sort_unstable();
        match self.insert(server, &devices).await {
            Err(error) if error.is_about_a_value() && devices.len() > 1 => {
                let mut added = 0;
                for device in &devices {
                    added += match self.insert(server, std::slice::from_ref(device)).await {
                        Err(error) if error.is_about_a_value() => 0,
                        inserted => inserted?,
                    };
                }
                Ok(added)
            }
            inserted => inserted,
        }
    }

    async fn insert(&self, server: &PgServer, devices: &[(&str, &str, &str)]) -> Result<u64, PgError> {
        let insert = "INSERT INTO device_registry (tenant_id, device_id, site_id, status) \
                      SELECT k.tenant, k.device, k.site, 'ACTIVE' \
                      FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k (tenant, device, site, place) \
                      ORDER BY k.place ON CONFLICT (tenant_id, device_id) DO NOTHING";
        let tenants: Vec<&str> = devices.iter().map(|device| device.0).collect();
        let names: Vec<&str> = devices.iter().map(|device| device.1).collect();
        let sites: Vec<&str> = devices.iter().map(|device| device.2).collect();
        server
            .within("adding to device_registry", self.client.execute(insert, &[&tenants, &names, &sites]))
            .await
    }
}

/// All devices, or those of one tenant.
///
/// # Errors
/// The database's error.
pub async fn list(server: &PgServer, tenant: Option<&str>) -> Result<Vec<DeviceRecord>, PgError> {
    let client = server.connect().await?;
    let all = "SELECT tenant_id::text, device_id::text, site_id::text, status::text, provision_token_hash::text \
               FROM device_registry WHERE $1::text IS NULL OR tenant_id = $1 ORDER BY 1, 2";
    let rows = server.within("listing device_registry", client.query(all, &[&tenant])).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let text = |column| row.get::<_, Option<String>>(column).unwrap_or_default();
            DeviceRecord {
                tenant_id: text(0),
                device_id: text(1),
                site_id: text(2),
                status: text(3),
                provision_token_hash: row.get(4),
            }
        })
        .collect())
}

/// Adds a device or changes it.
///
/// # Errors
/// The database's error.
pub async fn put(server: &PgServer, record: &DeviceRecord) -> Result<(), PgError> {
    let client = server.connect().await?;
    let upsert = "INSERT INTO device_registry (tenant_id, device_id, site_id, status, provision_token_hash) \
                  VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant_id, device_id) DO UPDATE \
                  SET site_id = EXCLUDED.site_id, status = EXCLUDED.status, \
                      provision_token_hash = EXCLUDED.provision_token_hash";
    let values: [&(dyn ToSql + Sync); 5] =
        [&record.tenant_id, &record.device_id, &record.site_id, &record.status, &record.provision_token_hash];
    server.within("writing device_registry", client.execute(upsert, &values)).await?;
    Ok(())
}

/// Revokes a device. False: there is none.
///
/// # Errors
/// The database's error.
pub async fn revoke(server: &PgServer, tenant: &str, device: &str) -> Result<bool, PgError> {
    let update = "UPDATE device_registry SET status = 'REVOKED' WHERE tenant_id = $1 AND device_id = $2";
    change(server, update, tenant, device).await
}

/// Makes a device active, with its token and site as they are. False: there is none.
///
/// # Errors
/// The database's error.
pub async fn activate(server: &PgServer, tenant: &str, device: &str) -> Result<bool, PgError> {
    let update = "UPDATE device_registry SET status = 'ACTIVE' WHERE tenant_id = $1 AND device_id = $2";
    change(server, update, tenant, device).await
}

/// Removes a device. False: there is none.
///
/// # Errors
/// The database's error.
pub async fn remove(server: &PgServer, tenant: &str, device: &str) -> Result<bool, PgError> {
    let delete = "DELETE FROM device_registry WHERE tenant_id = $1 AND device_id = $2";
    change(server, delete, tenant, device).await
}

async fn change(server: &PgServer, statement: &str, tenant: &str, device: &str) -> Result<bool, PgError> {
    let client = server.connect().await?;
    let values: [&(dyn ToSql + Sync); 2] = [&tenant, &device];
    Ok(server.within("writing device_registry", client.execute(statement, &values)).await? > 0)
}
