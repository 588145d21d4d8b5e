//! Takes the scenarios of `simulations/` into the program, so that it runs them by name wherever it is.

use std::fmt::Write;
use std::path::Path;

/// Where they lie, and what comes before their names.
const FOLDERS: [(&str, &str); 2] = [("", ""), ("regressions", "regressions/")];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let simulations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../simulations").canonicalize()?;
    // Of a directory cargo looks at everything in it, new files too.
    println!("cargo:rerun-if-changed={}", simulations.display());
    let mut found = Vec::new();
    for (folder, prefix) in FOLDERS {
        for entry in std::fs::read_dir(simulations.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let stem = path.file_stem().ok_or("a scenario without a name")?.to_string_lossy().into_owned();
                found.push((format!("{prefix}{stem}"), path));
            }
        }
    }
    found.sort();
    let mut list = String::new();
    for (name, path) in found {
        writeln!(list, "({name:?}, include_str!({:?})),", path.display().to_string())?;
    }
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("scenarios.rs"), format!("&[{list}]"))?;
    Ok(())
}
