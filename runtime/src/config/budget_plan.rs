//! The plan of memory and disk: the bytes that single limits of the configuration set aside, and the rest,
//! which is the budget of the tenants.

use std::path::Path;

use crate::config::error::ConfigError;
use crate::config::machine::Machine;
use crate::config::sections::Config;
use crate::core::tenant::budgets::BudgetLimits;
use crate::data_dir;
use crate::decode::limits::INSTANCE_CALLS_PER_THREAD;
use crate::limits::{
    BUDGET_BASE_BYTES, CACHE_ENTRIES_UNBOUNDED, CACHE_ENTRY_BYTES, COMPILED_DISK_BYTES, UNPARKED_BYTES_MAX,
    UNSETTLED_MESSAGE_BYTES, WRITER_BYTES_MAX, WRITER_BYTES_MIN,
};
use crate::source::limits::LISTENER_BUFFER_BYTES_MAX;

/// Bytes that are set aside, and for what: a key of the configuration, or words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    pub name: &'static str,
    pub bytes: u64,
}

/// Memory and disk of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetPlan {
    /// Resident memory of the process.
    pub memory_bytes_max: u64,
    /// The parts of it that are not for tenants.
    pub reserves: Vec<Reserve>,
    /// Bytes of lines that the writer has in hand.
    pub writer_bytes_max: u64,
    /// Memory of decoders beyond their tenants' budgets, for the calls that run.
    pub call_bytes_max: u64,
    /// The budgets of all tenants, and of each.
    pub limits: BudgetLimits,
    /// Remarks for the operator.
    pub notes: Vec<String>,
}

impl BudgetPlan {
    /// The plan for the machine that this runs on. Reads the sizes of the files in the data folder.
    pub fn measure(config: &Config) -> Self {
        let data_dir = Path::new(&config.data_dir);
        Self::new(config, &Machine::measure(data_dir), data_dir::bytes(data_dir))
    }

    /// The plan for a machine. `own_disk_bytes`: bytes that the data folder has already.
    pub fn new(config: &Config, machine: &Machine, own_disk_bytes: u64) -> Self {
        let budget = &config.budget;
        let mut notes = Vec::new();
        let memory_bytes_max = match budget.memory_bytes_max {
            0 => machine.memory_bytes / 4 * 3,
            bytes => bytes,
        };
        let reserves = reserves(config, memory_bytes_max);
        let reserved = sum(&reserves);
        if reserved > memory_bytes_max / 4 * 3 {
            notes.push(format!(
                "this machine has {} bytes of memory, of which the gateway takes {memory_bytes_max} \
                 (budget.memory_bytes_max): too little for {}. Lower these limits",
                machine.memory_bytes,
                shown(&reserves)
            ));
        }
        let memory = memory_bytes_max.saturating_sub(reserved).max(memory_bytes_max / 4);
        let fixed = fixed_disk_bytes(config);
        let disk = match budget.disk_bytes_max {
            0 => {
                let free = machine.free_disk_bytes.saturating_add(own_disk_bytes);
                if free < fixed {
                    notes.push(format!(
                        "the file system of data_dir has {free} bytes for the gateway: fewer than the {fixed} of \
                         spool.bytes_max, quarantine.bytes_max and decoders. Lower these limits"
                    ));
                }
                (free / 10 * 9).max(fixed)
            }
            bytes => bytes,
        };
        let part = |own: u64, all: u64| if own == 0 { all / 2 } else { own };
        Self {
            writer_bytes_max: writer_bytes(memory_bytes_max),
            call_bytes_max: call_bytes(config, memory_bytes_max),
            limits: BudgetLimits {
                memory_bytes_max: memory,
                tenant_memory_bytes_max: part(budget.tenant_memory_bytes_max, memory),
                disk_bytes_max: disk,
                tenant_disk_bytes_max: match budget.tenant_disk_bytes_max {
                    0 => (disk / 2).max(config.spool.tenant_bytes_max),
                    bytes => bytes,
                },
            },
            memory_bytes_max,
            reserves,
            notes,
        }
    }
}

/// Checks the values that are set, and that the other limits fit in them.
///
/// # Errors
/// The first key that is not good, with those that it does not fit.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let budget = &config.budget;
    let (memory, disk) = (budget.memory_bytes_max, budget.disk_bytes_max);
    if memory > 0 {
        let least = least_memory(config, memory);
        if memory < least {
            let expected =
                format!("at least {least}: a quarter for tenants, and {}", shown(&reserves(config, least)));
            return Err(ConfigError::value("budget.memory_bytes_max", memory, expected));
        }
    }
    if disk > 0 && disk < fixed_disk_bytes(config) {
        let expected = format!(
            "at least {}, the sum of spool.bytes_max = {}, quarantine.bytes_max = {} and {COMPILED_DISK_BYTES} for decoders",
            fixed_disk_bytes(config),
            config.spool.bytes_max,
            config.quarantine.bytes_max
        );
        return Err(ConfigError::value("budget.disk_bytes_max", disk, expected));
    }
    tenant_bytes(
        "budget.tenant_memory_bytes_max",
        budget.tenant_memory_bytes_max,
        "budget.memory_bytes_max",
        memory,
    )?;
    tenant_bytes(
        "budget.tenant_disk_bytes_max",
        budget.tenant_disk_bytes_max,
        "budget.disk_bytes_max",
        disk,
    )?;
    let own_disk = budget.tenant_disk_bytes_max;
    if own_disk > 0 && own_disk < config.spool.tenant_bytes_max {
        let expected = format!("at least spool.tenant_bytes_max = {}", config.spool.tenant_bytes_max);
        return Err(ConfigError::value("budget.tenant_disk_bytes_max", own_disk, expected));
    }
    Ok(())
}

/// Bytes of one tenant's budget: room for a decoder, or for one entry of each kind.
pub(super) const TENANT_BYTES_MIN: u64 = 1 << 20;

/// Checks one tenant's bytes of a resource; 0 is the default.
pub(super) fn tenant_bytes(key: &str, bytes: u64, all_key: &str, all: u64) -> Result<(), ConfigError> {
    if bytes == 0 {
        return Ok(());
    }
    if all > 0 && bytes > all {
        return Err(ConfigError::value(key, bytes, format!("at most {all_key} = {all}")));
    }
    match (TENANT_BYTES_MIN..=u64::MAX >> 1).contains(&bytes) {
        true => Ok(()),
        false => {
            Err(ConfigError::value(key, bytes, format!("0, or {TENANT_BYTES_MIN} to {}", u64::MAX >> 1)))
        }
    }
}

/// Bytes on disk that other limits allow all tenants together.
fn fixed_disk_bytes(config: &Config) -> u64 {
    let bytes = config.spool.bytes_max.saturating_add(config.quarantine.bytes_max);
    bytes.saturating_add(COMPILED_DISK_BYTES)
}

fn writer_bytes(memory: u64) -> u64 {
    (memory / 8).clamp(WRITER_BYTES_MIN, WRITER_BYTES_MAX)
}

/// One decoder's memory for each thread that calls decoders, where an eighth of all is enough for that; at
/// least one.
fn call_bytes(config: &Config, memory: u64) -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if config.guests.threads == 0 { cores } else { config.guests.threads };
    let large = &config.guests.large;
    let one = match large.routes.is_empty() {
        true => config.guests.memory_bytes_max,
        false => config.guests.memory_bytes_max.max(large.memory_bytes_max),
    };
    let all = one.saturating_mul((threads * INSTANCE_CALLS_PER_THREAD + 1) as u64);
    all.min(memory / 8).max(one)
}

fn reserves(config: &Config, memory: u64) -> Vec<Reserve> {
    let entries = match config.registry.cache_entries_max {
        0 => CACHE_ENTRIES_UNBOUNDED as u64,
        entries => entries,
    };
    let admission = &config.admission;
    let messages = admission.unsettled_messages_max;
    let listens = !config.listen.address.is_empty();
    let mut reserves = vec![
        ("the program", BUDGET_BASE_BYTES),
        ("registry.cache_entries_max", entries.saturating_mul(CACHE_ENTRY_BYTES)),
        ("admission.unsettled_bytes_max", admission.unsettled_bytes_max),
        ("admission.unsettled_messages_max", messages.saturating_mul(UNSETTLED_MESSAGE_BYTES)),
        ("messages that are unparked", UNPARKED_BYTES_MAX),
        ("spool.memory_bytes_max", config.spool.memory_bytes_max),
        ("the writer", writer_bytes(memory)),
        ("running decoders (guests.memory_bytes_max)", call_bytes(config, memory)),
    ];
    if listens {
        reserves.push(("unfinished packets of the listener", LISTENER_BUFFER_BYTES_MAX as u64));
    }
    reserves.into_iter().map(|(name, bytes)| Reserve { name, bytes }).collect()
}

/// The least memory, from `memory` on, of which three quarters hold what is set aside. Parts of that grow with
/// the whole, but by less.
fn least_memory(config: &Config, memory: u64) -> u64 {
    let mut least = memory;
    loop {
        let reserved = sum(&reserves(config, least));
        let enough = (reserved / 3 + 1).saturating_mul(4);
        if reserved <= least / 4 * 3 || enough <= least {
            return least;
        }
        least = enough;
    }
}

fn sum(reserves: &[Reserve]) -> u64 {
    reserves.iter().fold(0, |sum, reserve| sum.saturating_add(reserve.bytes))
}

fn shown(reserves: &[Reserve]) -> String {
    let all: Vec<String> =
        reserves.iter().map(|reserve| format!("{} for {}", reserve.bytes, reserve.name)).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::machine::Machine;
    use crate::config::sections::Config;

    fn plan(text: &str, memory: u64, disk: u64) -> BudgetPlan {
        let machine = Machine { memory_bytes: memory, free_disk_bytes: disk };
        BudgetPlan::new(&toml::from_str(text).unwrap(), &machine, 0)
    }

    fn refused(text: &str) -> String {
        check(&toml::from_str::<Config>(text).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_fit_a_machine_of_one_gibibyte_and_one_of_64() {
        for listen in ["", "[listen]\naddress = \"0.0.0.0:1883\"\n"] {
            for threads in [1, 4, 256] {
                let text = format!("{listen}[guests]\nthreads = {threads}\n");
                for (memory, disk) in [(1u64 << 30, 8u64 << 30), (64 << 30, 1 << 40)] {
                    let plan = plan(&text, memory, disk);
                    assert_eq!(plan.notes, [""; 0], "{text} on {memory}");
                    let reserved: u64 = plan.reserves.iter().map(|reserve| reserve.bytes).sum();
                    assert_eq!(reserved + plan.limits.memory_bytes_max, plan.memory_bytes_max);
                    assert!(plan.memory_bytes_max < memory && plan.limits.disk_bytes_max < disk);
                    // Room for the state of the largest tenant, and for instances of its decoder beside it.
                    assert!(plan.limits.tenant_memory_bytes_max >= 96 << 20, "{plan:?}");
                }
            }
        }
        let small = plan("", 64 << 20, 1 << 40);
        assert!(small.notes[0].contains("admission.unsettled_bytes_max"), "{:?}", small.notes);
        assert_eq!(small.limits.memory_bytes_max, 12 << 20);
        assert!(plan("", 1 << 30, 1 << 20).notes[0].contains("quarantine.bytes_max"));
    }

    #[test]
    fn limits_that_do_not_fit_are_refused_with_both_keys() {
        for (text, words) in [
            (
                "[budget]\nmemory_bytes_max = 300000000\n[spool]\nmemory_bytes_max = 268435456\n",
                ["`budget.memory_bytes_max`: 300000000", "spool.memory_bytes_max", "at least"],
            ),
            (
                "[budget]\nmemory_bytes_max = 600000000\n[admission]\nunsettled_bytes_max = 536870912\n",
                [
                    "`budget.memory_bytes_max`: 600000000",
                    "536870912 for admission.unsettled_bytes_max",
                    "quarter",
                ],
            ),
            (
                "[budget]\ndisk_bytes_max = 1000000000\n",
                [
                    "`budget.disk_bytes_max`: 1000000000",
                    "spool.bytes_max = 1073741824",
                    "quarantine.bytes_max",
                ],
            ),
            (
                "[budget]\ntenant_disk_bytes_max = 1048576\n",
                ["`budget.tenant_disk_bytes_max`: 1048576", "spool.tenant_bytes_max = 268435456", "at least"],
            ),
            (
                "[budget]\nmemory_bytes_max = 1073741824\ntenant_memory_bytes_max = 2147483648\n",
                [
                    "`budget.tenant_memory_bytes_max`: 2147483648",
                    "budget.memory_bytes_max = 1073741824",
                    "at most",
                ],
            ),
            (
                "[budget]\ntenant_memory_bytes_max = 5\n",
                ["`budget.tenant_memory_bytes_max`: 5", "0, or 1048576", "to"],
            ),
        ] {
            let error = refused(text);
            for word in words {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
        check(&toml::from_str("[budget]\nmemory_bytes_max = 1073741824\n").unwrap()).unwrap();
    }

    #[test]
    fn the_least_that_is_named_is_enough() {
        let error = refused("[guests]\nthreads = 2\n[budget]\nmemory_bytes_max = 100000000\n");
        let least: u64 = error.split("at least ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
        let text = format!("[guests]\nthreads = 2\n[budget]\nmemory_bytes_max = {least}\n");
        check(&toml::from_str(&text).unwrap()).unwrap();
        // And no much smaller one is.
        let smaller = format!("[guests]\nthreads = 2\n[budget]\nmemory_bytes_max = {}\n", least - (1 << 20));
        assert!(refused(&smaller).contains("at least"));
    }
}
