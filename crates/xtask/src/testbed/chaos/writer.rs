//! A writer that appends numbered ConfigMaps through whichever machine's endpoint takes them, and remembers what was acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::super::clients::Way;
use super::super::kubernetes::Cluster;
use super::super::layout::Testbed;
use super::super::up::now;
use crate::command::output;

/// Pause between two writes.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one waits for its answer: longer than etcd takes to find another leader.
const PATIENCE: Duration = Duration::from_secs(8);
const OBJECTS: &str = "/api/v1/namespaces/default/configmaps";
const LABEL: (&str, &str) = ("muster-testbed", "chaos");

/// All that writers wrote.
fn written() -> String {
    format!("{OBJECTS}?labelSelector={}%3D{}", LABEL.0, LABEL.1)
}

fn ways(testbed: &Testbed) -> Result<Vec<Way>> {
    testbed.machines.iter().map(|machine| Way::through(testbed, machine)).collect()
}

/// It writes until it is told to stop.
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    ways: Arc<Mutex<Vec<Way>>>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Begins to write.
    pub(super) fn start(testbed: &Testbed) -> Result<Self> {
        let ways = Arc::new(Mutex::new(ways(testbed)?));
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<BTreeSet<String>>>::default());
        let (stopped, kept, goes) = (Arc::clone(&stop), Arc::clone(&acknowledged), Arc::clone(&ways));
        // Tells what this run writes from what an earlier one has left.
        let run = (now() * 1e3) as u64;
        let thread = spawn(move || {
            for number in 0_usize.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let name = format!("chaos-{run}-{number}");
                let body = serde_json::json!({"metadata": {"name": name, "labels": {LABEL.0: LABEL.1}}}).to_string();
                // The next machine each time: whoever is cut off takes nothing, and is passed over.
                let ways = goes.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(way) = ways.get(number % ways.len().max(1))
                    && way.connect(PATIENCE).and_then(|mut to| way.once(&mut to, "POST", OBJECTS, &body)).is_ok()
                {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                }
                sleep(PAUSE);
            }
        });
        Ok(Self { stop, ways, acknowledged, thread })
    }

    /// From here on it asks the machines where they are now.
    pub(super) fn goes_by(&self, testbed: &Testbed) -> Result<()> {
        *self.ways.lock().unwrap_or_else(PoisonError::into_inner) = ways(testbed)?;
        Ok(())
    }

    /// How many writes were acknowledged so far.
    pub(super) fn count(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What was acknowledged before this question and is not there.
    pub(super) fn lost(&self, cluster: &Cluster) -> Result<Vec<String>> {
        let before = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // All of it, from etcd itself: without a resourceVersion the answer is what a quorum has.
        let list: Value = serde_json::from_str(&output(&mut cluster.kubectl(&["get", "--raw", &written()]))?)?;
        let names = list["items"].as_array().into_iter().flatten();
        let there: BTreeSet<&str> = names.filter_map(|item| item["metadata"]["name"].as_str()).collect();
        Ok(before.into_iter().filter(|name| !there.contains(name.as_str())).collect())
    }

    /// Stops it.
    pub(super) fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the writer panicked"))
    }

    /// Takes away what it wrote.
    pub(super) fn tidy(cluster: &Cluster) -> Result<()> {
        // All at once: kubectl deletes thousands one after the other.
        output(&mut cluster.kubectl(&["delete", "--raw", &written()])).map(drop)
    }
}
