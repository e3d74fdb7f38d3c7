//! Ceilings of a rollout, each with the reason for its number.

use std::time::Duration;

/// CPU time of compiling one component, in seconds: a decoder of 150 kB takes a tenth of one, a
/// megabyte of functions three.
pub const COMPILE_CPU_S: u64 = 10;

/// Address space of the compiler beyond what the program has when it starts: a megabyte of functions
/// took 445 MiB.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 1 << 30;

/// Bytes of machine code of one component: about five times the largest component.
pub const COMPILE_OUTPUT_BYTES_MAX: u64 = 64 << 20;

/// The nice value of compiling: messages come first. At 10 it still gets a twentieth of a core that two
/// threads of messages keep busy; at 19 it got a hundredth, and a decoder of 150 kB was over its time.
pub const COMPILE_NICE: i32 = 10;

/// Seconds by the clock for compiling one component: twelve times its CPU time, for it runs at a low
/// priority, and whoever put it there waits.
pub const COMPILE_WALL_S: u64 = 120;

/// Bytes of compiled guests kept on disk: a thousand decoders of a megabyte each.
pub const COMPILE_CACHE_BYTES_MAX: u64 = 1 << 30;

/// Bytes of machine code of one component of the class large: a JavaScript engine of 12 MB makes 40.
pub const LARGE_COMPILE_OUTPUT_BYTES_MAX: u64 = 256 << 20;

/// Components of the class large that wait to be evaluated: each may have tens of megabytes.
pub const LARGE_PUTS_WAITING_MAX: usize = 4;

/// Seconds between two looks at the bytes of all decoders on disk: a thousand tenants are 10 ms of work.
pub const DISK_USE_INTERVAL_S: u64 = 10;

/// Bytes of the name of a version: a SHA-256, and twelve digits for each of two texts.
pub const VERSION_NAME_BYTES_MAX: usize = 64 + 2 * 13;

/// Versions a route that are remembered, with copies to go back to.
pub const GUEST_VERSIONS_KEPT: usize = 5;

/// Copies of built-in decoders of earlier programs that no route uses: those of some three versions of the program.
pub const BUILT_IN_COPIES_MAX: usize = 32;

/// Messages and seconds for which a new version is watched: a day's worth of a slow fleet would be
/// too long to keep the old one at hand, a few messages too little to judge by.
pub const PROBATION_MESSAGES: u64 = 1_000;

pub const PROBATION_S: u64 = 300;

/// The most of both that a route may ask for.
pub const PROBATION_MESSAGES_MAX: u64 = 1_000_000;

pub const PROBATION_S_MAX: u64 = 86_400;

/// Failures in a hundred messages that a new version may have where the one before has none: a
/// stricter decoder refuses some, a wrong one most.
pub const FAILURES_PERCENT_MAX: u64 = 5;

/// Seconds that trying out a version on recent messages or on its cases may take.
pub const TRIAL_S_MAX: u64 = 20;

/// Bytes of a file of cases, and cases in it.
pub const CASES_BYTES_MAX: u64 = 4 << 20;

/// Bytes of a route's TOML file.
pub const ROUTE_FILE_BYTES_MAX: u64 = 64 << 10;

/// Components that wait to be evaluated, in all and of one tenant or the operator: one that is slow to be judged
/// keeps no other tenant's out.
pub const GUEST_PUTS_WAITING_MAX: usize = 128;

pub const GUEST_PUTS_WAITING_A_TENANT_MAX: usize = 4;

/// Bytes of tenants' components that wait, unless they are small: a dozen of the largest.
pub const GUEST_PUT_BYTES_WAITING_MAX: u64 = 128 << 20;

/// Bytes of a component that is small: it is compiled in less than three seconds, beside a large one of another
/// tenant.
pub const SMALL_COMPONENT_BYTES_MAX: u64 = 1 << 20;

/// The pause of a tenant after a component that a limit of the compiler ended: as long as that took. The next
/// is twice as long, up to an hour.
pub const PENALTY_FIRST: Duration = Duration::from_secs(10);

pub const PENALTY_MAX: Duration = Duration::from_secs(3_600);

/// The time after which such a component is forgotten.
pub const PENALTY_FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// Histories of a tenant's decoders that are gone: a decoder that was removed by mistake comes back with it.
pub const GONE_HISTORIES_KEPT: usize = 16;

/// Lines of a message that show how two versions differ, and characters of each: enough to see it.
pub const DIFFERENCE_LINES_MAX: usize = 4;

pub const DIFFERENCE_LINE_CHARACTERS_MAX: usize = 256;

/// Messages that a verdict shows with their differences, lines that go and lines that come of each, and bytes of all: as
/// many as a person reads, in an answer that nobody waits for.
pub const DIFFERENCES_SHOWN_MAX: usize = 20;

pub const DIFFERENCE_CHANGES_MAX: usize = 8;

pub const DIFFERENCES_BYTES_MAX: usize = 64 << 10;

/// Real time in which a decoder of the program itself must compile, in seconds: only a busy machine makes it slow.
pub const BUILT_IN_COMPILE_WALL_S: u64 = 300;

/// Bytes of a script beside a route file: as many as its decoder may be told to take.
pub const SCRIPT_BYTES_MAX: u64 = 512 << 10;

/// Files of a script in a folder: the largest public driver has some forty.
pub const SCRIPT_FILES_MAX: usize = 256;

/// Files and folders in a script's folder that are looked at for changes, and levels of folders.
pub const SCRIPT_FOLDER_ENTRIES_MAX: usize = 1_024;

pub const SCRIPT_FOLDER_DEPTH_MAX: usize = 8;
