//! Shows the instance that decodes a message: `seen` counts all messages of the instance, `told` is the tenant that
//! `configure` was told, `total` counts the device's messages in its state. The key `do` says what else it does;
//! everything but `ok` ends badly, or costs more, after the state was changed.

use tidegate_guest::json::Reader;
use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

pub struct Communal {
    told: String,
    seen: i64,
}

impl Decoder for Communal {
    fn configure(route: &Route) -> Result<Self, String> {
        Ok(Self { told: route.tenant.clone(), seen: 0 })
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let mut reader = Reader::new(message.payload);
        let (mut wish, mut seq) = (String::new(), 0);
        reader.object()?;
        while let Some(key) = reader.next_key()? {
            if key.is("do") {
                wish = reader.string()?.decode().into_owned();
            } else if key.is("seq") {
                seq = reader.number()?.as_i64().unwrap_or(0);
            }
        }
        self.seen += 1;
        let state = message.state();
        let total = state.get_u64("total").unwrap_or(0) + 1;
        state.set_u64("total", total)?;
        match wish.as_str() {
            "loop" => spin(u64::MAX),
            "trap" => panic!("on purpose"),
            "grow" => grow(),
            "refuse" => return Err(Refusal::new("ON_PURPOSE", "after it has counted")),
            "bad-line" => {
                lines.raw(b"no line");
                return Ok(());
            }
            "forge" => {
                lines.raw(b"m,device_id=other f=1");
                return Ok(());
            }
            "say" => tidegate_guest::log::info(&format!("of {}", message.device())),
            // Some milliseconds, and then its line.
            "burn" => spin(60_000_000),
            // More than the others take, and not much.
            "work" => spin(10_000_000),
            _ => {}
        }
        lines
            .line("m")
            .integer("seq", seq)
            .integer("seen", self.seen)
            .integer("total", total as i64)
            .string("told", &self.told)
            .at(1_700_000_000_000_000_000 + seq)
    }
}

/// About a nanosecond for each.
fn spin(steps: u64) {
    let mut n = 0_u64;
    while n < steps {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

fn grow() {
    // Time that is charged, and far from the deadline.
    spin(4_000_000);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        // Nothing is written there: it is about memory, and a busy machine must not make it a deadline.
        kept.push(std::hint::black_box(Vec::with_capacity(1 << 20)));
    }
}

tidegate_guest::export!(Communal);
