//! The thread that asks the gateway, so that keys never wait for an answer.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;

use crate::cli::admin_client::AdminClient;
use crate::cli::top::answers::Answers;
use crate::core::worker;
use crate::core::worker::Priority;

/// The asking side; the thread ends with it.
pub(super) struct Poller {
    answers: Receiver<anyhow::Result<Answers>>,
    /// The tenant that is open.
    wishes: Sender<Option<String>>,
}

impl Poller {
    /// Starts to ask in this interval.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(gateway: AdminClient, every: Duration) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, answers) = channel();
        let (wishes, wished) = channel::<Option<String>>();
        let poll = move || {
            let ask = |path: &str| runtime.block_on(gateway.json(Method::GET, path));
            let mut tenant: Option<String> = None;
            while sender.send(Answers::of_all(ask, tenant.as_deref())).is_ok() {
                match wished.recv_timeout(every) {
                    Ok(wish) => tenant = wished.try_iter().last().unwrap_or(wish),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        worker::start("top", Priority::Normal, poll)?;
        Ok(Self { answers, wishes })
    }

    /// The first answers; waits for them.
    ///
    /// # Errors
    /// The gateway does not answer, or refuses.
    pub fn first(&self) -> anyhow::Result<Answers> {
        self.answers.recv().context("the thread that asks has ended")?
    }

    /// The next answers, if there are some now.
    pub fn next(&self) -> Option<anyhow::Result<Answers>> {
        self.answers.try_recv().ok()
    }

    /// Asks about this tenant too, at once.
    pub fn look_at(&self, tenant: Option<&str>) {
        let _ = self.wishes.send(tenant.map(str::to_owned));
    }
}
