//! Components of strangers cost the compiler a refusal at most.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate::decode::DecodeSettings;
use tidegate::decode::sandbox::engine;

use tidegate::core::line_protocol::Dialect;
use tidegate::rollout::compile::Compiler;
use tidegate::rollout::digest::digest;
use tidegate::rollout::error::CompileLimit;
use tidegate::rollout::{CompileLimits, CompilerSettings, RolloutError};

use crate::harness::compile_bombs;
use crate::harness::gateway::built_guest;

fn settings(cache: &Path, limits: CompileLimits) -> CompilerSettings {
    CompilerSettings { program: env!("CARGO_BIN_EXE_tidegate").into(), cache: Some(cache.to_owned()), limits }
}

struct Bench {
    folder: TempDir,
    engine: wasmtime::Engine,
    limits: CompileLimits,
}

impl Bench {
    fn new(limits: CompileLimits) -> Self {
        let folder = TempDir::new().unwrap();
        let decode = DecodeSettings {
            threads: 1,
            deadline_ms: 10,
            memory_bytes_max: 16 << 20,
            component_bytes_max: 10 << 20,
            dialect: Dialect::V3,
            large: None,
        };
        Self { engine: engine::engine(&decode).unwrap(), folder, limits }
    }

    fn compiler(&self) -> Compiler {
        Compiler::new(settings(&self.folder.path().join("cache"), self.limits), &self.engine).unwrap()
    }

    fn refusal(&self, bytes: &[u8]) -> RolloutError {
        self.compiler().component(&self.engine, bytes, &digest(bytes)).map(|_| ()).unwrap_err()
    }

    fn cached(&self) -> Vec<String> {
        let files = fs::read_dir(self.folder.path().join("cache")).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn a_compile_bomb_ends_at_the_limit_that_it_passes_and_leaves_nothing() {
    // The compiler runs at the lowest priority: where the machine is busy, a second of CPU time may
    // take a minute.
    let patient = CompileLimits { wall_s: 300, ..CompileLimits::default() };
    let bench = Bench::new(CompileLimits { cpu_s: 1, ..patient });
    let began = Instant::now();
    let refusal = bench.refusal(&compile_bombs::huge_function(60_000));
    assert!(matches!(refusal, RolloutError::CompileLimit(CompileLimit::Cpu(1))), "{refusal}");
    assert_eq!(refusal.to_string(), "compiling it takes more than 1 s of CPU time");
    assert!(began.elapsed() < Duration::from_secs(300));

    let bench = Bench::new(CompileLimits { memory_bytes_max: 48 << 20, ..patient });
    let refusal = bench.refusal(&compile_bombs::many_functions(12_000));
    assert!(matches!(refusal, RolloutError::CompileLimit(CompileLimit::Memory(_))), "{refusal}");
    assert_eq!(bench.cached(), Vec::<String>::new());

    let bench = Bench::new(CompileLimits { output_bytes_max: 64 << 10, ..patient });
    let refusal = bench.refusal(&fs::read(built_guest("pulse")).unwrap());
    assert!(matches!(refusal, RolloutError::CompileLimit(CompileLimit::Output(_))), "{refusal}");

    let bench = Bench::new(CompileLimits { wall_s: 0, ..CompileLimits::default() });
    let refusal = bench.refusal(&compile_bombs::huge_function(60_000));
    assert!(matches!(refusal, RolloutError::CompileLimit(CompileLimit::Wall(0))), "{refusal}");
    assert!(refusal.is_ours(), "it had CPU time left: the machine was busy");
}

#[test]
fn nesting_and_types_without_end_are_refused() {
    let bench = Bench::new(CompileLimits { cpu_s: 5, ..CompileLimits::default() });
    for (name, bytes) in [
        ("deep nesting", compile_bombs::deep_nesting(1_000_000)),
        ("many types", compile_bombs::many_types(900)),
        ("nested components", compile_bombs::nested_components(40)),
    ] {
        let refusal = bench.refusal(&bytes);
        assert!(!matches!(refusal, RolloutError::Host(_)), "{name}: {refusal}");
    }
}

#[test]
fn what_was_compiled_once_is_not_compiled_again() {
    let bench = Bench::new(CompileLimits::default());
    let bytes = fs::read(built_guest("pulse")).unwrap();
    let name = digest(&bytes);
    let compiler = bench.compiler();
    compiler.component(&bench.engine, &bytes, &name).unwrap();
    compiler.component(&bench.engine, &bytes, &name).unwrap();
    assert_eq!(compiler.made(), 1);
    let again = bench.compiler();
    again.component(&bench.engine, &bytes, &name).unwrap();
    assert_eq!(again.made(), 0, "a start with a warm cache compiles nothing");

    // A cached file that is not whole is made again.
    let file = bench.folder.path().join("cache").join(&bench.cached()[0]);
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    bench.compiler().component(&bench.engine, &bytes, &name).unwrap();
    assert_eq!(fs::read(&file).unwrap().len(), whole.len());
}

#[test]
fn a_cache_that_others_can_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new(CompileLimits::default());
    let cache = bench.folder.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    let error = Compiler::new(settings(&cache, bench.limits), &bench.engine).unwrap_err();
    assert!(error.to_string().contains("0700"), "{error}");
}
