//! A decoder as one is built against `tidegate:ingest@1.0.0`. `keeper.wasm` beside it was made of this by
//! `cargo xtask guests --tests`; it never changes again, and must decode for ever as it does now. It uses
//! all that the version offers, the state above all.

#[cfg(target_arch = "wasm32")]
mod component {
    wit_bindgen::generate!({ path: "../../../wit/tidegate-ingest-1.0.0", world: "decoder" });

    use std::sync::Mutex;

    use tidegate::ingest::state::Fault;
    use tidegate::ingest::types::Outcome;
use tidegate::ingest::types::Refusal;
    use tidegate::ingest::context;
use tidegate::ingest::{log, state};

    struct Keeper;

    static MEASUREMENT: Mutex<String> = Mutex::new(String::new());

    /// The payload's number behind `"n":`.
    fn number(payload: &str) -> u64 {
        let behind = payload.split("\"n\":").nth(1).unwrap_or_default();
        let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        behind[..end].parse().unwrap_or(0)
    }

    fn sum(index: u32) -> u64 {
        let value = state::get(index, "sum").and_then(|value| value.try_into().ok());
        value.map_or(0, u64::from_le_bytes)
    }

    /// The fault that each limit gives.
    fn faults(index: u32) -> String {
        let name = |fault: Result<(), Fault>| match fault {
            Ok(()) => "none",
            Err(Fault::BadKey) => "bad-key",
            Err(Fault::ValueTooLarge) => "value-too-large",
            Err(Fault::TooManyKeys) => "too-many-keys",
            Err(Fault::NoRoom) => "no-room",
        };
        let many = (0..40).map(|n| state::set(index, &format!("k{n}"), Some(b"x"))).find(Result::is_err);
        [
            name(state::set(index, "", Some(b"x"))),
            name(state::set(index, &"k".repeat(65), Some(b"x"))),
            name(state::set(index, "k", Some(&[0; 1_025]))),
            name(many.unwrap_or(Ok(()))),
        ]
        .join(" ")
    }

    impl Guest for Keeper {
        fn configure(route: Route) -> Result<(), String> {
            let option = route.options.iter().find(|(key, _)| key == "measurement");
            let (_, name) = option.ok_or("the option measurement is missing: expected a name")?;
            *MEASUREMENT.lock().unwrap() = format!("{name}_{}_{}", route.tenant, route.message_type);
            Ok(())
        }

        fn decode(batch: Batch) -> Decoded {
            let (mut lines, mut outcomes, mut begin) = (Vec::new(), Vec::new(), 0);
            for (index, message) in batch.messages.iter().enumerate() {
                let index = index as u32;
                let end = message.payload_end as usize;
                let payload = String::from_utf8_lossy(&batch.payloads[begin..end]).into_owned();
                begin = end;
                if payload.contains("\"forget\"") {
                    state::set(index, "sum", None).unwrap();
                    outcomes.push(Outcome::Lines(lines.len() as u32));
                    continue;
                }
                let sum = sum(index) + number(&payload);
                state::set(index, "sum", Some(&sum.to_le_bytes())).unwrap();
                if payload.contains("\"refuse\"") {
                    log::write(log::Level::Warn, "refused");
                    let detail = format!("{} bytes from {}", payload.len(), context::device(index));
                    outcomes.push(Outcome::Refused(Refusal { code: "REFUSED_SO".into(), detail }));
                    continue;
                }
                let faults = if payload.contains("\"faults\"") { faults(index) } else { String::new() };
                let line = format!(
                    "{} sum={sum}i,faults=\"{faults}\",device=\"{}\",site=\"{}\",topic=\"{}\",attribute={} {}\n",
                    MEASUREMENT.lock().unwrap(),
                    context::device(index),
                    context::site(index),
                    context::topic(index),
                    context::attribute(index, "port").is_some(),
                    message.received_ns,
                );
                lines.extend_from_slice(line.as_bytes());
                outcomes.push(Outcome::Lines(lines.len() as u32));
            }
            Decoded { lines, outcomes }
        }
    }

    export!(Keeper);
}
