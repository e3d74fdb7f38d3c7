//! `tidegate capture`: real messages of a running gateway as cases, for `tidegate test` and `tidegate diff`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::cli::admin_client::{AdminClient, GatewayArgument};
use crate::cli::tap_stream::{TapArguments, TapEvent, TapStream};
use crate::cli::{BadUsage, ConfigArgument, Exit};
use crate::explain::tapped_case::{NoCase, TappedCase};
use crate::limits::CASES_MAX;
use crate::rollout::limits::CASES_BYTES_MAX;
use crate::telemetry::progress::{Progress, suspended};

/// Record messages of a running gateway as cases, for `tidegate test`
///
/// A case has a payload as it came, with the values of credentials masked, and expects what came out of it. Messages that
/// were refused before a decoder saw them are left out. Of more than 200 messages a second a sample is recorded. Exit 1: no
/// message came.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate capture --tenant acme --type boiler --count 50 --out boiler.cases.jsonl\n  \
    tidegate capture --topic 'tenant/acme/device/+/boiler' --for 60 --out boiler.cases.jsonl\n  \
    tidegate capture --gateway https://gateway.example --token-file my-token --out all.cases.jsonl\n\n\
    A tenant's token records messages of its own tenant only. Beside a decoder boiler.wasm the cases are run by\n  \
    tidegate test boiler.wasm\n\
    A case of a message without a decoder expects nothing yet. With a decoder there, tidegate test --bless writes it."
)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    gateway: GatewayArgument,
    #[command(flatten)]
    wanted: TapArguments,
    /// End after so many cases
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=CASES_MAX as u64))]
    count: u64,
    /// End after so many seconds, with the cases that came until then
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    for_s: Option<u64>,
    /// The new file [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write behind the cases that the file has
    #[arg(long, requires = "out")]
    append: bool,
}

pub fn capture(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let gateway = AdminClient::find(&config, &arguments.gateway)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let recorded = runtime.block_on(record(&gateway, arguments))?;
    recorded.report(arguments.out.as_deref());
    Ok(if recorded.cases > 0 { Exit::Success } else { Exit::Failure })
}

/// The messages that came, by what became of them.
#[derive(Debug, Default)]
struct Recorded {
    cases: u64,
    without_expectation: u64,
    left_out: BTreeMap<NoCase, u64>,
    /// Messages that the gateway did not show, or had forgotten when their payload was asked for.
    missed: u64,
    forgotten: u64,
    is_full: bool,
}

async fn record(gateway: &AdminClient, arguments: &Arguments) -> anyhow::Result<Recorded> {
    let session = gateway.json(Method::GET, "/api/v1/session").await?;
    if session["sees_payloads"] != true {
        bail!(
            "payloads need the operator's token, or that of their tenant: name its file by --token-file, or in \
             admin.token_file"
        );
    }
    let mut stream = TapStream::open(gateway, &arguments.wanted).await?;
    let mut file = CasesFile::open(arguments.out.as_deref(), arguments.append)?;
    let ends = arguments.for_s.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let progress = Progress::counted("messages are recorded", arguments.count);
    let mut recorded = Recorded::default();
    while recorded.cases < arguments.count {
        let event = match ends {
            Some(ends) => timeout_at(ends, stream.next()).await,
            None => Ok(stream.next().await),
        };
        let Ok(event) = event else { break };
        let message = match event? {
            TapEvent::Message(message) => message,
            TapEvent::Missed(missed) => {
                recorded.missed = missed;
                continue;
            }
        };
        // The gateway remembers it while it has a viewer.
        let Some(tapped) = payload_of(gateway, &message).await? else {
            recorded.forgotten += 1;
            continue;
        };
        let case = match TappedCase::of(&tapped) {
            Ok(case) => case,
            Err(why) => {
                *recorded.left_out.entry(why).or_default() += 1;
                continue;
            }
        };
        if !file.write(&case.line)? {
            recorded.is_full = true;
            break;
        }
        recorded.cases += 1;
        recorded.without_expectation += u64::from(!case.has_expectation);
        progress.advance();
    }
    Ok(recorded)
}

/// The message with its payload; `None` if the gateway has forgotten it.
async fn payload_of(gateway: &AdminClient, message: &Value) -> anyhow::Result<Option<Value>> {
    let path = format!("/api/v1/tap/{}", message["id"]);
    match gateway.ask(Method::GET, &path).await? {
        (status, tapped) if status.is_success() => Ok(Some(tapped)),
        (StatusCode::NOT_FOUND, _) => Ok(None),
        (status, refusal) => bail!("the gateway answered {status}: {refusal}"),
    }
}

/// The file that is written, a whole line at a time: an interrupt leaves no half case.
struct CasesFile {
    /// `None`: stdout.
    file: Option<File>,
    bytes: u64,
}

impl CasesFile {
    fn open(path: Option<&Path>, append: bool) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, bytes: 0 }) };
        let mut options = OpenOptions::new();
        match append {
            true => options.create(true).read(true).append(true),
            false => options.create_new(true).write(true),
        };
        let mut file = options.open(path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                let text = "is there already: name another file, or write behind its cases with --append";
                BadUsage(format!("--out {}: {text}", path.display())).into()
            }
            _ => anyhow::Error::new(error).context(format!("--out {}", path.display())),
        })?;
        let bytes = if append { end_line(&mut file) } else { Ok(0) };
        let bytes = bytes.with_context(|| format!("--out {}", path.display()))?;
        Ok(Self { file: Some(file), bytes })
    }

    /// Writes a case; false if the file would be larger than one that can be put with a decoder.
    fn write(&mut self, line: &str) -> std::io::Result<bool> {
        let line = format!("{line}\n");
        if self.bytes + line.len() as u64 > CASES_BYTES_MAX {
            return Ok(false);
        }
        self.bytes += line.len() as u64;
        match &mut self.file {
            Some(file) => file.write_all(line.as_bytes())?,
            None => suspended(|| {
                let mut out = std::io::stdout().lock();
                out.write_all(line.as_bytes()).and_then(|()| out.flush())
            })?,
        }
        Ok(true)
    }
}

/// Ends the last line of a file if it has no end; gives the bytes of the file.
fn end_line(file: &mut File) -> std::io::Result<u64> {
    let bytes = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if bytes > 0 {
        file.read_exact_at(&mut last, bytes - 1)?;
    }
    if last == *b"\n" {
        return Ok(bytes);
    }
    file.write_all(b"\n")?;
    Ok(bytes + 1)
}

impl Recorded {
    /// Says on stderr what was recorded and what was not.
    fn report(&self, out: Option<&Path>) {
        let place = out.map(|out| format!(" in {}", out.display())).unwrap_or_default();
        eprintln!("{} cases{place}", self.cases);
        if self.is_full {
            eprintln!("no more fit: a decoder takes {CASES_BYTES_MAX} bytes of cases");
        }
        if self.without_expectation > 0 {
            let count = self.without_expectation;
            eprintln!("{count} cases expect nothing yet: tidegate test --bless writes what comes out");
        }
        for (why, count) in &self.left_out {
            eprintln!("left out: {count} messages {}", why.in_words());
        }
        if self.missed > 0 {
            eprintln!("left out: {} messages beyond the rate of the tap", self.missed);
        }
        if self.forgotten > 0 {
            eprintln!("left out: {} messages that the gateway remembered no more", self.forgotten);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_only_written_behind_and_never_beyond_what_a_decoder_takes() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("c.cases.jsonl");
        let mut file = CasesFile::open(Some(&path), false).unwrap();
        assert!(file.write("{}").unwrap());
        let again = CasesFile::open(Some(&path), false).err().unwrap();
        assert!(again.is::<BadUsage>() && again.to_string().contains("--append"), "{again}");
        let mut file = CasesFile::open(Some(&path), true).unwrap();
        let long = "x".repeat(CASES_BYTES_MAX as usize - 3);
        assert!(!file.write(&long).unwrap());
        assert!(file.write(&long[1..]).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{}\nxx") && text.ends_with("x\n") && text.len() as u64 == CASES_BYTES_MAX);
    }

    #[test]
    fn cases_are_written_behind_a_line_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.jsonl");
        for (before, after) in
            [("", "{}\n"), ("{\"a\":1}", "{\"a\":1}\n{}\n"), ("{\"a\":1}\n", "{\"a\":1}\n{}\n")]
        {
            std::fs::write(&path, before).unwrap();
            let mut file = CasesFile::open(Some(&path), true).unwrap();
            assert!(file.write("{}").unwrap());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
            assert_eq!(file.bytes, after.len() as u64);
        }
    }
}
