//! What commands print and how they end, as people and programs meet them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn muster_sim(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_muster-sim"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the program runs");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn a_text_to_stop_at_that_never_came_is_an_error_of_its_own() {
    let here = repository();
    let (code, _, said) = muster_sim(&here, &["replay", "five", "--break-on", "no such line"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("no line that was shown contains \"no such line\", to the end"), "{said}");
    // The same text on another machine, or later than the end, is as absent.
    let (code, _, said) = muster_sim(&here, &["replay", "five", "--break-on", "Ready", "--until", "0.5"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("up to 0.5 s"), "{said}");
    let (code, told, _) = muster_sim(&here, &["replay", "five", "--break-on", "no such line", "--json"]);
    let last = told.lines().last().expect("it printed");
    assert_eq!(code, Some(4));
    assert!(last.starts_with("{\"error\":") && last.ends_with("\"exit_code\":4}"), "{last}");
    let (code, told, _) = muster_sim(&here, &["replay", "five", "--break-on", "leads"]);
    assert_eq!(code, Some(0));
    assert!(told.contains("\nstopped at "), "{told}");
}

#[test]
fn a_broken_promise_weighs_more_than_a_text_that_never_came() {
    let arguments = ["replay", "threshold-splits", "--seed", "1", "--break-on", "no such line"];
    let (code, told, said) = muster_sim(&repository(), &arguments);
    assert_eq!(code, Some(1), "{said}");
    assert!(told.contains("safety-broken") && said.contains("no such line"), "{told}{said}");
}
