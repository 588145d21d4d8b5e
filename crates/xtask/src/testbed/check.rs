//! `check`: a Ready Node is no proof of a network, so pods are started and used.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::kubernetes::Cluster;
use super::layout::{Paths, Testbed};
use super::report::{Report, round};
use crate::command::output;
use crate::interrupt;

const NAMESPACE: &str = "testbed-check";
/// Where the Service is on every machine.
const NODE_PORT: u16 = 30_080;
/// How long one question is repeated: rules follow a new pod by a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pod of the check and where it runs.
struct Pod {
    name: String,
    address: String,
    node: String,
}

/// Starts a pod on every machine and uses them: each pair, a Service by its name, a NodePort on every machine, and all of it
/// again after kube-proxy was restarted. Returns how long it took, in seconds.
pub(crate) fn check(testbed: &Testbed, report: &Report) -> Result<f64> {
    let started = Instant::now();
    let cluster = Cluster::find(testbed)?;
    let manifest = Paths::recipes().join("check.yaml");
    output(&mut cluster.kubectl(&["apply", "--filename", &manifest.to_string_lossy()]))?;
    rollout(&cluster, NAMESPACE, "agnhost")?;
    // A Service's name is looked up, so the cluster's DNS has to serve before.
    output(&mut cluster.kubectl(&[
        "--namespace",
        "kube-system",
        "rollout",
        "status",
        "deployment/coredns",
        "--timeout=120s",
    ]))
    .context("CoreDNS does not serve")?;
    let pods = pods(&cluster)?;
    ensure!(pods.len() == testbed.machines.len(), "{} pods run on {} machines", pods.len(), testbed.machines.len());
    pairs(&cluster, &pods)?;
    report.step(format!("pods of {} machines reach each other, by their own addresses", pods.len()));
    services(testbed, &cluster, &pods)?;
    report.step("the Service answers by its name from every machine's pod, and by its NodePort on every machine");
    output(&mut cluster.kubectl(&["--namespace", "kube-system", "rollout", "restart", "daemonset/kube-proxy"]))?;
    rollout(&cluster, "kube-system", "kube-proxy")?;
    services(testbed, &cluster, &pods).context("after kube-proxy was restarted")?;
    report.step("the same after kube-proxy was restarted everywhere");
    output(&mut cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]))?;
    let seconds = started.elapsed().as_secs_f64();
    report
        .result(&json!({ "network": true, "seconds": round(seconds) }), format!("The network works ({seconds:.1} s)."));
    Ok(seconds)
}

fn rollout(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    let set = format!("daemonset/{name}");
    let mut wait = cluster.kubectl(&["--namespace", namespace, "rollout", "status", &set, "--timeout=180s"]);
    output(&mut wait).map(drop).with_context(|| format!("{namespace}/{name} does not run on every machine"))
}

fn pods(cluster: &Cluster) -> Result<Vec<Pod>> {
    let list: Value = serde_json::from_str(&cluster.raw(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))?)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let pod = |item: &Value| {
        Some(Pod {
            name: text(&item["metadata"]["name"])?,
            address: text(&item["status"]["podIP"])?,
            node: text(&item["spec"]["nodeName"])?,
        })
    };
    Ok(list["items"].as_array().into_iter().flatten().filter_map(pod).collect())
}

/// Has every pod ask every other one whom it sees: it must be the asking pod's own address.
fn pairs(cluster: &Cluster, pods: &[Pod]) -> Result<()> {
    for from in pods {
        for to in pods.iter().filter(|to| to.name != from.name) {
            until(|| {
                let seen = dial(cluster, from, &to.address, 8080, "clientip")?;
                let seen = seen.rsplit_once(':').map_or(seen.as_str(), |(address, _)| address).to_owned();
                ensure!(seen == from.address, "the pod on {} is seen as {seen}, not {}", from.node, from.address);
                Ok(())
            })
            .with_context(|| format!("from the pod on {} to that on {}", from.node, to.node))?;
        }
    }
    Ok(())
}

fn services(testbed: &Testbed, cluster: &Cluster, pods: &[Pod]) -> Result<()> {
    let names: BTreeMap<&str, &str> = pods.iter().map(|pod| (pod.name.as_str(), pod.node.as_str())).collect();
    let known = |name: &str| {
        ensure!(names.contains_key(name.trim()), "{name:?} is no pod of the check");
        Ok(())
    };
    let service = format!("agnhost.{NAMESPACE}.svc.cluster.local");
    for from in pods {
        until(|| known(&dial(cluster, from, &service, 80, "hostname")?))
            .with_context(|| format!("from the pod on {} to {service}", from.node))?;
    }
    for machine in &testbed.machines {
        let at = SocketAddr::from((machine.address, NODE_PORT));
        until(|| known(&get(at, "/hostname")?)).with_context(|| format!("the NodePort {at} of {}", machine.name))?;
    }
    Ok(())
}

/// What another pod or a Service answers to one of ours, asked through the API server.
fn dial(cluster: &Cluster, from: &Pod, host: &str, port: u16, request: &str) -> Result<String> {
    let path = format!(
        "/api/v1/namespaces/{NAMESPACE}/pods/{}:8080/proxy/dial?host={host}&port={port}&protocol=http&request={request}&tries=1",
        from.name
    );
    let answer: Value = serde_json::from_str(&cluster.raw(&path)?).context("the pod's answer is no JSON")?;
    match answer["responses"][0].as_str() {
        Some(response) => Ok(response.to_owned()),
        None => bail!("no answer: {}", answer["errors"]),
    }
}

/// One GET over plain HTTP.
fn get(at: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("this is no HTTP")?;
    ensure!(head.split_whitespace().nth(1) == Some("200"), "{}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}

fn until(question: impl Fn() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    loop {
        match question() {
            Ok(()) => return Ok(()),
            Err(error) if started.elapsed() > PATIENCE => return Err(error),
            Err(_) => interrupt::sleep(Duration::from_millis(500))?,
        }
    }
}
