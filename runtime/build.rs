//! Puts the console into the program, where it was built: the files of target/console, each in gzip. Without them the
//! program says how to build it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let console = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/console");
    // A folder that is not there would have every build begin anew.
    let _ = fs::create_dir_all(&console);
    println!("cargo:rerun-if-changed={}", console.display());
    println!("cargo:rerun-if-changed=build.rs");
    let mut files = Vec::new();
    collect(&console, &mut files)?;
    files.sort();
    let mut code = String::from("static CONSOLE_FILES: &[ConsoleFile] = &[\n");
    for file in files {
        let Some(path) = file.strip_prefix(&console).ok().and_then(Path::to_str) else { continue };
        let Some(path) = path.strip_suffix(".gz") else { continue };
        let Some(content_type) = content_type(path) else { continue };
        println!("cargo:rerun-if-changed={}", file.display());
        let absolute = fs::canonicalize(&file)?;
        let _ = writeln!(
            code,
            "    ConsoleFile {{ path: {path:?}, content_type: {content_type:?}, bytes: include_bytes!({absolute:?}) }},"
        );
    }
    code.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("console_files.rs"), code)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

fn content_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}
