//! Tables with a row for each number of something: the same load, and more of one thing.

use anyhow::Result;

use crate::Paths;
use crate::load::{METRICS, Plan, payload_with};
use crate::scale::case::{self, Case};
use crate::scale::figures::Table;
use crate::scale::options::Options;
use crate::scale::print::{self, Column};
use crate::scale::subjects;

/// One table.
pub struct Sweep {
    pub name: &'static str,
    title: &'static str,
    /// The heading of its numbers.
    pub unit: &'static str,
    points: &'static [usize],
    case: fn(usize) -> Case,
    columns: &'static [Column],
    asked: &'static str,
}

const COST: Column = Column { figure: "cpu_us", heading: "us of CPU", decimals: 2 };
const DECODE: Column = Column { figure: "decode_us", heading: "of that decode", decimals: 2 };
const RATE: Column = Column { figure: "acknowledged_per_s", heading: "acknowledged/s", decimals: 0 };
const MEMORY: Column = Column { figure: "resident_mb", heading: "MB", decimals: 0 };
const READY: Column = Column { figure: "ready_s", heading: "ready, s", decimals: 2 };
const LINES: Column = Column { figure: "lines_a_post", heading: "lines a POST", decimals: 0 };
const CONNECTION: Column = Column { figure: "connection_kb", heading: "kB a connection", decimals: 1 };

pub const SWEEPS: [Sweep; 5] = [
    Sweep {
        name: "tenants",
        title: "Tenants with 10 devices each, in one database by tag",
        unit: "tenants",
        points: &[10, 100, 400, 700, 1_000, 2_000, 5_000, 10_000],
        case: |tenants| Case { one_database: true, ..with(tenants, 10 * tenants, 8) },
        columns: &[COST, DECODE, RATE, MEMORY],
        asked: "shared decoders at 10,000 at most 1.5 times those at 10, own decoders at 1,000 at most 2 times",
    },
    Sweep {
        name: "databases",
        title: "Tenants with 10 devices and a database each",
        unit: "databases",
        points: &[10, 100, 400, 1_000],
        case: |tenants| with(tenants, 10 * tenants, 8),
        columns: &[COST, DECODE, RATE, LINES],
        asked: "at 1,000 at most 2.5 times those at 10",
    },
    Sweep {
        name: "devices",
        title: "Devices of 10 tenants, in a file",
        unit: "devices",
        points: &[1_000, 10_000, 100_000, 1_000_000],
        case: |devices| with(10, devices, 8),
        columns: &[COST, RATE, MEMORY, READY],
        asked: "at 1,000,000 at most 1.3 times those at 1,000; ready within 5 s and 200 MB",
    },
    Sweep {
        name: "connections",
        title: "Connections of 10 tenants, with 16,000 messages in flight on all of them together",
        unit: "connections",
        points: &[10, 100, 1_000, 10_000],
        case: |connections| with(10, connections.max(1_000), connections),
        columns: &[COST, RATE, MEMORY, CONNECTION],
        asked: "6 kB a connection",
    },
    Sweep {
        name: "payload",
        title: "Bytes of a payload, by its number of metrics",
        unit: "bytes",
        points: &[254, 500, 1_000, 2_000, 4_000, 8_000],
        case: |bytes| Case { metrics: metrics_of(bytes), ..with(10, 1_000, 8) },
        columns: &[COST, DECODE, RATE],
        asked: "",
    },
];

/// Messages in flight on all connections together.
const IN_FLIGHT: usize = 16_000;

fn with(tenants: usize, devices: usize, connections: usize) -> Case {
    let window = (IN_FLIGHT / connections).max(2);
    let plan = Plan { name: "tenant", tenants, devices, connections, messages: 0, window };
    Case { plan, one_database: false, metrics: METRICS }
}

/// The metrics of a payload of about so many bytes.
fn metrics_of(bytes: usize) -> usize {
    let length = |metrics| payload_with(0, "tok-dev-00001", metrics).len();
    let one = length(METRICS + 1) - length(METRICS);
    METRICS + bytes.saturating_sub(length(METRICS)) / one
}

impl Sweep {
    pub fn named(name: &str) -> Option<&'static Sweep> {
        SWEEPS.iter().find(|sweep| sweep.name == name)
    }

    /// Measures the rows in rounds; in every other round the subjects come in reverse order, because
    /// the first of two runs costs more on a machine that has rested.
    pub fn measure(&self, paths: &Paths, options: &Options) -> Result<Table> {
        let mut subjects = subjects::subjects(paths, options)?;
        let mut table = Table::new(options.command_of(self.name));
        for round in 1..=options.pairs {
            for point in options.points_or(self.points) {
                for subject in &subjects {
                    eprintln!("{}: round {round} of {}, {point}, {}", self.name, options.pairs, subject.name);
                    let figures = case::run(paths, subject, &(self.case)(point), options.time)?;
                    table.add(point as f64, subject.name, figures);
                }
            }
            subjects.reverse();
        }
        println!("{}\n", self.title);
        print::rows(&table, self.unit, self.columns);
        print::ratios(&table, self.unit, "cpu_us", self.asked);
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_about_the_bytes_that_were_asked_for() {
        for bytes in [254, 500, 1_000, 8_000] {
            let long = payload_with(7, "tok-dev-00001", metrics_of(bytes)).len();
            assert!(long.abs_diff(bytes) <= 32, "{long} for {bytes}");
        }
    }

    #[test]
    fn connections_share_what_is_in_flight_and_each_has_a_device() {
        for connections in [10, 1_000, 10_000] {
            let plan = with(10, connections.max(1_000), connections).plan;
            assert!(plan.window * connections <= 20_000 && plan.devices >= connections);
        }
    }
}
