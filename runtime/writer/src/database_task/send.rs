//! One request to an output, and its result.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::limits;
use crate::output::{Output, OutputTransport};
use crate::thread::IdleDelayGuard;
use crate::verdict::{Verdict, verdict};
use crate::write_queue::WriteRequest;
use tidegate_core::ids::DatabaseName;

/// The result of a request.
pub(super) enum RequestResult {
    Answer(Verdict, Vec<u8>),
    NoAnswer { words: String, broken: bool },
}

/// Sends a request, and gives its permit to others when the answer takes long.
pub(super) async fn send_yielding(
    output: &Output,
    name: &DatabaseName,
    request: &WriteRequest,
    permit: OwnedSemaphorePermit,
    idle_guard: IdleDelayGuard,
) -> RequestResult {
    let mut sending = std::pin::pin!(send(output, name, request));
    let slow_after = Duration::from_millis(limits::SLOW_REQUEST_MS);
    match tokio::time::timeout(slow_after, &mut sending).await {
        Ok(result) => result,
        Err(_) => {
            // Its answer may never come, so the thread's delay counts it no more.
            drop(idle_guard);
            let _held = match output.slow.clone().try_acquire_owned() {
                Ok(slow) => {
                    drop(permit);
                    slow
                }
                Err(_) => permit,
            };
            sending.await
        }
    }
}

async fn send(output: &Output, name: &DatabaseName, request: &WriteRequest) -> RequestResult {
    match &output.transport {
        OutputTransport::Http(endpoint) => {
            match endpoint.write(name, request.body.clone(), request.plain).await {
                Ok(answer) => {
                    let mut verdict = verdict(endpoint.kind(), &answer, request.lines);
                    if let (Verdict::Pause { words, .. }, true) = (&mut verdict, answer.location.is_some()) {
                        // Only the operator can tell whether the URL or the redirect is right.
                        *words = format!("{words} (output.url is {})", endpoint.shown_url());
                    }
                    RequestResult::Answer(verdict, answer.body)
                }
                Err(error) => RequestResult::NoAnswer { words: error.words, broken: error.broken },
            }
        }
        OutputTransport::File(file) => {
            let (file, name, body) = (file.clone(), name.clone(), request.body.clone());
            let appended =
                tokio::task::spawn_blocking(move || file.append(&name, jiff::Timestamp::now(), &body)).await;
            match appended {
                Ok(Ok(())) => RequestResult::Answer(Verdict::Accepted, Vec::new()),
                Ok(Err(error)) => RequestResult::NoAnswer { words: error.to_string(), broken: false },
                Err(_) => RequestResult::NoAnswer {
                    words: "writing the file was interrupted".into(),
                    broken: false,
                },
            }
        }
    }
}
