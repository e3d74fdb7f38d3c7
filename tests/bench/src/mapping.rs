//! The decoder `mapping` beside one that is written by hand for the same ten fields, both native: the share of reading a
//! mapping at each message. `mapping route N` and `mapping hand N` run one of them alone, for counting instructions.

use std::hint::black_box;

use anyhow::{Context, Result, bail};
use mapping::Mapping;
use tidegate_guest::testing::BenchDecoder;
use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

use crate::decode::{BATCH, MESSAGES_A_ROUND, least};

/// Ten fields of 22 bytes, as a weather station sends them.
const FIELDS: &str = r#"{"battery":"u8@1","temp":{"value":"i16be@2 * 0.1","none":"0x7fff"},"humidity":"u8@4 * 0.5",
    "pressure":"u16be@5 * 0.1","rain":"u24be@7 * 0.2","wind":"u16le@10 * 0.01","direction":"u16le@12",
    "light":"u32be@14","door":"u8@18[0]","count":{"value":"u24be@19","type":"integer"}}"#;

struct ByHand;

impl Decoder for ByHand {
    fn configure(_: &Route) -> Result<Self, String> {
        Ok(Self)
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let Some(bytes) = message.payload.first_chunk::<22>() else {
            return Err(Refusal::new("TOO_SHORT", "expected 22 bytes"));
        };
        let be16 = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let le16 = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let be24 = |at: usize| u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]]);
        let mut line = lines.line("station").float("battery", bytes[1].into());
        if be16(2) != 0x7fff {
            line = line.float("temp", f64::from(be16(2) as i16) / 10.0);
        }
        line.float("humidity", f64::from(bytes[4]) / 2.0)
            .float("pressure", f64::from(be16(5)) / 10.0)
            .float("rain", f64::from(be24(7)) / 5.0)
            .float("wind", f64::from(le16(10)) / 100.0)
            .float("direction", le16(12).into())
            .float("light", u32::from_be_bytes([bytes[14], bytes[15], bytes[16], bytes[17]]).into())
            .boolean("door", bytes[18] & 1 == 1)
            .integer("count", be24(19).into())
            .end()
    }
}

fn payloads() -> Vec<Vec<u8>> {
    let payload = |seq: usize| (0..22).map(|at| (seq * 37 + at * 11) as u8).collect();
    (0..BATCH).map(payload).collect()
}

fn route() -> Result<BenchDecoder<Mapping>> {
    let options = [("measurement", "station"), ("fields", FIELDS)];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    BenchDecoder::new(&Route { options, ..Route::default() }).map_err(anyhow::Error::msg)
}

fn hand() -> Result<BenchDecoder<ByHand>> {
    BenchDecoder::new(&Route::default()).map_err(anyhow::Error::msg)
}

/// Both, or with `route N` or `hand N` one alone.
pub fn measure(rest: &[String]) -> Result<()> {
    let owned = payloads();
    let payloads: Vec<&[u8]> = owned.iter().map(Vec::as_slice).collect();
    let (mut by_route, mut by_hand) = (route()?, hand()?);
    if by_route.decode_batch(&payloads) != by_hand.decode_batch(&payloads) {
        bail!("the mapping and the decoder by hand make other lines");
    }
    if let [which, messages] = rest {
        let rounds = messages.parse::<usize>().context("expected a number of messages")? / BATCH;
        for _ in 0..rounds {
            match which.as_str() {
                "route" => _ = black_box(by_route.decode_batch(&payloads)),
                "hand" => _ = black_box(by_hand.decode_batch(&payloads)),
                other => bail!("{other:?}: expected route or hand"),
            }
        }
        return Ok(());
    }
    let rounds = MESSAGES_A_ROUND / BATCH;
    let route_ns = least(|| (0..rounds).for_each(|_| _ = black_box(by_route.decode_batch(&payloads))));
    let hand_ns = least(|| (0..rounds).for_each(|_| _ = black_box(by_hand.decode_batch(&payloads))));
    println!("Mapping: ten fields of 22 bytes; CPU of one thread, native\n");
    println!("| what | ns a message |\n|---|---|\n| mapping | {route_ns:.0} |\n| by hand | {hand_ns:.0} |\n");
    println!("| ratio | measured | asked |\n|---|---|---|");
    println!("| mapping / by hand | {:.2} | at most 1.5 |", route_ns / hand_ns);
    Ok(())
}
