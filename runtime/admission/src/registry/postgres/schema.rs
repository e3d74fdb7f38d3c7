//! The tables of the service that Tidegate succeeds, one for tenants' settings, and the triggers that
//! notify of changes.

use tokio_postgres::Client;

use crate::registry::postgres::connection::{PgError, PgServer};

/// The channel of notifications; the payload is `tenant/device`, or empty for all devices.
pub const CHANNEL: &str = "tidegate_device";

/// Creates everything that is missing and leaves the rest; the functions are replaced. A statement
/// notifies of up to a thousand rows one by one, beyond that of all devices at once: a bulk load must
/// not fill the server's queue of notifications.
const INIT: &str = r#"
CREATE TABLE IF NOT EXISTS app_settings (
    key text PRIMARY KEY, value text NOT NULL, updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS device_registry (
    tenant_id text NOT NULL, device_id text NOT NULL, site_id text NOT NULL,
    status text NOT NULL DEFAULT 'ACTIVE', provisioned_at timestamptz NOT NULL DEFAULT now(),
    provision_token_hash text NULL, device_pubkey text NULL, fw_version text NULL,
    metadata jsonb NOT NULL DEFAULT '{}', PRIMARY KEY (tenant_id, device_id));
CREATE TABLE IF NOT EXISTS quarantine_events (
    id bigserial PRIMARY KEY, ingested_at timestamptz NOT NULL DEFAULT now(), event_ts timestamptz,
    topic text NOT NULL, tenant_id text NULL, site_id text NULL, device_id text NULL,
    msg_type text NULL, reason text NOT NULL, payload jsonb NOT NULL);
CREATE TABLE IF NOT EXISTS quarantine_counters_minute (
    bucket_minute timestamptz NOT NULL, tenant_id text NOT NULL, reason text NOT NULL,
    cnt bigint NOT NULL DEFAULT 0, PRIMARY KEY (bucket_minute, tenant_id, reason));
CREATE TABLE IF NOT EXISTS tenants (
    tenant_id text PRIMARY KEY, settings jsonb NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT now());
INSERT INTO app_settings (key, value) VALUES
    ('MODE', 'PROD'), ('STORE_REJECTS', '0'), ('MIRROR_REJECTS_TO_RAW', '0'),
    ('MAX_PAYLOAD_BYTES', '8192'), ('RATE_LIMIT_RPS', '5'), ('RATE_LIMIT_BURST', '20')
    ON CONFLICT (key) DO NOTHING;

CREATE OR REPLACE FUNCTION tidegate_tell_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM (SELECT 1 FROM changed LIMIT 1001) AS few) > 1000 THEN
        PERFORM pg_notify('tidegate_device', '');
    ELSE
        PERFORM pg_notify('tidegate_device',
            CASE WHEN octet_length(tenant_id) + octet_length(device_id) < 7900
                 THEN tenant_id || '/' || device_id ELSE '' END)
        FROM changed;
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION tidegate_tell_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM (SELECT 1 FROM changed LIMIT 1001) AS few) > 1000 THEN
        PERFORM pg_notify('tidegate_device', '');
    ELSE
        PERFORM pg_notify('tidegate_device',
            CASE WHEN octet_length(tenant_id) + octet_length(device_id) < 7900
                 THEN tenant_id || '/' || device_id ELSE '' END)
        FROM (SELECT tenant_id, device_id FROM was UNION SELECT tenant_id, device_id FROM changed) AS touched;
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION tidegate_tell_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tidegate_device', '');
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS tidegate_device_insert ON device_registry;
DROP TRIGGER IF EXISTS tidegate_device_update ON device_registry;
DROP TRIGGER IF EXISTS tidegate_device_delete ON device_registry;
DROP TRIGGER IF EXISTS tidegate_device_truncate ON device_registry;
CREATE TRIGGER tidegate_device_insert AFTER INSERT ON device_registry
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tidegate_tell_changed();
CREATE TRIGGER tidegate_device_update AFTER UPDATE ON device_registry
    REFERENCING OLD TABLE AS was NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_tell_updated();
CREATE TRIGGER tidegate_device_delete AFTER DELETE ON device_registry
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tidegate_tell_changed();
CREATE TRIGGER tidegate_device_truncate AFTER TRUNCATE ON device_registry
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_tell_all();
"#;

/// An advisory lock of this work alone: of two that run at once, one waits.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7449354026713571)";

/// Creates tables, settings and triggers, in one transaction. Safe to run again.
///
/// # Errors
/// The database's error.
pub async fn init(server: &PgServer) -> Result<(), PgError> {
    let client = server.connect().await?;
    let all = format!("BEGIN; SET LOCAL client_min_messages = warning; {LOCK}; {INIT} COMMIT;");
    server.within("registry init", client.batch_execute(&all)).await
}

/// True if the triggers are there.
///
/// # Errors
/// The database's error.
pub async fn notifies(server: &PgServer, client: &Client) -> Result<bool, PgError> {
    let triggers = "SELECT count(*) >= 4 FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D' \
                    AND tgrelid = to_regclass('device_registry') AND tgname LIKE 'tidegate\\_device\\_%'";
    let row = server.within("looking for the trigger", client.query_one(triggers, &[])).await?;
    Ok(row.get(0))
}
