//! The running gateway of a configuration, asked over its admin side.

use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::Value;

use crate::cli::admin_http;
use crate::config;
use crate::config::Config;

/// No gateway answers at the admin address.
#[derive(Debug, thiserror::Error)]
#[error("no gateway answers at admin.listen = {0:?}; is it running?")]
pub struct Unreachable(String);

/// Asks the running gateway.
///
/// # Errors
/// It does not run ([`Unreachable`]), or it refuses.
pub fn get(config: &Config, path: &str) -> anyhow::Result<Value> {
    ask(config, Method::GET, path)
}

/// Has the running gateway do something.
///
/// # Errors
/// Same as `get`.
pub fn post(config: &Config, path: &str) -> anyhow::Result<Value> {
    ask(config, Method::POST, path)
}

/// Has the running gateway take something back.
///
/// # Errors
/// Same as `get`.
pub fn delete(config: &Config, path: &str) -> anyhow::Result<Value> {
    ask(config, Method::DELETE, path)
}

fn ask(config: &Config, method: Method, path: &str) -> anyhow::Result<Value> {
    let address = &config.admin.listen;
    if address.is_empty() {
        bail!("admin.listen is empty: a running gateway cannot be asked");
    }
    let token = config::secret("admin.token", "", &config.admin.token_file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = admin_http::client(config)?.timeout(std::time::Duration::from_secs(10)).build()?;
        let mut request = client.request(method, format!("{}{path}", admin_http::base(config)));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|_| Unreachable(address.clone()))?;
        let status = answer.status();
        let body = answer.text().await?;
        if !status.is_success() {
            bail!("the gateway answered {status}: {}", body.trim());
        }
        serde_json::from_str(&body).with_context(|| format!("the gateway answered without JSON: {body}"))
    })
}
