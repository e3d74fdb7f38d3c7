//! The gateway that a verb is about: one that runs, over HTTP, or one that does not, in its folders.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::decoder_state;
use crate::admin::guests::refusal;
use crate::admin::respond::{ApiError, ApiResult, route_key};
use crate::app::guests;
use crate::audit::{AuditEvent, AuditLog, own_user};
use crate::cli::admin_client::{AdminClient, GatewayArgument};
use crate::config::{Config, CurrentConfig, settings};
use crate::core::route_key::RouteKey;
use crate::data_dir;
use crate::explain::stopped_gateway;
use crate::rollout::history::RouteHistory;
use crate::rollout::{ExpectedVersion, GuestStore, PutAuthor, PutFile, PutRequest, RolloutError, Trial};

/// The gateway that a verb is about.
pub enum GuestTarget<'a> {
    Running(AdminClient),
    /// Its data folder is ours as long as the lock is held.
    Stopped {
        config: &'a Config,
        _lock: Option<fs::File>,
    },
}

/// The options of a put.
pub struct PutOptions {
    /// Cases in place of those beside the file.
    pub cases: Option<String>,
    pub expect_same: bool,
    /// The version that may be replaced, and no other.
    pub expect_version: Option<ExpectedVersion>,
    /// Judges the decoder and puts nothing.
    pub dry_run: bool,
}

/// Longer than a component may take to be judged, others before it.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Characters that are percent-encoded in a part of a URL's path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

impl<'a> GuestTarget<'a> {
    /// The one that the arguments name, else the one of the configuration.
    pub fn find(config: &'a Config, named: &GatewayArgument) -> anyhow::Result<Self> {
        let data_dir = Path::new(&config.data_dir);
        if !named.is_elsewhere() {
            if !data_dir.exists() {
                return Ok(Self::Stopped { config, _lock: None });
            }
            if let Some(lock) = data_dir::try_lock(data_dir)? {
                return Ok(Self::Stopped { config, _lock: Some(lock) });
            }
        }
        Ok(Self::Running(AdminClient::find(config, named)?))
    }

    pub fn list(&self, tenant: Option<&str>) -> anyhow::Result<ApiResult> {
        match self {
            Self::Running(_) => {
                let tenant = tenant.map(|tenant| format!("/{}", part(tenant))).unwrap_or_default();
                self.call(Method::GET, &tenant, Vec::new())
            }
            Self::Stopped { config, .. } => {
                let guests = stopped_gateway::open_read_only(config)?.list();
                let guests = guests.into_iter().filter(|guest| tenant.is_none_or(|t| guest.tenant == t));
                let guests: Result<Vec<_>, _> = guests.map(serde_json::to_value).collect();
                Ok(Ok(json!({"guests": guests?})))
            }
        }
    }

    pub fn history(&self, tenant: &str, message_type: &str) -> anyhow::Result<ApiResult> {
        let Self::Stopped { config, .. } = self else {
            return self.call(Method::GET, &path(tenant, message_type, "/history"), Vec::new());
        };
        let place = match route_key(tenant, message_type) {
            Ok(place) => place,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let data = settings::guests_data(config);
        let versions = RouteHistory::new(&data, true).read(&place).versions;
        if versions.is_empty() {
            return Ok(Err(refusal(&RolloutError::NotThere)));
        }
        Ok(Ok(json!({"tenant": tenant, "type": message_type, "versions": versions})))
    }

    pub fn log(&self, tenant: &str, message_type: &str) -> anyhow::Result<ApiResult> {
        match self {
            Self::Running(_) => self.call(Method::GET, &path(tenant, message_type, "/log"), Vec::new()),
            Self::Stopped { .. } => {
                bail!("the gateway does not run; the texts of decoders are in the gateway's own log")
            }
        }
    }

    pub fn state(
        &self,
        tenant: &str,
        message_type: &str,
        partition: Option<&str>,
    ) -> anyhow::Result<ApiResult> {
        match self {
            Self::Running(_) => {
                let query = partition.map(|partition| format!("?partition={}", part(partition)));
                let what = format!("/state{}", query.unwrap_or_default());
                self.call(Method::GET, &path(tenant, message_type, &what), Vec::new())
            }
            Self::Stopped { config, .. } => {
                let state = stopped_gateway::state_on_disk(config)?;
                Ok(decoder_state::show(tenant, message_type, partition, || {
                    decoder_state::excerpt(&state, tenant, message_type, partition)
                }))
            }
        }
    }

    /// Puts a decoder, or judges it.
    pub fn put(
        &self,
        tenant: &str,
        message_type: &str,
        file: PutFile,
        options: PutOptions,
    ) -> anyhow::Result<ApiResult> {
        let PutOptions { cases, expect_same, expect_version, dry_run } = options;
        let Self::Stopped { config, .. } = self else {
            let mut query = vec![format!("file={}", file.extension())];
            if let Some(cases) = &cases {
                query.push(format!("cases_bytes={}", cases.len()));
            }
            let flags = [("expect_same", expect_same), ("dry_run", dry_run)];
            query.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| format!("{name}=true")));
            query.extend(expect_version.map(|version| format!("expect_version={}", version.name())));
            let query = query.join("&");
            let body = [cases.unwrap_or_default().as_bytes(), file.bytes()].concat();
            return self.call(Method::PUT, &format!("{}?{query}", path(tenant, message_type, "")), body);
        };
        let act = |guests: &GuestStore, place: &RouteKey| -> Result<Value, RolloutError> {
            let (route_key, author) = (place.clone(), PutAuthor::Operator);
            let trial = dry_run.then(Trial::for_verdict);
            let put = PutRequest { route_key, file, cases, author, expect_same, expect_version, trial };
            let put = guests.put_now(put)?;
            Ok(
                json!({"tenant": tenant, "type": message_type, "guest": put.guest, "digest": put.digest, "state": put.state}),
            )
        };
        if dry_run {
            let place = match route_key(tenant, message_type) {
                Ok(place) => place,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let guests = stopped_gateway::open_read_only(config)?;
            return Ok(act(&guests, &place).map_err(|error| refusal(&error)));
        }
        stopped(config, "guest put", tenant, message_type, act)
    }

    pub fn roll_back(&self, tenant: &str, message_type: &str) -> anyhow::Result<ApiResult> {
        match self {
            Self::Running(_) => self.call(Method::POST, &path(tenant, message_type, "/rollback"), Vec::new()),
            Self::Stopped { config, .. } => {
                stopped(config, "guest rollback", tenant, message_type, |guests, place| {
                    let back = guests.roll_back(place, "operator")?;
                    Ok(
                        json!({"tenant": tenant, "type": message_type, "guest": back.guest, "digest": back.digest, "from": back.from}),
                    )
                })
            }
        }
    }

    pub fn remove(&self, tenant: &str, message_type: &str) -> anyhow::Result<ApiResult> {
        match self {
            Self::Running(_) => self.call(Method::DELETE, &path(tenant, message_type, ""), Vec::new()),
            Self::Stopped { config, .. } => {
                stopped(config, "guest rm", tenant, message_type, |guests, place| {
                    guests.remove(place)?;
                    Ok(json!({"tenant": tenant, "type": message_type, "state": "gone"}))
                })
            }
        }
    }

    fn call(&self, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<ApiResult> {
        let Self::Running(client) = self else { bail!("the gateway does not run") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let request = client.request(method, &format!("/api/v1/guests{path}")).timeout(TIMEOUT);
            let answer = client.send(request.body(body)).await?;
            let status = answer.status();
            let text = answer.text().await?;
            let value: Value = serde_json::from_str(&text)
                .with_context(|| format!("the gateway answered {status} without JSON: {text}"))?;
            if status.is_success() {
                return Ok(Ok(value));
            }
            let message = value["message"].as_str().unwrap_or(&text).to_owned();
            let code = value["error"].as_str().unwrap_or("REFUSED").to_owned();
            Ok(Err(ApiError { status: status.as_u16(), code: code.leak(), message }))
        })
    }
}

/// Does something to the guests of a gateway that does not run.
fn stopped(
    config: &Config,
    action: &'static str,
    tenant: &str,
    message_type: &str,
    act: impl FnOnce(&GuestStore, &RouteKey) -> Result<Value, RolloutError>,
) -> anyhow::Result<ApiResult> {
    let place = match route_key(tenant, message_type) {
        Ok(place) => place,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let data_dir = Path::new(&config.data_dir);
    // SAFETY: geteuid(2) cannot fail.
    if fs::metadata(data_dir).is_ok_and(|data| data.uid() != unsafe { libc::geteuid() }) {
        bail!("data_dir = {:?} belongs to another user: run this as the gateway's user", config.data_dir);
    }
    let _lock = if data_dir.exists() { None } else { data_dir::try_lock(data_dir)? };
    let (guests, _) = guests::open_kept(&CurrentConfig::new(config.clone()))?;
    let result = act(&guests, &place).map_err(|error| refusal(&error));
    let outcome = result.as_ref().map_or_else(|refusal| refusal.code, |_| "done");
    let digest = result.as_ref().ok().and_then(|answer| answer["digest"].as_str());
    let (who, object) = (own_user(), format!("{tenant}/{message_type}"));
    AuditLog::new(data_dir).record(&AuditEvent { who: &who, action, object: &object, digest, outcome });
    Ok(result)
}

fn path(tenant: &str, message_type: &str, what: &str) -> String {
    format!("/{}/{}{what}", part(tenant), part(message_type))
}

fn part(name: &str) -> String {
    utf8_percent_encode(name, PLAIN).to_string()
}
