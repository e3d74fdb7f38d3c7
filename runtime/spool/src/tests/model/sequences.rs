//! Sequences of steps that failed once.

use crate::tests::model::disk::Fault;
use crate::tests::model::rig::Rig;
use crate::tests::model::step::Step;

/// Sequences that failed once, kept for ever.
#[test]
fn what_failed_once_does_not_fail_again() {
    let batch = |tenant, messages, lines| (tenant, messages, lines);
    let cases: [Vec<Step>; 6] = [
        // The disk fills up between a release and its mark.
        vec![
            Step::Append(vec![batch(0, 2, 2), batch(0, 4, 1), batch(1, 1, 2), batch(2, 1, 3)]),
            Step::Append(vec![batch(0, 1, 1), batch(0, 1, 1), batch(0, 2, 1), batch(0, 4, 2)]),
            Step::Append(vec![batch(0, 2, 1), batch(0, 1, 1), batch(0, 1, 1), batch(0, 4, 2)]),
            Step::Append(vec![batch(1, 1, 1), batch(1, 1, 1), batch(0, 2, 2)]),
            Step::Mark,
            Step::Append(vec![batch(0, 1, 1)]),
            Step::Settle(7_449_662_386_298_886_762, 7_277_488_056_389_847_766),
            Step::Compact,
            Step::Compact,
            Step::Fail(Fault::Write(0)),
            Step::Mark,
            Step::RemoveEmpty,
            Step::RemoveEmpty,
            Step::Crash(9_337_244_966_920_535_040),
        ],
        // No new segment can be made, so marks go to the end of the old one.
        vec![
            Step::Append(vec![batch(2, 1, 1), batch(2, 1, 1), batch(2, 1, 1)]),
            Step::Append(vec![batch(2, 1, 1), batch(1, 1, 1), batch(1, 3, 1), batch(0, 1, 1)]),
            Step::Append(vec![batch(0, 1, 1), batch(0, 2, 1), batch(0, 4, 2), batch(2, 1, 1)]),
            Step::Settle(3_124_919_247_168_088_459, 0),
            Step::Append(vec![batch(2, 4, 3), batch(2, 1, 3)]),
            Step::Settle(6_656_437_076_499_015_073, 0),
            Step::Mark,
            Step::Settle(11_754_509_119_984_581_998, 516_894_212_137_151_792),
            Step::Append(vec![batch(0, 1, 1), batch(1, 1, 1), batch(1, 2, 2)]),
            Step::Crash(0),
            Step::Compact,
            Step::Append(vec![batch(1, 1, 1), batch(0, 1, 1)]),
            Step::Append(vec![batch(0, 1, 1)]),
            Step::Append(vec![batch(1, 1, 1), batch(1, 1, 1)]),
            Step::Settle(7_877_495_541_062_172_331, 0),
            Step::Compact,
            Step::Fail(Fault::Create),
            Step::RemoveEmpty,
            Step::Crash(10_433_762_581_724_979_234),
        ],
        // All marks are in segments that are done with, and no new one can be written to.
        vec![
            Step::Append(vec![batch(0, 4, 2)]),
            Step::Crash(0),
            Step::Mark,
            Step::Settle(0, 7_022_951_934_112_876_124),
            Step::Settle(0, 4_401_156_940_854_402_746),
            Step::Append(vec![batch(2, 1, 1), batch(0, 4, 1)]),
            Step::Append(vec![batch(2, 1, 3), batch(0, 4, 3)]),
            Step::Append(vec![batch(0, 1, 1)]),
            Step::Crash(0),
            Step::Fail(Fault::Write(0)),
            Step::Fail(Fault::Write(0)),
            Step::Settle(1_614_001_942_618_280_957, 0),
            Step::RemoveEmpty,
            Step::Crash(11_808_359_092_961_670_986),
        ],
        // A tenant has nothing parked any more at a restart, and something again after it.
        vec![
            Step::Append(vec![batch(1, 1, 0)]),
            Step::Crash(0),
            Step::Settle(0, 0),
            Step::RemoveEmpty,
            Step::Append(vec![batch(0, 1, 1)]),
            Step::Crash(0),
            Step::Append(vec![batch(1, 1, 0)]),
            Step::Crash(0),
        ],
        // More refusals told than the frame has lines.
        vec![
            Step::Append(vec![batch(1, 1, 1)]),
            Step::Refuse(0),
            Step::Refuse(0),
            Step::Settle(0, u64::MAX),
            Step::Crash(1),
        ],
        // A damaged segment is done with, and no mark that says so can be written.
        vec![
            Step::Append(vec![batch(0, 3, 1)]),
            Step::Mark,
            Step::Fail(Fault::Write(0)),
            Step::Append(vec![batch(2, 4, 0)]),
            Step::Fail(Fault::Write(0)),
            Step::Append(vec![batch(1, 1, 0)]),
            Step::Append(vec![batch(0, 1, 0), batch(0, 1, 1)]),
            Step::Crash(7_628_596_419_942),
            Step::TakeUp(0),
            Step::Append(vec![batch(3, 1, 1)]),
            Step::Append(vec![batch(0, 1, 0)]),
            Step::Append(vec![batch(0, 1, 0), batch(0, 1, 0)]),
            Step::Append(vec![batch(1, 1, 1), batch(2, 1, 1)]),
            Step::Append(vec![batch(3, 2, 1), batch(0, 2, 3)]),
            Step::Compact,
            Step::Append(vec![batch(0, 3, 2)]),
            Step::Mark,
            Step::DropOldest(0, 1),
            Step::Fail(Fault::Write(0)),
            Step::Fail(Fault::Write(0)),
            Step::RemoveEmpty,
            Step::Crash(0),
        ],
    ];
    for steps in cases {
        let mut rig = Rig::new();
        steps.iter().for_each(|step| rig.run(step));
        assert!(rig.index.lock().totals().all(|(_, totals, _)| totals.damaged == 0));
    }
}

/// Sequences with segments that are taken away which failed once.
#[test]
fn what_failed_once_when_segments_came_back_does_not_fail_again() {
    let cases: [Vec<Step>; 3] = [
        // The only one, which releases some of its frames; later the one of the run that had it again, while
        // all of the first is written and it is removed.
        vec![
            Step::Begin,
            Step::Append(vec![(0, 2, 3), (0, 1, 1), (1, 1, 2)]),
            Step::Settle(0, u64::MAX),
            Step::Flush,
            Step::Lose(0),
            Step::Begin,
            Step::Append(vec![(0, 1, 1), (1, 1, 1)]),
            Step::SettleAll,
            Step::Flush,
            Step::Return,
            Step::Begin,
            Step::Append(vec![(0, 1, 2)]),
            Step::Flush,
            Step::Lose(1),
            Step::Begin,
            Step::SettleAll,
            Step::Flush,
            Step::Begin,
            Step::Flush,
            Step::Return,
        ],
        // Two runs write the same lines, each without the segment of the other; two more learn of it, each without
        // the segment of the other again.
        vec![
            Step::Append(vec![(0, 1, 0), (0, 1, 1)]),
            Step::Kill,
            Step::SettleAll,
            Step::Append(vec![(0, 1, 0)]),
            Step::Flush,
            Step::Lose(1),
            Step::Begin,
            Step::SettleAll,
            Step::Append(vec![(0, 1, 2), (0, 1, 0)]),
            Step::Flush,
            Step::Return,
            Step::Append(vec![(0, 1, 1)]),
            Step::Flush,
            Step::Lose(3),
            Step::Append(vec![(0, 1, 1)]),
            Step::Return,
        ],
        // An older one, and then the newest, which says that it counts as damaged.
        vec![
            Step::Append(vec![(4, 1, 1)]),
            Step::ReturnOne(0),
            Step::Append(vec![(0, 1, 0)]),
            Step::Lose(0),
            Step::Append(vec![(0, 1, 0)]),
            Step::Lose(1),
            Step::Compact,
        ],
    ];
    for steps in cases {
        let mut rig = Rig::new();
        steps.iter().for_each(|step| rig.run(step));
        rig.run(&Step::Return);
    }
}
