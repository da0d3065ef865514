//! The verifier against a model of a cluster that does everything right, and against each fault.

use std::collections::BTreeMap;

use natter_protocol::ids::{ChatId, MessageId, Seq, UserId};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    SeededFault,
    observations::{
        Attempt, Chat, Device, Entry, Kind, Observations, Operation, Outcome, Seen, Text, Told,
        Turn, What,
    },
    seeded::spoil,
    verify::{Violation, verify},
};

const FAULTS: [SeededFault; 4] =
    [SeededFault::Drop, SeededFault::Duplicate, SeededFault::Swap, SeededFault::EarlyAck];

/// What happens in the model: who does what in which chat.
#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize, usize),
    Toggle(usize, usize),
    Reconnect(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_usize, 0..2_usize).prop_map(|(user, chat)| Step::Send(user, chat)),
        1 => (1..3_usize, 0..2_usize).prop_map(|(user, chat)| Step::Toggle(user, chat)),
        1 => (0..3_usize).prop_map(Step::Reconnect),
    ]
}

/// Everything as a cluster without a fault would show it.
fn model(steps: &[Step]) -> Observations {
    let users: Vec<UserId> = (0..3).map(|_| UserId::generate()).collect();
    let ids: Vec<ChatId> = (0..2).map(|_| ChatId::generate()).collect();
    let mut histories: Vec<Vec<Entry>> = vec![Vec::new(); 2];
    let mut members: Vec<Vec<usize>> = vec![vec![0, 1, 2]; 2];
    let mut seen: Vec<Vec<(u64, Seen)>> = vec![vec![(0, Seen::Connected)]; 3];
    let (mut attempts, mut operations) = (Vec::new(), Vec::new());
    let mut seq: Seq = 0;
    let mut told: BTreeMap<(usize, usize), Seq> = BTreeMap::new();
    let mut append = |chat: usize, what: What, to: &[usize], seen: &mut Vec<Vec<(u64, Seen)>>| {
        seq += 2;
        let prev = histories[chat].last().map_or(0, |entry: &Entry| entry.seq);
        histories[chat].push(Entry { seq, prev, what: what.clone() });
        for user in to {
            let before = told.insert((*user, chat), seq);
            let prev = before.map_or(0, |_| prev);
            seen[*user]
                .push((seq, Seen::Entry(ids[chat], Entry { seq, prev, what: what.clone() })));
        }
        seq
    };
    for chat in 0..2 {
        append(chat, What::Created, &[0, 1, 2], &mut seen);
    }
    for (n, step) in steps.iter().enumerate() {
        match *step {
            Step::Send(user, chat) => {
                let (sender, client_msg_id) = (users[user], format!("{n}"));
                let text = Text { sender, client_msg_id, digest: n as u64 };
                let (chat_id, invoked) = (ids[chat], n as u64 * 10);
                let turn = Some(Turn { connection: user as u64, number: n as u64 });
                if !members[chat].contains(&user) {
                    let outcome = Outcome::Failed;
                    attempts.push(Attempt { chat: chat_id, text, invoked, turn, outcome });
                    continue;
                }
                let id = MessageId(Uuid::now_v7());
                let to = members[chat].clone();
                let what = What::Message { id, text: text.clone() };
                let seq = append(chat, what, &to, &mut seen);
                let at = n as u64 * 10 + 5;
                for duplicate in [false, true] {
                    let outcome = Outcome::Acked { id, seq, duplicate, at };
                    let text = text.clone();
                    attempts.push(Attempt { chat: chat_id, text, invoked, turn, outcome });
                }
            }
            Step::Toggle(user, chat) if members[chat].contains(&user) => {
                let to = members[chat].clone();
                append(chat, What::Left(users[user]), &to, &mut seen);
                members[chat].retain(|member| *member != user);
                operations.push(moved(Kind::Leave, users[user], ids[chat], n));
            }
            Step::Toggle(user, chat) => {
                members[chat].push(user);
                seen[user].push((0, Seen::Added(ids[chat])));
                let to = members[chat].clone();
                append(chat, What::Joined(users[user]), &to, &mut seen);
                operations.push(moved(Kind::Join, users[user], ids[chat], n));
            }
            Step::Reconnect(user) => seen[user].push((0, Seen::Connected)),
        }
    }
    let chats = histories.into_iter().enumerate().map(|(chat, history)| Chat {
        id: ids[chat],
        founders: users.clone(),
        histories: vec![history.clone(), history],
    });
    let devices = seen.into_iter().enumerate().map(|(user, seen)| Device {
        user: users[user],
        name: format!("{user}"),
        seen,
        revoked: None,
        shut_out: false,
    });
    Observations { attempts, operations, devices: devices.collect(), chats: chats.collect() }
}

fn moved(kind: Kind, user: UserId, chat: ChatId, n: usize) -> Operation {
    Operation { kind, user, chat: Some(chat), invoked: n as u64 * 10, told: Told::Ok }
}

/// Everything is under way at once, and of two messages in one chat that follow each other on one
/// connection the later is stored first. False when there are no two.
fn swap_on_a_connection(seen: &mut Observations, seed: u64) -> bool {
    seen.attempts.iter_mut().for_each(|attempt| attempt.invoked = 0);
    let first = |a: &Attempt| matches!(a.outcome, Outcome::Acked { duplicate: false, .. });
    let of = |a: &Attempt| (a.chat, a.turn.map(|turn| turn.connection));
    let sent: Vec<usize> = (0..seen.attempts.len()).filter(|n| first(&seen.attempts[*n])).collect();
    let next = |(place, one): (usize, &usize)| {
        let same = |two: &&usize| of(&seen.attempts[**two]) == of(&seen.attempts[*one]);
        Some((*one, *sent[place + 1..].iter().find(same)?))
    };
    let pairs: Vec<(usize, usize)> = sent.iter().enumerate().filter_map(next).collect();
    let Some((one, two)) = pairs.get(seed as usize % pairs.len().max(1)).copied() else {
        return false;
    };
    let turn = seen.attempts[one].turn;
    seen.attempts[one].turn = seen.attempts[two].turn;
    seen.attempts[two].turn = turn;
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_right_is_green_and_each_fault_is_red(
        steps in prop::collection::vec(step(), 1..80),
        seed in any::<u64>(),
    ) {
        let right = model(&steps);
        let verdict = verify(&right);
        prop_assert!(verdict.ok, "{:?}", verdict.listed);
        for fault in FAULTS {
            let mut wrong = right.clone();
            if spoil(&mut wrong, fault, seed) {
                prop_assert!(!verify(&wrong).ok, "{fault:?} was not seen");
            }
        }
        let mut wrong = right;
        if swap_on_a_connection(&mut wrong, seed) {
            let listed = verify(&wrong).listed;
            let swapped = |v: &Violation| matches!(v, Violation::SenderReordered { .. });
            prop_assert!(!listed.is_empty() && listed.iter().all(swapped), "{listed:?}");
        }
    }
}

#[test]
fn where_nothing_was_seen_nothing_can_be_spoiled() {
    for fault in [SeededFault::Drop, SeededFault::Duplicate, SeededFault::Swap] {
        let mut seen = model(&[]);
        // All that the devices got they have also read, so that a fault would be none.
        for device in &mut seen.devices {
            for chat in &seen.chats {
                device.seen.push((0, Seen::Fetched(chat.id, chat.histories[0].clone())));
            }
        }
        assert!(!spoil(&mut seen, fault, 0), "{fault:?}");
    }
    assert!(!spoil(&mut Observations::default(), SeededFault::EarlyAck, 0));
}

#[test]
fn each_violation_is_called_by_its_name() {
    let steps: Vec<Step> = (0..30).map(|n| Step::Send(n % 3, n % 2)).collect();
    let right = model(&steps);
    let kinds = |spoiled: &Observations| {
        let listed = verify(spoiled).listed;
        listed.iter().map(|v| serde_json::json!(v)["kind"].to_string()).collect::<Vec<_>>()
    };
    let with = |spoil: &dyn Fn(&mut Observations)| {
        let mut spoiled = right.clone();
        spoil(&mut spoiled);
        kinds(&spoiled)
    };
    let has = |kinds: Vec<String>, kind: &str| {
        assert!(kinds.iter().any(|k| *k == format!("\"{kind}\"")), "{kind} is not in {kinds:?}");
    };
    has(with(&|o| drop(o.chats[0].histories[1].pop())), "histories_differ");
    has(with(&|o| o.chats[0].histories.iter_mut().for_each(|h| h.swap(3, 4))), "history_order");
    has(with(&|o| o.attempts.clear()), "never_sent");
    has(
        with(&|o| o.attempts.iter_mut().for_each(|a| a.outcome = Outcome::Failed)),
        "failed_stored",
    );
    has(with(&|o| o.chats[0].founders.clear()), "not_entitled");
    let late = |o: &mut Observations| {
        o.devices[0].revoked = Some(0);
        o.attempts.iter_mut().for_each(|attempt| attempt.invoked += 20_000_000);
    };
    has(with(&late), "after_revocation");
    let reordered = |o: &mut Observations| {
        o.attempts.iter_mut().for_each(|attempt| attempt.invoked = 1_000 - attempt.invoked);
        for attempt in &mut o.attempts {
            if let Outcome::Acked { at, .. } = &mut attempt.outcome {
                *at = attempt.invoked + 1;
            }
        }
    };
    has(with(&reordered), "reordered");
    has(with(&|o| o.devices[0].shut_out = true), "shut_out");
    let let_in = |o: &mut Observations| {
        o.devices[0].revoked = Some(0);
        o.devices[0].seen.push((20_000_000, Seen::Connected));
    };
    has(with(&let_in), "let_in");
    let refused = |o: &mut Observations| {
        let (user, chat) = (o.devices[1].user, o.chats[0].id);
        let told = Told::Failed("forbidden".to_owned());
        o.operations.push(Operation { told, ..moved(Kind::Join, user, chat, 0) });
    };
    has(with(&refused), "not_done");
    let without_effect = |o: &mut Observations| {
        o.operations.push(moved(Kind::Leave, o.devices[1].user, o.chats[0].id, 0));
    };
    has(with(&without_effect), "move_lost");
}

#[test]
fn a_retry_may_stand_before_what_its_connection_sent_earlier() {
    let mut seen = model(&[Step::Send(0, 0), Step::Send(0, 0)]);
    swap_on_a_connection(&mut seen, 0);
    assert!(matches!(verify(&seen).listed[..], [Violation::SenderReordered { .. }]));
    // The one that stands first had been sent before, on a connection that got no answer.
    let firsts = seen.attempts.iter_mut().filter(|attempt| attempt.turn.is_some());
    for attempt in firsts.take(1) {
        if let Outcome::Acked { duplicate, .. } = &mut attempt.outcome {
            *duplicate = true;
        }
    }
    assert!(verify(&seen).ok, "{:?}", verify(&seen).listed);
}

#[test]
fn who_has_left_and_cannot_resume_has_lost_it_honestly() {
    let mut seen = model(&[Step::Send(0, 0), Step::Toggle(1, 0), Step::Send(0, 0)]);
    let chat = seen.chats[0].id;
    let entries = seen.devices[1].seen.len();
    seen.devices[1].seen.truncate(entries - 1);
    assert!(matches!(verify(&seen).listed[..], [Violation::Missing { .. }]));
    seen.devices[1].seen.push((0, Seen::Lost(chat)));
    assert!(verify(&seen).ok);

    // What it lacks of a part that has begun since is missing all the same.
    let steps = [Step::Send(0, 0), Step::Toggle(1, 0), Step::Toggle(1, 0), Step::Send(0, 0)];
    let mut seen = model(&steps);
    let chat = seen.chats[0].id;
    seen.devices[1].seen.pop();
    seen.devices[1].seen.push((0, Seen::Lost(chat)));
    assert!(matches!(verify(&seen).listed[..], [Violation::Missing { .. }]));
}
