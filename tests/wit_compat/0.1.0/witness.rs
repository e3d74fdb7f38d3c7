//! A decoder as one was built against `tidegate:ingest@0.1.0`. `witness.wasm` beside it was made of
//! this by `cargo xtask guests --tests` when that version was the newest; it never changes again, and
//! must decode for ever as it does now. It uses all that the version offers.

#[cfg(target_arch = "wasm32")]
mod component {
    wit_bindgen::generate!({ path: "../../../wit/tidegate-ingest-0.1.0", world: "decoder" });

    use std::sync::Mutex;

    use tidegate::ingest::types::Outcome;
use tidegate::ingest::types::Refusal;
    use tidegate::ingest::context;
use tidegate::ingest::log;

    struct Witness;

    static MEASUREMENT: Mutex<String> = Mutex::new(String::new());

    impl Guest for Witness {
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
                outcomes.push(if payload.contains("\"refuse\"") {
                    log::write(log::Level::Warn, "refused");
                    let detail = format!("{} bytes from {}", payload.len(), context::device(index));
                    Outcome::Refused(Refusal { code: "REFUSED_SO".into(), detail })
                } else if payload.contains("\"nothing\"") {
                    Outcome::Lines(lines.len() as u32)
                } else {
                    let line = format!(
                        "{} bytes={}i,device=\"{}\",site=\"{}\",topic=\"{}\",attribute={} {}\n",
                        MEASUREMENT.lock().unwrap(),
                        payload.len(),
                        context::device(index),
                        context::site(index),
                        context::topic(index),
                        context::attribute(index, "port").is_some(),
                        message.received_ns,
                    );
                    lines.extend_from_slice(line.as_bytes());
                    Outcome::Lines(lines.len() as u32)
                });
            }
            Decoded { lines, outcomes }
        }
    }

    export!(Witness);
}
