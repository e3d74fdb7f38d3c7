//! Uses the standard library as every program does: maps, the time, output, a thread's sleep. Built for WASI.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

pub struct Worldly;

impl Decoder for Worldly {
    fn configure(_: &Route) -> Result<Self, String> {
        println!("configured");
        Ok(Self)
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let words: HashMap<&[u8], usize> = message.payload.split(|byte| *byte == b' ').zip(0..).collect();
        let before = Instant::now();
        std::thread::sleep(Duration::from_secs(2));
        eprintln!("decoded {} words", words.len());
        let file = std::fs::read("/etc/passwd").is_ok();
        let line =
            lines.line("worldly").integer("now", now.as_nanos() as i64).integer("words", words.len() as i64);
        line.boolean("slept", before.elapsed().as_secs() == 2)
            .boolean("files", file)
            .boolean("variables", std::env::vars().next().is_some())
            .end()
    }
}

tidegate_guest::export!(Worldly);
