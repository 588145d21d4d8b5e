//! What is written before something is taken away, to see afterwards whether what was acknowledged is there.

use anyhow::{Context, Result};

use super::kubernetes::Cluster;
use crate::command::output;

/// How many ConfigMaps.
pub(super) const WRITTEN: usize = 20;

/// ConfigMaps that an API server acknowledged.
pub(super) struct Written(Vec<String>);

impl Written {
    /// Writes them, each called after `what`.
    pub(super) fn write(cluster: &Cluster, what: &str) -> Result<Self> {
        let names: Vec<String> = (0..WRITTEN).map(|number| format!("{what}-{number}")).collect();
        for name in &names {
            output(&mut cluster.kubectl(&["create", "configmap", name])).with_context(|| format!("writing {name}"))?;
        }
        Ok(Self(names))
    }

    /// How many of them are not there any more.
    pub(super) fn lost(&self, cluster: &Cluster) -> Result<usize> {
        let there = output(&mut cluster.kubectl(&["get", "configmaps", "-o", "name"]))?;
        Ok(self.0.iter().filter(|name| !there.lines().any(|line| line == format!("configmap/{name}"))).count())
    }

    /// Takes them away, as far as that can be.
    pub(super) fn tidy(&self, cluster: &Cluster) {
        for name in &self.0 {
            let _ = output(&mut cluster.kubectl(&["delete", "configmap", name, "--ignore-not-found", "--wait=false"]));
        }
    }
}
