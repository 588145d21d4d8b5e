//! Every source file that the documents name is there.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two levels up").to_owned()
}

/// The files that git knows, and those that it does not ignore.
fn files() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = git.output().expect("git runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).expect("names are text").lines().map(str::to_owned).collect()
}

/// What stands between backticks and looks like a path of a source file or a document.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let spans = line.split('`').skip(1).step_by(2);
    spans.filter(|span| {
        let ends = [".rs", ".proto", ".md"].iter().any(|end| span.ends_with(end));
        // One of each, as `check/sNN.rs`, and what lies elsewhere.
        ends && !span.starts_with('/') && !span.contains(['*', '<', ' ', ':']) && !span.contains("NN")
    })
}

#[test]
fn documents_name_files_that_are_there() {
    let files = files();
    let there = |path: &str| files.iter().any(|file| file == path || file.ends_with(&format!("/{path}")));
    let documents =
        files.iter().filter(|file| file.ends_with(".md") && (file.starts_with("docs/") || *file == "README.md"));
    let (mut missing, mut seen) = (Vec::new(), 0);
    for document in documents {
        let text = std::fs::read_to_string(root().join(document)).expect("reads");
        for (at, line) in text.lines().enumerate() {
            for path in named(line) {
                seen += 1;
                if !there(path) {
                    missing.push(format!("{document}:{}: {path}", at + 1));
                }
            }
        }
    }
    assert!(seen > 100, "{seen} paths are too few: are they still looked for where they stand?");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
