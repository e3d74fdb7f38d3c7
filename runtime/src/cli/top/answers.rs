//! The answers of a gateway at one moment, of which a view is made.

use std::time::Instant;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Devices of an open tenant that are listed.
const DEVICES_LISTED: usize = 200;

/// The answers of one moment.
#[derive(Clone, Debug)]
pub struct Answers {
    pub at: Instant,
    pub books: Value,
    pub spool: Value,
    pub budgets: Value,
    pub overview: Value,
    pub guests: Value,
    pub history: Value,
    /// The answers about the tenant that is open.
    pub tenant: Option<TenantAnswers>,
}

/// The answers about one tenant.
#[derive(Clone, Debug)]
pub struct TenantAnswers {
    pub name: String,
    /// Its budgets by kind; `null`: nothing is known of it yet.
    pub detail: Value,
    pub history: Value,
    pub devices: Value,
}

impl Answers {
    /// The answers for figures alone.
    ///
    /// # Errors
    /// The gateway does not answer, or refuses.
    pub fn of_figures(mut ask: impl FnMut(&str) -> anyhow::Result<Value>) -> anyhow::Result<Self> {
        Ok(Self {
            books: ask("/api/v1/books")?,
            spool: ask("/api/v1/spool")?,
            budgets: ask("/api/v1/tenants")?,
            overview: Value::Null,
            guests: Value::Null,
            history: Value::Null,
            tenant: None,
            at: Instant::now(),
        })
    }

    /// All answers, those about one tenant among them.
    ///
    /// # Errors
    /// The gateway does not answer, or refuses.
    pub fn of_all(
        mut ask: impl FnMut(&str) -> anyhow::Result<Value>,
        tenant: Option<&str>,
    ) -> anyhow::Result<Self> {
        let figures = Self::of_figures(&mut ask)?;
        let tenant = tenant.map(|name| {
            let part = utf8_percent_encode(name, NON_ALPHANUMERIC);
            Ok::<_, anyhow::Error>(TenantAnswers {
                // A tenant that sent nothing is unknown, which is no fault.
                detail: ask(&format!("/api/v1/tenants/{part}")).unwrap_or_default(),
                history: ask(&format!("/api/v1/history?tenant={part}"))?,
                devices: ask(&format!("/api/v1/devices?tenant={part}&limit={DEVICES_LISTED}"))?,
                name: name.to_owned(),
            })
        });
        Ok(Self {
            overview: ask("/api/v1/overview")?,
            guests: ask("/api/v1/guests")?,
            history: ask("/api/v1/history")?,
            tenant: tenant.transpose()?,
            ..figures
        })
    }

    /// Seconds since 1970 at the gateway.
    pub fn now_s(&self) -> f64 {
        self.overview["now_ms"].as_f64().unwrap_or_default() / 1_000.0
    }
}
