//! `tidegate drain`: a running gateway gives its devices away before it is stopped.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::{ConfigArgument, Exit, admin_client};
use crate::config::Config;
use crate::limits::DRAIN_WAIT_S_MAX;

/// Send the devices of this gateway away, and wait until nothing is left in it
///
/// From now on /readyz answers 503, so that a balancer sends new devices to other gateways. After
/// fleet.drain_notice_s the gateway ends the connections that it has, within fleet.drain_spread_s. Lines
/// are written as ever. The drain ends with the process, or with --resume. Needs the operator's token.
/// Exit 1: something is left after --wait-s.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate drain && systemctl restart tidegate\n  tidegate drain --resume")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// End the drain: the gateway takes devices again
    #[arg(long)]
    resume: bool,
    /// Seconds to wait until nothing is left, 86,400 at most; 0: only begin
    #[arg(long, value_name = "S", default_value_t = 300, conflicts_with = "resume",
        value_parser = clap::value_parser!(u64).range(0..=DRAIN_WAIT_S_MAX))]
    wait_s: u64,
    /// Print JSON, the answer of the gateway
    #[arg(long)]
    json: bool,
}

pub fn drain(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let answer = match arguments.resume {
        true => admin_client::delete(&config, "/api/v1/drain")?,
        false => wait(&config, Duration::from_secs(arguments.wait_s))?,
    };
    if arguments.json {
        println!("{answer:#}");
    } else {
        println!("{}", sentence(&answer));
    }
    let is_done = arguments.resume || arguments.wait_s == 0 || answer["state"] == "drained";
    Ok(if is_done { Exit::Success } else { Exit::Failure })
}

/// Begins a drain, and gives the state when nothing is left, or after `most`.
fn wait(config: &Config, most: Duration) -> anyhow::Result<Value> {
    let until = Instant::now() + most;
    let mut answer = admin_client::post(config, "/api/v1/drain")?;
    while answer["state"] != "drained" && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(250));
        answer = admin_client::get(config, "/api/v1/drain")?;
    }
    Ok(answer)
}

/// The state in words.
pub fn sentence(answer: &Value) -> String {
    let number = |key: &str| answer[key].as_u64().unwrap_or(0);
    let left = format!(
        "{} devices, {} messages without a result, {} parked messages and {} lines are in it",
        number("connections"),
        number("messages_unsettled"),
        number("messages_parked"),
        number("lines_pending")
    );
    match answer["state"].as_str() {
        Some("drained") => "the gateway is drained: nothing is left in it".to_owned(),
        Some("draining") if answer["reads_from_broker"] == true => {
            format!(
                "the gateway is drained of devices, and goes on to read from its broker until it is stopped: {left}"
            )
        }
        Some("draining") => format!("the gateway is being drained: {left}"),
        _ => format!("the gateway serves: {left}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn a_wait_is_a_day_at_most() {
        let wait_s = |text: &str| Line::try_parse_from(["drain", "--wait-s", text]);
        assert_eq!(wait_s("86400").unwrap().arguments.wait_s, 86_400);
        let error = wait_s(&u64::MAX.to_string()).unwrap_err().to_string();
        assert!(error.contains("18446744073709551615 is not in 0..=86400"), "{error}");
    }
}
