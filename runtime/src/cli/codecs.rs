//! `tidegate codecs`: public JavaScript codecs and their own examples.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::{BadUsage, ConfigArgument, Exit};
use crate::codecs::comparison::Differences;
use crate::codecs::example::Codec;
use crate::codecs::layouts::{self, Found};
use crate::codecs::sandbox_run::SandboxRun;
use crate::codecs::script_files;
use crate::core::detail::printable;
use crate::telemetry::progress::{Progress, suspended};

/// Run public JavaScript codecs on their own examples
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate codecs test chirpstack-device-profiles")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(subcommand)]
    command: CodecsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CodecsCommand {
    /// Run every codec of a folder on every example of it, in the same sandbox and limits as production
    ///
    /// Understands the folders of The Things Stack (*.yaml), ChirpStack (test_decode_*.json), Actility
    /// (examples.json) and Milesight (*-codec.json). Prints a line for each codec, each value that differs, and a
    /// sum. A number that an example has with fewer decimals is the same if it is so when rounded; such numbers are
    /// counted. Exit 0: every example gives what it says. Exit 1: one does not.
    #[command(
        after_help = "Example:\n  git clone https://github.com/chirpstack/chirpstack-device-profiles\n  \
        tidegate codecs test chirpstack-device-profiles"
    )]
    Test {
        /// A folder with codecs, as a checkout of such a collection
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Print one JSON object for each codec, and one with the sum
        #[arg(long)]
        json: bool,
    },
}

pub fn codecs(arguments: &Arguments) -> anyhow::Result<Exit> {
    let CodecsCommand::Test { folder, json } = &arguments.command;
    if !folder.is_dir() {
        return Err(BadUsage(format!("{}: no such folder", folder.display())).into());
    }
    let config = arguments.config.load()?.config;
    let Found { codecs, unreadable } = layouts::find(folder)?;
    if codecs.is_empty() && unreadable.is_empty() {
        let known = "*.yaml with uplinkDecoder, test_decode_*.json, examples.json or *-codec.json";
        return Err(BadUsage(format!("{}: no codec with examples found: {known}", folder.display())).into());
    }
    let progress = Progress::start("the JavaScript engine is compiled");
    let sandbox = SandboxRun::new(&config)?;
    drop(progress);
    let mut sum = Sum::default();
    for (file, why) in &unreadable {
        sum.unreadable += 1;
        match json {
            true => println!("{}", json!({"file": file, "unreadable": why})),
            false => println!("UNREADABLE {}: {}", printable(file), printable(why)),
        }
    }
    let progress = Progress::counted("codecs are run", codecs.len() as u64);
    for codec in &codecs {
        let ran = run(&sandbox, folder, codec);
        sum.add(&ran);
        suspended(|| match json {
            true => println!("{}", ran.as_json(codec)),
            false => ran.print(codec),
        });
        progress.advance();
    }
    drop(progress);
    match json {
        true => println!("{}", sum.as_json()),
        false => println!("{}", sum.text()),
    }
    Ok(if sum.failed == 0 && sum.unreadable == 0 { Exit::Success } else { Exit::Failure })
}

/// A codec that was run on its examples.
#[derive(Default)]
struct CodecResult {
    passed: u64,
    rounded: u64,
    /// The examples that give something else, and the differences of each.
    failed: Vec<(String, Vec<String>)>,
}

/// The examples of all codecs.
#[derive(Default)]
struct Sum {
    codecs: u64,
    codecs_failed: u64,
    passed: u64,
    failed: u64,
    rounded: u64,
    unreadable: u64,
}

fn run(sandbox: &SandboxRun, folder: &Path, codec: &Codec) -> CodecResult {
    let mut result = CodecResult::default();
    let script = match script_files::read(folder, &codec.script) {
        Ok(script) => script,
        Err(error) => {
            let why = format!("{error:#}");
            let names = codec.examples.iter().map(|example| example.name.clone());
            result.failed = names.map(|name| (name, vec![why.clone()])).collect();
            return result;
        }
    };
    for (index, example) in codec.examples.iter().enumerate() {
        let Differences { texts, rounded } =
            Differences::of(&example.expect, &sandbox.answer(&script, example));
        result.rounded += rounded;
        if texts.is_empty() {
            result.passed += 1;
        } else {
            result.failed.push((format!("example {}: {}", index + 1, example.name), texts));
        }
    }
    result
}

impl CodecResult {
    fn print(&self, codec: &Codec) {
        let (name, examples) = (printable(&codec.name), codec.examples.len());
        let rounded = match self.rounded {
            0 => String::new(),
            rounded => format!(", {rounded} numbers rounded"),
        };
        if self.failed.is_empty() {
            println!("ok     {name}: {examples} examples{rounded}");
            return;
        }
        println!("FAILED {name}: {} of {examples} examples{rounded}", self.failed.len());
        for (example, differences) in &self.failed {
            println!("  {}", printable(example));
            for difference in differences {
                println!("    {}", printable(difference));
            }
        }
    }

    fn as_json(&self, codec: &Codec) -> serde_json::Value {
        let failed: Vec<_> = self
            .failed
            .iter()
            .map(|(example, differences)| json!({"example": example, "differences": differences}))
            .collect();
        json!({
            "codec": codec.name,
            "layout": codec.layout.name(),
            "examples": codec.examples.len(),
            "passed": self.passed,
            "rounded": self.rounded,
            "failed": failed,
        })
    }
}

impl Sum {
    fn add(&mut self, ran: &CodecResult) {
        self.codecs += 1;
        self.codecs_failed += u64::from(!ran.failed.is_empty());
        self.passed += ran.passed;
        self.failed += ran.failed.len() as u64;
        self.rounded += ran.rounded;
    }

    fn text(&self) -> String {
        format!(
            "{} codecs, {} examples: {} passed, {} failed in {} codecs; {} numbers rounded; {} files unreadable",
            self.codecs,
            self.passed + self.failed,
            self.passed,
            self.failed,
            self.codecs_failed,
            self.rounded,
            self.unreadable
        )
    }

    fn as_json(&self) -> serde_json::Value {
        json!({
            "sum": {
                "codecs": self.codecs,
                "codecs_failed": self.codecs_failed,
                "examples": self.passed + self.failed,
                "passed": self.passed,
                "failed": self.failed,
                "rounded": self.rounded,
                "unreadable": self.unreadable,
            }
        })
    }
}
