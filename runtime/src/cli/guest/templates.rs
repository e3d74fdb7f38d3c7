//! The files of a new decoder in each language. All but Rust's need nothing outside of their folder.

use std::borrow::Cow;

/// The language of a new decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    Rust,
    Js,
    Python,
    C,
    Go,
}

/// A file: its path and its text with places for names; a file that is no text is written as it is.
pub struct Template {
    pub path: &'static str,
    pub text: Cow<'static, [u8]>,
}

/// Templates of the folder `template`, by the path that they are written to.
macro_rules! templates {
    ($($path:literal from $file:literal),* $(,)?) => {
        vec![$(Template { path: $path, text: Cow::Borrowed(include_bytes!($file)) }),*]
    };
}

/// The files of a new decoder.
pub fn files(language: Language) -> Vec<Template> {
    let mut files = match language {
        Language::Rust => templates![
            "Cargo.toml" from "template/Cargo.toml.txt",
            "src/lib.rs" from "template/lib.rs.txt",
            "{name}.cases.jsonl" from "template/cases.jsonl.txt",
            "README.md" from "template/README.md.txt",
        ],
        Language::Js => templates![
            "package.json" from "template/js/package.json.txt",
            "src/tidegate.js" from "../../../../guests/js/flat/src/tidegate.js",
            "src/decoder.js" from "template/js/decoder.js.txt",
            "test/decoder.test.mjs" from "template/js/test.mjs.txt",
            "{name}.cases.jsonl" from "template/js/cases.jsonl.txt",
            "README.md" from "template/js/README.md.txt",
        ],
        Language::Python => templates![
            "requirements.txt" from "template/python/requirements.txt.txt",
            "tidegate.py" from "template/python/tidegate.py.txt",
            "{module}.py" from "template/python/decoder.py.txt",
            "test_{module}.py" from "template/python/test.py.txt",
            "{name}.cases.jsonl" from "template/cases.jsonl.txt",
            "README.md" from "template/python/README.md.txt",
        ],
        Language::C => templates![
            "Makefile" from "template/c/Makefile.txt",
            "tidegate.h" from "template/c/tidegate.h.txt",
            "tidegate.c" from "template/c/tidegate.c.txt",
            "{name}.c" from "template/c/decoder.txt",
            "bindings/decoder.h" from "template/c/decoder.h.txt",
            "bindings/decoder.c" from "template/c/decoder.c.txt",
            "bindings/decoder_component_type.o" from "template/c/decoder_component_type.o",
            "{name}.cases.jsonl" from "template/c/cases.jsonl.txt",
            "README.md" from "template/c/README.md.txt",
        ],
        Language::Go => templates![
            "go.mod" from "template/go/go.mod.txt",
            "tidegate.go" from "template/go/tidegate.go.txt",
            "abi_wasip1.go" from "template/go/abi_wasip1.go.txt",
            "abi_native.go" from "template/go/abi_native.go.txt",
            "{module}.go" from "template/go/decoder.go.txt",
            "{module}_test.go" from "template/go/decoder_test.go.txt",
            "{name}.cases.jsonl" from "template/cases.jsonl.txt",
            "README.md" from "template/go/README.md.txt",
        ],
    };
    files.push(text("{name}.toml", include_str!("template/route.toml.txt").to_owned()));
    files.push(text(".gitignore", ignored(language).to_owned()));
    match language {
        Language::Rust => {}
        Language::Js => files.extend([
            text("package-lock.json", js_lock()),
            text("build.mjs", js_build()),
            text("wit/decoder.wit", without_state()),
        ]),
        Language::Python => files.push(text("wit/decoder.wit", without_state())),
        Language::C | Language::Go => files.push(text("wit/decoder.wit", WIT.to_owned())),
    }
    files
}

fn text(path: &'static str, text: String) -> Template {
    Template { path, text: Cow::Owned(text.into_bytes()) }
}

fn ignored(language: Language) -> &'static str {
    match language {
        Language::Rust => "target/\n*.wasm\n",
        Language::Js => "node_modules/\n*.wasm\n",
        Language::Python => ".venv/\nbindings/\n__pycache__/\n*.wasm\n",
        Language::C | Language::Go => ".venv/\n*.wasm\n",
    }
}

const WIT: &str = include_str!("../../../../wit/tidegate-ingest-1.0.0/decoder.wit");

/// The interface for tools that import all that the world names: a decoder that imports state pays for it.
fn without_state() -> String {
    WIT.replace("    import state;", "    // Values between messages: import state;")
}

fn js_lock() -> String {
    let lock = include_str!("../../../../guests/js/flat/package-lock.json");
    lock.replace("\"name\": \"flat\"", "\"name\": \"{name}\"")
}

fn js_build() -> String {
    include_str!("../../../../guests/js/flat/build.mjs")
        .replace("../../../wit/tidegate-ingest-0.1.0", "wit")
        .replace("flat.wasm", "{name}.wasm")
        .replace(
            "const { component,",
            "console.error(\"makes the component, in about 20 s\");\nconst { component,",
        )
}
