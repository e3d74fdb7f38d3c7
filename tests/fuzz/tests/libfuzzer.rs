//! libFuzzer over one target, which `TIDEGATE_FUZZ_TARGET` names; the arguments are libFuzzer's.

#![no_main]

use std::sync::OnceLock;

use tidegate_fuzz::target::{Target, named};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("TIDEGATE_FUZZ_TARGET").expect("TIDEGATE_FUZZ_TARGET names the target");
        TARGET.get_or_init(|| named(&name).expect("TIDEGATE_FUZZ_TARGET names a target"));
    },
    |input: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(input);
        }
    }
);
