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
use crate::cli::admin_http;
use crate::config::checks::server_url;
use crate::config::{Config, CurrentConfig, settings};
use crate::core::route_key::RouteKey;
use crate::explain::stopped_gateway;
use crate::rollout::history::RouteHistory;
use crate::rollout::{GuestStore, PutRequest, RolloutError};
use crate::{config, data_dir};

/// The gateway that a verb is about.
pub enum GuestTarget<'a> {
    Running {
        base: String,
        token: String,
        client: reqwest::Client,
    },
    /// Its data folder is ours as long as the lock is held.
    Stopped {
        config: &'a Config,
        _lock: Option<fs::File>,
    },
}

/// Longer than a component may take to be judged, others before it.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Characters that are percent-encoded in a part of a URL's path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

impl<'a> GuestTarget<'a> {
    /// The one at `url`, else the one of the configuration.
    pub fn find(config: &'a Config, url: Option<&str>, token_file: Option<&Path>) -> anyhow::Result<Self> {
        let token_file = match token_file {
            Some(file) => file.to_string_lossy().into_owned(),
            None => config.admin.token_file.clone(),
        };
        let token = || config::secret("admin.token", "", &token_file);
        if let Some(url) = url {
            server_url("--gateway", url)?;
            let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
            let base = url.trim_end_matches('/').to_owned();
            return Ok(Self::Running { base, token: token()?, client });
        }
        let data_dir = Path::new(&config.data_dir);
        if !data_dir.exists() {
            return Ok(Self::Stopped { config, _lock: None });
        }
        if let Some(lock) = data_dir::try_lock(data_dir)? {
            return Ok(Self::Stopped { config, _lock: Some(lock) });
        }
        if config.admin.listen.is_empty() {
            bail!("admin.listen is empty: a running gateway cannot be asked");
        }
        let (base, client) = (admin_http::base(config), admin_http::client(config)?);
        Ok(Self::Running { base, token: token()?, client: client.timeout(TIMEOUT).build()? })
    }

    pub fn list(&self, tenant: Option<&str>) -> anyhow::Result<ApiResult> {
        match self {
            Self::Running { .. } => {
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
            Self::Running { .. } => self.call(Method::GET, &path(tenant, message_type, "/log"), Vec::new()),
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
            Self::Running { .. } => {
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

    /// Puts a decoder, with cases in place of those beside it.
    pub fn put(&self, put: PutRequest) -> anyhow::Result<ApiResult> {
        let (tenant, message_type) = put.route_key.clone();
        match self {
            Self::Running { .. } => {
                let mut query = vec![format!("file={}", put.file.extension())];
                if let Some(cases) = &put.cases {
                    query.push(format!("cases_bytes={}", cases.len()));
                }
                if put.expect_same {
                    query.push("expect_same=true".into());
                }
                if let Some(version) = &put.expect_version {
                    query.push(format!("expect_version={}", version.name()));
                }
                let query = query.join("&");
                let body = [put.cases.unwrap_or_default().as_bytes(), put.file.bytes()].concat();
                self.call(Method::PUT, &format!("{}?{query}", path(&tenant, &message_type, "")), body)
            }
            Self::Stopped { config, .. } => {
                stopped(config, "guest put", &tenant, &message_type, |guests, _| {
                    let put = guests.put_now(put)?;
                    Ok(
                        json!({"tenant": tenant, "type": message_type, "guest": put.guest, "digest": put.digest, "state": put.state}),
                    )
                })
            }
        }
    }

    pub fn roll_back(&self, tenant: &str, message_type: &str) -> anyhow::Result<ApiResult> {
        match self {
            Self::Running { .. } => {
                self.call(Method::POST, &path(tenant, message_type, "/rollback"), Vec::new())
            }
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
            Self::Running { .. } => self.call(Method::DELETE, &path(tenant, message_type, ""), Vec::new()),
            Self::Stopped { config, .. } => {
                stopped(config, "guest rm", tenant, message_type, |guests, place| {
                    guests.remove(place)?;
                    Ok(json!({"tenant": tenant, "type": message_type, "state": "gone"}))
                })
            }
        }
    }

    fn call(&self, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<ApiResult> {
        let Self::Running { base, token, client } = self else { bail!("the gateway does not run") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut request = client.request(method, format!("{base}/api/v1/guests{path}")).body(body);
            if !token.is_empty() {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.with_context(|| format!("no gateway answers at {base}"))?;
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
