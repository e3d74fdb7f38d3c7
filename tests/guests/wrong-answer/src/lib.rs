//! Answers that the SDK cannot give: outcomes that are too few or too many, ends that fall or reach
//! beyond, bytes that belong to no message. The first payload's first byte says which.

#[cfg(target_arch = "wasm32")]
mod component {
    wit_bindgen::generate!({ path: "../../../wit/tidegate-ingest-1.0.0", world: "decoder" });

    use tidegate::ingest::types::Outcome;

    struct WrongAnswer;

    impl Guest for WrongAnswer {
        fn configure(_: Route) -> Result<(), String> {
            Ok(())
        }

        fn decode(batch: Batch) -> Decoded {
            // Payloads are envelopes; the wrong one names the fault behind "do":".
            let text = String::from_utf8_lossy(&batch.payloads).into_owned();
            let mut wishes = text.split("\"do\":\"").skip(1).filter_map(|rest| rest.split('"').next());
            let attack = wishes.find(|wish| *wish != "ok").unwrap_or("");
            let line = b"ok seq=1i 1700000000000000000\n";
            let mut lines = Vec::new();
            let mut outcomes = Vec::new();
            for _ in &batch.messages {
                lines.extend_from_slice(line);
                outcomes.push(Outcome::Lines(lines.len() as u32));
            }
            match attack {
                "too-few" => drop(outcomes.pop()),
                "too-many" => outcomes.push(Outcome::Lines(lines.len() as u32)),
                "fall" => outcomes[0] = Outcome::Lines(u32::MAX),
                "beyond" => *outcomes.last_mut().unwrap() = Outcome::Lines(lines.len() as u32 + 1),
                "left" => lines.extend_from_slice(line),
                _ => {}
            }
            Decoded { lines, outcomes }
        }
    }

    export!(WrongAnswer);
}
