//! Compiles the components of strangers: in a child process, under limits, into a cache of our own.
//!
//! - A compiler has no limits of its own: 1.2 MiB of functions took 3 s and 445 MiB, one huge
//!   function more than a minute. So the same binary is started once more (`compile-guest`), under
//!   RLIMIT_CPU, RLIMIT_AS, RLIMIT_FSIZE and a wall clock, at a low priority. What is over a
//!   limit ends that child and nothing else.
//! - The child can open no file, no socket and no other program (`confine`).
//! - `{digest}-{key}.cwasm` lies in a folder that only we can write to; the key says which engine,
//!   configuration and version of ours made it. Only such files are loaded: machine code that
//!   somebody else made would run with our rights.
//! - A file is whole or not there: it is synced and then renamed.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use crate::confine::confine_this_thread;
use crate::error::{CompileLimit, RolloutError};
use crate::limits::{
    COMPILE_CACHE_BYTES_MAX, COMPILE_CPU_S, COMPILE_MEMORY_BYTES_MAX, COMPILE_NICE, COMPILE_OUTPUT_BYTES_MAX,
    COMPILE_WALL_S, SMALL_COMPONENT_BYTES_MAX,
};
use tidegate_core::atomic_file::StagedFile;
use tidegate_decode::sandbox::engine;
use tidegate_decode::sandbox::engine::{Component, Engine};
use tidegate_decode::{DecodeHost, GuestClass};

/// The compiler, and the folder for the machine code.
#[derive(Clone, Debug)]
pub struct CompilerSettings {
    /// The program whose verb `compile-guest` compiles.
    pub program: PathBuf,
    /// A folder of ours alone, made if it is not there. None: a temporary one.
    pub cache: Option<PathBuf>,
    pub limits: CompileLimits,
}

impl CompilerSettings {
    /// This very program, even if its file was replaced since it was started.
    pub fn new(cache: Option<PathBuf>) -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), cache, limits: CompileLimits::default() }
    }
}

/// The limits of compiling one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    pub cpu_s: u64,
    /// Address space beyond what the program has when it starts.
    pub memory_bytes_max: u64,
    pub output_bytes_max: u64,
    pub wall_s: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            cpu_s: COMPILE_CPU_S,
            memory_bytes_max: COMPILE_MEMORY_BYTES_MAX,
            output_bytes_max: COMPILE_OUTPUT_BYTES_MAX,
            wall_s: COMPILE_WALL_S,
        }
    }
}

/// Gives components as machine code; compiles one at a time. There is one a class of guests.
#[derive(Debug)]
pub struct Compiler {
    settings: CompilerSettings,
    cache: PathBuf,
    /// A key of the engine, its configuration, and our version.
    key: String,
    /// Two children at a time, one of them of a small component: such a one waits for no other.
    turns: [Mutex<()>; 2],
    made: AtomicU64,
}

impl Compiler {
    /// # Errors
    /// The cache's folder cannot be made, or others can write to it.
    pub fn new(settings: CompilerSettings, engine: &Engine) -> Result<Self, RolloutError> {
        let cache = match &settings.cache {
            Some(cache) => cache.clone(),
            None => temporary_folder().map_err(disk)?,
        };
        private_folder(&cache)?;
        let mut hasher = DefaultHasher::new();
        engine::hash_compatibility(engine, &mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        let key = format!("{:016x}", hasher.finish());
        Ok(Self { settings, cache, key, turns: Default::default(), made: AtomicU64::new(0) })
    }

    /// The machine code of a component whose SHA-256 is `digest`: from the cache, or compiled now.
    ///
    /// # Errors
    /// It does not compile, or a limit ended it.
    pub fn component(&self, engine: &Engine, bytes: &[u8], digest: &str) -> Result<Component, RolloutError> {
        let cached = self.cache.join(format!("{digest}-{}.cwasm", self.key));
        if let Some(component) = self.cached(engine, &cached) {
            return Ok(component);
        }
        let _turn = self.turn(bytes.len() as u64);
        if let Some(component) = self.cached(engine, &cached) {
            return Ok(component);
        }
        self.compile(bytes, &cached)?;
        self.evict(&cached);
        load(engine, &cached).map_err(RolloutError::Compile)
    }

    /// A turn to compile. Small components take either of the two, others the second.
    fn turn(&self, bytes: u64) -> MutexGuard<'_, ()> {
        let [first, second] = &self.turns;
        if bytes > SMALL_COMPONENT_BYTES_MAX {
            return second.lock();
        }
        first.try_lock().or_else(|| second.try_lock()).unwrap_or_else(|| first.lock())
    }

    /// The number of components that were compiled since the start.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    fn cached(&self, engine: &Engine, path: &Path) -> Option<Component> {
        let file = fs::File::open(path).ok()?;
        let component = load(engine, path).ok()?;
        // When it was last of use, for eviction; a file system that keeps no time forgets sooner.
        let _ = file.set_modified(SystemTime::now());
        Some(component)
    }

    fn compile(&self, bytes: &[u8], into: &Path) -> Result<(), RolloutError> {
        self.made.fetch_add(1, Ordering::Relaxed);
        let mut input = StagedFile::create(&self.cache).map_err(disk)?;
        input.write_all(bytes).map_err(disk)?;
        let output = StagedFile::create(&self.cache).map_err(disk)?;
        let limits = self.settings.limits;
        let child = Command::new(&self.settings.program)
            .arg("compile-guest")
            .args(["--cpu-s", &limits.cpu_s.to_string()])
            .args(["--memory-bytes-max", &limits.memory_bytes_max.to_string()])
            .args(["--output-bytes-max", &limits.output_bytes_max.to_string()])
            .arg(output.path())
            .env_clear()
            // The gigabyte of addresses that the allocator keeps for later would be room beyond the
            // limit.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(fs::File::open(input.path()).map_err(disk)?)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| RolloutError::Host(format!("the compiler cannot be started: {error}")))?;
        let (status, said) = wait(child, Duration::from_secs(limits.wall_s))
            .map_err(|error| RolloutError::Host(format!("the compiler's end is unknown: {error}")))?;
        let said = log_confinement(&said);
        match status {
            None => return Err(RolloutError::CompileLimit(CompileLimit::Wall(limits.wall_s))),
            Some(status) if status.success() => {}
            Some(status) => return Err(blame(status, &said, limits)),
        }
        output.install(into).map_err(disk)
    }

    /// Removes the files that were unused for longest, until the rest fits. Guests that serve are mapped, and
    /// stay.
    fn evict(&self, newest: &Path) {
        let Ok(entries) = fs::read_dir(&self.cache) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .filter(|(_, _, path)| path != newest)
            .collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, length, path) in files {
            if bytes <= COMPILE_CACHE_BYTES_MAX {
                return;
            }
            bytes -= length;
            let _ = fs::remove_file(path);
        }
    }
}

/// The compilers of all classes.
#[derive(Debug)]
pub struct Compilers {
    normal: Compiler,
    large: Option<Compiler>,
}

impl Compilers {
    /// The class large has limits of its own; None where it is granted to nobody.
    ///
    /// # Errors
    /// The errors of `Compiler::new`.
    pub fn new(
        host: &DecodeHost,
        settings: &CompilerSettings,
        large: Option<CompileLimits>,
    ) -> Result<Self, RolloutError> {
        let of_large = large.map(|limits| {
            let settings = CompilerSettings { limits, ..settings.clone() };
            Compiler::new(settings, &host.sandbox(GuestClass::Large).engine)
        });
        let normal = Compiler::new(settings.clone(), &host.sandbox(GuestClass::Normal).engine)?;
        Ok(Self { normal, large: of_large.transpose()? })
    }

    /// The compiler of a class. Nobody has the large one where it was granted to nobody.
    pub fn get(&self, class: GuestClass) -> &Compiler {
        match (class, &self.large) {
            (GuestClass::Large, Some(large)) => large,
            _ => &self.normal,
        }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        if self.settings.cache.is_none() {
            let _ = fs::remove_dir_all(&self.cache);
        }
    }
}

/// A fault of the disk that keeps machine code.
fn disk(error: std::io::Error) -> RolloutError {
    RolloutError::Host(format!("the folder for compiled decoders cannot be used: {error}"))
}

/// A new folder of ours among the system's temporary ones.
fn temporary_folder() -> std::io::Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix("tidegate-").tempdir()?.keep())
}

fn load(engine: &Engine, path: &Path) -> Result<Component, String> {
    // SAFETY: the file is one that `compile` made whole, in a folder that nobody else can write to
    // (`private_folder`), and nothing changes it afterwards.
    unsafe { engine::load(engine, path) }
}

/// Makes a folder that only this user can enter, or checks that it is one.
fn private_folder(folder: &Path) -> Result<(), RolloutError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(disk)?;
    let metadata = fs::symlink_metadata(folder).map_err(disk)?;
    // SAFETY: geteuid(2) cannot fail.
    let own = metadata.uid() == unsafe { libc::geteuid() };
    if !metadata.is_dir() || !own || metadata.permissions().mode() & 0o022 != 0 {
        let shown = folder.display();
        return Err(RolloutError::Host(format!(
            "{shown} must be a folder of this user, mode 0700: machine code is loaded from it"
        )));
    }
    Ok(())
}

/// Waits for a child, at most so long; gives its end (None: it took too long) and its output.
fn wait(mut child: Child, most: Duration) -> std::io::Result<(Option<ExitStatus>, String)> {
    let deadline = Instant::now() + most;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() >= deadline => {
                child.kill()?;
                child.wait()?;
                break None;
            }
            None => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // A child that was ended may have been half-way through a character.
        let mut bytes = Vec::new();
        stderr.take(4_096).read_to_end(&mut bytes)?;
        said = String::from_utf8_lossy(&bytes).trim().to_owned();
    }
    Ok((status, said))
}

/// The verb's exit code for a component that does not compile.
pub const NOT_COMPILED: u8 = 3;

fn blame(status: ExitStatus, said: &str, limits: CompileLimits) -> RolloutError {
    let limit = match status.signal() {
        Some(libc::SIGXCPU) => CompileLimit::Cpu(limits.cpu_s),
        Some(libc::SIGXFSZ) => CompileLimit::Output(limits.output_bytes_max),
        _ if said.contains("memory allocation of") || said.contains("os error 12") => {
            CompileLimit::Memory(limits.memory_bytes_max)
        }
        _ if said.contains("os error 27") => CompileLimit::Output(limits.output_bytes_max),
        _ if said.contains("overflowed its stack") => CompileLimit::Stack,
        Some(libc::SIGSEGV) => CompileLimit::Stack,
        _ if status.code() == Some(i32::from(NOT_COMPILED)) => return RolloutError::Compile(said.to_owned()),
        // A panic of the compiler is the component's fault.
        _ if status.code() == Some(101) => {
            return RolloutError::Compile(format!("the compiler failed: {said}"));
        }
        _ => return RolloutError::Host(format!("the compiler ended with {status}: {said}")),
    };
    RolloutError::CompileLimit(limit)
}

/// The beginning of a line in which the child says by what it is not confined.
const UNCONFINED: &str = "not confined by ";

/// Logs once by what compilers are not confined here; gives the rest of what a child said.
fn log_confinement(said: &str) -> String {
    static LOGGED: AtomicBool = AtomicBool::new(false);
    let (missing, rest): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.starts_with(UNCONFINED));
    if !missing.is_empty() && !LOGGED.swap(true, Ordering::Relaxed) {
        let missing: Vec<_> = missing.iter().filter_map(|line| line.strip_prefix(UNCONFINED)).collect();
        tracing::warn!(
            missing = missing.join("; "),
            "decoders are compiled with limits of CPU time and memory, and without the confinement that this machine does not have"
        );
    }
    rest.join("\n")
}

/// The child's side: compiles the component on stdin into a file, under limits.
///
/// # Errors
/// It does not compile, or the file cannot be written.
pub fn compile_here(limits: CompileLimits, into: &Path) -> Result<(), String> {
    limit_this_process(limits).map_err(|error| format!("the limits cannot be set: {error}"))?;
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let mut file = fs::OpenOptions::new().write(true).open(into).map_err(|error| error.to_string())?;
    for missing in confine_this_thread() {
        eprintln!("{UNCONFINED}{missing}");
    }
    let code = engine::precompile(&bytes)?;
    file.write_all(&code).map_err(|error| error.to_string())
}

fn limit_this_process(limits: CompileLimits) -> std::io::Result<()> {
    let pages: u64 = fs::read_to_string("/proc/self/statm")?
        .split(' ')
        .next()
        .and_then(|pages| pages.parse().ok())
        .ok_or_else(|| std::io::Error::other("/proc/self/statm is not as expected"))?;
    // SAFETY: calls with numbers, and a limit of ours. A failed nice changes no result.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE) as u64;
        // Nobody waits for the result once the gateway is gone.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setpriority(libc::PRIO_PROCESS, 0, COMPILE_NICE);
        for (resource, soft, hard) in [
            (libc::RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 1),
            (libc::RLIMIT_AS, pages * page + limits.memory_bytes_max, pages * page + limits.memory_bytes_max),
            (libc::RLIMIT_FSIZE, limits.output_bytes_max, limits.output_bytes_max),
            (libc::RLIMIT_CORE, 0, 0),
        ] {
            let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
            if libc::setrlimit(resource, &limit) != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
    }
    Ok(())
}
