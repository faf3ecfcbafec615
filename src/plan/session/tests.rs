use proptest::prelude::*;

use super::*;

#[test]
fn the_first_round_checks_in_and_has_the_peers_computed() {
    let (mut session, start) = begun();

    assert_eq!(session.tick(start), None);
    assert_eq!(session.deadline(), Some(Deadline { at: start + SPREAD, why: Why::Start }));
    let talk = Talk { check_in: true, peers: Peers::Recomputed, prove: false };
    assert_eq!(session.tick(start + SPREAD), Some(Action::Round(talk)));
}

#[test]
fn at_rest_there_are_at_most_twelve_requests_in_ten_minutes() {
    for push in [true, false] {
        let start = instant();
        let mut session = Session::new(start, SPREAD, Duration::from_secs(120));
        let mut now = start;
        let mut requests = 0;
        if push {
            session.handle(Event::Connected, now, 0);
        }
        while now < start + 10 * HOUR {
            now = session.deadline().unwrap().at;
            match session.tick(now) {
                Some(Action::Round(talk)) => {
                    requests += 1 + u32::from(talk.check_in);
                    let recomputed = talk.peers == Peers::Recomputed;
                    session.handle(Event::Ended(Outcome::Synced { checked_in: talk.check_in, recomputed }), now, 0);
                }
                Some(_) => drop(session.handle(Event::Ended(Outcome::InOrder), now, 0)),
                None => panic!("nothing at the deadline"),
            }
        }
        // One more for every token, which lives for 13 of its 15 minutes.
        let tokens = 600 / 13 + 1;
        assert!(requests + tokens <= 12 * 60, "push {push}: {requests} in ten hours");
    }
}

#[test]
fn a_hint_leads_to_a_round_at_once_and_a_flood_of_them_does_not() {
    let (mut session, now) = online();

    let first = session.handle(Event::Hinted(Hint::Look), now, 0);
    assert!(matches!(first[..], [Action::Round(_)]), "{first:?}");
    session.handle(Event::Hinted(Hint::Look), now, 0);
    let ended = session.handle(synced(false, false), now, 0);

    assert_eq!(ended, []);
    let next = session.deadline().unwrap();
    assert!(next.at > now && next.at <= now + Duration::from_secs(1), "{next:?}");
}

#[test]
fn a_deletion_is_believed_at_once_only_if_it_was_announced_and_confirmed() {
    let (mut session, now) = online();

    let asked = session.handle(Event::Hinted(Hint::Delete), now, 0);
    assert!(matches!(asked[..], [Action::Round(Talk { prove: true, .. })]), "{asked:?}");
    assert_eq!(session.handle(gone(), now, 0), [Action::SetAside]);
}

#[test]
fn an_announcement_that_the_server_denies_is_forgotten() {
    let (mut session, now) = online();
    session.handle(Event::Hinted(Hint::Delete), now, 0);

    session.handle(synced(false, false), now, 0);

    let (actions, _) = run_to(&mut session, now, Outcome::Failed { trouble: Trouble::Gone, retry_after: None }, 1);
    assert!(!actions.contains(&Action::SetAside), "{actions:?}");
}

#[test]
fn three_answers_over_ten_minutes_are_believed_and_nothing_less() {
    let (mut session, start) = online();
    let failure = Outcome::Failed { trouble: Trouble::Gone, retry_after: None };

    let (actions, now) = run_to(&mut session, start, failure, 40);

    assert!(actions.ends_with(&[Action::SetAside]), "{actions:?}");
    assert!(now >= start + Duration::from_secs(600), "{:?}", now - start);
    let rounds = actions.iter().filter(|action| matches!(action, Action::Round(_))).count();
    assert!(rounds >= 3);
}

#[test]
fn another_failure_in_between_starts_the_count_again() {
    let mut deletion = Deletion::default();
    let minute = |minutes: u64| instant() + Duration::from_secs(60 * minutes);

    assert!(!deletion.answered(minute(0), true, false));
    assert!(!deletion.answered(minute(9), true, false));
    assert!(!deletion.answered(minute(10), false, false));
    assert!(!deletion.answered(minute(11), true, false));
}

#[test]
fn a_server_that_asks_for_time_gets_it_whatever_the_broker_says() {
    let (mut session, now) = online();
    session.handle(Event::Hinted(Hint::Look), now, 0);
    let wait = Duration::from_secs(300);
    session.handle(Event::Ended(Outcome::Failed { trouble: Trouble::Any, retry_after: Some(wait) }), now, 0);

    for hint in [Hint::Look, Hint::Pull, Hint::RotateKeys, Hint::Join] {
        let actions = session.handle(Event::Hinted(hint), now + Duration::from_secs(10), 0);
        assert!(!actions.iter().copied().any(is_talk), "{hint:?}: {actions:?}");
    }
}

#[test]
fn what_was_pushed_is_not_undone_by_the_servers_cache() {
    let (mut session, now) = online();
    session.handle(Event::Connected, now, 0);
    assert_eq!(session.handle(Event::PeersPushed, now, 0), [Action::TakeIn]);
    session.handle(Event::Ended(Outcome::InOrder), now, 0);

    let actions = session.handle(Event::Hinted(Hint::Look), now, 0);

    assert_eq!(actions, [Action::Round(Talk { check_in: false, peers: Peers::Pushed, prove: false })]);
}

#[test]
fn without_the_broker_the_peers_are_polled_again() {
    let (mut session, now) = online();
    session.handle(Event::Connected, now, 0);
    session.handle(Event::PeersPushed, now, 0);
    session.handle(Event::Ended(Outcome::InOrder), now, 0);

    session.handle(Event::Disconnected, now, 0);
    let (actions, later) = run_to(&mut session, now, Outcome::Synced { checked_in: false, recomputed: false }, 1);

    assert_eq!(actions, [Action::Round(Talk { check_in: false, peers: Peers::Cached, prove: false })]);
    assert!(later <= now + POLL);
}

#[test]
fn after_a_move_everything_is_looked_at_at_once() {
    let (mut session, now) = online();
    session.handle(Event::Connected, now, 0);

    let moved = session.handle(Event::Moved, now, 0);
    let looked = session.handle(Event::Ended(Outcome::InOrder), now, 0);

    assert_eq!(moved, [Action::Reconnect, Action::Observe]);
    assert!(matches!(looked[..], [Action::Round(Talk { check_in: true, .. })]), "{looked:?}");
}

#[test]
fn after_a_move_pulls_tell_the_peers_until_more_is_pushed() {
    let (mut session, now) = pushed();

    session.handle(Event::Moved, now, 0);
    let looked = session.handle(Event::Ended(Outcome::InOrder), now, 0);

    assert!(matches!(looked[..], [Action::Round(Talk { peers: Peers::Cached, .. })]), "{looked:?}");
}

#[test]
fn peers_that_could_not_be_applied_are_pulled() {
    for outcome in [Outcome::Unusable, Outcome::Stuck] {
        let (mut session, now) = pushed();
        session.handle(Event::PeersPushed, now, 0);
        let mut actions = session.handle(Event::Ended(outcome), now, 0);

        if actions.is_empty() {
            actions = run_to(&mut session, now, Outcome::Synced { checked_in: true, recomputed: false }, 3).0;
        }

        let round = actions.iter().copied().find(|action| is_round(*action)).unwrap();
        assert!(matches!(round, Action::Round(Talk { peers: Peers::Cached, .. })), "{outcome:?}: {round:?}");
    }
    let (mut session, now) = pushed();
    let asked = session.handle(Event::PeersSpoiled, now, 0);
    assert!(matches!(asked[..], [Action::Round(Talk { peers: Peers::Cached, .. })]), "{asked:?}");
}

#[test]
fn what_the_server_has_to_hear_leads_to_a_round_when_it_may_be_asked() {
    let (mut session, now) = online();
    assert!(session.lend());

    let actions = session.handle(Event::Ended(Outcome::Untold), now, 0);

    assert!(matches!(actions[..], [Action::Round(_)]), "{actions:?}");
    let failure = Outcome::Failed { trouble: Trouble::Any, retry_after: Some(Duration::from_secs(300)) };
    session.handle(Event::Ended(failure), now, 0);
    session.tick(now + Duration::from_secs(3));
    session.handle(Event::Ended(Outcome::InOrder), now + Duration::from_secs(3), 0);
    assert!(session.lend());
    let actions = session.handle(Event::Ended(Outcome::Untold), now + Duration::from_secs(3), 0);
    assert!(!actions.iter().copied().any(is_talk), "{actions:?}");
}

#[test]
fn a_look_that_is_wanted_sooner_comes_sooner_and_one_that_is_late_not_at_once() {
    let (mut session, now) = online();
    let sooner = now + Duration::from_secs(7);

    session.look_by(Some(sooner), now);

    assert_eq!(session.deadline().map(|deadline| deadline.at), Some(sooner));
    assert_eq!(session.tick(sooner), Some(Action::Observe));
    session.look_by(Some(now), sooner);
    session.handle(Event::Ended(Outcome::InOrder), sooner, 0);
    assert!(session.deadline().is_some_and(|deadline| deadline.at > sooner), "{session:?}");
}

#[test]
fn a_move_at_boot_does_not_bring_a_fleet_together() {
    let (mut session, start) = begun();

    let moved = session.handle(Event::Moved, start + Duration::from_secs(1), 0);
    session.handle(Event::Ended(Outcome::InOrder), start + Duration::from_secs(1), 0);

    assert_eq!(moved, [Action::Reconnect, Action::Observe]);
    assert_eq!(session.deadline(), Some(Deadline { at: start + SPREAD, why: Why::Start }));
}

#[test]
fn a_rotation_that_is_never_confirmed_becomes_rare() {
    let (mut session, start) = online();
    let mut next = session.handle(Event::Hinted(Hint::RotateKeys), start, 0).pop();
    let (mut now, mut rotations) = (start, 0);

    while now < start + HOUR {
        let outcome = match next {
            Some(Action::Rotate) => {
                rotations += 1;
                any_failure()
            }
            Some(_) => synced(true, false),
            None => {
                now = now.max(session.deadline().unwrap().at);
                next = session.tick(now);
                continue;
            }
        };
        next = session.handle(outcome, now, 128).pop();
        session.set_rotating(true, now);
    }

    assert!((2..=12).contains(&rotations), "{rotations} in an hour");
}

#[test]
fn a_key_confirmed_by_another_pull_is_not_made_again() {
    let (mut session, now) = online();
    session.handle(Event::Hinted(Hint::RotateKeys), now, 0);
    session.handle(any_failure(), now, 0);
    session.set_rotating(true, now);

    session.set_rotating(false, now);

    let (actions, _) = run_to(&mut session, now, Outcome::Synced { checked_in: true, recomputed: false }, 10);
    assert!(!actions.contains(&Action::Rotate), "{actions:?}");
}

#[test]
fn an_announced_deletion_is_neither_denied_nor_believed_without_a_proof() {
    for answer in [synced(false, false), gone()] {
        let (mut session, now) = online();
        session.handle(Event::Hinted(Hint::Look), now, 0);
        session.handle(Event::Hinted(Hint::Delete), now, 0);

        let mut actions = session.handle(answer, now, 0);
        while actions.is_empty() || actions == [Action::Observe] {
            if !actions.is_empty() {
                actions = session.handle(Event::Ended(Outcome::InOrder), now, 0);
                continue;
            }
            actions.extend(session.tick(session.deadline().unwrap().at));
        }

        assert!(matches!(actions[..], [Action::Round(Talk { prove: true, .. })]), "{answer:?}: {actions:?}");
        assert_eq!(session.handle(gone(), now, 0), [Action::SetAside]);
    }
}

#[test]
fn the_first_contact_with_the_broker_asks_for_what_waits() {
    let (mut session, now) = online();

    assert_eq!(session.handle(Event::Connected, now, 0), [Action::Acknowledge]);
    session.handle(Event::Disconnected, now, 0);
    assert!(!session.handle(Event::Connected, now, 0).contains(&Action::Acknowledge));
}

#[test]
fn a_rotation_that_failed_is_tried_again_when_the_server_answers() {
    let (mut session, now) = online();
    assert_eq!(session.handle(Event::Hinted(Hint::RotateKeys), now, 0), [Action::Rotate]);

    let failed = session.handle(any_failure(), now, 0);
    let (actions, _) = run_to(&mut session, now, Outcome::Synced { checked_in: true, recomputed: false }, 3);

    assert_eq!(failed, []);
    let rotate = actions.iter().position(|action| *action == Action::Rotate);
    let round = actions.iter().copied().position(is_talk);
    assert!(rotate > round && round.is_some(), "{actions:?}");
}

#[test]
fn a_stuck_interface_is_tried_again_at_growing_distance() {
    let (mut session, start) = online();
    session.handle(Event::Disturbed, start, 255);
    session.handle(Event::Ended(Outcome::Stuck), start, 255);

    let (actions, now) = run_to(&mut session, start, Outcome::Stuck, 5);

    assert!(actions.iter().filter(|action| **action == Action::Observe).count() >= 4, "{actions:?}");
    assert!(now - start >= Duration::from_secs(14), "{:?}", now - start);
}

proptest! {
    #[test]
    fn work_is_done_one_piece_at_a_time_and_there_is_always_a_deadline(steps in prop::collection::vec(step(), 1..200)) {
        let (mut session, mut now) = begun();
        let mut busy = session.tick(now).is_some();
        for (event, passed, random) in steps {
            now += passed;
            let event = match (event, busy) {
                (Event::Ended(_), false) => continue,
                (event, _) => event,
            };
            let ended = matches!(event, Event::Ended(_));
            let mut actions = session.handle(event, now, random);
            actions.retain(|action| !matches!(action, Action::Acknowledge | Action::Reconnect));

            prop_assert!(actions.len() <= usize::from(!busy || ended), "{actions:?} while busy");
            busy = (busy && !ended) || !actions.is_empty();
            match session.deadline() {
                None => prop_assert!(busy),
                Some(deadline) => {
                    prop_assert!(!busy);
                    prop_assert!(deadline.at > now, "{deadline:?} was passed over");
                    prop_assert!(deadline.at <= now + OBSERVE);
                }
            }
        }
    }

    #[test]
    fn nothing_but_gone_answers_sets_a_membership_aside(steps in prop::collection::vec(step(), 1..200)) {
        let (mut session, mut now) = begun();
        let mut busy = session.tick(now).is_some();
        for (event, passed, random) in steps {
            now += passed;
            if matches!(event, Event::Ended(_)) && !busy || event == gone() {
                continue;
            }
            let actions = session.handle(event, now, random);

            prop_assert!(!actions.contains(&Action::SetAside));
            busy = session.deadline().is_none();
        }
    }
}

fn step() -> impl Strategy<Value = (Event, Duration, u8)> {
    let event = prop_oneof![
        Just(Event::Connected),
        Just(Event::Disconnected),
        Just(Event::Disturbed),
        Just(Event::Moved),
        Just(Event::PeersPushed),
        Just(Event::PeersSpoiled),
        prop::sample::select(vec![
            Hint::Acknowledge,
            Hint::Delete,
            Hint::Join,
            Hint::Look,
            Hint::Pull,
            Hint::RotateKeys,
            Hint::SelectGateway,
            Hint::Upgrade
        ])
        .prop_map(Event::Hinted),
        prop::sample::select(vec![gone(), any_failure(), synced(true, true), synced(false, false)]),
        prop::sample::select(vec![Outcome::InOrder, Outcome::Stuck, Outcome::Untold, Outcome::Unusable])
            .prop_map(Event::Ended),
    ];
    (event, (0_u64..200_000).prop_map(Duration::from_millis), any::<u8>())
}

/// Runs from deadline to deadline, every work ending with `outcome`, until `count` rounds or a membership given up.
fn run_to(session: &mut Session, mut now: Instant, outcome: Outcome, count: usize) -> (Vec<Action>, Instant) {
    let mut actions = Vec::new();
    while actions.len() < count && !actions.contains(&Action::SetAside) {
        let Some(deadline) = session.deadline() else { break };
        now = now.max(deadline.at);
        let mut next = session.tick(now);
        while let Some(action) = next {
            actions.push(action);
            let outcome =
                if action == Action::Observe && outcome != Outcome::Stuck { Outcome::InOrder } else { outcome };
            next =
                session.handle(Event::Ended(outcome), now, 255).pop().filter(|action| *action != Action::Acknowledge);
            if next == Some(Action::SetAside) {
                actions.push(Action::SetAside);
                break;
            }
        }
    }
    (actions, now)
}

fn begun() -> (Session, Instant) {
    let start = instant();
    (Session::new(start, SPREAD, POLL), start)
}

/// A session that had its first round.
fn online() -> (Session, Instant) {
    let (mut session, start) = begun();
    session.tick(start + SPREAD);
    session.handle(synced(true, true), start + SPREAD, 0);
    (session, start + SPREAD)
}

/// A session whose peers were pushed.
fn pushed() -> (Session, Instant) {
    let (mut session, now) = online();
    session.handle(Event::Connected, now, 0);
    session.handle(Event::PeersPushed, now, 0);
    session.handle(Event::Ended(Outcome::InOrder), now, 0);
    (session, now)
}

fn is_round(action: Action) -> bool {
    matches!(action, Action::Round(_))
}

fn synced(checked_in: bool, recomputed: bool) -> Event {
    Event::Ended(Outcome::Synced { checked_in, recomputed })
}

fn gone() -> Event {
    Event::Ended(Outcome::Failed { trouble: Trouble::Gone, retry_after: None })
}

fn any_failure() -> Event {
    Event::Ended(Outcome::Failed { trouble: Trouble::Any, retry_after: None })
}

fn is_talk(action: Action) -> bool {
    matches!(action, Action::Round(_) | Action::Rotate | Action::SelectGateway)
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary point in time")]
fn instant() -> Instant {
    Instant::now()
}

const SPREAD: Duration = Duration::from_secs(3);

const POLL: Duration = Duration::from_secs(30);

const HOUR: Duration = Duration::from_secs(3600);
