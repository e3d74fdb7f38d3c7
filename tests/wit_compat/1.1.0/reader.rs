//! A decoder as one is built against `tidegate:ingest@1.1.0`. `reader.wasm` beside it was made of this by
//! `cargo xtask guests --tests`; it never changes again, and must decode for ever as it does now. It uses
//! all that the version offers, the tapes above all.

#[cfg(target_arch = "wasm32")]
mod component {
    wit_bindgen::generate!({ path: "../../../wit/tidegate-ingest-1.1.0", world: "decoder" });

    use std::sync::Mutex;

    use tidegate::ingest::types::{Outcome, Refusal};
    use tidegate::ingest::{context, envelope, log, state};

    struct Reader;

    static MEASUREMENT: Mutex<String> = Mutex::new(String::new());

    /// The number of messages of the device before this one.
    fn count(index: u32) -> u64 {
        let value = state::get(index, "count").and_then(|value| value.try_into().ok());
        value.map_or(0, u64::from_le_bytes)
    }

    /// The kinds of a tape's values, and the text of each key.
    fn shape(payload: &[u8], tape: &[u64]) -> String {
        let part = |entry: &u64| {
            let (start, kind) = ((entry & 0xffff) as usize, entry >> 48 & 7);
            let (bytes, gap) = ((entry >> 32 & 0xff) as usize, (entry >> 40 & 0xff) as usize);
            let key = &payload[start - gap - bytes..start - gap];
            format!("{}{kind}", String::from_utf8_lossy(key))
        };
        tape.iter().map(part).collect::<Vec<_>>().join(" ")
    }

    impl Guest for Reader {
        fn configure(route: Route) -> Result<(), String> {
            let option = route.options.iter().find(|(key, _)| key == "measurement");
            let (_, name) = option.ok_or("the option measurement is missing: expected a name")?;
            *MEASUREMENT.lock().unwrap() = format!("{name}_{}_{}", route.tenant, route.message_type);
            Ok(())
        }

        fn decode(batch: Batch) -> Decoded {
            let (mut lines, mut outcomes, mut begin, mut tape_begin) = (Vec::new(), Vec::new(), 0, 0);
            let tapes = envelope::tapes();
            let again = envelope::tapes();
            for (index, message) in batch.messages.iter().enumerate() {
                let end = message.payload_end as usize;
                let payload = &batch.payloads[begin..end];
                let tape_end = tapes.ends[index] as usize;
                let tape = &tapes.entries[tape_begin..tape_end];
                (begin, tape_begin) = (end, tape_end);
                let index = index as u32;
                let count = count(index) + 1;
                state::set(index, "count", Some(&count.to_le_bytes())).unwrap();
                if tape.is_empty() {
                    log::write(log::Level::Warn, "no tape");
                    let detail = format!("{} bytes without a tape from {}", payload.len(), context::device(index));
                    outcomes.push(Outcome::Refused(Refusal { code: "NO_TAPE".into(), detail }));
                    continue;
                }
                let line = format!(
                    "{} count={count}i,shape=\"{}\",again={}i,site=\"{}\",topic=\"{}\",attribute={} {}\n",
                    MEASUREMENT.lock().unwrap(),
                    shape(payload, tape),
                    again.entries.len() + again.ends.len(),
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

    export!(Reader);
}
