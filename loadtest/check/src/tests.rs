//! The verifier against a model of a cluster that does everything right, and against each fault.

use std::collections::BTreeMap;

use natter_protocol::ids::{ChatId, MessageId, Seq, UserId};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    SeededFault,
    observations::{Attempt, Chat, Device, Entry, Observations, Outcome, Seen, Text, What},
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
    let mut attempts = Vec::new();
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
                let chat_id = ids[chat];
                if !members[chat].contains(&user) {
                    let outcome = Outcome::Failed;
                    attempts.push(Attempt { chat: chat_id, text, invoked: n as u64 * 10, outcome });
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
                    attempts.push(Attempt { chat: chat_id, text, invoked: n as u64 * 10, outcome });
                }
            }
            Step::Toggle(user, chat) if members[chat].contains(&user) => {
                let to = members[chat].clone();
                append(chat, What::Left(users[user]), &to, &mut seen);
                members[chat].retain(|member| *member != user);
            }
            Step::Toggle(user, chat) => {
                members[chat].push(user);
                seen[user].push((0, Seen::Added(ids[chat])));
                let to = members[chat].clone();
                append(chat, What::Joined(users[user]), &to, &mut seen);
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
    });
    Observations { attempts, devices: devices.collect(), chats: chats.collect() }
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
    }
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
}
