//! Does what the payload's key `do` says: `ok` makes a line, everything else is an attack.

use tidegate_guest::json::Reader;
use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

pub struct Hostile;

impl Decoder for Hostile {
    fn configure(route: &Route) -> Result<Self, String> {
        match route.option("configure") {
            Some("loop") => spin(),
            Some("trap") => panic!("on purpose"),
            Some("burn") => {
                burn(20_000_000);
                Ok(Self)
            }
            Some("refuse") => Err("it serves nobody".into()),
            _ => Ok(Self),
        }
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let mut reader = Reader::new(message.payload);
        let (mut attack, mut seq) = (String::new(), 0);
        reader.object()?;
        while let Some(key) = reader.next_key()? {
            if key.is("do") {
                attack = reader.string()?.decode().into_owned();
            } else if key.is("seq") {
                seq = reader.number()?.as_i64().unwrap_or(0);
            }
        }
        match attack.as_str() {
            "ok" => return lines.line("ok").integer("seq", seq).at(1_700_000_000_000_000_000 + seq),
            "loop" => spin(),
            "recurse" => lines.raw(recurse(0, [1; 64]).to_string().as_bytes()),
            "trap" => panic!("on purpose"),
            "grow" => grow(),
            "big" => (0..100).for_each(|_| lines.raw(&[b'x'; 1 << 20])),
            "many-lines" => (0..250_000).for_each(|_| lines.raw(b"m f=1")),
            "too-many-lines" => (0..1_001).for_each(|_| lines.raw(b"m f=1")),
            "forge-tag" => lines.raw(b"m,device_id=other f=1"),
            "forge-field" => lines.raw(b"m site_id=\"other\""),
            "open-quote" => lines.raw(b"m f=\"open"),
            "backslash" => lines.raw(b"m f=1 1\\"),
            "newline-in-tag" => lines.raw(b"m,t=a\nb f=1"),
            "duplicate-tag" => lines.raw(b"m,t=a,t=b f=1"),
            "not-utf8" => lines.raw(b"m,t=\xff f=1"),
            "far-time" => lines.raw(b"m f=1 9223372036854775808"),
            "log-flood" => {
                for _ in 0..100_000 {
                    message.topic();
                }
                return lines.line("ok").integer("seq", seq).end();
            }
            "million-lines" => lines.raw(&[b'\n'; 1_000_000]),
            "million-measurements" => lines.raw(&b"m\n".repeat(500_000)),
            "newline-in-measurement" => lines.raw(b"m\nx f=1"),
            "newline-in-tag-key" => lines.raw(b"m,t\nk=a f=1"),
            "newline-in-field-key" => lines.raw(b"m f\nk=1"),
            "newline-in-value" => lines.raw(b"m f=1\n,device_id=other g=2"),
            "newline-in-time" => lines.raw(b"m f=1 17\n00"),
            "escaped-newline" => lines.raw(b"m,t=a\\\nforged,device_id=other f=1"),
            "newline-in-string" => lines.raw(b"m f=\"a\nforged,device_id=other g=1\""),
            "nul" => lines.raw(b"m,t=a\0b f=1"),
            "say-much" => {
                for n in 0..100_000 {
                    tidegate_guest::log::error(&format!("{n} \n\x1b[2Jforged"));
                }
                return lines.line("ok").integer("seq", seq).end();
            }
            "say" => {
                tidegate_guest::log::info(&"long ".repeat(1_000));
                return lines.line("ok").integer("seq", seq).end();
            }
            // Some milliseconds, and then its line.
            "burn" => {
                burn(3_000_000);
                return lines.line("ok").integer("seq", seq).at(1_700_000_000_000_000_000 + seq);
            }
            // Less than a slow route does, and more than anybody else.
            "work" => {
                burn(200_000);
                return lines.line("ok").integer("seq", seq).at(1_700_000_000_000_000_000 + seq);
            }
            "refuse" => return Err(Refusal::new("not a CODE", "x".repeat(100_000))),
            other => return Err(Refusal::new("UNKNOWN", other)),
        }
        Ok(())
    }
}

/// About a nanosecond for each.
fn burn(steps: u64) {
    let mut n = 0_u64;
    while n < steps {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

fn spin() -> ! {
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64, ballast: [u64; 64]) -> u64 {
    let mut next = std::hint::black_box(ballast);
    next[(depth % 64) as usize] = depth;
    recurse(depth + 1, next) + next[0]
}

fn grow() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1; 1 << 20]));
    }
}

tidegate_guest::export!(Hostile);
