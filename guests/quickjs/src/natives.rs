//! The functions that scripts reach beside the language: the clock, random numbers and the log. They depend on the
//! message alone.

use std::cell::Cell;
use std::ffi::{CStr, c_int};

use rquickjs_sys as qjs;
use tidegate_guest::log;

use crate::engine::Engine;
use crate::fault::Fault;
use crate::modules::ScriptFiles;
use crate::value::Value;

thread_local! {
    static NOW_US: Cell<f64> = const { Cell::new(0.0) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// Sets the clock to the time of a message, and the random numbers to those that it has.
pub fn begin(received_ns: i64, payload: &[u8]) {
    NOW_US.set(received_ns.div_euclid(1_000) as f64);
    // FNV-1a: anything that differs from message to message.
    let mut seed = received_ns as u64 ^ 0xcbf2_9ce4_8422_2325;
    for &byte in payload {
        seed = (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    RANDOM.set(seed);
}

/// The clock of the engine, in microseconds since the epoch. Without this definition the component would import it.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
extern "C" fn __rquickjs_host_now_us() -> f64 {
    NOW_US.get()
}

/// The next random number from 0 to 1 (SplitMix64).
fn next_random() -> f64 {
    let state = RANDOM.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set(state);
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ mixed >> 31) >> 11) as f64 / (1_u64 << 53) as f64
}

unsafe extern "C" fn random(
    _: *mut qjs::JSContext,
    _: qjs::JSValue,
    _: c_int,
    _: *mut qjs::JSValue,
) -> qjs::JSValue {
    qjs::JS_NewFloat64(next_random())
}

/// Writes a text to the log of the gateway: `write(level, text)`.
unsafe extern "C" fn write(
    context: *mut qjs::JSContext,
    _: qjs::JSValue,
    count: c_int,
    arguments: *mut qjs::JSValue,
) -> qjs::JSValue {
    if count < 2 {
        return qjs::JS_UNDEFINED;
    }
    // SAFETY: there are two arguments, which are alive for the call.
    unsafe {
        let level = qjs::JS_VALUE_GET_INT(*arguments);
        let mut length: qjs::size_t = 0;
        let text = qjs::JS_ToCStringLen2(context, &raw mut length, *arguments.add(1), false);
        if text.is_null() {
            return qjs::JS_EXCEPTION;
        }
        let bytes = std::slice::from_raw_parts(text.cast::<u8>(), length as usize);
        write_to_log(level, &String::from_utf8_lossy(bytes));
        qjs::JS_FreeCString(context, text);
    }
    qjs::JS_UNDEFINED
}

fn write_to_log(level: i32, text: &str) {
    #[cfg(test)]
    LOGGED.with_borrow_mut(|logged| logged.push(format!("{level} {text}")));
    match level {
        0 => log::debug(text),
        1 => log::info(text),
        2 => log::warn(text),
        _ => log::error(text),
    }
}

#[cfg(test)]
thread_local! {
    pub static LOGGED: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The name of our own scripts in the engine.
const OURS: &CStr = c"tidegate";

/// Gives an engine `console`, the random numbers of messages and, where the script names them, what network servers
/// offer beside the language.
///
/// # Errors
/// There is no memory.
pub fn install(engine: &Engine, script: &ScriptFiles) -> Result<(), Fault> {
    let function = |function: qjs::JSCFunction, name: &CStr| {
        let generic = qjs::JSCFunctionEnum_JS_CFUNC_generic;
        // SAFETY: the functions are as the engine calls them.
        engine
            .checked(unsafe { qjs::JS_NewCFunction2(engine.context, function, name.as_ptr(), 0, generic, 0) })
    };
    let setup = engine.run(include_str!("console.js"), OURS)?.hold();
    let arguments = [function(Some(write), c"write")?, function(Some(random), c"random")?];
    engine.call(setup, &arguments)?;
    // Most scripts do without, and each instance would be larger.
    for (names, source) in [
        (&["atob", "btoa"][..], include_str!("base64.js")),
        (&["Buffer"], include_str!("buffer.js")),
        (&["exports"], "var module = { exports: {} }; var exports = module.exports;"),
    ] {
        if names.iter().any(|name| script.contain(name)) {
            engine.run(source, OURS)?;
        }
    }
    Ok(())
}

impl<'e> Value<'e> {
    /// The value of a property that is asked for seldom.
    ///
    /// # Errors
    /// A getter throws.
    pub fn property(&self, name: &str) -> Result<Value<'e>, Fault> {
        self.get(self.engine().name(name))
    }
}
