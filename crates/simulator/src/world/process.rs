//! A machine's process: it boots, hands inputs to the core, and carries out effects in order.

use bytes::Bytes;
use muster_consensus::Seat;
use muster_kubeadm::guard::Verdict;
use muster_protocol::{Boot, Effect, Effects, Input, Machine, Renewal};
use muster_wire::seal::SealingKey;
use muster_wire::{Digest, Durable, Identity};

use super::World;
use super::chance::{MS, seconds};
use super::clock::Clock;
use super::disk::{File, Found};
use super::etcd::ETCD_MANIFEST;
use super::event::{At, Event, Slot};
use super::host::{NextWrite, Power};
use super::program::{KUBELET, at};
use crate::scenario::Sort;
use crate::watch::Seen;

impl World {
    /// Starts the process on whatever its disk holds.
    pub(super) fn boot(&mut self, slot: Slot) {
        let host = &mut self.hosts[slot as usize];
        // Who has not been switched on yet is not started by the end of a fault either.
        if host.power == Power::On || self.now < seconds(self.scenario.boots_at_s(slot)) {
            return;
        }
        if host.held_down > 0 {
            // It would be up by now.
            return self.took_on(slot, &[Sort::Crash, Sort::Restart, Sort::Image, Sort::PowerLoss]);
        }
        let powered = std::mem::replace(&mut self.dark[slot as usize], false);
        let (file, durable) = match self.read_disk(slot) {
            Ok(read) => read,
            Err(why) => return self.refuse_start(slot, why, powered),
        };
        let host = &mut self.hosts[slot as usize];
        let generation = host.disk.generation;
        host.life += 1;
        host.up_since = self.now;
        host.raft_begun = file.raft_begun;
        host.identity_seed = file.identity_seed;
        host.sealing_seed = file.sealing_seed;
        let identity = Identity::from_seed(&file.identity_seed);
        let me = identity.machine();
        host.me = me;
        host.seat = Seat::new(me);
        host.clock = Clock::new(self.now, 1_000_000);
        let (life, level) = (host.life, host.level);
        let image = self.settings(slot).digest;
        let sealing_key = SealingKey::from_seed(&file.sealing_seed).public();
        self.see(Seen::Booting { slot, machine: me, generation, sealing_key, durable: &durable, image, level });
        let boot = Boot {
            sealing_key,
            identity,
            durable,
            cluster: self.cluster_name(slot).to_owned(),
            settings: self.settings(slot),
            hostname: format!("node-{slot}"),
            addresses: vec![format!("{}:{}", Self::address(slot), super::PORT)],
            api_port: 6443,
            fingerprint: Digest::of("hardware", &[&self.hardware(slot).to_le_bytes()]),
            seed: self.chance.fixed_bytes("boot seed", slot.into(), life.into()),
            manifests: self.scenario.image.manifests,
            level,
            raft_begun: self.hosts[slot as usize].raft_begun,
            tuning: self.tuning.clone(),
        };
        let shown = self.hosts[slot as usize].clock.show(self.now);
        let mut effects = Effects::default();
        match Machine::new(boot, shown, &mut effects) {
            Ok(machine) => {
                let host = &mut self.hosts[slot as usize];
                host.machine = Some(machine);
                host.power = Power::On;
                host.outbox.extend(effects.drain());
                self.directory.insert(me, slot);
                self.began(slot, life, powered);
            }
            Err(refusal) => self.refuse_start(slot, refusal.to_string(), powered),
        }
    }

    /// What the state file holds: an identity and what was promised under it, or the seeds of a new one.
    fn read_disk(&self, slot: Slot) -> Result<(File, Durable), String> {
        let disk = &self.hosts[slot as usize].disk;
        match disk.read() {
            Found::Broken => Err("the state file's checksum does not hold".into()),
            Found::Nothing => {
                let identity_seed = self.chance.fixed_bytes("identity", slot.into(), disk.generation);
                let sealing_seed = self.chance.fixed_bytes("sealing", slot.into(), disk.generation);
                Ok((File { identity_seed, sealing_seed, durable: Bytes::new(), raft_begun: false }, Durable::default()))
            }
            Found::File(file) => match Durable::decode(&file.durable) {
                Ok(durable) => Ok((file.clone(), durable)),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    /// What is around a machine that has just begun: its links, its kubelet after a power loss, what its device sees.
    fn began(&mut self, slot: Slot, life: u32, powered: bool) {
        self.links_of_new(slot);
        self.faults_on_boot(slot);
        let gone = self.kubelet_boots(slot, powered);
        self.let_start(slot);
        self.hosts[slot as usize].kube.etcd_gone = gone;
        if gone || self.hosts[slot as usize].kube.renewal != Renewal::NotYet {
            let seen = self.observed(slot, gone);
            self.feed(slot, seen);
        }
        if !self.backups(slot).is_empty() {
            self.tell_backups(slot);
        }
        self.carry_on(slot);
        self.follow_links(slot);
        let delay = self.chance.draw(self.scenario.discovery.delay_ms, MS);
        self.events.push(self.now + delay, Event::Discover { slot, life });
    }

    /// What the device sees of a machine.
    pub(super) fn observed(&self, slot: Slot, etcd_gone: bool) -> Input {
        let renewal = self.hosts[slot as usize].kube.renewal;
        Input::Observed { kubelet: None, certificates_end_s: 0, renewal, ca_ends_s: 0, sync_us: 0, etcd_gone }
    }

    /// The agent looks again.
    pub(super) fn look_at_certificates(&mut self, slot: Slot) {
        // What is told of etcd's data is told at a start.
        if !self.hosts[slot as usize].kube.etcd_gone {
            let seen = self.observed(slot, false);
            self.feed(slot, seen);
        }
    }

    fn refuse_start(&mut self, slot: Slot, why: String, powered: bool) {
        self.see(Seen::RefusedStart { slot, raft: None, why: &why });
        self.hosts[slot as usize].power = Power::Refuses(why);
        self.kubelet_boots(slot, powered);
    }

    /// A machine was switched on: its kubelet starts, or asks first. Says whether it must not, since etcd's data is gone.
    fn kubelet_boots(&mut self, slot: Slot, powered: bool) -> bool {
        if !powered {
            // It runs, or does not: the agent looks whether etcd's data is gone, as at every start of its own.
            let etcd = self.has(slot, KUBELET) && self.has(slot, &at(ETCD_MANIFEST));
            return etcd && matches!(self.guarded(slot), Verdict::Withhold { .. });
        }
        self.hosts[slot as usize].kube.held = None;
        match self.kubelet_waits(slot) {
            true => self.kubelet_begins_to_ask(slot),
            false => return !self.kubelet_starts(slot),
        }
        false
    }

    /// The process ends at once, with whatever it had not written. Says whether it ran.
    pub(super) fn crash(&mut self, slot: Slot) -> bool {
        if self.hosts[slot as usize].power != Power::On {
            return false;
        }
        self.hosts[slot as usize].platter.cut_off();
        self.kill_steps(slot);
        self.hosts[slot as usize].forget();
        self.hosts[slot as usize].power = Power::Off;
        self.links_of_dead(slot);
        self.see(Seen::Stopped { slot });
        true
    }

    /// Lets the core take an input, and carries out what it wants.
    pub(super) fn take(&mut self, slot: Slot, input: Input) {
        self.hand_over(slot, input);
        self.carry_on(slot);
    }

    fn hand_over(&mut self, slot: Slot, input: Input) {
        let host = &mut self.hosts[slot as usize];
        let Some(machine) = host.machine.as_mut() else { return };
        let now = host.clock.show(self.now);
        let mut effects = std::mem::take(&mut self.effects);
        self.watch.before(self.now, slot, machine, &input);
        machine.handle(now, input, &mut effects);
        host.seat.trust(machine.latest_ledger());
        host.outbox.extend(effects.drain());
        self.effects = effects;
        if host.slow_us > 0 {
            host.busy = true;
            let life = host.life;
            self.events.push(self.now + host.slow_us, Event::Continue { slot, life });
        }
        self.watch.after(self.now, slot, machine, &host.outbox);
        if host.slow_us > 0 {
            self.took_on(slot, &[Sort::Slow]);
        }
        self.let_start(slot);
    }

    /// A write is done, or the CPU is free.
    pub(super) fn go_on(&mut self, slot: Slot, life: u32) {
        let host = &mut self.hosts[slot as usize];
        if host.life != life {
            return;
        }
        if host.writing {
            self.written(slot);
        } else {
            host.busy = false;
        }
        if self.hosts[slot as usize].life == life {
            self.carry_on(slot);
        }
    }

    /// Carries out effects up to the next write, then takes the inputs that waited.
    pub(super) fn carry_on(&mut self, slot: Slot) {
        loop {
            let host = &mut self.hosts[slot as usize];
            if host.power != Power::On || host.writing {
                return;
            }
            if let Some(effect) = host.outbox.front() {
                if matches!(effect, Effect::Persist(_)) {
                    self.write(slot);
                } else if let Some(effect) = host.outbox.pop_front() {
                    self.carry_out_effect(slot, effect);
                }
                continue;
            }
            if !host.free() {
                return;
            }
            match host.inbox.pop_front() {
                Some(input) => self.hand_over(slot, input),
                None => return self.set_alarm(slot),
            }
        }
    }

    fn set_alarm(&mut self, slot: Slot) {
        let host = &mut self.hosts[slot as usize];
        let Some(machine) = &host.machine else { return };
        let wanted = machine.next_wakeup().map(|(at, _)| host.clock.when(at).max(self.now));
        if wanted != host.wake_at {
            host.wake_at = wanted;
            let life = host.life;
            if let Some(at) = wanted {
                self.events.push(at, Event::Wake { slot, life });
            }
        }
    }

    /// The clock was set: the alarm is for another moment now.
    pub(super) fn reset_alarm(&mut self, slot: Slot) {
        self.reset_links_alarm(slot);
        if self.hosts[slot as usize].up() {
            self.hosts[slot as usize].wake_at = None;
            self.set_alarm(slot);
            if let Some(voter) = &mut self.hosts[slot as usize].voter {
                voter.forget_alarm();
            }
            self.raft_drive(slot);
        }
    }

    pub(super) fn wake(&mut self, slot: Slot, life: u32) {
        let host = &mut self.hosts[slot as usize];
        if host.life != life || host.wake_at != Some(self.now) {
            return;
        }
        host.wake_at = None;
        if host.free() && host.inbox.is_empty() {
            self.take(slot, Input::Wake);
        } else if !host.paused {
            // It is looked at again when the inputs that wait are through.
            host.inbox.push_back(Input::Wake);
        }
    }

    /// Begins the write at the front of the outbox.
    fn write(&mut self, slot: Slot) {
        let host = &mut self.hosts[slot as usize];
        if host.next_write == Some(NextWrite::CrashBefore) || host.next_write == Some(NextWrite::Fails) {
            let crashes = host.next_write.take() == Some(NextWrite::CrashBefore);
            let sorts: &[Sort] = if crashes { &[Sort::CrashOnWrite] } else { &[Sort::Full, Sort::IoError] };
            self.last_took_on(slot, sorts);
            return self.crash_and_restart(slot);
        }
        host.writing = true;
        let life = host.life;
        let takes = self.chance.draw(self.scenario.disk.sync_ms, MS);
        self.events.push(self.now + takes.max(1), Event::Continue { slot, life });
    }

    fn written(&mut self, slot: Slot) {
        let host = &mut self.hosts[slot as usize];
        host.writing = false;
        let Some(Effect::Persist(durable)) = host.outbox.pop_front() else { return };
        if host.next_write == Some(NextWrite::Torn) {
            host.next_write = None;
            host.disk.break_file();
            self.last_took_on(slot, &[Sort::TornWrite]);
            self.see(Seen::Damaged { slot });
            return self.crash_and_restart(slot);
        }
        let bytes: Bytes = durable.encode().into();
        let misdirected = host.next_write == Some(NextWrite::Misdirected);
        host.disk.write(File {
            identity_seed: host.identity_seed,
            sealing_seed: host.sealing_seed,
            durable: bytes.clone(),
            raft_begun: host.raft_begun,
        });
        if misdirected {
            // The disk says that it is done. What it has is a file without its content, and a page of Raft's with it.
            host.next_write = None;
            host.disk.break_file();
            host.platter.misdirect(&bytes, self.chance.fixed("misdirected", slot.into(), self.now));
            self.last_took_on(slot, &[Sort::Misdirected]);
            self.see(Seen::Damaged { slot });
        }
        let host = &self.hosts[slot as usize];
        let machine = host.me;
        let crash = host.next_write == Some(NextWrite::CrashAfter);
        self.see(Seen::Persisted { slot, machine, durable: &durable });
        if crash {
            self.hosts[slot as usize].next_write = None;
            self.last_took_on(slot, &[Sort::CrashOnWrite]);
            self.crash_and_restart(slot);
        }
    }

    pub(super) fn crash_and_restart(&mut self, slot: Slot) {
        self.crash(slot);
        let after = self.chance.draw(self.scenario.boots.restart_s, super::chance::S);
        // While the disk is full or fails, every start meets the same end.
        self.events.push(self.now + after, Event::Boot { slot });
    }

    /// Everything that the machine knew is gone, and its process starts again.
    fn renew(&mut self, slot: Slot) {
        let host = &mut self.hosts[slot as usize];
        host.disk.wipe();
        host.platter = super::platter::Platter::default();
        self.see(Seen::Renewed { slot });
        self.crash_and_restart(slot);
    }

    /// The number of the hardware that a machine shows.
    fn hardware(&self, slot: Slot) -> Slot {
        if slot < self.scenario.image.alike { 0 } else { slot }
    }

    fn carry_out_effect(&mut self, slot: Slot, effect: Effect) {
        match effect {
            Effect::Persist(_) | Effect::Endpoint(_) => {}
            Effect::Send { to, frame } => self.send(slot, to, frame),
            Effect::Learn { machine, addresses } => self.learn(slot, machine, &addresses),
            Effect::Refuse { machine, rest, why } => self.refuse(slot, machine, rest, &why),
            Effect::StartRaft { charter } => self.raft_start(slot, &charter),
            Effect::RebuildRaft { charter, known, next } => self.raft_rebuild(slot, &charter, &known, next),
            Effect::CallElection => self.raft_call_election(slot),
            Effect::StopRaft => self.raft_stops(slot),
            Effect::Renew => self.renew(slot),
            Effect::SetVoters(voters) => self.raft_voters(slot, voters),
            Effect::Propose { call, entry } => self.raft_propose(slot, call, entry),
            Effect::Run { run, step } => self.run_step(slot, run, step),
            Effect::Abort { run } => self.abort_step(slot, run),
            Effect::ApiServers(servers) => {
                if !self.judged_apart(slot) {
                    let machine = self.hosts[slot as usize].me;
                    self.see(Seen::Offered { slot, machine, servers: &servers });
                }
                self.hosts[slot as usize].api_servers = servers;
            }
            Effect::Former(former) => self.hosts[slot as usize].former = former,
            Effect::KeepBackups { last, wanted } => self.keep_backups(slot, last, wanted),
            Effect::Answer { call, fate } => self.wish_answered(slot, call, &fate),
            Effect::Notice(notice) => self.see(Seen::Notice { slot, notice: &notice }),
        }
    }

    /// What faults under way do to a process that starts.
    fn faults_on_boot(&mut self, slot: Slot) {
        for active in 0..self.active.len() {
            let (index, hit) = (self.active[active].index, self.active[active].targets.contains(&slot));
            let (kind, ms, ppm) = (self.plan[index].kind, self.plan[index].ms, self.plan[index].ppm);
            let host = &mut self.hosts[slot as usize];
            // What is slow or fails is noted when it does.
            let drifts = kind == Sort::ClockDrift && ppm.is_some_and(|ppm| ppm != 0.0);
            self.fared[index].took |= hit && (drifts || kind == Sort::Pause && host.paused);
            match kind {
                _ if !hit => {}
                Sort::Full | Sort::IoError => {
                    host.next_write = Some(NextWrite::Fails);
                    host.platter.set_failing(true);
                }
                Sort::Slow => host.slow_us = (ms.unwrap_or(0.0) * MS) as At,
                Sort::ClockDrift => host.clock.drift(self.now, ppm.unwrap_or(0.0)),
                Sort::LyingSync => {
                    host.disk.begin_lying();
                    host.platter.set_lying(true);
                }
                _ => {}
            }
        }
    }
}
