//! A seat on a disk in memory and a runtime in virtual time, with the world around it played by the test.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_wire::entry::Admitted;
use muster_wire::{Digest, Entry, Role};
use redb::backends::InMemoryBackend;

use super::*;
use crate::seeded::{Executor, Seeded};

const ME: MachineId = MachineId([1; 32]);
const OTHER: MachineId = MachineId([2; 32]);

fn charter() -> Charter {
    Charter {
        cluster: "site".to_owned(),
        id: [7; 16],
        voters: vec![ME],
        kubernetes_version: "v1.37.0".to_owned(),
        settings: Digest([0; 32]),
        machines: 1,
        quorum: 1,
        control_planes: 1,
    }
}

fn memory() -> Disk {
    Disk::open_on("memory", InMemoryBackend::new()).unwrap()
}

fn worker(name: &str, machine: MachineId) -> Bytes {
    let (name, address) = (name.to_owned(), "10.0.0.1".to_owned());
    Entry::Admitted(Admitted { machine, role: Role::Worker, name, sealing_key: [1; 32], address }).encode()
}

/// A machine that does what its seat wants.
struct Machine {
    seat: Seat<Seeded>,
    executor: Executor,
    now: Duration,
    started: Option<(mpsc::Receiver<Call>, mpsc::Receiver<Event>)>,
    ends: Arc<Mutex<Vec<Done>>>,
    /// What the core and others were told.
    told: Vec<Then<Seeded>>,
}

impl Machine {
    fn new() -> Self {
        Self {
            seat: Seat::new(ME),
            executor: Executor::new(1),
            now: Duration::ZERO,
            started: None,
            ends: Arc::default(),
            told: Vec::new(),
        }
    }

    /// Takes the seat on a disk; Raft is not open yet.
    fn start(&mut self, disk: &Disk) -> Opening<Seeded> {
        let charter = charter();
        let started = self.seat.start(
            Config::default(),
            &charter,
            &Ledger::founded(&charter),
            false,
            || Ok(disk.clone()),
            || Ok(()),
        );
        let Started { opening, calls, events } = started.unwrap().expect("it was empty");
        self.started = Some((calls, events));
        opening
    }

    fn open(&mut self, opening: Opening<Seeded>) {
        let opened = Arc::new(Mutex::new(None));
        let told = opened.clone();
        self.executor.spawn(async move { *told.lock().unwrap() = Some(opening.open().await) });
        self.executor.run(100_000);
        let opened = opened.lock().unwrap().take().expect("it opens at once");
        self.seat.opened(opened).unwrap();
    }

    /// A seat that leads.
    fn leading() -> Self {
        let mut machine = Self::new();
        let opening = machine.start(&memory());
        machine.open(opening);
        machine.seat.call_election();
        machine.goes_on(10);
        machine
    }

    /// Lets so many seconds pass.
    fn goes_on(&mut self, seconds: u64) {
        for _ in 0..seconds * 100 {
            self.follow();
            self.now += Duration::from_millis(10);
            self.executor.advance(self.now);
            self.executor.run(100_000);
            let (_, events) = self.started.as_mut().expect("it was started");
            while let Ok(event) = events.try_recv() {
                if let Some(input) = self.seat.heard(event).unwrap() {
                    self.told.push(Then::Input(input));
                }
            }
            for done in std::mem::take(&mut *self.ends.lock().unwrap()) {
                self.seat.done(done);
            }
        }
        self.follow();
    }

    fn follow(&mut self) {
        while let Some(then) = self.seat.follows() {
            match then {
                Then::Run(work) => {
                    let ends = self.ends.clone();
                    self.executor.spawn(async move {
                        let done = work.run().await;
                        ends.lock().unwrap().push(done);
                    });
                }
                then => self.told.push(then),
            }
        }
    }

    /// How each proposal ended, in order.
    fn outcomes(&self) -> Vec<(CallNumber, ProposalOutcome)> {
        let outcome = |then: &Then<Seeded>| match then {
            Then::Input(Input::Proposed { call, outcome }) => Some((*call, outcome.clone())),
            _ => None,
        };
        self.told.iter().filter_map(outcome).collect()
    }
}

#[test]
fn a_seat_is_opened_initialized_and_leads_and_what_is_proposed_is_committed_or_refused() {
    let mut machine = Machine::leading();
    machine.seat.propose(CallNumber(1), worker("one", OTHER));
    machine.seat.propose(CallNumber(2), worker("one", MachineId([3; 32])));
    machine.goes_on(1);
    // The first record is the membership, the second the leader's own.
    assert!(matches!(
        machine.outcomes()[..],
        [(CallNumber(1), ProposalOutcome::Applied(Revision(2))), (CallNumber(2), ProposalOutcome::Refused(ref why))] if why.contains("one")
    ));
    let inputs: Vec<&Input> = machine
        .told
        .iter()
        .filter_map(|then| match then {
            Then::Input(input) => Some(input),
            _ => None,
        })
        .collect();
    assert!(matches!(inputs[0], Input::Restored { .. }), "what the disk has comes first");
    assert!(inputs.iter().any(|input| matches!(input, Input::Leading { leader: Some(ME), .. })));
    assert!(inputs.iter().any(
        |input| matches!(input, Input::Applied { revision: Revision(2), entry } if *entry == worker("one", OTHER))
    ));
    assert_eq!(machine.seat.members().expect("it runs").0, BTreeSet::from([ME]));
}

#[test]
fn an_empty_seat_leads_nobody_and_a_taken_one_is_not_taken_again() {
    let mut machine = Machine::new();
    machine.seat.propose(CallNumber(1), worker("one", OTHER));
    machine.seat.call_election();
    machine.seat.set_voters(BTreeSet::from([ME]));
    machine.seat.called(OTHER, CallNumber(1), Bytes::new());
    machine.follow();
    assert_eq!(machine.outcomes(), [(CallNumber(1), ProposalOutcome::NotLeading(None))]);
    assert!(machine.ends.lock().unwrap().is_empty() && machine.executor.is_idle());
    drop(machine.start(&memory()));
    let charter = charter();
    let never = || unreachable!("the seat is taken");
    let again = machine.seat.start(Config::default(), &charter, &Ledger::default(), false, never, || unreachable!());
    assert!(again.unwrap().is_none());
}

#[test]
fn the_mark_is_written_once_the_store_is_there_and_before_raft_has_it() {
    let (charter, disk) = (charter(), memory());
    let marks = Cell::new(0);
    let mark = || {
        marks.set(marks.get() + 1);
        Store::<Seeded>::reopen(&disk, [7; 16], ME).expect("the store is there when the mark is written");
        Ok(())
    };
    let ledger = Ledger::default();
    let start = |begun, disk: &Disk| {
        let mut seat = Seat::<Seeded>::new(ME);
        seat.start(Config::default(), &charter, &ledger, begun, || Ok(disk.clone()), mark).map(|_| ())
    };
    start(false, &disk).unwrap();
    assert_eq!(marks.get(), 1);
    start(true, &disk).unwrap();
    assert_eq!(marks.get(), 1, "it stands already");
    let mut seat = Seat::<Seeded>::new(ME);
    let unmarked = || Err("state: cannot be written".to_owned());
    let refused = seat.start(Config::default(), &charter, &ledger, false, || Ok(memory()), unmarked).unwrap_err();
    assert_eq!((refused.to_string().as_str(), refused.lasts()), ("state: cannot be written", false));
    seat.propose(CallNumber(1), worker("one", OTHER));
    assert!(matches!(seat.follows(), Some(Then::Input(Input::Proposed { .. }))), "the seat is empty still");
}

#[test]
fn a_store_that_was_begun_and_is_gone_is_lost_for_good_and_a_full_disk_is_not() {
    let (charter, ledger) = (charter(), Ledger::default());
    let start = |begun, disk: Result<Disk, DiskError>| {
        let mut seat = Seat::<Seeded>::new(ME);
        seat.start(Config::default(), &charter, &ledger, begun, || disk, || Ok(())).map(|_| ())
    };
    let gone = start(true, Ok(memory())).unwrap_err();
    assert!(gone.lasts() && gone.to_string().contains("is gone") && gone.to_string().contains("Wipe"), "{gone}");
    let full = DiskError::Unusable { place: "raft.redb".to_owned(), why: "no space".to_owned() };
    let refused = start(true, Err(full)).unwrap_err();
    assert_eq!((refused.to_string().as_str(), refused.lasts()), ("raft.redb: no space", false));
    let broke = SeatError::Stopped(Broke::Panicked);
    assert!(!broke.lasts());
}

#[test]
fn what_is_asked_before_raft_is_open_waits_within_bounds() {
    let mut machine = Machine::new();
    let opening = machine.start(&memory());
    machine.seat.call_election();
    for call in 0..2 * WAITING_MAX as u64 {
        machine.seat.propose(CallNumber(call), worker("one", OTHER));
    }
    machine.follow();
    let refused = machine.outcomes();
    assert_eq!(refused.len(), WAITING_MAX + 1);
    assert!(refused.iter().all(|(_, outcome)| *outcome == ProposalOutcome::NotLeading(None)));
    machine.open(opening);
    machine.goes_on(1);
    assert_eq!(machine.outcomes().len(), 2 * WAITING_MAX, "what waited was done");
}

#[test]
fn one_change_of_voters_is_under_way_at_a_time() {
    let mut machine = Machine::leading();
    let voters = BTreeSet::from([ME, OTHER]);
    machine.seat.set_voters(voters.clone());
    machine.seat.set_voters(voters.clone());
    let count = std::iter::from_fn(|| machine.seat.follows()).count();
    assert_eq!(count, 1);
    machine.seat.done(Done::Voters(Ok(())));
    machine.seat.set_voters(voters);
    assert!(matches!(machine.seat.follows(), Some(Then::Run(_))));
}

#[test]
fn a_seat_that_is_left_answers_what_waits_and_tells_no_more() {
    let mut machine = Machine::leading();
    machine.seat.propose(CallNumber(1), worker("one", OTHER));
    let Some(Then::Run(work)) = machine.seat.follows() else { panic!("it is proposed") };
    assert!(machine.seat.stop().is_some());
    machine.follow();
    assert_eq!(machine.outcomes(), [(CallNumber(1), ProposalOutcome::NotLeading(None))]);
    machine.seat.done(Done::Proposed { call: CallNumber(1), outcome: ProposalOutcome::Applied(Revision(9)) });
    machine.follow();
    assert_eq!(machine.outcomes().len(), 1, "its outcome comes once");
    drop(work);
    for why in [None, Some(Broke::Panicked)] {
        assert!(matches!(machine.seat.heard(Event::Stopped { why }), Ok(None)));
    }
    assert!(matches!(machine.seat.heard(Event::Leading { term: 9, leader: Some(ME) }), Ok(None)));
    assert!(machine.seat.members().is_none() && machine.seat.refusals().is_none());
}

#[test]
fn what_breaks_is_said_and_what_was_asked_to_stop_is_not() {
    let machine = Machine::leading();
    assert!(matches!(machine.seat.heard(Event::Stopped { why: None }), Ok(None)));
    let broke = machine.seat.heard(Event::Stopped { why: Some(Broke::Failed("its disk".to_owned())) }).unwrap_err();
    assert_eq!(broke.to_string(), "Raft stopped: its disk");
}

#[test]
fn calls_of_others_are_answered_as_the_ledger_of_now_has_it() {
    let mut machine = Machine::leading();
    let calls = |machine: &mut Machine| {
        machine.seat.called(OTHER, CallNumber(5), Bytes::from_static(b"no call"));
        machine.goes_on(1);
        let refusals = machine.seat.refusals().expect("it runs");
        (refusals.strangers(), refusals.malformed())
    };
    assert_eq!(calls(&mut machine), (1, 0));
    let mut ledger = Ledger::founded(&Charter { control_planes: 3, ..charter() });
    machine.seat.trust(&ledger);
    assert_eq!(calls(&mut machine), (2, 0), "nothing changed");
    let (name, address) = ("two".to_owned(), "10.0.0.2".to_owned());
    let admitted = Admitted { machine: OTHER, role: Role::ControlPlane, name, sealing_key: [1; 32], address };
    ledger.apply(Revision(5), &Entry::Admitted(admitted)).expect("it has a seat");
    machine.seat.trust(&ledger);
    assert_eq!(calls(&mut machine), (2, 1), "it is heard as far as the decoder");
}

#[test]
fn a_call_that_nobody_can_carry_is_lost_and_an_answer_finds_its_call() {
    let mut seat = Seat::<Seeded>::new(ME);
    let call = || {
        let (answer, answered) = tokio::sync::oneshot::channel();
        (Call { to: OTHER, body: Bytes::from_static(b"?"), answer }, answered)
    };
    let (first, mut lost) = call();
    assert!(matches!(seat.call(first), Some(Frame::RaftCall { call: CallNumber(1), .. })));
    seat.unreachable(OTHER);
    assert!(lost.try_recv().is_err());
    let (second, mut answered) = call();
    assert!(matches!(seat.call(second), Some(Frame::RaftCall { call: CallNumber(2), .. })));
    seat.answered(OTHER, CallNumber(2), Bytes::from_static(b"!"));
    assert_eq!(answered.try_recv().unwrap(), "!");
}

/// What the seat begins now, as programmers read it.
fn begun(seat: &mut Seat<Seeded>) -> Vec<String> {
    let runs = std::iter::from_fn(|| seat.follows()).filter(|then| matches!(then, Then::Run(_)));
    runs.map(|then| format!("{then:?}")).collect()
}

#[test]
fn of_voters_that_are_wanted_while_a_change_is_under_way_the_last_follow_it() {
    let mut machine = Machine::leading();
    let wanted = |number: u8| BTreeSet::from([MachineId([number; 32])]);
    let is_of = |begun: &[String], number: u8| begun.len() == 1 && begun[0].contains(&format!("{:?}", wanted(number)));
    [1, 2, 3].into_iter().for_each(|number| machine.seat.set_voters(wanted(number)));
    let first = begun(&mut machine.seat);
    assert!(is_of(&first, 1), "one at a time: {first:?}");
    machine.seat.done(Done::Voters(Ok(())));
    let second = begun(&mut machine.seat);
    assert!(is_of(&second, 3), "the last that was wanted: {second:?}");
    machine.seat.done(Done::Voters(Ok(())));
    assert!(begun(&mut machine.seat).is_empty(), "and nothing after it");
}
