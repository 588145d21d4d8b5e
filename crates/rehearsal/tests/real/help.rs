//! Phases, parts and flags, as the real `--help` lists them, against the table.

use std::collections::BTreeSet;

use muster_kubeadm::versions::{Flag, IMAGES, OTHERS, Row, Shown, Workflow};

use crate::kubeadm::Kubeadm;

pub(crate) fn compare(real: &Kubeadm, minor: u32) {
    for workflow in [Workflow::Init, Workflow::Join, Workflow::Reset] {
        let name = workflow.name();
        let listed: Vec<_> =
            workflow.rows(minor).filter(|row| row.shown == Shown::Listed).map(|row| row.name.to_owned()).collect();
        let help = real.run(&format!("{name} --help")).stdout;
        assert_eq!(phases(&help), listed, "{}: the phases of {name}", real.version);
        for row in workflow.rows(minor) {
            let words = row.name.replace('/', " ");
            let line = format!("{name} phase {words}");
            if row.shown == Shown::Hidden {
                let parent = row.name.rsplit_once('/').map_or(String::new(), |(parent, _)| format!(" {parent}"));
                let last = row.name.rsplit('/').next().unwrap_or_default();
                let expected = format!("unknown command {last:?} for \"kubeadm {name} phase{parent}\"");
                assert_eq!(real.run(&line).error(), expected, "{}: {line} is hidden", real.version);
                continue;
            }
            has_flags(real, &line, row, minor);
            let below = commands(&real.run(&format!("{line} --help")).stdout);
            let parts = workflow.rows(minor).filter(|part| part.shown != Shown::Hidden);
            let parts: BTreeSet<_> = parts
                .filter_map(|part| part.name.strip_prefix(row.name)?.strip_prefix('/').map(str::to_owned))
                .collect();
            assert_eq!(below, parts, "{}: the parts of {line}", real.version);
        }
    }
    for row in OTHERS {
        if row.is_in(minor) {
            has_flags(real, row.name, row, minor);
        }
    }
    images(real, minor);
}

fn has_flags(real: &Kubeadm, line: &str, row: &Row, minor: u32) {
    let ours: BTreeSet<_> = row.flags.iter().filter(|flag| flag.first <= minor).map(shape).collect();
    let theirs = flags(&real.run(&format!("{line} --help")).stdout);
    assert_eq!(theirs, ours, "{}: the flags of {line}, real ones first", real.version);
}

fn shape(flag: &Flag) -> (String, Option<char>, bool) {
    (flag.name.to_owned(), flag.short, flag.takes_value)
}

/// The list of phases that a workflow's help has, in order.
fn phases(help: &str) -> Vec<String> {
    let (mut phases, mut parent) = (Vec::new(), String::new());
    for line in help.split("```").nth(1).unwrap_or_default().lines().filter(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().unwrap_or_default();
        if name.starts_with('/') {
            phases.push(format!("{parent}{name}"));
        } else {
            name.clone_into(&mut parent);
            phases.push(parent.clone());
        }
    }
    phases
}

/// The lines below a headline.
fn section<'a>(help: &'a str, headline: &'a str) -> impl Iterator<Item = &'a str> {
    help.lines().skip_while(move |line| *line != headline).skip(1).take_while(|line| !line.is_empty())
}

fn commands(help: &str) -> BTreeSet<String> {
    section(help, "Available Commands:").filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Name, letter, and whether a value follows, whose kind stands one space after the name.
fn flags(help: &str) -> BTreeSet<(String, Option<char>, bool)> {
    let read = |line: &str| {
        let line = line.strip_prefix("  ")?;
        let (short, long) = match line.strip_prefix('-').and_then(|rest| rest.split_once(", --")) {
            Some((letter, long)) if letter.len() == 1 => (letter.chars().next(), long),
            _ => (None, line.strip_prefix("    --")?),
        };
        let (name, rest) = long.split_once(' ')?;
        (name != "help").then(|| (name.to_owned(), short, !rest.starts_with(' ')))
    };
    section(help, "Flags:").filter_map(read).collect()
}

fn images(real: &Kubeadm, minor: u32) {
    let tags = IMAGES.iter().find(|images| images.minor == minor).expect("a row");
    let list = real.run(&format!("config images list --kubernetes-version {}", real.version)).stdout;
    for image in
        [format!("etcd:{}", tags.etcd), format!("pause:{}", tags.pause), format!("coredns/coredns:{}", tags.coredns)]
    {
        let image = format!("registry.k8s.io/{image}");
        assert!(list.lines().any(|line| line == image), "{}: no {image} in\n{list}", real.version);
    }
}
