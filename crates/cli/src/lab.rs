//! `muster lab`: a whole cluster on one computer. Each machine is a process of the real agent; only kubeadm is a double.

mod machine;
pub(crate) mod place;
mod report;
mod site;
mod sweep;

use std::time::{Duration, Instant};

use muster_protocol::Phase;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::LabArguments;
use crate::exit::Exit;
use crate::print;
use machine::{Image, Machine};
use place::Place;
use report::{Event, Outcome, Report, is_ready, leader};

/// How often the machines are asked while they form.
const FORMING_PERIOD: Duration = Duration::from_millis(50);

/// How often they are asked afterwards, if somebody watches.
const FORMED_PERIOD: Duration = Duration::from_secs(1);

/// Longest time between two random kills.
const KILL_WITHIN: Duration = Duration::from_millis(1_500);

/// A running lab.
struct Lab {
    arguments: LabArguments,
    place: Place,
    image: Image,
    machines: Vec<Machine>,
    report: Report,
    begin: Instant,
    charter_after: Option<Duration>,
    leader: Option<String>,
    rng: ChaCha8Rng,
}

/// Runs a lab until it ends.
///
/// # Errors
/// When it cannot be set up.
pub(crate) async fn run(arguments: LabArguments) -> anyhow::Result<Exit> {
    let size = u32::from(arguments.machines);
    let control_planes = arguments.control_planes.map_or(if size >= 3 { 3 } else { 1 }, u32::from);
    if control_planes > size {
        print::complaint(&format!("error: {control_planes} control planes are more than {size} machines"));
        return Ok(Exit::Wrong);
    }
    let names: Vec<String> = (1..=size).map(|number| format!("lab-{number}")).collect();
    if let Some(fault) = arguments.fault.iter().find(|fault| !names.contains(&fault.machine)) {
        let machine = &fault.machine;
        print::complaint(&format!("error: --fault: the lab has no machine {machine:?}; it has lab-1 to lab-{size}"));
        return Ok(Exit::Wrong);
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut lab = Lab::set_up(arguments, control_planes, &names)?;
    let ended = tokio::select! {
        exit = lab.live() => exit,
        _ = interrupt.recv() => Ok(lab.interrupted()),
        _ = terminate.recv() => Ok(lab.interrupted()),
    };
    lab.report.finish();
    lab.tear_down().await?;
    ended
}

impl Lab {
    fn set_up(arguments: LabArguments, control_planes: u32, names: &[String]) -> anyhow::Result<Self> {
        let seed = match arguments.seed {
            Some(seed) => seed,
            None => u64::from(getrandom::u32().map_err(std::io::Error::other)?),
        };
        let place = Place::take(arguments.dir.as_deref(), names)?;
        let machines: Vec<Machine> = names
            .iter()
            .enumerate()
            .map(|(number, name)| Machine::new(&place.dir, name, place.address(number)))
            .collect();
        let image = site::image(&place, &arguments, control_planes, &machines)?;
        let report = Report::new(arguments.json, machines.len());
        let lab = Self {
            place,
            image,
            machines,
            report,
            begin: Instant::now(),
            charter_after: None,
            leader: None,
            rng: ChaCha8Rng::seed_from_u64(seed),
            arguments,
        };
        let dir = lab.place.dir.display().to_string();
        lab.tell(&Event::Started { dir, machines: names.len(), control_planes, seed });
        Ok(lab)
    }

    fn tell(&self, event: &Event) {
        self.report.event(self.begin.elapsed(), event);
    }

    /// Forms the cluster, says what came of it, and stays until somebody ends it.
    async fn live(&mut self) -> anyhow::Result<Exit> {
        self.begin = Instant::now();
        for number in 0..self.machines.len() {
            if number > 0 && !self.arguments.stagger.is_zero() {
                self.watch_for(self.arguments.stagger).await;
            }
            self.start(number)?;
        }
        let ready = self.form().await?;
        let outcome = Outcome {
            ready,
            took: self.begin.elapsed(),
            charter_after: self.charter_after,
            lab_flag: self.arguments.dir.as_ref().map(|dir| format!(" --lab {}", dir.display())).unwrap_or_default(),
        };
        let told = self.report.outcome(&outcome, &self.machines);
        if self.arguments.once {
            return Ok(if ready { Exit::Done } else { Exit::Failed });
        }
        let hint = format!("{told} (Ctrl-C ends the lab)");
        loop {
            tokio::time::sleep(FORMED_PERIOD).await;
            // Only a person who watches is worth the machines' answers: an idle lab is measured.
            if matches!(self.report, Report::Live(_)) {
                self.ask().await;
                self.report.draw(self.begin.elapsed(), &self.machines, &hint);
            }
            self.bury();
        }
    }

    fn start(&mut self, number: usize) -> anyhow::Result<()> {
        let name = self.machines[number].name.clone();
        let environment = site::environment_of(&name, &self.arguments.fault);
        self.machines[number].start(&self.image, &environment)
    }

    /// Until every machine is Ready, or the time is up. Whether they are.
    async fn form(&mut self) -> anyhow::Result<bool> {
        let mut kills = self.arguments.kill_random;
        let mut next_kill = self.begin.elapsed() + self.rng.random_range(Duration::ZERO..KILL_WITHIN);
        loop {
            self.ask().await;
            let died = self.bury();
            self.report.draw(self.begin.elapsed(), &self.machines, "forming; Ctrl-C ends the lab");
            if kills == 0 && self.machines.iter().all(is_ready) {
                return Ok(true);
            }
            let late = !self.arguments.timeout.is_zero() && self.begin.elapsed() > self.arguments.timeout;
            if late || (died && self.arguments.once) {
                return Ok(false);
            }
            if kills > 0 && self.begin.elapsed() >= next_kill {
                kills -= 1;
                let number = self.rng.random_range(0..self.machines.len());
                self.machines[number].kill().await;
                self.tell(&Event::Killed { machine: self.machines[number].name.clone() });
                self.start(number)?;
                next_kill = self.begin.elapsed() + self.rng.random_range(Duration::ZERO..KILL_WITHIN);
            }
            tokio::time::sleep(FORMING_PERIOD).await;
        }
    }

    async fn watch_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.ask().await;
            self.bury();
            self.report.draw(self.begin.elapsed(), &self.machines, "starting one machine after the other");
            tokio::time::sleep(FORMING_PERIOD.min(end.saturating_duration_since(Instant::now()))).await;
        }
    }

    /// Asks every machine how it is, and tells what changed.
    async fn ask(&mut self) {
        for number in 0..self.machines.len() {
            let machine = &mut self.machines[number];
            let before = machine.status.as_ref().map(|status| status.phase);
            if machine.pid().is_some() {
                machine.ask().await;
            }
            let Some(status) = &machine.status else { continue };
            let (phase, charter) = (status.phase, status.charter.clone());
            let event = Event::Phase { machine: machine.name.clone(), id: status.short.clone(), phase };
            if let Some(charter) = charter.filter(|_| self.charter_after.is_none()) {
                self.charter_after = Some(self.begin.elapsed());
                self.tell(&Event::Charter { charter });
            }
            if before != Some(phase) {
                self.tell(&event);
            }
        }
        let leader = leader(&self.machines);
        if leader != self.leader
            && let Some(machine) = leader.clone()
        {
            self.leader = leader;
            self.tell(&Event::Leader { machine });
        }
    }

    /// Tells of machines that ended by themselves. Whether there was one.
    fn bury(&mut self) -> bool {
        let mut dead = Vec::new();
        for machine in &mut self.machines {
            if machine.has_died() {
                machine.status = None;
                let how = machine.ended.map(|how| how.to_string()).unwrap_or_default();
                dead.push(Event::Died { machine: machine.name.clone(), how, log: machine.last_lines() });
            }
        }
        for event in &dead {
            self.tell(event);
        }
        !dead.is_empty()
    }

    /// Ctrl-C: the ordinary end of a lab that formed, an interruption of one that did not.
    fn interrupted(&self) -> Exit {
        let formed = self
            .machines
            .iter()
            .all(|machine| machine.status.as_ref().is_some_and(|status| status.phase == Phase::Ready));
        if formed && !self.arguments.once { Exit::Done } else { Exit::Interrupted }
    }

    /// Stops every machine and what its kubeadm left running, and removes the directory.
    async fn tear_down(&mut self) -> anyhow::Result<()> {
        for machine in &self.machines {
            machine.begin_stop();
        }
        for machine in &mut self.machines {
            machine.stopped().await;
        }
        sweep::end_processes(&self.place.dir);
        if self.arguments.keep {
            std::fs::write(self.place.dir.join(place::KEPT), "")?;
            print::complaint(&format!("kept: {} (each machine's log is agent.log)", self.place.dir.display()));
        } else {
            sweep::remove(&self.place.dir)?;
        }
        Ok(())
    }
}
