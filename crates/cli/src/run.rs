//! `muster run`: from the command line and muster.toml to a running agent.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use muster_agent::endpoint::Site;
use muster_agent::{AgentConfig, Ended, Hardware, LOG_DIRECTIVE, Ring, StandBy};
use muster_wire::Digest;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{EndpointArguments, RunArguments};
use crate::config::{self, Image, Loaded, Overrides, Refused, plan};
use crate::exit::Exit;
use crate::print;

/// Where the socket of the local API is made.
const RUN_DIR: &str = "/run/muster";

/// Runs the agent until it is told to stop.
///
/// # Errors
/// When it cannot start, or must not go on.
pub(crate) fn run(arguments: &RunArguments) -> anyhow::Result<Exit> {
    if arguments.stop_with_parent {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // It may have ended before we asked; then init is the parent now.
        if getppid().is_none_or(|parent| parent.is_init()) {
            return Ok(Exit::Failed);
        }
    }
    let filter = match EnvFilter::try_new(format!("{},{LOG_DIRECTIVE}", arguments.log)) {
        Ok(filter) => filter,
        Err(error) => {
            print::complaint(&format!("error: --log {:?}: {error}", arguments.log));
            return Ok(Exit::Wrong);
        }
    };
    let config = match configuration(arguments) {
        Ok(config) => config,
        Err(refused) => {
            print::complaint(&refused.to_string());
            return Ok(Exit::Wrong);
        }
    };
    let logs = Ring::default();
    log(filter, &logs);
    let stand_by = StandBy::of(&config);
    let runtime = crate::runtime()?;
    let ended = runtime.block_on(muster_agent::run(config, logs.clone()));
    // With all that still runs in it: nobody else would hear who asks there.
    drop(runtime);
    let ended = match ended {
        // Whoever watches a service starts it anew without end, and it would answer nobody meanwhile. A person at a terminal reads why.
        Err(error) if error.is_of_the_disk() && is_service() => {
            crate::runtime()?.block_on(stand_by.wait(&error, logs)).context("the agent cannot stand by")?
        }
        ended => ended.context("the agent stops")?,
    };
    match ended {
        Ended::Stopped => Ok(Exit::Done),
        // The same process: whoever watches it has nothing to mend.
        Ended::Renewed => {
            let why = Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).exec();
            Err(anyhow::Error::new(why).context("muster cannot start again"))
        }
    }
}

/// Serves the endpoint until the process ends.
///
/// # Errors
/// When it cannot listen.
pub(crate) fn endpoint(arguments: EndpointArguments) -> anyhow::Result<Exit> {
    log(EnvFilter::new("info"), &Ring::default());
    let EndpointArguments { listen, ca, run_dir, state_dir } = arguments;
    crate::runtime()?
        .block_on(muster_agent::endpoint::serve(Site { listen, ca, run_dir, state_dir }))
        .with_context(|| format!("the API endpoint cannot listen on {listen}"))?;
    Ok(Exit::Done)
}

/// Whether a service manager watches this process.
fn is_service() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Lines with their priority before them, as sd-daemon(3) has it: `journalctl -p warning` then shows what it should.
struct Journal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

/// Logs to standard error and to the ring that `muster logs` reads.
fn log(filter: EnvFilter, ring: &Ring) {
    // The journal has its own clock.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // An agent outlives whoever read its log; to complain of that on the same standard error would end it.
    let stderr = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let stderr = stderr.log_internal_errors(false);
    let stderr = match journal {
        true => stderr.event_format(Journal(fmt::format().without_time())).boxed(),
        false => stderr.boxed(),
    };
    let kept = fmt::layer().with_writer(ring.clone()).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(stderr).with(kept).init();
}

/// Reads and layers the configuration. Warnings go to standard error.
///
/// # Errors
/// With everything that is wrong in it.
pub(crate) fn configuration(arguments: &RunArguments) -> Result<AgentConfig, Refused> {
    let mut set = arguments.set.clone();
    let flags = [
        ("name", &arguments.name),
        ("discovery.listen", &arguments.listen),
        ("discovery.peers", &arguments.peers),
        ("discovery.mdns", &arguments.mdns),
    ];
    set.extend(flags.into_iter().filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={value}"))));
    let Loaded { image, warnings, .. } = config::load(&arguments.config, &Overrides::of_this_machine(set))?;
    if !warnings.is_empty() {
        print::complaint(&warnings);
    }
    Ok(agent_config(image, arguments))
}

fn agent_config(image: Image, arguments: &RunArguments) -> AgentConfig {
    let root = arguments.root.as_deref();
    let run_dir = plan::below(root, Path::new(RUN_DIR));
    let kubernetes = image.kubernetes;
    let version = kubernetes.version.clone().unwrap_or_default();
    let peers = image.peers.iter().map(ToString::to_string);
    let named = image.dns.iter().map(|name| format!("{name}:{}", config::PORT));
    let state_dir = plan::below(root, &image.state_dir);
    let settings = muster_kubeadm::Settings {
        backups_dir: state_dir.join("backups"),
        ..plan::settings(&image.cluster, &kubernetes, root, &run_dir)
    };
    AgentConfig {
        settings: muster_wire::Settings {
            machines: image.machines,
            control_planes: image.control_planes,
            durable: image.durable,
            kubernetes_version: version,
            digest: image.digest,
        },
        mesh_key: image.mesh_key,
        listen: image.listen,
        mdns: image.mdns,
        subnets: image.subnets,
        // What the configuration was checked by could read every document.
        foreign: muster_kubeadm::subnets(&settings).unwrap_or_default(),
        peers: peers.chain(named).collect(),
        name: image.name,
        state_dir: state_dir.clone(),
        endpoint_port: kubernetes.endpoint_port,
        manifests: kubernetes.manifests.clone(),
        hosts_file: plan::below(root, &kubernetes.hosts_file),
        kubernetes: settings,
        run_dir,
        cluster: image.cluster,
        kubeadm_env: Vec::new(),
        root: root.map(Path::to_owned),
        is_service: is_service() && root.is_none(),
        // Machines that share one computer share its hardware; each one's directory tells it apart.
        hardware: root.map(|root| Hardware::of(Digest::of("muster/root/v1", &[root.as_os_str().as_encoded_bytes()]))),
        tuning: muster_protocol::Tuning {
            replace_after: image.replace_after,
            backups: image.backups,
            ..muster_protocol::Tuning::default()
        },
        record: arguments.record.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn the_journal_is_told_how_bad_it_is() {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("no holder panics").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
        let layer = layer.event_format(Journal(fmt::format().without_time()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!("one");
            tracing::warn!("two");
            tracing::info!("three");
        });
        let text = String::from_utf8(kept.0.lock().expect("no holder panics").clone()).expect("text");
        let begins: Vec<&str> = text.lines().map(|line| &line[..3]).collect();
        assert_eq!(begins, ["<3>", "<4>", "<6>"]);
        assert!(text.contains("ERROR") && text.ends_with("three\n"), "{text}");
    }
}
