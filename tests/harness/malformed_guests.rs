//! Decoders written by hand, each with a fault that no toolchain would write.
//!
//! The fault appears for a long payload (more than 200 bytes). A short one makes no line, which is no
//! fault: so a test can see that a fault costs its own message alone.

use wasm_encoder::{
    Component, ComponentExportKind, ComponentInstanceSection, ComponentSection, InstanceSection,
    MemorySection, MemoryType, Module, ModuleArg, ModuleSection, NestedComponentSection,
};

/// The fault for a long payload, and the reason that the message must be refused for.
#[derive(Debug)]
pub struct Misdeed {
    pub name: &'static str,
    /// Code in `cabi_realloc`, for the payloads: local 0 is the size, the result is the address.
    realloc: &'static str,
    /// Code in `decode`: the result is the address of the answer. A good answer is at 32.
    decode: &'static str,
    /// Code after `decode`.
    post_return: &'static str,
    pub reason: &'static str,
    pub detail: &'static str,
}

const NONE: Misdeed = Misdeed {
    name: "",
    realloc: "(call $allocate (local.get $align) (local.get $size))",
    decode: "(i32.const 32)",
    post_return: "",
    reason: "",
    detail: "",
};

/// The lines of the answer: address and bytes.
macro_rules! lines {
    ($at:literal, $bytes:literal) => {
        concat!(
            "(i32.store (i32.const 32) (i32.const ",
            $at,
            "))",
            "(i32.store (i32.const 36) (i32.const ",
            $bytes,
            ")) (i32.const 32)"
        )
    };
}

/// The outcomes of the answer: address and number.
macro_rules! outcomes {
    ($at:literal, $count:literal) => {
        concat!(
            "(i32.store (i32.const 40) (i32.const ",
            $at,
            "))",
            "(i32.store (i32.const 44) (i32.const ",
            $count,
            ")) (i32.const 32)"
        )
    };
}

/// One outcome, a refusal: code and detail as address and length.
macro_rules! refusal {
    ($code:literal, $code_bytes:literal, $detail:literal, $detail_bytes:literal) => {
        concat!(
            "(i32.store8 (i32.const 70000) (i32.const 1))",
            "(i32.store (i32.const 70004) (i32.const ",
            $code,
            "))",
            "(i32.store (i32.const 70008) (i32.const ",
            $code_bytes,
            "))",
            "(i32.store (i32.const 70012) (i32.const ",
            $detail,
            "))",
            "(i32.store (i32.const 70016) (i32.const ",
            $detail_bytes,
            "))",
            outcomes!("70000", "1")
        )
    };
}

pub const MISDEEDS: [Misdeed; 24] = [
    Misdeed {
        name: "realloc-loops",
        realloc: "(loop $l (br $l)) (unreachable)",
        reason: "GUEST_DEADLINE",
        detail: "CPU time",
        ..NONE
    },
    Misdeed {
        name: "realloc-traps",
        realloc: "(unreachable)",
        reason: "GUEST_TRAP",
        detail: "unreachable",
        ..NONE
    },
    Misdeed {
        name: "realloc-outside",
        realloc: "(i32.const -16)",
        reason: "GUEST_OUTPUT",
        detail: "realloc",
        ..NONE
    },
    Misdeed {
        // Of the list of messages, which must lie at a multiple of eight.
        name: "realloc-misaligned",
        realloc: "(global.set $crooked (i32.const 1)) (call $allocate (local.get $align) (local.get $size))",
        reason: "GUEST_OUTPUT",
        detail: "aligned",
        ..NONE
    },
    Misdeed {
        name: "realloc-grows",
        realloc: "(loop $l (drop (memory.grow (i32.const 16))) (br $l)) (unreachable)",
        reason: "GUEST_MEMORY",
        detail: "bytes of memory",
        ..NONE
    },
    Misdeed {
        name: "loops",
        decode: "(loop $l (br $l)) (unreachable)",
        reason: "GUEST_DEADLINE",
        detail: "CPU time",
        ..NONE
    },
    Misdeed {
        name: "recurses",
        decode: "(call $recurse) (unreachable)",
        reason: "GUEST_TRAP",
        detail: "stack",
        ..NONE
    },
    Misdeed {
        name: "memory-grows",
        decode: "(loop $l (drop (memory.grow (i32.const 1))) (br $l)) (unreachable)",
        reason: "GUEST_MEMORY",
        detail: "bytes of memory",
        ..NONE
    },
    Misdeed {
        name: "memory-grows-at-once",
        decode: "(drop (memory.grow (i32.const 65535))) (i32.const 32)",
        reason: "GUEST_MEMORY",
        detail: "bytes of memory",
        ..NONE
    },
    Misdeed {
        name: "table-grows",
        decode: "(loop $l (drop (table.grow $table (ref.null func) (i32.const 100))) (br $l)) (unreachable)",
        reason: "GUEST_MEMORY",
        detail: "table elements",
        ..NONE
    },
    Misdeed { name: "answer-outside", decode: "(i32.const -16)", reason: "GUEST_OUTPUT", detail: "", ..NONE },
    Misdeed {
        name: "answer-misaligned",
        decode: "(i32.const 33)",
        reason: "GUEST_OUTPUT",
        detail: "aligned",
        ..NONE
    },
    Misdeed {
        name: "a-hundred-megabytes",
        decode: lines!("0", "104857600"),
        reason: "GUEST_OUTPUT",
        detail: "",
        ..NONE
    },
    Misdeed {
        // Really there, and all of it the guest's own.
        name: "eight-megabytes",
        decode: concat!("(drop (memory.grow (i32.const 130)))", lines!("0", "8388608")),
        reason: "GUEST_OUTPUT",
        detail: "",
        ..NONE
    },
    Misdeed {
        name: "outcomes-without-end",
        decode: outcomes!("65536", "214748364"),
        reason: "GUEST_OUTPUT",
        detail: "",
        ..NONE
    },
    Misdeed {
        name: "outcomes-a-million",
        decode: concat!("(drop (memory.grow (i32.const 200)))", outcomes!("65536", "600000")),
        reason: "GUEST_OUTPUT",
        detail: "",
        ..NONE
    },
    Misdeed {
        name: "outcome-unknown",
        decode: concat!("(i32.store8 (i32.const 70000) (i32.const 7))", outcomes!("70000", "1")),
        reason: "GUEST_OUTPUT",
        detail: "",
        ..NONE
    },
    Misdeed {
        name: "refusal-not-utf8",
        decode: concat!(
            "(i32.store8 (i32.const 80000) (i32.const 255))",
            refusal!("80000", "1", "80000", "0")
        ),
        reason: "GUEST_OUTPUT",
        detail: "utf-8",
        ..NONE
    },
    Misdeed {
        name: "refusal-of-megabytes",
        decode: concat!("(drop (memory.grow (i32.const 130)))", refusal!("0", "0", "0", "8388608")),
        reason: "GUEST_OUTPUT",
        detail: "",
        ..NONE
    },
    Misdeed {
        name: "asks-outside",
        decode: "(call $device (i32.const 1000) (i32.const 48)) (i32.const 32)",
        reason: "GUEST_TRAP",
        detail: "message 1000 of a batch of 1",
        ..NONE
    },
    Misdeed {
        name: "asks-without-end",
        decode: "(loop $l (global.set $next (i32.const 100000)) (call $device (i32.const 0) (i32.const 48)) (br $l)) (unreachable)",
        reason: "GUEST_TRAP",
        detail: "more than 4000 times",
        ..NONE
    },
    Misdeed {
        name: "logs-megabytes",
        decode: "(drop (memory.grow (i32.const 130))) (call $log (i32.const 3) (i32.const 0) (i32.const 8388608)) (i32.const 32)",
        reason: "GUEST_OUTPUT",
        detail: "",
        ..NONE
    },
    Misdeed {
        name: "logs-at-no-level",
        decode: "(call $log (i32.const 9) (i32.const 0) (i32.const 8)) (i32.const 32)",
        reason: "GUEST_OUTPUT",
        detail: "",
        ..NONE
    },
    Misdeed {
        name: "traps-afterwards",
        post_return: "(unreachable)",
        reason: "GUEST_TRAP",
        detail: "unreachable",
        ..NONE
    },
];

fn module(misdeed: &Misdeed) -> String {
    let Misdeed { realloc, decode, post_return, .. } = misdeed;
    format!(
        r#"(module
          (import "tidegate:ingest/context@0.1.0" "device" (func $device (param i32 i32)))
          (import "tidegate:ingest/log@0.1.0" "write" (func $log (param i32 i32 i32)))
          (memory (export "memory") 3)
          (table $table 1 funcref)
          (global $next (mut i32) (i32.const 100000))
          (global $long (mut i32) (i32.const 0))
          (global $crooked (mut i32) (i32.const 0))
          (func $recurse (call $recurse) (call $recurse))
          (func $allocate (param $align i32) (param $size i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
            (global.set $next (i32.add (local.get $at) (local.get $size)))
            (local.get $at))
          (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
            (if (i32.and (i32.eq (local.get $align) (i32.const 1)) (i32.gt_u (local.get $size) (i32.const 200)))
              (then (return {realloc})))
            (if (i32.and (global.get $crooked) (i32.eq (local.get $align) (i32.const 8)))
              (then (return (i32.const 100001))))
            (call $allocate (local.get $align) (local.get $size)))
          (func (export "configure") (param i32 i32 i32 i32 i32 i32) (result i32)
            (i32.store8 (i32.const 16) (i32.const 0))
            (i32.const 16))
          (func (export "decode") (param $payloads i32) (param $bytes i32) (param $messages i32) (param $count i32) (result i32)
            (global.set $next (i32.const 100000))
            ;; No lines, and of each message an outcome of zeros: lines that end at 0.
            (i32.store (i32.const 32) (i32.const 0))
            (i32.store (i32.const 36) (i32.const 0))
            (i32.store (i32.const 40) (i32.const 65536))
            (i32.store (i32.const 44) (local.get $count))
            (global.set $long (i32.gt_u (local.get $bytes) (i32.const 200)))
            (if (global.get $long) (then (return {decode})))
            (i32.const 32))
          (func (export "cabi_post_decode") (param i32)
            (if (global.get $long) (then {post_return}))))"#
    )
}

/// A component with a fault in it.
pub fn decoder(misdeed: &Misdeed) -> Vec<u8> {
    component(&wat::parse_str(module(misdeed)).unwrap_or_else(|error| panic!("{}: {error}", misdeed.name)))
}

fn component(module: &[u8]) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let wit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/tidegate-ingest-0.1.0");
    let (package, _) = resolve.push_path(wit).unwrap();
    let world = resolve.select_world(&[package], Some("decoder")).unwrap();
    let mut bytes = module.to_vec();
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, wit_component::StringEncoding::UTF8)
        .unwrap();
    wit_component::ComponentEncoder::default().module(&bytes).unwrap().encode().unwrap()
}

/// A good decoder without imports, and so with one module.
const PLAIN: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "configure") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 16))
  (func (export "decode") (param i32 i32 i32 i32) (result i32) (i32.const 32)))"#;

/// Good decoders that have more of something than is allowed: each with its name and the word for it.
pub fn crowds() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let plain = component(&wat::parse_str(PLAIN).unwrap());
    let with = |sections: &[&dyn ComponentSection]| {
        let mut bytes = plain.clone();
        for section in sections {
            section.append_to_component(&mut bytes);
        }
        bytes
    };
    let empty = Module::new();
    let memory = {
        let mut memories = MemorySection::new();
        let (minimum, maximum, page_size_log2) = (200, None, None);
        memories.memory(MemoryType { minimum, maximum, memory64: false, shared: false, page_size_log2 });
        let mut module = Module::new();
        module.section(&memories);
        module
    };
    let instances = |of: u32, count: usize| {
        let mut section = InstanceSection::new();
        for _ in 0..count {
            section.instantiate(of, std::iter::empty::<(&str, ModuleArg)>());
        }
        section
    };
    let nested = {
        // Eight deep, each with two of the one inside: 256 instances.
        let mut component = Component::new();
        component.section(&ModuleSection(&empty)).section(&instances(0, 1));
        for _ in 0..8 {
            let mut outer = Component::new();
            outer.section(&NestedComponentSection(&component)).section(&twice());
            component = outer;
        }
        component
    };
    // Refuses its route with a megabyte of words.
    let wordy = PLAIN.replace("(export \"memory\") 1", "(export \"memory\") 20").replace(
        "(i32.const 16))",
        "(i32.store (i32.const 16) (i32.const 1)) (i32.store (i32.const 24) (i32.const 1048576)) (i32.const 16))",
    );
    vec![
        ("words", component(&wat::parse_str(wordy).unwrap()), "GUEST_OUTPUT"),
        ("instances", with(&[&ModuleSection(&empty), &instances(1, 500)]), "instances"),
        ("memories", with(&[&ModuleSection(&memory), &instances(1, 3)]), "memories"),
        ("components", with(&[&NestedComponentSection(&nested), &twice()]), "instances"),
    ]
}

fn twice() -> ComponentInstanceSection {
    let mut section = ComponentInstanceSection::new();
    for _ in 0..2 {
        section.instantiate(0, std::iter::empty::<(&str, ComponentExportKind, u32)>());
    }
    section
}

/// The decoder that the crowds consist of, for comparison: it serves.
pub fn plain() -> Vec<u8> {
    component(&wat::parse_str(PLAIN).unwrap())
}
