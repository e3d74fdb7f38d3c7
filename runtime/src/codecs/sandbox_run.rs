//! Codecs in the sandbox of the gateway: the same decoder, engine and limits as a route of a tenant has.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

use crate::codecs::comparison::Answer;
use crate::codecs::example::Example;
use crate::config::{Config, settings};
use crate::core::books::Account;
use crate::core::device::{Device, make_device};
use crate::core::device_hash::DeviceHasher;
use crate::core::ids::TenantId;
use crate::core::message::Admitted;
use crate::core::route_key::{DEFAULT, RouteKey};
use crate::core::tenant::Tenant;
use crate::core::tenant::settings::TenantSettings;
use crate::decode::route::rules::RouteRules;
use crate::decode::route::stats::RouteActivity;
use crate::decode::route::version::RouteVersion;
use crate::decode::sandbox::guest::Guest;
use crate::decode::{DecodeHost, DecodeSettings, Decoder};
use crate::explain::captured_output::CapturingSink;
use crate::rollout::GuestStore;
use crate::rollout::limits::SCRIPT_BYTES_MAX;

/// The message type of examples.
const TYPE: &str = "codec";

/// A codec that starts, for a route to take the decoder from.
const ANY_CODEC: &str = "function decodeUplink(input) { return { data: {} }; }";

/// The field in which the decoder gives a whole answer.
const ANSWER_FIELD: &str = "answer=\"";

/// The decoder `js`, ready for scripts.
pub struct SandboxRun {
    host: Arc<DecodeHost>,
    guest: Arc<Guest>,
    rules: RouteRules,
    tenant: Arc<Tenant>,
    device: Arc<Device>,
}

impl SandboxRun {
    /// Compiles the decoder.
    ///
    /// # Errors
    /// There is no folder for its route, or the sandbox cannot be made.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        std::fs::create_dir(folder.path().join(DEFAULT))?;
        std::fs::write(folder.path().join(DEFAULT).join(format!("{TYPE}.js")), ANY_CODEC)?;
        let decode = DecodeSettings { threads: 1, ..settings::decode(config) };
        let host = Arc::new(DecodeHost::new(decode, Arc::default())?);
        let (guests, _) =
            GuestStore::open(folder.path(), settings::without_persistence(config), host.clone())?;
        if let Some(error) = guests.list().first().and_then(|listed| listed.error.clone()) {
            anyhow::bail!("the decoder js does not start: {error}");
        }
        let route = host.table().route(TYPE, TYPE).context("the decoder js does not start")?;
        let tenant = TenantId::new(TYPE);
        let account = Arc::new(Account::new(tenant.clone()));
        let settings = TenantSettings::plain(Ok(TYPE.into()));
        Ok(Self {
            guest: route.version.guest.clone(),
            rules: route.version.rules.clone(),
            host,
            tenant: Arc::new(Tenant::new(tenant, account, settings)),
            device: Arc::new(make_device(TYPE, "", DeviceHasher::random().hash(TYPE, TYPE))),
        })
    }

    /// The answer of a script to an example.
    pub fn answer(&self, script: &str, example: &Example) -> Answer {
        let mut options = vec![
            ("script".to_owned(), script.to_owned()),
            ("script_bytes_max".to_owned(), script.len().clamp(1, SCRIPT_BYTES_MAX as usize).to_string()),
            ("port".to_owned(), example.port.to_string()),
            ("output".to_owned(), "json".to_owned()),
        ];
        if !example.variables.is_empty() {
            let table: serde_json::Map<_, _> =
                example.variables.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
            options.push(("variables".to_owned(), Value::Object(table).to_string()));
        }
        let rules = RouteRules { options, ..self.rules.clone() };
        let version =
            RouteVersion::new(self.guest.clone(), rules, TYPE.to_owned(), RouteActivity::of_trial());
        let place: RouteKey = (DEFAULT.to_owned(), TYPE.to_owned());
        let alone = Arc::new(self.host.single_route(&place, version, Arc::default()));
        self.tenant.account.receive(1);
        let message = Admitted::for_trial(
            TYPE.to_owned(),
            0..TYPE.len(),
            Bytes::copy_from_slice(&example.bytes),
            example.received_ns,
            self.tenant.clone(),
            self.device.clone(),
        );
        let sink = CapturingSink::default();
        Decoder::new(alone).decode(vec![message], &sink);
        let output = sink.into_output();
        match (output.refused, output.lines.first()) {
            (Some((reason, detail)), _) => {
                Answer { failed: Some(format!("{reason}: {detail}")), ..Answer::default() }
            }
            (None, line) => line.and_then(|line| read_answer(line)).unwrap_or_else(|| Answer {
                failed: Some("the decoder gave no answer".to_owned()),
                ..Answer::default()
            }),
        }
    }
}

/// The answer in the line that the decoder made of it.
fn read_answer(line: &str) -> Option<Answer> {
    let (_, field) = line.split_once(ANSWER_FIELD)?;
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => text.push(characters.next()?),
            character => text.push(character),
        }
    }
    let mut answer: Value = serde_json::from_str(&text).ok()?;
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(|text| Some(text.as_str()?.to_owned())).collect()
    };
    Some(Answer {
        errors: texts(&answer["errors"]),
        warnings: texts(&answer["warnings"]),
        data: answer.get_mut("data").map(Value::take),
        normalized: answer.get_mut("normalized").map(Value::take),
        failed: None,
    })
}
