//! Threads and tasks whose panic ends the process.
//!
//! - A thread of ours is started by `start` and by nothing else: it has a name, and its priority.
//! - A panic in one ends the process with `EXIT_CODE`. A gateway that lives on without its committer
//!   or a decode thread acknowledges nothing and looks well. The spool makes the end safe: what was
//!   acknowledged is durable, and the rest is sent again.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use futures_util::FutureExt;

/// The exit code of a process that a panic has ended: EX_SOFTWARE of sysexits.h.
pub const EXIT_CODE: i32 = 70;

/// The nice value of a thread of low priority.
const NICE: i32 = 10;

/// The share of the processor that a thread asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Normal,
    /// It runs on CPU time that no other thread wants.
    Low,
}

/// Starts a thread. Its name is cut at 15 bytes where the system shows it.
///
/// # Errors
/// The host gives no thread.
pub fn start(
    name: impl Into<String>,
    priority: Priority,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let name = name.into();
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        if priority == Priority::Low {
            lower_priority();
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            end_process(&name, &*panic);
        }
    })
}

/// The same future, for a task that carries the stream and whose handle nobody looks at: a panic in it
/// ends the process.
pub fn vital<F: Future>(name: &'static str, task: F) -> impl Future<Output = F::Output> {
    AssertUnwindSafe(task).catch_unwind().map(move |ended| match ended {
        Ok(output) => output,
        Err(panic) => end_process(name, &*panic),
    })
}

fn end_process(name: &str, panic: &(dyn Any + Send)) -> ! {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let panic = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
    tracing::error!(
        worker = name,
        panic,
        "a worker has panicked: the gateway ends; what it acknowledged is durable, and the rest comes again"
    );
    std::process::exit(EXIT_CODE);
}

/// Lowers the priority of the calling thread (setpriority(2)).
fn lower_priority() {
    // SAFETY: a call with numbers. On Linux it is about the calling thread alone.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::process::{Command, Output};

    const IN_CHILD: &str = "WORKER_TEST_CHILD";

    /// Runs the test of that name again, alone and in a process of its own.
    fn in_child(test: &str) -> Output {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("worker::tests::{test}"), "--nocapture"])
            .env(IN_CHILD, "1")
            .output()
            .unwrap()
    }

    fn is_child() -> bool {
        std::env::var_os(IN_CHILD).is_some()
    }

    fn assert_ended_by(output: &Output, panic: &str) {
        assert_eq!(output.status.code(), Some(EXIT_CODE), "{output:?}");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        assert!(String::from_utf8_lossy(&said).contains(panic), "{output:?}");
    }

    #[test]
    fn a_panic_in_a_worker_ends_the_process() {
        if is_child() {
            tracing_subscriber::fmt().with_writer(io::stderr).init();
            let _ = start("doomed", Priority::Normal, || panic!("index out of {}", "bounds")).unwrap().join();
            // Were it not the end, the test would pass in the child.
            return;
        }
        assert_ended_by(&in_child("a_panic_in_a_worker_ends_the_process"), "index out of bounds");
    }

    #[tokio::test]
    async fn a_panic_in_a_vital_task_ends_the_process() {
        if is_child() {
            let _ = tokio::spawn(vital("doomed", async { panic!("no such frame") })).await;
            return;
        }
        assert_ended_by(&in_child("a_panic_in_a_vital_task_ends_the_process"), "no such frame");
    }

    #[test]
    fn a_worker_has_its_name_and_its_priority() {
        let (tell, told) = std::sync::mpsc::channel();
        let seen = move || {
            // SAFETY: a call with numbers, about the calling thread.
            let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
            tell.send((std::thread::current().name().map(str::to_owned), nice)).unwrap();
        };
        start("lowly", Priority::Low, seen).unwrap().join().unwrap();
        let (name, nice) = told.recv().unwrap();
        assert_eq!(name.as_deref(), Some("lowly"));
        assert!(nice >= NICE, "{nice}");
    }
}
