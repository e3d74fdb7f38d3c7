//! A running gateway, asked over its admin side: that of the configuration, or another one by its address.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::cli::admin_http;
use crate::config;
use crate::config::Config;
use crate::config::checks::server_url;

/// The time for an answer that needs no work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// No gateway answers at the admin address.
#[derive(Debug, thiserror::Error)]
#[error("no gateway answers at {0}; is it running?")]
pub struct Unreachable(String);

/// Another gateway than that of the configuration, and another token.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GatewayArgument {
    /// The base URL of another gateway [default: the gateway of the configuration]
    #[arg(long, value_name = "URL", global = true)]
    gateway: Option<String>,
    /// A file that contains the bearer token [default: admin.token_file]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

impl GatewayArgument {
    /// True if another gateway is named.
    pub fn is_elsewhere(&self) -> bool {
        self.gateway.is_some()
    }
}

/// A running gateway, with the token to ask it.
pub struct AdminClient {
    /// The beginning of its URLs.
    base: String,
    /// Its place in words, for errors.
    place: String,
    token: String,
    client: reqwest::Client,
}

impl AdminClient {
    /// The gateway that the arguments name, else the one of the configuration. Nothing is sent.
    ///
    /// # Errors
    /// The URL is none, a file cannot be read, or the configuration has no address.
    pub fn find(config: &Config, named: &GatewayArgument) -> anyhow::Result<Self> {
        let token_file = match &named.token_file {
            Some(file) => file.to_string_lossy().into_owned(),
            None => config.admin.token_file.clone(),
        };
        let token = config::secret("admin.token", "", &token_file)?;
        if let Some(url) = &named.gateway {
            server_url("--gateway", url)?;
            let base = url.trim_end_matches('/').to_owned();
            let client = reqwest::Client::builder().connect_timeout(ANSWER_TIMEOUT).build()?;
            return Ok(Self { place: base.clone(), base, token, client });
        }
        let address = &config.admin.listen;
        if address.is_empty() {
            bail!("admin.listen is empty: a running gateway cannot be asked");
        }
        let place = format!("admin.listen = {address:?}");
        let client = admin_http::client(config)?.connect_timeout(ANSWER_TIMEOUT).build()?;
        Ok(Self { base: admin_http::base(config), place, token, client })
    }

    /// A request, with the token. It has no time limit.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        if self.token.is_empty() { request } else { request.bearer_auth(&self.token) }
    }

    /// Sends a request; gives the head of the answer.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Unreachable> {
        request.send().await.map_err(|_| Unreachable(self.place.clone()))
    }

    /// Asks for something that takes no time; gives the status and the JSON of the answer, `null` if it is none.
    ///
    /// # Errors
    /// Nobody answers, or the answer breaks off.
    pub async fn ask(&self, method: Method, path: &str) -> anyhow::Result<(StatusCode, Value)> {
        let answer = self.send(self.request(method, path).timeout(ANSWER_TIMEOUT)).await?;
        let status = answer.status();
        let body = answer.text().await?;
        match (serde_json::from_str(&body), status.is_success()) {
            (Ok(value), _) => Ok((status, value)),
            (Err(error), true) => {
                Err(error).with_context(|| format!("the gateway answered without JSON: {body}"))
            }
            (Err(_), false) => Ok((status, body.trim().into())),
        }
    }

    /// The same for an answer that must be good.
    ///
    /// # Errors
    /// The gateway refuses too.
    pub async fn json(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let (status, value) = self.ask(method, path).await?;
        if !status.is_success() {
            bail!("the gateway answered {status}: {value}");
        }
        Ok(value)
    }
}

/// Asks the running gateway of the configuration.
///
/// # Errors
/// It does not run ([`Unreachable`]), or it refuses.
pub fn get(config: &Config, path: &str) -> anyhow::Result<Value> {
    once(config, Method::GET, path)
}

/// Has the running gateway of the configuration do something.
///
/// # Errors
/// Same as `get`.
pub fn post(config: &Config, path: &str) -> anyhow::Result<Value> {
    once(config, Method::POST, path)
}

/// Has the running gateway take something back.
///
/// # Errors
/// Same as `get`.
pub fn delete(config: &Config, path: &str) -> anyhow::Result<Value> {
    once(config, Method::DELETE, path)
}

fn once(config: &Config, method: Method, path: &str) -> anyhow::Result<Value> {
    let client = AdminClient::find(config, &GatewayArgument::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(client.json(method, path))
}
