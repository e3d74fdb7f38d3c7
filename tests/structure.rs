//! The structure of the source, read from its files: dependencies of the crates, circles between
//! files, the form of `lib.rs` and of doc comments, and the constructors of the message states.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Words that a doc comment never begins with: a noun or a verb stands first.
const OPENINGS: [&str; 15] = [
    "What", "Of which", "Of", "Where", "Whether", "Who", "Whom", "Which", "When", "Why", "How", "As", "So",
    "None", "Those",
];

/// The parts of the data plane, and the crates of ours that each may depend on.
const PARTS: [(&str, &[&str]); 8] = [
    ("core", &[]),
    ("source", &["tidegate-core"]),
    ("admission", &["tidegate-core", "tidegate-guest", "tidegate-json"]),
    ("decode", &["tidegate-core"]),
    ("rollout", &["tidegate-core", "tidegate-decode"]),
    ("spool", &["tidegate-core"]),
    ("quarantine", &["tidegate-core"]),
    ("writer", &["tidegate-core"]),
];

/// Dependencies that belong to few crates of `runtime/`; any other must not name them.
const OWNED: &[(&str, &[&str])] = &[
    ("wasmtime", &["decode"]),
    ("wasmparser", &["decode", "tidegate"]),
    ("wit-component", &["tidegate"]),
    ("rumqttc", &["source"]),
    ("tokio-rustls", &["source"]),
    ("socket2", &["source"]),
    ("x509-cert", &["source"]),
    ("tokio-postgres", &["admission", "tidegate"]),
    ("tokio-postgres-rustls", &["admission"]),
    ("crc32c", &["core", "spool"]),
    ("flate2", &["writer"]),
    ("hyper", &["tidegate", "writer"]),
    ("hyper-util", &["tidegate", "writer"]),
    ("reqwest", &["tidegate", "writer"]),
    ("landlock", &["rollout"]),
    ("seccompiler", &["rollout"]),
    ("toml", &["rollout", "tidegate"]),
    ("axum", &["tidegate"]),
    ("clap", &["tidegate"]),
    ("clap_complete", &["tidegate"]),
    ("clap_mangen", &["tidegate"]),
    ("utoipa", &["tidegate"]),
    ("ratatui", &["tidegate"]),
    ("indicatif", &["tidegate"]),
    ("prometheus-client", &["tidegate"]),
    ("mimalloc", &["tidegate"]),
    ("ring", &["tidegate"]),
    ("sd-notify", &["tidegate"]),
    ("anyhow", &["tidegate"]),
];

/// The message states: only core makes them, by its constructors.
const STATES: [&str; 4] = ["Durable", "Admitted", "CheckedBatch", "RefusedMessage"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The crates of `runtime/`: name and folder. The package `tidegate` comes last.
fn crates() -> Vec<(&'static str, PathBuf)> {
    let runtime = root().join("runtime");
    let mut crates: Vec<_> = PARTS.iter().map(|(name, _)| (*name, runtime.join(name))).collect();
    crates.push(("tidegate", runtime));
    crates
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "target" && name != "node_modules" {
                rust_files(&path, files);
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files.sort();
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

// ---- dependencies of the crates

/// Names of the normal dependencies in a manifest, those of single targets included.
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
    let mut names = BTreeSet::new();
    let mut take = |table: &toml::Table| {
        if let Some(toml::Value::Table(dependencies)) = table.get("dependencies") {
            names.extend(dependencies.keys().cloned());
        }
    };
    take(&manifest);
    if let Some(toml::Value::Table(targets)) = manifest.get("target") {
        targets.values().filter_map(toml::Value::as_table).for_each(take);
    }
    names
}

#[test]
fn every_crate_in_runtime_is_a_known_part() {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root().join("runtime")).unwrap() {
        let path = entry.unwrap().path();
        if path.join("Cargo.toml").exists() {
            found.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    assert_eq!(found, PARTS.iter().map(|(name, _)| (*name).to_owned()).collect());
}

#[test]
fn a_part_depends_on_no_other_part_but_those_below_it() {
    for (part, allowed) in PARTS {
        let manifest = root().join("runtime").join(part).join("Cargo.toml");
        for name in dependencies(&manifest).iter().filter(|name| name.starts_with("tidegate")) {
            assert!(
                allowed.contains(&name.as_str()),
                "{} depends on {name}; allowed: {allowed:?}",
                shown(&manifest)
            );
        }
    }
}

#[test]
fn an_external_dependency_stays_in_the_part_that_needs_it() {
    for (part, folder) in crates() {
        let manifest = folder.join("Cargo.toml");
        for name in dependencies(&manifest) {
            if let Some((_, owners)) = OWNED.iter().find(|(owned, _)| *owned == name) {
                assert!(owners.contains(&part), "{} depends on {name}, of {owners:?}", shown(&manifest));
            }
        }
    }
}

// ---- circles between files

/// A file of a crate as the path of its module; `lib.rs` is the empty path.
type Module = Vec<String>;

/// Source text without line comments and without a test module that ends the file.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    if let Some(tests) = lines
        .windows(2)
        .position(|pair| pair[0].trim_end() == "#[cfg(test)]" && pair[1].starts_with("mod tests {"))
    {
        lines.truncate(tests);
    }
    lines.iter().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect()
}

/// The paths from `crate` on that expressions and types name.
fn inline_paths(code: &str) -> impl Iterator<Item = String> {
    let items = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "];
    let lines =
        code.lines().filter(move |line| !items.iter().any(|item| line.trim_start().starts_with(item)));
    lines.flat_map(|line| line.match_indices("crate::").map(move |(at, _)| &line[at..])).map(|text| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
        text[..end].to_owned()
    })
}

/// The paths that `use` items name, groups unfolded, re-exports (`pub use`) left out, and those in between.
fn used_paths(code: &str) -> Vec<String> {
    let mut paths: Vec<String> = inline_paths(code).collect();
    let mut rest = code;
    while let Some(line) = rest.lines().next() {
        let Some(item) = line.trim_start().strip_prefix("use ") else {
            rest = rest.get(line.len() + 1..).unwrap_or("");
            continue;
        };
        let start = line.len() - item.len();
        let end = rest[start..].find(';').map_or(rest.len(), |end| start + end);
        unfold("", &rest[start..end], &mut paths);
        rest = rest[end..].find('\n').map_or("", |newline| &rest[end + newline + 1..]);
    }
    paths
}

/// The paths of one use tree: `a::{b, c::{d, e}}` gives `a::b`, `a::c::d`, `a::c::e`.
fn unfold(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    if let Some(group) = tree.strip_suffix('}') {
        let (more, items) = group.split_once('{').unwrap();
        let prefix = format!("{prefix}{more}");
        let (mut depth, mut begin) = (0, 0);
        for (at, character) in items.char_indices().chain([(items.len(), ',')]) {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !items[begin..at].trim().is_empty() {
                        unfold(&prefix, &items[begin..at], paths);
                    }
                    begin = at + 1;
                }
                _ => {}
            }
        }
    } else {
        paths.push(format!("{prefix}{}", tree.split(" as ").next().unwrap()));
    }
}

/// The file of the same crate that defines `path`, if one does.
fn target(path: &str, from: &Module, files: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let mut segments = path.split("::").map(str::trim).peekable();
    let mut module = match *segments.peek()? {
        "crate" => Module::new(),
        "self" | "super" => from.clone(),
        first => {
            let mut child = from.clone();
            child.push(first.to_owned());
            return files.contains_key(&child).then(|| descend(from.clone(), segments, files));
        }
    };
    while segments.peek() == Some(&"super") {
        module.pop();
        segments.next();
    }
    if matches!(segments.peek(), Some(&"crate" | &"self")) {
        segments.next();
    }
    Some(descend(module, segments, files))
}

/// Follows `segments` as long as they name files.
fn descend<'a>(
    mut module: Module,
    segments: impl Iterator<Item = &'a str>,
    files: &BTreeMap<Module, PathBuf>,
) -> Module {
    for segment in segments {
        module.push(segment.to_owned());
        if !files.contains_key(&module) {
            module.pop();
            break;
        }
    }
    module
}

/// The files of a crate, and those that each one uses. Test modules and `main.rs` are left out.
fn uses(source: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut paths = Vec::new();
    rust_files(source, &mut paths);
    let mut files = BTreeMap::new();
    for path in paths {
        let name = path.strip_prefix(source).unwrap().with_extension("");
        let mut module: Module = name.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module == ["lib"] {
            module.clear();
        }
        if module != ["main"] && !module.iter().any(|part| part == "tests") {
            files.insert(module, path);
        }
    }
    let mut graph = BTreeMap::new();
    for (module, path) in &files {
        let paths = used_paths(&code(path));
        let targets = paths.iter().filter_map(|path| target(path, module, &files));
        graph.insert(module.clone(), targets.filter(|target| target != module).collect::<BTreeSet<_>>());
    }
    graph
}

fn reachable<'a>(from: &'a Module, graph: &'a BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        next.extend(graph[module].iter().filter(|target| reached.insert(*target)));
    }
    reached
}

/// Groups of files of which each uses, directly or by others, every other one.
fn circles(graph: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Vec<&Module>> {
    let reached: BTreeMap<_, _> = graph.keys().map(|module| (module, reachable(module, graph))).collect();
    graph
        .keys()
        .map(|module| {
            let back = |other: &&&Module| reached[**other].contains(module);
            reached[module].iter().filter(back).copied().collect::<Vec<_>>()
        })
        .filter(|circle| circle.len() > 1)
        .collect()
}

#[test]
fn no_files_of_a_crate_use_each_other_in_a_circle() {
    let mut found = Vec::new();
    let sdk = [("guest-sdk", root().join("guest-sdk")), ("json", root().join("guest-sdk/json"))];
    for (part, folder) in crates().into_iter().chain(sdk) {
        let graph = uses(&folder.join("src"));
        assert!(!graph.is_empty(), "{part} has no files");
        for circle in circles(&graph) {
            let names = circle.iter().map(|module| format!("/{}", module.join("/"))).collect::<Vec<_>>();
            found.push(format!("{part}: {}", names.join(" ")));
        }
    }
    assert!(found.is_empty(), "circles:\n{}", found.join("\n"));
}

#[test]
fn circles_and_use_trees_are_found() {
    let mut paths = used_paths(
        "use std::fs;\n    use crate::a::{b, c::{self, D as E},\n  super_b};\npub use crate::x;\nfn f() { use super::g; crate::y::z(1) }\nuse super::h;",
    );
    paths.sort();
    assert_eq!(
        paths,
        [
            "crate::a::b",
            "crate::a::c::D",
            "crate::a::c::self",
            "crate::a::super_b",
            "crate::y::z",
            "std::fs",
            "super::h"
        ]
    );
    let module = |name: &str| name.split('/').map(str::to_owned).collect::<Module>();
    let files = ["a", "a/c", "b"].map(|name| (module(name), PathBuf::new())).into_iter().collect();
    let target = |path: &str, from: &str| target(path, &module(from), &files);
    assert_eq!(target("crate::a::c::D", "b"), Some(module("a/c")));
    assert_eq!(target("super::X", "a/c"), Some(module("a")));
    assert_eq!(target("c::D", "a"), Some(module("a/c")));
    assert_eq!(target("std::fs", "a"), None);
    let arrows = |pairs: &[(&str, &[&str])]| {
        pairs.iter().map(|(from, to)| (module(from), to.iter().map(|to| module(to)).collect())).collect()
    };
    assert_eq!(circles(&arrows(&[("a", &["a/c"]), ("a/c", &["b"]), ("b", &["a"])])).len(), 1);
    assert!(circles(&arrows(&[("a", &["a/c", "b"]), ("a/c", &["b"]), ("b", &[])])).is_empty());
}

// ---- the form of files

#[test]
fn no_doc_comment_opens_with_a_relative_word() {
    let mut files = Vec::new();
    for folder in ["runtime", "guest-sdk", "tests", "xtask", "guests"] {
        rust_files(&root().join(folder), &mut files);
    }
    let mut places = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let Some(doc) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else { continue };
            let doc = doc.strip_prefix(' ').unwrap_or(doc);
            if OPENINGS.iter().any(|word| doc.strip_prefix(word).is_some_and(|rest| rest.starts_with(' '))) {
                places.push(format!("{}:{}: {line}", shown(&file), number + 1));
            }
        }
    }
    assert!(places.is_empty(), "doc comments:\n{}", places.join("\n"));
}

/// The first item of a `lib.rs` that is neither doc, module nor re-export.
fn first_code(text: &str) -> Option<&str> {
    let mut open = false;
    text.lines().map(str::trim).find(|line| {
        if open || line.is_empty() || line.starts_with("//") || line.starts_with('#') {
            open &= !line.ends_with(';');
            return false;
        }
        let item = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
        let is_module = item.starts_with("mod ") && item.ends_with(';');
        let is_reexport = item != *line && item.starts_with("use ");
        open = is_reexport && !item.ends_with(';');
        !is_module && !is_reexport
    })
}

#[test]
fn a_lib_holds_its_doc_its_modules_and_re_exports_only() {
    assert_eq!(first_code("//! A.\nmod a;\npub use a::{\n    B,\n};\n#[cfg(test)]\nmod tests;\n"), None);
    assert_eq!(first_code("mod a;\nuse a::B;\n"), Some("use a::B;"));
    assert_eq!(first_code("mod a;\nstruct B(u8);\n"), Some("struct B(u8);"));
    for (part, folder) in crates() {
        let file = folder.join("src/lib.rs");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} of {part} has no doc", shown(&file));
        assert_eq!(first_code(&text), None, "{} holds code", shown(&file));
    }
}

// ---- the message states

/// Lines that make a `state` by a struct literal: no declaration, `impl`, signature or pattern.
fn literals<'a>(text: &'a str, state: &str) -> Vec<&'a str> {
    let opening = format!("{state} {{");
    text.lines()
        .filter(|line| {
            let Some((before, after)) = line.split_once(&opening) else { return false };
            let is_whole_name = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let is_declaration = ["struct ", "enum ", "impl ", "impl<", "for ", "-> "]
                .iter()
                .any(|word| before.contains(word));
            let is_pattern = before.contains("let ") && !before.contains('=')
                || after.contains(".. }")
                || after.contains("} =");
            let is_comment = before.trim_start().starts_with("//");
            is_whole_name && !is_declaration && !is_pattern && !is_comment
        })
        .collect()
}

#[test]
fn only_core_makes_the_states_of_a_message() {
    assert_eq!(literals("let a = Admitted {\n}\nNotAdmitted { a }", "Admitted"), ["let a = Admitted {"]);
    let others = "pub struct Durable {\nimpl Durable {\nfn f() -> Durable {\nlet Durable { lines, .. } = x;";
    assert!(literals(others, "Durable").is_empty());
    let mut makers = Vec::new();
    let tests = ("tests", root().join("tests"));
    let outside = crates().into_iter().filter(|(part, _)| *part != "core").chain([tests]);
    for (part, folder) in outside {
        let mut files = Vec::new();
        rust_files(&if part == "tests" { folder } else { folder.join("src") }, &mut files);
        for file in files.iter().filter(|file| !file.ends_with("tests/structure.rs")) {
            let text = fs::read_to_string(file).unwrap();
            let found = STATES.iter().flat_map(|state| literals(&text, state));
            makers.extend(found.map(|line| format!("{}: {}", shown(file), line.trim())));
        }
    }
    assert!(makers.is_empty(), "made outside core:\n{}", makers.join("\n"));
}

/// Every state, where core declares it, cannot be written as a literal by another crate.
#[test]
fn the_compiler_keeps_other_crates_from_making_a_state() {
    let mut files = Vec::new();
    rust_files(&root().join("runtime/core/src"), &mut files);
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for state in STATES {
        let (before, after) = text.split_once(&format!("pub struct {state} {{\n")).expect(state);
        let attributes = before.lines().rev().take_while(|line| line.starts_with(['#', '/']));
        let is_non_exhaustive = attributes.into_iter().any(|line| line == "#[non_exhaustive]");
        let fields = after.split_once("\n}").unwrap().0;
        let has_private = fields.lines().any(|line| {
            line.starts_with("    ")
                && line.contains(": ")
                && !line.trim_start().starts_with("pub ")
                && !line.trim_start().starts_with("//")
        });
        assert!(is_non_exhaustive || has_private, "any crate can make a {state}");
    }
}

// ---- threads

/// A thread that another place starts would die of a panic without ending the process.
#[test]
fn every_thread_is_started_by_worker() {
    let mut places = Vec::new();
    for (_, folder) in crates() {
        let mut files = Vec::new();
        rust_files(&folder.join("src"), &mut files);
        for file in files.iter().filter(|file| !file.ends_with("core/src/worker.rs")) {
            let text = fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            if code.contains("thread::Builder") || code.contains("thread::spawn(") {
                places.push(shown(file));
            }
        }
    }
    assert!(places.is_empty(), "threads that no panic of theirs ends the process for: {places:?}");
}

// ---- the documents

/// Texts between backticks, of lines outside code blocks.
fn quoted(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        is_code ^= line.starts_with("```");
        !is_code
    });
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// A Rust file as the documents name it: from the root, from the source of a crate (`spool/log.rs`), or
/// from the source of the package `tidegate`.
fn exists(name: &str) -> bool {
    let of_crate = name.split_once('/').map(|(part, rest)| format!("runtime/{part}/src/{rest}"));
    [Some(name.to_owned()), Some(format!("runtime/src/{name}")), of_crate]
        .into_iter()
        .flatten()
        .any(|path| root().join(path).exists())
}

#[test]
fn the_map_names_files_and_tests_that_exist() {
    let mut files = Vec::new();
    for folder in ["runtime", "tests"] {
        rust_files(&root().join(folder), &mut files);
    }
    let source: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let mut missing = Vec::new();
    for page in ["ARCHITECTURE.md", "docs/DECISIONS.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for name in quoted(&text) {
            let is_file = name.ends_with(".rs") && name.contains('/');
            let is_test = name.matches('_').count() > 2
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_file && !exists(name) || is_test && !source.contains(&format!("fn {name}(")) {
                missing.push(format!("{page}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "named and not there:\n{}", missing.join("\n"));
}

#[test]
fn the_delays_in_the_documents_are_those_of_the_program() {
    use tidegate::core::batching::{ACKNOWLEDGE_DELAY, DECODE_DELAY, SOURCE_DELAY, SPOOL_DELAY};
    let text = fs::read_to_string(root().join("docs/DURABILITY.md")).unwrap();
    for (row, delay) in [
        ("before the next read of a connection", SOURCE_DELAY),
        ("on a decode thread, for lines of other tenants", DECODE_DELAY),
        ("before the next fsync", SPOOL_DELAY),
        ("**sum before the PUBACK**", ACKNOWLEDGE_DELAY),
    ] {
        let told = text.lines().find_map(|line| line.strip_prefix(&format!("| {row} | "))).expect(row);
        let ms = told.trim_start_matches('*').split(' ').next().unwrap();
        assert_eq!(ms.parse::<u128>().unwrap(), delay.as_millis(), "{row}");
    }
}
