//! Arguments in, exit code out; everything else is in the library.

/// Memory of a message is allocated on one thread and freed on another. An allocator whose threads share
/// no lock for that saves a fifth of the gateway's CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    use_small_pages();
    tidegate::cli::main()
}

/// Asks for no pages of 2 MiB. The allocator gets some for each thread, of which little is used: 40 MB of a
/// gateway that has nothing to do (docs/DECISIONS.md).
fn use_small_pages() {
    let (disabled, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: prctl(2) with numbers only. A kernel that does not know it refuses, and all is as without it.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disabled, unused, unused, unused) };
}
