use bytes::Bytes;
use muster_wire::{Epoch, Identity, Removal, Role, SignedWish, WireError, Wish, level};

use super::*;

const NEXT: NextEpoch = NextEpoch { number: 1, backup: None };

fn id(number: u8) -> MachineId {
    MachineId([number; 32])
}

fn admitted(number: u8) -> Admitted {
    Admitted {
        machine: id(number),
        role: Role::Worker,
        name: format!("node-{number}"),
        sealing_key: [number; 32],
        address: format!("10.0.0.{number}"),
    }
}

fn admit(number: u8, role: Role) -> Entry {
    Entry::Admitted(Admitted { role, ..admitted(number) })
}

fn pki(attempt: Attempt, ca: &str, machines: &[u8]) -> Entry {
    let sealed = machines.iter().map(|number| Sealed { machine: id(*number), ciphertext: Bytes::from_static(b"x") });
    Entry::PkiSealed { attempt, ca_hash: Digest::of(ca, &[]), sealed: sealed.collect() }
}

fn ready(attempt: Attempt, tokens: &[u8]) -> Entry {
    let tokens = tokens.iter().map(|number| id(*number)).collect();
    Entry::InitReady { attempt, ca_hash: Digest::of("ca", &[]), endpoints: vec!["10.0.0.1:6443".into()], tokens }
}

fn claim(attempt: Attempt, number: u8) -> Entry {
    Entry::InitClaimed { attempt, machine: id(number), founders: Vec::new() }
}

fn turn(kind: TurnKind, holder: u8, change: TurnChange, number: TurnNumber) -> Entry {
    Entry::Turn(Turn { kind, number, holder: id(holder), change })
}

/// Applies entries in order; all but the last must be taken. Returns what became of the last.
fn apply(ledger: &mut Ledger, entries: &[Entry]) -> Result<(), Refusal> {
    let mut last = Ok(());
    for entry in entries {
        last.clone().expect("taken");
        last = ledger.apply(ledger.revision().next(), entry);
    }
    last
}

fn three() -> Ledger {
    let mut ledger = Ledger::default();
    let roles = [(1, Role::ControlPlane), (2, Role::ControlPlane), (3, Role::Worker)];
    apply(&mut ledger, &roles.map(|(number, role)| admit(number, role))).expect("admits");
    ledger
}

#[test]
fn one_attempt_is_live_at_a_time_and_none_after_the_cluster_is_made() {
    let mut ledger = three();
    assert_eq!(
        apply(&mut ledger, &[claim(Attempt(2), 1)]),
        Err(Refusal::WrongAttempt { named: Attempt(2), next: Attempt(1) })
    );
    assert_eq!(apply(&mut ledger, &[claim(Attempt(1), 3)]), Err(Refusal::NotControlPlane(id(3))));
    apply(&mut ledger, &[claim(Attempt(1), 1)]).expect("claims");
    assert_eq!(
        apply(&mut ledger, &[claim(Attempt(2), 2)]),
        Err(Refusal::NotLive { named: Attempt(2), live: Some(Attempt(1)) })
    );
    assert_eq!(apply(&mut ledger, &[ready(Attempt(1), &[])]), Err(Refusal::NoCa));
    apply(&mut ledger, &[pki(Attempt(1), "ca", &[1, 2]), ready(Attempt(1), &[2])]).expect("is ready");
    assert_eq!(apply(&mut ledger, &[claim(Attempt(2), 2)]), Err(Refusal::AlreadyReady(Attempt(1))));
    assert_eq!(apply(&mut ledger, &[ready(Attempt(1), &[])]), Err(Refusal::AlreadyReady(Attempt(1))));
}

#[test]
fn an_abandoned_attempt_never_makes_the_cluster_and_its_ca_is_kept() {
    let mut ledger = three();
    let abandoned = Entry::InitAbandoned { attempt: Attempt(1), why: "died".into() };
    apply(&mut ledger, &[claim(Attempt(1), 1), pki(Attempt(1), "ca", &[1, 2]), abandoned, claim(Attempt(2), 2)])
        .expect("goes on");
    assert_eq!(
        apply(&mut ledger, &[ready(Attempt(1), &[])]),
        Err(Refusal::NotLive { named: Attempt(1), live: Some(Attempt(2)) })
    );
    assert_eq!(apply(&mut ledger, &[pki(Attempt(2), "another", &[2])]), Err(Refusal::OtherCa));
    apply(&mut ledger, &[ready(Attempt(2), &[])]).expect("is ready");
    assert_eq!(ledger.ready().map(|ready| ready.machine), Some(id(2)));
}

#[test]
fn tickets_die_with_their_attempt_and_with_a_token_that_init_did_not_register() {
    let mut ledger = three();
    let ticket = |attempt| Entry::Ticket { machine: id(3), attempt, ciphertext: Bytes::from_static(b"t") };
    apply(&mut ledger, &[claim(Attempt(1), 1), pki(Attempt(1), "ca", &[1, 2]), ticket(Attempt(1))])
        .expect("has a ticket");
    apply(&mut ledger, &[Entry::InitAbandoned { attempt: Attempt(1), why: String::new() }]).expect("is abandoned");
    assert_eq!(ledger.ticket(id(3)).cloned(), None);
    assert_eq!(
        apply(&mut ledger, &[claim(Attempt(2), 1), ticket(Attempt(1))]),
        Err(Refusal::NotLive { named: Attempt(1), live: Some(Attempt(2)) })
    );
    apply(&mut ledger, &[ticket(Attempt(2)), ready(Attempt(2), &[2])]).expect("is ready");
    assert_eq!(ledger.ticket(id(3)).cloned(), None);
    apply(&mut ledger, &[ticket(Attempt(2))]).expect("has another ticket");
}

#[test]
fn etcd_is_joined_in_turn() {
    let mut ledger = three();
    let turn = |number, change, count| turn(TurnKind::Etcd, number, change, count);
    assert!(apply(&mut ledger, &[turn(2, TurnChange::Started, TurnNumber(1))]).is_err(), "there is no etcd yet");
    apply(&mut ledger, &[claim(Attempt(1), 1), pki(Attempt(1), "ca", &[1, 2]), ready(Attempt(1), &[2])])
        .expect("is ready");
    apply(&mut ledger, &[turn(2, TurnChange::Started, TurnNumber(1))]).expect("takes its turn");
    assert_eq!(
        apply(&mut ledger, &[turn(1, TurnChange::Started, TurnNumber(2))]),
        Err(Refusal::TurnTaken { kind: TurnKind::Etcd, holder: id(2) })
    );
    assert_eq!(
        apply(&mut ledger, &[turn(2, TurnChange::Done, TurnNumber(2))]),
        Err(Refusal::NoSuchTurn(TurnKind::Etcd))
    );
    apply(&mut ledger, &[turn(2, TurnChange::Done, TurnNumber(1))]).expect("is done");
    assert!(ledger.has_etcd(id(2)));
    assert_eq!(
        apply(&mut ledger, &[turn(3, TurnChange::Started, TurnNumber(2))]),
        Err(Refusal::NotControlPlane(id(3)))
    );
}

#[test]
fn one_machine_disrupts_at_a_time_and_etcd_is_joined_meanwhile() {
    let mut ledger = three();
    let disrupt = |number, change, count| turn(TurnKind::Disrupt, number, change, count);
    apply(&mut ledger, &[Entry::LevelRaised { level: 2 }]).expect("is raised");
    assert!(
        apply(&mut ledger, &[disrupt(3, TurnChange::Started, TurnNumber(1))]).is_err(),
        "there is nothing to disrupt yet"
    );
    apply(&mut ledger, &[claim(Attempt(1), 1), pki(Attempt(1), "ca", &[1, 2]), ready(Attempt(1), &[2])])
        .expect("is ready");
    apply(&mut ledger, &[disrupt(3, TurnChange::Started, TurnNumber(1))]).expect("a worker may");
    let taken = Refusal::TurnTaken { kind: TurnKind::Disrupt, holder: id(3) };
    assert_eq!(apply(&mut ledger, &[disrupt(1, TurnChange::Started, TurnNumber(2))]), Err(taken));
    apply(&mut ledger, &[turn(TurnKind::Etcd, 2, TurnChange::Started, TurnNumber(1))]).expect("is another kind");
    assert_eq!(
        apply(&mut ledger, &[turn(TurnKind::Etcd, 3, TurnChange::GaveUp, TurnNumber(1))]),
        Err(Refusal::NoSuchTurn(TurnKind::Etcd)),
        "an end names its kind"
    );
    apply(
        &mut ledger,
        &[disrupt(3, TurnChange::GaveUp, TurnNumber(1)), disrupt(1, TurnChange::Started, TurnNumber(2))],
    )
    .expect("is free again");
    apply(&mut ledger, &[Entry::Removed { machine: id(1) }]).expect("is removed");
    assert_eq!(ledger.turn(TurnKind::Disrupt), None, "a turn ends with its holder");
}

#[test]
fn names_are_unique_and_removed_identities_stay_away() {
    let mut ledger = three();
    let taken = Entry::Admitted(Admitted {
        machine: id(9),
        role: Role::Worker,
        name: "node-1".into(),
        sealing_key: [0; 32],
        address: "10.0.0.9".into(),
    });
    assert_eq!(apply(&mut ledger, &[taken]), Err(Refusal::NameTaken { name: "node-1".into(), holder: id(1) }));
    apply(&mut ledger, &[Entry::Removed { machine: id(3) }]).expect("is removed");
    assert_eq!(apply(&mut ledger, &[admit(3, Role::Worker)]), Err(Refusal::WasRemoved(id(3))));
}

#[test]
fn an_address_is_corrected_until_something_carries_it() {
    let mut ledger = three();
    let at = |number: u8, address: &str| {
        let Entry::Admitted(admitted) = admit(number, three().member(id(number)).expect("is admitted").admitted.role)
        else {
            unreachable!("it is one")
        };
        Entry::Admitted(Admitted { address: address.into(), ..admitted })
    };
    assert_eq!(apply(&mut ledger, &[at(2, "")]), Err(Refusal::NoAddress(id(2))));
    apply(&mut ledger, &[at(2, "fd00::2"), at(2, "10.9.0.2")]).expect("is corrected");
    assert_eq!(ledger.member(id(2)).expect("is admitted").admitted.address, "10.9.0.2");
    // Nothing else is.
    let Entry::Admitted(other) = at(2, "10.9.0.3") else { unreachable!("it is one") };
    let renamed = Entry::Admitted(Admitted { name: "else".into(), ..other });
    assert_eq!(apply(&mut ledger, &[renamed]), Err(Refusal::AlreadyAdmitted(id(2))));
    // Its init is under way.
    apply(&mut ledger, &[claim(Attempt(1), 1)]).expect("is claimed");
    assert_eq!(apply(&mut ledger, &[at(1, "10.9.0.1")]), Err(Refusal::AlreadyAdmitted(id(1))));
    apply(&mut ledger, &[Entry::Joined { machine: id(2) }]).expect("has joined");
    assert_eq!(apply(&mut ledger, &[at(2, "10.9.0.4")]), Err(Refusal::AlreadyAdmitted(id(2))));
}

#[test]
fn a_ledger_survives_its_bytes() {
    let mut ledger = three();
    let entries = [
        claim(Attempt(1), 1),
        pki(Attempt(1), "ca", &[1, 2]),
        Entry::InitAbandoned { attempt: Attempt(1), why: "died".into() },
        claim(Attempt(2), 2),
        ready(Attempt(2), &[1, 3]),
        turn(TurnKind::Etcd, 1, TurnChange::Started, TurnNumber(1)),
        Entry::LevelRaised { level: 2 },
        turn(TurnKind::Disrupt, 2, TurnChange::Started, TurnNumber(7)),
        Entry::Joined { machine: id(2) },
        Entry::Removed { machine: id(3) },
    ];
    apply(&mut ledger, &entries).expect("applies");
    let bytes = ledger.encode();
    assert_eq!(Ledger::decode(&bytes, level::KNOWN).as_ref(), Ok(&ledger));
    assert_eq!(Ledger::decode(&bytes, level::KNOWN).expect("decodes").encode(), bytes);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
        let _ = Ledger::decode(&bytes, level::KNOWN);
    }

    /// Whatever is applied in whatever order: at most one attempt is live, and the cluster is made once (promise S4).
    #[test]
    fn no_order_of_entries_makes_two_clusters(choices in proptest::collection::vec((0u8..8, 1u8..4, 1u32..4), 0..60)) {
        let mut ledger = three();
        let mut made = None;
        for (kind, number, attempt) in choices {
            let entry = match kind {
                0 => claim(Attempt(attempt), number),
                1 => pki(Attempt(attempt), "ca", &[1, 2]),
                2 => ready(Attempt(attempt), &[1, 2, 3]),
                3 => Entry::InitAbandoned { attempt: Attempt(attempt), why: String::new() },
                4 => turn(TurnKind::Etcd, number, TurnChange::Started, TurnNumber(attempt)),
                5 => turn(TurnKind::Etcd, number, TurnChange::Done, TurnNumber(attempt)),
                6 => Entry::Joined { machine: id(number) },
                _ => Entry::Ticket { machine: id(number), attempt: Attempt(attempt), ciphertext: Bytes::new() },
            };
            let before = ledger.clone();
            let taken = ledger.apply(ledger.revision().next(), &entry).is_ok();
            if !taken {
                let mut same = before.clone();
                same.skip(ledger.revision());
                proptest::prop_assert_eq!(&same, &ledger, "a refused entry changed something");
            }
            if let Some(ready) = ledger.ready() {
                proptest::prop_assert_eq!(*made.get_or_insert(ready.attempt), ready.attempt);
                proptest::prop_assert_eq!(ledger.live_claim(), None);
            }
        }
    }
}

fn founded(control_planes: u32, voters: &[u8]) -> Ledger {
    Ledger::founded(&Charter {
        cluster: "site".into(),
        id: [1; 16],
        voters: voters.iter().map(|number| id(*number)).collect(),
        kubernetes_version: "v1.31.4".into(),
        settings: Digest([2; 32]),
        machines: 9,
        quorum: 5,
        control_planes,
    })
}

#[test]
fn there_are_never_more_control_planes_than_the_charter_names() {
    let full = |number| Err(Refusal::NoSeat { machine: id(number), count: 3 });
    let mut ledger = founded(3, &[1, 2]);
    // Two seats are the voters', admitted or not.
    apply(&mut ledger, &[admit(7, Role::ControlPlane)]).expect("the third seat is free");
    assert_eq!(apply(&mut ledger, &[admit(8, Role::ControlPlane)]), full(8));
    apply(&mut ledger, &[admit(8, Role::Worker), admit(1, Role::ControlPlane), admit(2, Role::ControlPlane)])
        .expect("voters have seats, and workers need none");
    // The same after a snapshot, and a seat that is given up is free again, a voter's too.
    let mut ledger = Ledger::decode(&ledger.encode(), level::KNOWN).expect("decodes");
    assert_eq!(apply(&mut ledger, &[admit(9, Role::ControlPlane)]), full(9));
    apply(&mut ledger, &[Entry::Removed { machine: id(2) }, admit(9, Role::ControlPlane)]).expect("a seat is free");
    assert_eq!(apply(&mut ledger, &[admit(10, Role::ControlPlane)]), full(10));
}

#[test]
fn a_charter_that_names_no_number_bounds_none() {
    let mut ledger = founded(0, &[1]);
    apply(&mut ledger, &[1, 2, 3, 4].map(|number| admit(number, Role::ControlPlane))).expect("as before it was named");
}

#[test]
fn levels_rise_one_by_one_and_what_needs_a_higher_one_waits_for_it() {
    let mut ledger = three();
    let disrupt = turn(TurnKind::Disrupt, 1, TurnChange::Started, TurnNumber(1));
    let early = Refusal::TooEarly { needs: 2, level: 1 };
    assert_eq!(apply(&mut ledger, &[disrupt]), Err(early));
    let raised = |level| Entry::LevelRaised { level };
    assert_eq!(apply(&mut ledger, &[raised(3)]), Err(Refusal::WrongLevel { named: 3, next: 2 }));
    apply(&mut ledger, &[raised(2)]).expect("is the next");
    assert_eq!(apply(&mut ledger, &[raised(2)]), Err(Refusal::WrongLevel { named: 2, next: 3 }));
    assert_eq!(Ledger::decode(&ledger.encode(), 1), Err(WireError::Level { needs: 2, known: 1 }));
    assert_eq!(Entry::decode_at(raised(2).encode(), 1), Err(WireError::Level { needs: 2, known: 1 }));
}

#[test]
fn an_image_is_accepted_once_by_a_wish_of_this_cluster() {
    let (one, other) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
    let mut ledger = founded(3, &[1]);
    let mine = Admitted { machine: one.machine(), ..admitted(7) };
    apply(&mut ledger, &[Entry::LevelRaised { level: 2 }, Entry::Admitted(mine)]).expect("begins");
    let image = |number: u8| Image { digest: Digest([number; 32]), kubernetes_version: "v1.32.0".into() };
    let wish = |who: &Identity, charter: u8, number| {
        Entry::Wished(SignedWish::sign(who, [charter; 16], 1, Wish::AcceptImage(image(number))))
    };
    assert_eq!(apply(&mut ledger, &[wish(&other, 1, 5)]), Err(Refusal::NotAdmitted(other.machine())));
    assert_eq!(apply(&mut ledger, &[wish(&one, 9, 5)]), Err(Refusal::OtherCharter));
    assert_eq!(apply(&mut ledger, &[wish(&one, 1, 2)]), Err(Refusal::AcceptedAlready(Digest([2; 32]))));
    assert!(!ledger.accepts(Digest([5; 32])));
    apply(&mut ledger, &[wish(&one, 1, 5)]).expect("is accepted");
    let ledger = Ledger::decode(&ledger.encode(), level::KNOWN).expect("decodes");
    assert!(ledger.accepts(Digest([5; 32])) && ledger.accepts(Digest([2; 32])));
}

#[test]
fn a_machine_leaves_when_the_cluster_stands_without_it_and_one_at_a_time() {
    let asked = Identity::from_seed(&[1; 32]);
    let mut ledger = founded(3, &[1]);
    let mine = Admitted { machine: asked.machine(), ..admitted(7) };
    let one = [Entry::Admitted(mine), admit(1, Role::ControlPlane)];
    apply(&mut ledger, &one).expect("begins");
    let mut count = 0;
    let mut remove = |number: u8| {
        count += 1;
        let wish = Wish::RemoveMachine { machine: id(number), returns: number == 2 };
        Entry::Wished(SignedWish::sign(&asked, [1; 16], count, wish))
    };
    assert_eq!(apply(&mut ledger, &[remove(1)]), Err(Refusal::TooEarly { needs: level::LEAVING, level: 1 }));
    let levels: Vec<Entry> = (2..=level::LEAVING).map(|level| Entry::LevelRaised { level }).collect();
    apply(&mut ledger, &levels).expect("rises");
    assert_eq!(apply(&mut ledger, &[remove(9)]), Err(Refusal::NotAdmitted(id(9))));
    assert_eq!(apply(&mut ledger, &[remove(1)]), Err(Refusal::LastControlPlane(id(1))));
    let two = [
        admit(2, Role::ControlPlane),
        admit(3, Role::Worker),
        claim(Attempt(1), 1),
        pki(Attempt(1), "ca", &[1, 2]),
        ready(Attempt(1), &[2]),
    ];
    apply(&mut ledger, &two).expect("goes on");
    apply(&mut ledger, &[turn(TurnKind::Etcd, 2, TurnChange::Started, TurnNumber(1))]).expect("takes its turn");
    assert_eq!(apply(&mut ledger, &[remove(2)]), Err(Refusal::HoldsTurn(id(2))));
    apply(&mut ledger, &[turn(TurnKind::Etcd, 2, TurnChange::Done, TurnNumber(1)), remove(3)])
        .expect("a worker may leave");
    let mut ledger = Ledger::decode(&ledger.encode(), level::KNOWN).expect("decodes");
    assert_eq!(ledger.open_wishes().len(), 1, "until it is gone");
    assert_eq!(apply(&mut ledger, &[remove(2)]), Err(Refusal::RemovalUnderWay(id(3))));
    assert_eq!(apply(&mut ledger, &[remove(3)]), Err(Refusal::RemovalUnderWay(id(3))));
    let held = |number: u8| Entry::RemovalHeld { machine: id(number), why: "a budget".into() };
    assert_eq!(apply(&mut ledger, &[held(2)]), Err(Refusal::NoRemoval(id(2))));
    apply(&mut ledger, &[held(3)]).expect("is told");
    assert_eq!((ledger.leaving(), ledger.removal_held()), (Some(id(3)), Some("a budget")));
    apply(&mut ledger, &[Entry::Removed { machine: id(3) }]).expect("is removed");
    assert!(ledger.open_wishes().is_empty() && ledger.removal_held().is_none());
    apply(&mut ledger, &[remove(2)]).expect("the next may leave");
    let started = turn(TurnKind::Disrupt, 1, TurnChange::Started, TurnNumber(1));
    apply(&mut ledger, &[started, Entry::Removed { machine: id(2) }]).expect("is removed");
    let ledger = Ledger::decode(&ledger.encode(), level::KNOWN).expect("decodes");
    let removals = [1, 2, 3].map(|number| ledger.removal(id(number)));
    assert_eq!(removals, [None, Some(Removal::Returns), Some(Removal::StaysOut)]);
}

#[test]
fn a_wish_that_was_withdrawn_does_not_come_back_with_a_late_copy() {
    let asked = Identity::from_seed(&[1; 32]);
    let mut ledger = at_the_level_of_leaving();
    let mine = Admitted { machine: asked.machine(), role: Role::Worker, ..admitted(9) };
    apply(&mut ledger, &[Entry::Admitted(mine)]).expect("is admitted");
    let wish = |number, wish| Entry::Wished(SignedWish::sign(&asked, [1; 16], number, wish));
    let remove = |number| wish(number, Wish::RemoveMachine { machine: id(4), returns: false });
    let withdraw = |number| wish(number, Wish::WithdrawRemoval { machine: id(4) });
    assert_eq!(apply(&mut ledger, &[withdraw(1)]), Err(Refusal::NoRemoval(id(4))));
    apply(&mut ledger, &[remove(2), withdraw(3)]).expect("is withdrawn");
    assert_eq!(ledger.leaving(), None);
    let mut ledger = Ledger::decode(&ledger.encode(), level::KNOWN).expect("decodes");
    assert_eq!(apply(&mut ledger, &[remove(2)]), Err(Refusal::Repeated));
    apply(&mut ledger, &[remove(4)]).expect("may be wished anew");
}

#[test]
fn a_worker_takes_a_free_seat_under_a_turn_and_joins_only_with_etcd() {
    let mut ledger = at_the_level_of_leaving();
    apply(
        &mut ledger,
        &[claim(Attempt(1), 1), pki(Attempt(1), "ca", &[1, 2]), ready(Attempt(1), &[2]), admit(5, Role::Worker)],
    )
    .expect("is made");
    let promote = |number: u8| Entry::Promoted { machine: id(number) };
    let joined = |number: u8| Entry::Joined { machine: id(number) };
    assert_eq!(apply(&mut ledger, &[promote(5)]), Err(Refusal::NoSuchTurn(TurnKind::Disrupt)));
    apply(&mut ledger, &[turn(TurnKind::Disrupt, 1, TurnChange::Started, TurnNumber(1))]).expect("has its turn");
    assert_eq!(apply(&mut ledger, &[promote(5)]), Err(Refusal::NoSeat { machine: id(5), count: 3 }));
    apply(&mut ledger, &[Entry::Removed { machine: id(4) }]).expect("leaves a seat");
    assert_eq!(apply(&mut ledger, &[promote(5)]), Err(Refusal::NotJoined(id(5))));
    assert_eq!(apply(&mut ledger, &[promote(2)]), Err(Refusal::NotWorker(id(2))));
    apply(&mut ledger, &[joined(5), promote(5)]).expect("is promoted");
    assert!(ledger.is_plane(id(5)) && !ledger.member(id(5)).expect("is there").joined);
    // What it said as a worker comes late.
    assert_eq!(apply(&mut ledger, &[joined(5)]), Err(Refusal::NotInEtcd(id(5))));
    let etcd = |change| turn(TurnKind::Etcd, 5, change, TurnNumber(1));
    apply(&mut ledger, &[etcd(TurnChange::Started), etcd(TurnChange::Done), joined(5)]).expect("joins anew");
    assert_eq!(Ledger::decode(&ledger.encode(), level::KNOWN).expect("decodes"), ledger);
}

fn at_the_level_of_leaving() -> Ledger {
    let mut ledger = founded(3, &[1]);
    let levels: Vec<Entry> = (2..=level::LEAVING).map(|level| Entry::LevelRaised { level }).collect();
    apply(&mut ledger, &levels).expect("rises");
    let planes = [1, 2, 4].map(|number| admit(number, Role::ControlPlane));
    apply(&mut ledger, &planes).expect("admits");
    ledger
}

fn together(attempt: Attempt, holder: u8, founders: &[u8]) -> Entry {
    let founders = founders.iter().map(|number| id(*number)).collect();
    Entry::InitClaimed { attempt, machine: id(holder), founders }
}

fn founds(attempt: Attempt, number: u8) -> Entry {
    Entry::Founds { attempt, machine: id(number) }
}

fn at_the_level_of_founders() -> Ledger {
    let mut ledger = three();
    apply(&mut ledger, &[admit(4, Role::ControlPlane)]).expect("admits");
    assert_eq!(
        apply(&mut ledger, &[together(Attempt(1), 1, &[1, 2, 4])]),
        Err(Refusal::TooEarly { needs: 3, level: 1 })
    );
    apply(&mut ledger, &[Entry::LevelRaised { level: 2 }, Entry::LevelRaised { level: 3 }]).expect("is raised");
    ledger
}

#[test]
fn a_claim_names_its_founders_and_each_of_them_begins_once() {
    let mut ledger = at_the_level_of_founders();
    assert_eq!(apply(&mut ledger, &[together(Attempt(1), 1, &[1, 2, 3])]), Err(Refusal::NotControlPlane(id(3))));
    assert_eq!(apply(&mut ledger, &[together(Attempt(1), 1, &[2, 4])]), Err(Refusal::NoFounder(id(1))));
    apply(
        &mut ledger,
        &[together(Attempt(1), 1, &[1, 2, 4]), pki(Attempt(1), "ca", &[1, 2, 4]), founds(Attempt(1), 2)],
    )
    .expect("founds");
    assert!(ledger.is_founder(id(4)) && ledger.has_begun(id(2)) && !ledger.has_begun(id(4)));
    assert_eq!(apply(&mut ledger, &[founds(Attempt(1), 2)]), Err(Refusal::HasBegun(id(2))));
    assert_eq!(apply(&mut ledger, &[founds(Attempt(1), 3)]), Err(Refusal::NoFounder(id(3))));
    assert_eq!(
        apply(&mut ledger, &[founds(Attempt(2), 4)]),
        Err(Refusal::NotLive { named: Attempt(2), live: Some(Attempt(1)) })
    );
    // The list is fixed: a founder that is wiped is in it, and is taken out of etcd first.
    assert_eq!(apply(&mut ledger, &[Entry::Removed { machine: id(4) }]), Err(Refusal::InEtcd(id(4))));
    apply(&mut ledger, &[ready(Attempt(1), &[3]), founds(Attempt(1), 4)]).expect("one that is late begins late");
    assert!([1, 2, 4].iter().all(|number| ledger.has_etcd(id(*number))) && !ledger.has_etcd(id(3)));
    let kept = Ledger::decode(&ledger.encode(), level::KNOWN).expect("decodes");
    assert_eq!(kept, ledger, "founders are in a snapshot");
    // What it began was undone: it comes in turn, and may give that up.
    let etcd = |change| turn(TurnKind::Etcd, 4, change, TurnNumber(1));
    apply(&mut ledger, &[etcd(TurnChange::Started)]).expect("takes its turn");
    assert!(!ledger.is_founder(id(4)) && !ledger.has_etcd(id(4)) && ledger.is_founder(id(2)));
    assert_eq!(ledger.etcd_list().len(), 3, "who comes last is given the list of the beginning");
    apply(&mut ledger, &[etcd(TurnChange::GaveUp)]).expect("gives up");
    apply(&mut ledger, &[Entry::Removed { machine: id(4) }]).expect("is removed");
}

#[test]
fn who_has_left_joins_anew_with_another_ticket() {
    let mut ledger = at_the_level_of_founders();
    let left = |number| Entry::Left { machine: id(number) };
    apply(
        &mut ledger,
        &[together(Attempt(1), 1, &[1, 2, 4]), pki(Attempt(1), "ca", &[1, 2, 4]), ready(Attempt(1), &[3])],
    )
    .expect("is made");
    assert_eq!(apply(&mut ledger, &[left(3)]), Err(Refusal::NotJoined(id(3))));
    let ticket = || Entry::Ticket { machine: id(3), attempt: Attempt(1), ciphertext: Bytes::from_static(b"t") };
    let joined = || Entry::Joined { machine: id(3) };
    apply(&mut ledger, &[ticket(), joined(), left(3)]).expect("leaves");
    let member = ledger.member(id(3)).expect("it belongs to the cluster as before");
    assert!(member.left && !member.joined && ledger.ticket(id(3)).is_none());
    assert!(!ledger.ready().expect("is made").tokens.contains(&id(3)), "its token was deleted");
    assert_eq!(Ledger::decode(&ledger.encode(), level::KNOWN).expect("decodes"), ledger);
    apply(&mut ledger, &[ticket(), joined()]).expect("joins anew");
    assert!(ledger.member(id(3)).is_some_and(|member| member.joined && !member.left));
}

#[test]
fn founders_go_with_their_attempt() {
    let mut ledger = at_the_level_of_founders();
    let abandoned = Entry::InitAbandoned { attempt: Attempt(1), why: String::new() };
    apply(&mut ledger, &[together(Attempt(1), 1, &[1, 2, 4]), founds(Attempt(1), 1), abandoned]).expect("is abandoned");
    assert!(ledger.founders().is_empty() && !ledger.has_begun(id(1)));
    apply(&mut ledger, &[together(Attempt(2), 2, &[1, 2, 4]), founds(Attempt(2), 1)]).expect("begins in the next one");
    apply(&mut ledger, &[Entry::Removed { machine: id(2) }]).expect("whoever holds the claim may go, and it with him");
    assert!(ledger.founders().is_empty() && ledger.live_claim().is_none());
}

#[test]
fn a_cluster_is_rebuilt_from_one_control_plane_and_knows_nothing_of_the_others() {
    let mut ledger = three();
    assert!(matches!(ledger.rebuilt(id(1), NEXT), Err(Refusal::NotLive { .. })), "no cluster is made");
    let made = [
        claim(Attempt(1), 1),
        pki(Attempt(1), "ca", &[1, 2]),
        ready(Attempt(1), &[2]),
        turn(TurnKind::Etcd, 2, TurnChange::Started, TurnNumber(1)),
    ];
    apply(&mut ledger, &made).expect("goes on");
    assert_eq!(ledger.rebuilt(id(3), NEXT), Err(Refusal::NotControlPlane(id(3))));
    assert_eq!(ledger.rebuilt(id(2), NEXT), Err(Refusal::NotInEtcd(id(2))));
    let next = ledger.rebuilt(id(1), NEXT).expect("is rebuilt");
    assert_eq!((next.epoch(), next.revision()), (Epoch { number: 1, by: id(1) }, ledger.revision().next()));
    assert_eq!((next.lost(), next.removal(id(2))), (&["node-2".to_owned()][..], Some(Removal::Returns)));
    assert!(
        next.has_etcd(id(1)) && next.turn(TurnKind::Etcd).is_none() && next.last_turn(TurnKind::Etcd) == TurnNumber(1)
    );
    assert!(next.supersedes(&ledger) && !ledger.supersedes(&next), "an epoch counts more than a revision");
    assert_eq!(Ledger::decode(&next.encode(), level::KNOWN).as_ref(), Ok(&next));
    assert!(matches!(Ledger::decode(&next.encode(), level::LEAVING), Err(WireError::Level { .. })));
    assert_eq!(next.rebuilt(id(1), NEXT), Err(Refusal::LastControlPlane(id(1))));
}

fn backup(number: u32, machine: u8, epoch: u32) -> Entry {
    let digest = Digest::of("backup", &[&number.to_be_bytes()]);
    let (taken_s, revision, bytes) = (1_790_000_000, 100, 1_000);
    Entry::BackedUp(Backup {
        number,
        machine: id(machine),
        epoch,
        taken_s,
        revision,
        bytes,
        digest,
        copies: 2,
        keep: 2,
    })
}

#[test]
fn backups_are_counted_copied_and_lost_with_the_machines_that_keep_them() {
    let mut ledger = three();
    let kept = |number, machine| Entry::BackupKept { number, machine: id(machine) };
    assert!(matches!(apply(&mut ledger, &[backup(1, 1, 0)]), Err(Refusal::TooEarly { .. })));
    let levels: Vec<Entry> = (2..=level::BACKUPS).map(|level| Entry::LevelRaised { level }).collect();
    apply(&mut ledger, &levels).expect("rises");
    assert_eq!(apply(&mut ledger, &[backup(1, 1, 0)]), Err(Refusal::NotInEtcd(id(1))), "no cluster is made");
    apply(&mut ledger, &[claim(Attempt(1), 1), pki(Attempt(1), "ca", &[1, 2]), ready(Attempt(1), &[2])])
        .expect("is made");
    assert_eq!(apply(&mut ledger, &[backup(1, 2, 0)]), Err(Refusal::NotInEtcd(id(2))));
    assert_eq!(apply(&mut ledger, &[backup(2, 1, 0)]), Err(Refusal::WrongBackup { named: 2, next: 1 }));
    assert_eq!(apply(&mut ledger, &[backup(1, 1, 1)]), Err(Refusal::OtherEpoch { named: 1, epoch: 0 }));
    assert_eq!(
        apply(&mut ledger, &[backup(1, 1, 0), backup(1, 1, 0)]),
        Err(Refusal::WrongBackup { named: 1, next: 2 })
    );
    assert_eq!(apply(&mut ledger, &[kept(1, 1)]), Err(Refusal::KeptAlready(1)), "its taker has it");
    assert_eq!(apply(&mut ledger, &[kept(1, 9)]), Err(Refusal::NotAdmitted(id(9))));
    assert_eq!(apply(&mut ledger, &[kept(1, 3), kept(1, 2)]), Err(Refusal::KeptAlready(1)), "as many as it says");
    assert_eq!(apply(&mut ledger, &[kept(7, 3)]), Err(Refusal::NoBackup(7)));
    assert_eq!(Ledger::decode(&ledger.encode(), level::KNOWN).as_ref(), Ok(&ledger));
    let numbers = |ledger: &Ledger| ledger.backups().iter().map(|kept| kept.backup.number).collect::<Vec<_>>();
    apply(&mut ledger, &[backup(2, 1, 0), backup(3, 1, 0), kept(2, 3)]).expect("are taken");
    assert_eq!(numbers(&ledger), [2, 3], "two are kept");
    let next = ledger.rebuilt(id(1), NextEpoch { number: 4, backup: Some(Digest([1; 32])) }).expect("is rebuilt");
    assert_eq!((numbers(&next), next.restored_from(), next.last_backup()), (vec![2, 3], Some(Digest([1; 32])), 3));
    assert_eq!(Ledger::decode(&next.encode(), level::KNOWN).as_ref(), Ok(&next));
    assert!(matches!(Ledger::decode(&next.encode(), level::RECOVERY), Err(WireError::Level { .. })));
    apply(&mut ledger, &[Entry::Removed { machine: id(3) }]).expect("a worker goes");
    assert!(ledger.backups().iter().all(|kept| kept.by == [id(1)].into() && kept.lacks_copies()));
}
