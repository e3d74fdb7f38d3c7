//! Components of core modules: with the world where the module brings none, and with an adapter where it was built for
//! WASI preview 1.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use crate::cli::Exit;

/// The first bytes of a core module, and of a component.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// The module that toolchains for WASI preview 1 import, and ours in its place.
const PREVIEW1: &str = "wasi_snapshot_preview1";

const PREVIEW1_ADAPTER: &[u8] = include_bytes!("preview1/adapter.wasm");

/// The interface in each version that has the present exports, the newest first.
const INTERFACES: [(&str, &str); 2] = [
    ("1.1.0", include_str!("../../../../wit/tidegate-ingest-1.1.0/decoder.wit")),
    ("1.0.0", include_str!("../../../../wit/tidegate-ingest-1.0.0/decoder.wit")),
];

/// Makes a component of a core module.
pub fn wrap(module: &Path, output: Option<&Path>) -> anyhow::Result<Exit> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let output = output.map_or_else(|| module.with_extension("component.wasm"), Path::to_owned);
    let component = wrapped(bytes).with_context(|| module.display().to_string())?;
    fs::write(&output, &component).with_context(|| format!("cannot write {}", output.display()))?;
    println!("{} {} bytes", output.display(), component.len());
    Ok(Exit::Success)
}

/// A component, of a component or of a core module.
fn wrapped(bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    match bytes.get(..8) {
        Some(MODULE) => component(bytes),
        Some(COMPONENT) => {
            wasmparser::Validator::new()
                .validate_all(&bytes)
                .context("this file is not a valid component: it is damaged or incomplete")?;
            Ok(bytes)
        }
        _ => bail!(
            "these {} bytes are no WebAssembly: expected a component, or a core module of the world \
             tidegate:ingest/decoder",
            bytes.len()
        ),
    }
}

/// A component as it is, and one made of a core module.
pub fn component(mut bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if bytes.get(..8) != Some(MODULE) {
        return Ok(bytes);
    }
    let outline = Outline::read(&bytes).context("this core module is damaged")?;
    outline.check()?;
    if !outline.has_world {
        let (resolve, world) = outline.world()?;
        wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)?;
    }
    let mut encoder = ComponentEncoder::default().validate(true);
    encoder = encoder.module(&bytes).context(NO_COMPONENT)?;
    if outline.imports.contains(PREVIEW1) {
        encoder = encoder.adapter(PREVIEW1, PREVIEW1_ADAPTER)?;
    }
    encoder.encode().context(NO_COMPONENT)
}

const NO_COMPONENT: &str =
    "this core module cannot become a component: expected one of the world tidegate:ingest/decoder";

/// The parts of a core module that decide how it becomes a component.
#[derive(Debug, Default)]
struct Outline {
    /// The modules that it imports from.
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
    /// A toolchain wrote its world into it.
    has_world: bool,
}

impl Outline {
    fn read(module: &[u8]) -> anyhow::Result<Self> {
        let mut outline = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        outline.imports.insert(import?.module.to_owned());
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        outline.exports.insert(export?.name.to_owned());
                    }
                }
                Payload::CustomSection(section) => {
                    outline.has_world |= section.name().starts_with("component-type");
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    /// Says what a toolchain must be told, where it made something else than a decoder.
    fn check(&self) -> anyhow::Result<()> {
        let has = |name: &str| self.exports.iter().any(|export| export.rsplit('|').next() == Some(name));
        let missing: Vec<&str> = ["configure", "decode"].into_iter().filter(|name| !has(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(" and ");
        if self.exports.contains("_start") {
            bail!(
                "this core module is a program (it exports _start, and not {missing}): build a library. C: clang \
                 -mexec-model=reactor; Go: go build -buildmode=c-shared; Rust: crate-type = [\"cdylib\"]"
            );
        }
        bail!("this core module does not export {missing}, as the world tidegate:ingest/decoder says")
    }

    /// The world of the version that it imports from, else of the newest.
    fn world(&self) -> anyhow::Result<(Resolve, wit_parser::WorldId)> {
        let versions: BTreeSet<&str> = self
            .imports
            .iter()
            .filter_map(|import| import.strip_prefix("tidegate:ingest/")?.split_once('@'))
            .map(|(_, version)| version)
            .collect();
        let newest = INTERFACES[0].0;
        let version = match versions.iter().collect::<Vec<_>>()[..] {
            [] => newest,
            [version] => version,
            _ => bail!("it imports several versions of tidegate:ingest ({versions:?}): expected one"),
        };
        let Some((_, text)) = INTERFACES.iter().find(|(of, _)| *of == version) else {
            let known = INTERFACES.map(|(version, _)| version).join(", ");
            bail!("it imports tidegate:ingest {version}: expected one of {known}");
        };
        let mut resolve = Resolve::default();
        let package = resolve.push_str("decoder.wit", text)?;
        let world = resolve.select_world(&[package], Some("decoder"))?;
        Ok((resolve, world))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_webassembly_is_not_wrapped() {
        for bytes in [&b""[..], b"hello, world", b"\0asm", b"\0asm\x01\0\0"] {
            let error = wrapped(bytes.to_vec()).unwrap_err().to_string();
            assert!(error.contains("no WebAssembly"), "{error}");
        }
        for cut in [[MODULE, b"\x01\x7f"].concat(), [COMPONENT, b"\x01\x7f"].concat()] {
            assert!(wrapped(cut).is_err());
        }
        assert_eq!(wrapped(COMPONENT.to_vec()).unwrap(), COMPONENT);
    }

    #[test]
    fn the_adapter_is_made_of_its_text() {
        assert_eq!(wat::parse_str(include_str!("preview1/adapter.wat")).unwrap(), PREVIEW1_ADAPTER);
    }

    /// A module of the world, with so many imports more.
    fn module(imports: &str) -> Vec<u8> {
        let text = format!(
            "(module {imports} (memory (export \"memory\") 1)
               (func (export \"configure\") (param i32 i32 i32 i32 i32 i32) (result i32) i32.const 0)
               (func (export \"decode\") (param i32 i32 i32 i32) (result i32) i32.const 0)
               (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) i32.const 0))"
        );
        wat::parse_str(text).unwrap()
    }

    /// The interfaces that a component imports; it names the types of its exports beside them.
    fn imports(component: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(component) {
            match payload.unwrap() {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 1 => {
                    names.extend(section.into_iter().map(|import| import.unwrap().name.name.to_owned()));
                }
                _ => {}
            }
        }
        names.retain(|name: &String| name.contains('/'));
        names
    }

    #[test]
    fn a_module_without_a_world_gets_the_one_that_it_imports_from() {
        let device = |version: &str| {
            format!("(import \"tidegate:ingest/context@{version}\" \"device\" (func (param i32 i32)))")
        };
        assert_eq!(imports(&component(module("")).unwrap()), ["tidegate:ingest/types@1.1.0"]);
        let of = component(module(&device("1.0.0"))).unwrap();
        assert!(imports(&of).contains(&"tidegate:ingest/context@1.0.0".to_owned()), "{:?}", imports(&of));
        let error = component(module(&device("9.0.0"))).unwrap_err().to_string();
        assert!(error.contains("9.0.0") && error.contains("1.1.0"), "{error}");
        let both = device("1.0.0") + &device("1.1.0");
        assert!(component(module(&both)).unwrap_err().to_string().contains("several versions"));
    }

    #[test]
    fn every_function_of_preview_1_is_adapted() {
        let mut functions = Vec::new();
        let (mut types, mut of) = (Vec::new(), Vec::new());
        for payload in Parser::new(0).parse_all(PREVIEW1_ADAPTER) {
            match payload.unwrap() {
                Payload::TypeSection(section) => {
                    types.extend(section.into_iter_err_on_gc_types().map(Result::unwrap))
                }
                Payload::FunctionSection(section) => of.extend(section.into_iter().map(Result::unwrap)),
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export.unwrap();
                        let of_type = &types[of[export.index as usize] as usize];
                        let words = |types: &[wasmparser::ValType]| {
                            types.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                        };
                        functions.push(format!(
                            "(import \"{PREVIEW1}\" \"{}\" (func (param {}) (result {})))",
                            export.name,
                            words(of_type.params()),
                            words(of_type.results())
                        ));
                    }
                }
                _ => {}
            }
        }
        assert_eq!(functions.len(), 46);
        let component = component(module(&functions.join("\n"))).unwrap();
        assert_eq!(imports(&component), ["tidegate:ingest/types@1.1.0"]);
    }

    #[test]
    fn a_module_that_is_no_decoder_is_refused_with_what_is_missing() {
        let error = |text: &str| component(wat::parse_str(text).unwrap()).unwrap_err().to_string();
        assert!(error("(module)").contains("does not export configure and decode"));
        let program = error("(module (func (export \"_start\")) (func (export \"configure\")))");
        assert!(program.contains("not decode") && program.contains("c-shared"), "{program}");
        let unknown = format!("{:#}", component(module("(import \"env\" \"f\" (func))")).unwrap_err());
        assert!(unknown.contains("env"), "{unknown}");
    }
}
