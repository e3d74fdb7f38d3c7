//! The steps that a spool goes through, in any order.

use proptest::prelude::*;

use crate::tests::model::disk::Fault;

#[derive(Clone, Debug)]
pub enum Step {
    /// Batches: tenant, messages, lines a message; without lines the messages are parked, without
    /// messages there are changes of the state alone.
    Append(Vec<(u8, u8, u8)>),
    /// Takes up what is parked, and lets go of some of it again.
    TakeUp(u64),
    Checkpoint,
    /// Settles messages of an open frame; the numbers choose which.
    Settle(usize, u64),
    Refuse(usize),
    DropOldest(u8, u16),
    Mark,
    RemoveEmpty,
    Compact,
    Fail(Fault),
    Crash(u64),
    /// The process ends and starts again; what it wrote is in the system's memory still.
    Kill,
    /// All marks are written, and the system has written out what it had in memory.
    Flush,
    /// A start makes its first segment, and removes those that hold nothing.
    Begin,
    /// Time passes, in seconds.
    Wait(u8),
    /// All that is open is settled.
    SettleAll,
    /// The writer fetches lines of a tenant's database; the number chooses which frames it writes, and which
    /// it gives back.
    Fetch(u8, u64),
    /// A segment is taken away while the gateway does not run.
    Lose(usize),
    /// One that was taken away is there again.
    ReturnOne(usize),
    /// All that were taken away are there again.
    Return,
}

pub fn step() -> impl Strategy<Value = Step> {
    let batch = prop_oneof![5 => (0u8..3, 1u8..5, 0u8..4), 2 => (3u8..5, 0u8..5, 1u8..4)];
    prop_oneof![
        6 => proptest::collection::vec(batch, 1..5).prop_map(Step::Append),
        6 => (any::<usize>(), any::<u64>()).prop_map(|(frame, messages)| Step::Settle(frame, messages)),
        2 => any::<u64>().prop_map(Step::TakeUp),
        1 => any::<usize>().prop_map(Step::Refuse),
        1 => (0u8..5, 1u16..2000).prop_map(|(tenant, bytes)| Step::DropOldest(tenant, bytes)),
        2 => Just(Step::Mark),
        2 => Just(Step::RemoveEmpty),
        2 => Just(Step::Compact),
        1 => (0usize..300).prop_map(|bytes| Step::Fail(Fault::Write(bytes))),
        1 => Just(Step::Fail(Fault::Sync)),
        1 => Just(Step::Fail(Fault::Create)),
        1 => Just(Step::Fail(Fault::State)),
        2 => Just(Step::Checkpoint),
        2 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Kill),
        1 => any::<u8>().prop_map(Step::Wait),
        3 => (0u8..5, any::<u64>()).prop_map(|(tenant, written)| Step::Fetch(tenant, written)),
    ]
}

/// Steps on a disk that is full at most for a new segment, and of which segments are taken away and put back.
pub fn step_of_a_careless_hand() -> impl Strategy<Value = Step> {
    let careless = prop_oneof![
        3 => any::<usize>().prop_map(Step::Lose),
        2 => any::<usize>().prop_map(Step::ReturnOne),
        1 => Just(Step::Return),
        3 => Just(Step::Begin),
        2 => Just(Step::Flush),
        1 => Just(Step::SettleAll),
    ];
    let calm = step().prop_map(|step| match step {
        Step::Fail(Fault::Create) => Step::Fail(Fault::Create),
        Step::Fail(_) => Step::Mark,
        step => step,
    });
    prop_oneof![1 => careless, 4 => calm]
}
