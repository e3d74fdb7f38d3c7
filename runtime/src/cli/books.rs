//! `tidegate books`: the accounts of a running gateway, and whether they balance.

use anyhow::{Context, bail};
use serde_json::Value;

use super::{ConfigArgument, Done};
use crate::config;

/// The accounts of each tenant of a running gateway; exit 1 if they do not balance
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate books\n  tidegate books --tenant acme --json")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Print JSON, as GET /api/v1/books gives it
    #[arg(long)]
    json: bool,
}

pub fn books(arguments: &Arguments) -> anyhow::Result<Done> {
    let config = arguments.config.load()?.config;
    let mut books = ask(&config, "/api/v1/books")?;
    let balanced = books["balanced"] == true;
    if let Some(tenant) = &arguments.tenant {
        let tenants = books["tenants"].as_object_mut().context("the gateway's answer has no tenants")?;
        tenants.retain(|name, _| name == tenant);
        if tenants.is_empty() {
            bail!("the gateway has no books of a tenant {tenant:?}");
        }
    }
    if arguments.json {
        println!("{books:#}");
    } else {
        print_table(&books);
    }
    Ok(if balanced { Done::Good } else { Done::NotGood })
}

const MESSAGES: [&str; 8] =
    ["received", "lines", "empty", "quarantined", "dropped", "abandoned", "parked", "in_flight"];
const QUARANTINE: [&str; 4] = ["entries", "expired", "replayed", "removed"];
const LINES: [&str; 6] = ["spooled", "written", "refused", "dropped", "damaged", "pending"];

fn print_table(books: &Value) {
    for (section, keys) in
        [("messages", &MESSAGES[..]), ("lines", &LINES[..]), ("quarantine", &QUARANTINE[..])]
    {
        print!("{section:<20}");
        for key in keys {
            print!("{key:>13}");
        }
        println!();
        for (tenant, books) in books["tenants"].as_object().into_iter().flatten() {
            print!("{tenant:<20}");
            for key in keys {
                print!("{:>13}", books[section][key].as_u64().unwrap_or(0));
            }
            println!();
        }
        println!();
    }
    println!("{}", if books["balanced"] == true { "the books balance" } else { "THE BOOKS DO NOT BALANCE" });
}

/// Asks the running gateway of this configuration.
///
/// # Errors
/// It does not run, or it refuses.
pub fn ask(config: &config::Config, path: &str) -> anyhow::Result<Value> {
    let address = &config.admin.listen;
    if address.is_empty() {
        bail!("admin.listen is empty: a running gateway cannot be asked");
    }
    let token = config::secret("admin.token", "", &config.admin.token_file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(10)).build()?;
        let mut request = client.get(format!("http://{address}{path}"));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        let answer = request
            .send()
            .await
            .with_context(|| format!("no gateway answers at admin.listen = {address:?}; is it running?"))?;
        let status = answer.status();
        let body = answer.text().await?;
        if !status.is_success() {
            bail!("the gateway answered {status}: {}", body.trim());
        }
        serde_json::from_str(&body).with_context(|| format!("the gateway gave no JSON: {body}"))
    })
}
