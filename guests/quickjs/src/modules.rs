//! The files of a script, where it has several: `require` of CommonJS, and `import` of ECMAScript. They find files of
//! the script alone, which the gateway has read: there is no way out of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use rquickjs_sys as qjs;
use tidegate_guest::json::{self, Reader};

use crate::engine::Engine;
use crate::fault::{Fault, SCRIPT};

/// The files of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptFiles {
    /// The path of the file that has the functions of the codec.
    entry: String,
    /// By path, with slashes.
    files: BTreeMap<String, String>,
}

thread_local! {
    /// The files of the script that runs here.
    static FILES: RefCell<ScriptFiles> = RefCell::default();
}

impl ScriptFiles {
    /// Reads the option `script`: a script, or `{"entry": PATH, "files": {PATH: TEXT}}`, which is no script.
    ///
    /// # Errors
    /// The entry is none of the files.
    pub fn read(script: &str) -> Result<Self, String> {
        if !script.trim_start().starts_with('{') {
            return Ok(Self::one(script));
        }
        match Self::parse(script) {
            Ok(Some(files)) if files.files.contains_key(&files.entry) => Ok(files),
            Ok(Some(files)) => Err(format!("the entry {:?} is none of the script's files", files.entry)),
            Ok(None) | Err(_) => Ok(Self::one(script)),
        }
    }

    /// A script in one file.
    fn one(script: &str) -> Self {
        let entry = SCRIPT.to_string_lossy().into_owned();
        Self { files: [(entry.clone(), script.to_owned())].into(), entry }
    }

    fn parse(text: &str) -> Result<Option<Self>, json::Error> {
        let (mut entry, mut files) = (None, None);
        let mut reader = Reader::new(text.as_bytes());
        reader.object()?;
        while let Some(key) = reader.next_key()? {
            if key.is("entry") {
                entry = Some(reader.string()?.decode().into_owned());
            } else if key.is("files") {
                let mut all = BTreeMap::new();
                reader.object()?;
                while let Some(path) = reader.next_key()? {
                    let path = path.decode().into_owned();
                    all.insert(path, reader.string()?.decode().into_owned());
                }
                files = Some(all);
            } else {
                reader.skip_value()?;
            }
        }
        reader.end()?;
        Ok(entry.zip(files).map(|(entry, files)| Self { entry, files }))
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> usize {
        self.files.values().map(String::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.files.get(&self.entry).is_none_or(|text| text.trim().is_empty())
    }

    /// True if a file has a text in it.
    pub fn contain(&self, text: &str) -> bool {
        self.files.values().any(|file| file.contains(text))
    }

    /// Runs the entry.
    ///
    /// # Errors
    /// It throws.
    pub fn run(&self, engine: &Engine) -> Result<(), Fault> {
        FILES.set(self.clone());
        if self.files.len() > 1 {
            let function = native(engine)?;
            let setup = engine.run(include_str!("require.js"), OURS)?.hold();
            let require_from = engine.call(setup, &[function])?;
            engine.set_global("requireFrom", require_from)?;
            let prepare = "var module = { exports: {} }, exports = module.exports;";
            drop(engine.run(prepare, OURS)?);
            let from = js_text(&self.entry);
            drop(
                engine.run(
                    &format!("var require = requireFrom({from}); delete globalThis.requireFrom;"),
                    OURS,
                )?,
            );
        }
        let text = &self.files[&self.entry];
        let name = CString::new(self.entry.clone()).unwrap_or_else(|_| SCRIPT.to_owned());
        match engine.run(text, &name) {
            Ok(value) => {
                drop(value);
                engine.run_jobs()
            }
            // Nothing of it has run.
            Err(fault) if fault.message.starts_with("SyntaxError") && is_module(text) => self.import(engine),
            Err(fault) => Err(fault),
        }
    }

    /// Runs the entry as a module. Its exports are then in `driver`.
    fn import(&self, engine: &Engine) -> Result<(), Fault> {
        engine.set_module_loader(load);
        let path = js_text(&format!("./{}", self.entry));
        engine.run_module(&format!("import * as driver from {path}; globalThis.driver = driver;"), OURS)
    }
}

/// The name of our own scripts in the engine.
const OURS: &CStr = c"tidegate";

/// A text as JavaScript writes it.
fn js_text(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            character if character < ' ' => out.push_str(&format!("\\u{:04x}", character as u32)),
            character => out.push(character),
        }
    }
    out.push('"');
    out
}

/// True if a line of a text begins as only a module's does.
fn is_module(text: &str) -> bool {
    text.lines().map(str::trim_start).any(|line| {
        ["import", "export"].iter().any(|word| {
            line.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', '{', '*', '"', '\'']))
        })
    })
}

fn native(engine: &Engine) -> Result<crate::value::Value<'_>, Fault> {
    let generic = qjs::JSCFunctionEnum_JS_CFUNC_generic;
    // SAFETY: the function is as the engine calls it.
    engine.checked(unsafe {
        qjs::JS_NewCFunction2(engine.context, Some(file), c"file".as_ptr(), 2, generic, 0)
    })
}

/// `file(what, path)`: 0: true if there is such a file, 1: its text, 2: its function.
unsafe extern "C" fn file(
    context: *mut qjs::JSContext,
    _: qjs::JSValue,
    count: c_int,
    arguments: *mut qjs::JSValue,
) -> qjs::JSValue {
    if count < 2 {
        return qjs::JS_UNDEFINED;
    }
    // SAFETY: there are two arguments, which are alive for the call.
    let (what, path) = unsafe {
        let mut length: qjs::size_t = 0;
        let text = qjs::JS_ToCStringLen2(context, &raw mut length, *arguments.add(1), false);
        if text.is_null() {
            return qjs::JS_EXCEPTION;
        }
        let bytes = std::slice::from_raw_parts(text.cast::<u8>(), length as usize);
        let path = String::from_utf8_lossy(bytes).into_owned();
        qjs::JS_FreeCString(context, text);
        (qjs::JS_VALUE_GET_INT(*arguments), path)
    };
    let text = FILES.with_borrow(|all| match what {
        0 => all.files.get(&path).map(|_| String::new()),
        _ => all.files.get(&path).cloned(),
    });
    match (what, text) {
        (0, text) => {
            if text.is_some() {
                qjs::JS_TRUE
            } else {
                qjs::JS_FALSE
            }
        }
        (_, None) => qjs::JS_UNDEFINED,
        // SAFETY: the bytes are there, as many as said.
        (1, Some(text)) => unsafe {
            qjs::JS_NewStringLen(context, text.as_ptr().cast(), text.len() as qjs::size_t)
        },
        (_, Some(text)) => {
            // In one line before the text, so that lines are counted as its author counts them.
            let function =
                format!("(function (exports, require, module, __filename, __dirname) {{{text}\n}})");
            // SAFETY: the context is alive.
            unsafe { evaluate(context, &function, &path, qjs::JS_EVAL_TYPE_GLOBAL as c_int) }
        }
    }
}

/// Evaluates a text under the name of its file.
unsafe fn evaluate(context: *mut qjs::JSContext, text: &str, path: &str, flags: c_int) -> qjs::JSValue {
    let name = CString::new(path).unwrap_or_else(|_| SCRIPT.to_owned());
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: a zero follows the text; the context is the caller's.
    unsafe {
        qjs::JS_Eval(context, text.as_ptr(), text.as_bytes().len() as qjs::size_t, name.as_ptr(), flags)
    }
}

/// The module of a name, which the engine has made of the path in an `import` and that of the file around it.
unsafe extern "C" fn load(
    context: *mut qjs::JSContext,
    name: *const c_char,
    _: *mut c_void,
) -> *mut qjs::JSModuleDef {
    // SAFETY: the engine gives a text that ends in a zero.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    let found = FILES.with_borrow(|all| {
        let ends = ["", ".js", ".mjs", "/index.js"];
        let mut paths = ends.iter().map(|end| format!("{}{end}", name.trim_start_matches("./")));
        paths.find_map(|path| all.files.get(&path).map(|text| (path, text.clone())))
    });
    let Some((path, text)) = found else {
        let what = format!("import of {name:?}: the script's folder has no such file");
        // SAFETY: the bytes are there, as many as said; the engine takes the text.
        unsafe {
            let text = qjs::JS_NewStringLen(context, what.as_ptr().cast(), what.len() as qjs::size_t);
            qjs::JS_Throw(context, text);
        }
        return ptr::null_mut();
    };
    let flags = (qjs::JS_EVAL_TYPE_MODULE | qjs::JS_EVAL_FLAG_COMPILE_ONLY) as c_int;
    // SAFETY: a module that was compiled is held by the engine; this value is one more hold.
    unsafe {
        let module = evaluate(context, &text, &path, flags);
        if qjs::JS_IsException(module) {
            return ptr::null_mut();
        }
        let pointer = qjs::JS_VALUE_GET_PTR(module);
        qjs::JS_FreeValue(context, module);
        pointer.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_script_are_an_object_that_is_no_script() {
        let read = |script: &str| ScriptFiles::read(script).unwrap();
        let several = read(r#" {"entry": "a/index.js", "files": {"a/index.js": "x\n", "b.js": "y"}}"#);
        assert_eq!((several.entry.as_str(), several.files.len(), several.bytes()), ("a/index.js", 2, 3));
        for script in ["function f() {}", "{ let a = 1; }", "{}", "{\"a\": 1}", "", "{\"entry\": 1}"] {
            assert_eq!(read(script).files.values().collect::<Vec<_>>(), [script], "{script}");
        }
        let error = ScriptFiles::read(r#"{"entry": "c.js", "files": {"b.js": ""}}"#).unwrap_err();
        assert!(error.contains("\"c.js\""), "{error}");
    }

    #[test]
    fn a_module_has_a_line_that_only_modules_have() {
        for text in ["import a from './a.js'", "\n  export function f() {}", "export{f}", "import'./a.js'"] {
            assert!(is_module(text), "{text}");
        }
        for text in ["exports.f = 1", "importance = 2", "// export nothing", "let x = 'import a'"] {
            assert!(!is_module(text), "{text}");
        }
    }
}
