//! The table of kubeadm's versions and the double, compared with the real kubeadms.
//!
//! The executables are `1.34` to `1.37` in the directory that `MUSTER_KUBEADMS` names, or in
//! `/var/cache/muster-testbed/kubeadms`. One that is not there is not compared, which is said loudly, and fails where
//! `MUSTER_KUBEADMS_REQUIRED=1`. The real ones run with a root directory and a network of their own, in which there is nothing but
//! themselves: `unshare` of util-linux and user namespaces are needed, or root.

mod documents;
mod files;
mod help;
mod kubeadm;
mod plan;
mod refusals;

use kubeadm::real_and_double;

/// Everything there is to compare of one version.
fn compare(minor: u32) {
    let Some((real, double)) = real_and_double(minor) else { return };
    help::compare(&real, minor);
    refusals::compare(&real, &double, minor);
    documents::compare(&real, &double, minor);
    files::compare(&real, &double);
    plan::compare(&real, &double, minor);
}

#[test]
fn as_1_34() {
    compare(34);
}

#[test]
fn as_1_35() {
    compare(35);
}

#[test]
fn as_1_36() {
    compare(36);
}

#[test]
fn as_1_37() {
    compare(37);
}
