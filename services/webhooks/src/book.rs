//! What a lane has in hand: pure, so that its rules can be tested by themselves.
//!
//! Events are read in order. One that is wanted waits in its feed's queue, and of each feed one is with the
//! endpoint at a time. When it fails, the feed falls **behind**: its queue is emptied, and from then on its
//! events are taken from the stream one by one, until it has caught up with what was read meanwhile. So a
//! feed that fails holds up no other, costs a row, and goes on where it was, also with another owner. Those that
//! are due and those that go well take turns: neither waits for the other to have nothing to tell.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use natter_bus::Hooked;
use natter_protocol::{feed::Feed, ids::Seq};
use natter_store::Behind;
use time::OffsetDateTime;

/// What a lane has in hand.
#[derive(Debug)]
pub struct Book {
    /// All up to here is read.
    read: (Seq, Seq),
    /// What lies up to here in the log was told before the stream was lost and filled again.
    told_log: Seq,
    /// The stream has come so far again.
    whole: bool,
    /// Read, and neither told nor behind: its place in the log, and when that stored it.
    open: BTreeMap<Seq, (Seq, OffsetDateTime)>,
    bytes: usize,
    queues: HashMap<Feed, VecDeque<Hooked>>,
    /// Feeds with a queue of which nothing is with the endpoint.
    ready: VecDeque<Feed>,
    late: HashMap<Feed, Late>,
    /// Of those that are behind, those of which nothing is with the endpoint.
    due: BTreeSet<(OffsetDateTime, Feed)>,
    /// The turn is of one that is behind, if one is due.
    turn_of_late: bool,
    changes: Changes,
}

#[derive(Clone, Copy, Debug)]
struct Late {
    behind: Behind,
    /// The last event of the feed that was read, and passed over.
    upto: Seq,
}

/// What has to be written since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Feeds that are behind, or have moved there.
    pub behind: HashSet<Feed>,
    /// Feeds that are not any more.
    pub caught_up: HashSet<Feed>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Tell this.
    Tell(Hooked),
    /// Look up the feed's next event, up to a place, and tell it.
    LookUp(Behind, Seq),
}

impl Book {
    /// For a lane that has dealt with all up to `seq`, and up to `log_seq` in the log, but for what is behind.
    /// `whole` unless the stream has lost its end, and perhaps not come to that place of the log again.
    #[must_use]
    pub fn new(seq: Seq, log_seq: Seq, behind: Vec<Behind>, whole: bool) -> Self {
        let due = behind.iter().map(|behind| (behind.due_at, behind.feed)).collect();
        // How far they are to catch up the owner before has not said: at most to its own place.
        let late = behind.into_iter().map(|behind| (behind.feed, Late { behind, upto: seq }));
        Self {
            read: (seq, log_seq),
            told_log: log_seq,
            whole,
            open: BTreeMap::new(),
            bytes: 0,
            queues: HashMap::new(),
            ready: VecDeque::new(),
            late: late.collect(),
            due,
            turn_of_late: true,
            changes: Changes::default(),
        }
    }

    /// An event was read.
    pub fn take(&mut self, event: Hooked, wanted: bool) {
        let (seq, log_seq, feed) = (event.seq, event.log_seq, event.feed);
        self.read = (seq.max(self.read.0), log_seq.max(self.read.1));
        self.whole |= log_seq >= self.told_log;
        if !wanted {
            return;
        }
        if let Some(late) = self.late.get_mut(&feed) {
            late.upto = seq;
            return;
        }
        if log_seq <= self.told_log {
            return;
        }
        self.bytes += event.body.len();
        self.open.insert(seq, (log_seq, event.at));
        let queue = self.queues.entry(feed).or_default();
        queue.push_back(event);
        if queue.len() == 1 {
            self.ready.push_back(feed);
        }
    }

    /// What can be told now: by turns of a feed that is behind and due, and of one that goes well.
    pub fn next(&mut self, now: OffsetDateTime) -> Option<Next> {
        let first = self.due.first().copied().filter(|(at, _)| *at <= now);
        match first {
            Some(first) if self.turn_of_late || self.ready.is_empty() => {
                self.turn_of_late = false;
                self.due.remove(&first);
                self.late.get(&first.1).map(|late| Next::LookUp(late.behind, late.upto))
            }
            _ => {
                self.turn_of_late = true;
                let feed = self.ready.pop_front()?;
                self.queues.get(&feed)?.front().cloned().map(Next::Tell)
            }
        }
    }

    /// Puts back what [`Self::next`] has given, as if it had not.
    pub fn put_back(&mut self, feed: Feed) {
        let late = self.late.get(&feed);
        self.turn_of_late = late.is_some();
        match late {
            Some(late) => drop(self.due.insert((late.behind.due_at, feed))),
            None => self.ready.push_front(feed),
        }
    }

    /// When the first of those that are behind is due.
    #[must_use]
    pub fn next_due(&self) -> Option<OffsetDateTime> {
        self.due.first().map(|(at, _)| *at)
    }

    /// An event was told, or is given up: its feed's next one may be.
    pub fn done(&mut self, event: &Hooked, now: OffsetDateTime) {
        let feed = event.feed;
        if self.late.contains_key(&feed) {
            self.late_done(feed, event, now);
            return;
        }
        let Some(queue) = self.queues.get_mut(&feed) else { return };
        if let Some(told) = queue.pop_front() {
            self.open.remove(&told.seq);
            self.bytes = self.bytes.saturating_sub(told.body.len());
        }
        if queue.is_empty() {
            self.queues.remove(&feed);
        } else {
            self.ready.push_back(feed);
        }
    }

    fn late_done(&mut self, feed: Feed, event: &Hooked, now: OffsetDateTime) {
        let Some(late) = self.late.get_mut(&feed) else { return };
        let seq = event.seq + 1;
        late.behind = if event.log_seq < late.behind.log_seq {
            // Told before the stream lost its end, and passed over: what has failed comes after it.
            Behind { seq, due_at: now, ..late.behind }
        } else {
            let log_seq = event.log_seq + 1;
            Behind { seq, log_seq, attempts: 0, failing_since: None, due_at: now, ..late.behind }
        };
        if seq > late.upto && self.whole {
            self.caught_up(feed);
        } else {
            self.due.insert((now, feed));
            self.changes.behind.insert(feed);
        }
    }

    /// Whether all is in the stream that was passed over of feeds that are behind: one that has lost its end is
    /// filled again first.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.whole
    }

    /// A feed that is behind has nothing more up to where it was passed over.
    pub fn caught_up(&mut self, feed: Feed) {
        self.late.remove(&feed);
        self.changes.behind.remove(&feed);
        self.changes.caught_up.insert(feed);
    }

    /// Whether what a look-up did not find could have come since.
    #[must_use]
    pub fn passed_since(&self, feed: Feed, upto: Seq) -> bool {
        self.late.get(&feed).is_some_and(|late| late.upto > upto)
    }

    /// Telling an event has failed, `attempts` times by now: its feed is behind until it is told.
    pub fn failed(
        &mut self,
        event: &Hooked,
        attempts: u16,
        failing_since: OffsetDateTime,
        due_at: OffsetDateTime,
    ) {
        let Hooked { feed, seq, log_seq, at, .. } = *event;
        let failing_since = Some(failing_since);
        let behind = Behind { feed, seq, log_seq, at, attempts, failing_since, due_at };
        let mut upto = self.late.get(&feed).map_or(seq, |late| late.upto);
        for queued in self.queues.remove(&feed).into_iter().flatten() {
            self.open.remove(&queued.seq);
            self.bytes = self.bytes.saturating_sub(queued.body.len());
            upto = upto.max(queued.seq);
        }
        self.late.insert(feed, Late { behind, upto });
        self.due.insert((due_at, feed));
        self.changes.caught_up.remove(&feed);
        self.changes.behind.insert(feed);
    }

    /// A feed that is behind could not be looked up: again at this time.
    pub fn again_at(&mut self, feed: Feed, due_at: OffsetDateTime) {
        if let Some(late) = self.late.get_mut(&feed) {
            late.behind.due_at = due_at;
            self.due.insert((due_at, feed));
        }
    }

    /// All up to here is dealt with: its place, and that in the log.
    #[must_use]
    pub fn floor(&self) -> (Seq, Seq) {
        match self.open.first_key_value() {
            Some((seq, (log_seq, _))) => (seq - 1, log_seq - 1),
            None => self.read,
        }
    }

    /// All up to here is read.
    #[must_use]
    pub fn read(&self) -> Seq {
        self.read.0
    }

    /// When the oldest event was stored that is read and not told.
    #[must_use]
    pub fn oldest(&self) -> Option<OffsetDateTime> {
        let open = self.open.values().map(|(_, at)| *at).next();
        open.into_iter().chain(self.late.values().map(|late| late.behind.at)).min()
    }

    /// How many events are read and not told, those of feeds that are behind aside.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many feeds are behind.
    #[must_use]
    pub fn behind(&self) -> usize {
        self.late.len()
    }

    /// What has to be written; from here on that counts as written.
    pub fn take_changes(&mut self) -> (Changes, Vec<Behind>) {
        let changes = std::mem::take(&mut self.changes);
        let behind = changes.behind.iter().filter_map(|feed| self.late.get(feed));
        let behind = behind.map(|late| late.behind).collect();
        (changes, behind)
    }

    /// It could not be written.
    pub fn put_changes_back(&mut self, changes: Changes) {
        for feed in changes.behind.into_iter().chain(changes.caught_up) {
            if self.late.contains_key(&feed) {
                self.changes.behind.insert(feed);
            } else {
                self.changes.caught_up.insert(feed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use natter_protocol::ids::ChatId;
    use proptest::prelude::*;
    use time::Duration;
    use uuid::Uuid;

    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn feed(chat: u8) -> Feed {
        Feed::chat(0, ChatId(Uuid::from_bytes([chat; 16])))
    }

    fn event(seq: Seq, chat: u8) -> Hooked {
        Hooked {
            seq,
            feed: feed(chat),
            log_seq: 10 * seq,
            at: NOW + Duration::seconds(seq as i64),
            name: String::new(),
            body: Bytes::from_static(b"12345"),
            traceparent: None,
        }
    }

    fn tell(book: &mut Book) -> Option<Hooked> {
        match book.next(NOW)? {
            Next::Tell(event) => Some(event),
            Next::LookUp(..) => None,
        }
    }

    #[test]
    fn of_a_feed_one_is_told_at_a_time_and_the_place_waits_for_the_oldest() {
        let mut book = Book::new(0, 0, Vec::new(), true);
        for (seq, chat) in [(1, 1), (2, 1), (3, 2)] {
            book.take(event(seq, chat), true);
        }
        book.take(event(4, 3), false);
        let (one, three) = (tell(&mut book).expect("a"), tell(&mut book).expect("b"));
        assert_eq!((one.seq, three.seq, tell(&mut book)), (1, 3, None));
        book.done(&three, NOW);
        assert_eq!((book.floor(), book.open()), ((0, 9), 2));
        book.done(&one, NOW);
        assert_eq!(book.floor(), (1, 19));
        let two = tell(&mut book).expect("the next of the feed");
        book.done(&two, NOW);
        assert_eq!((book.floor(), book.bytes(), book.read()), ((4, 40), 0, 4));
    }

    #[test]
    fn a_feed_that_fails_is_passed_over_until_it_has_caught_up() {
        let mut book = Book::new(0, 0, Vec::new(), true);
        for (seq, chat) in [(1, 1), (2, 1), (3, 2)] {
            book.take(event(seq, chat), true);
        }
        let one = tell(&mut book).expect("a");
        let later = NOW + Duration::seconds(5);
        book.failed(&one, 1, NOW, later);
        let three = tell(&mut book).expect("the other feed goes on");
        book.done(&three, NOW);
        book.take(event(4, 1), true);
        assert_eq!((book.floor().0, book.behind(), book.next_due()), (4, 1, Some(later)));
        let (changes, written) = book.take_changes();
        assert_eq!((written[0].seq, written[0].attempts, changes.behind.len()), (1, 1, 1));
        assert_eq!(book.next(NOW), None);

        for told in [1, 2, 4] {
            let Some(Next::LookUp(behind, upto)) = book.next(later) else { panic!("it is due") };
            assert!(behind.seq <= told && upto == 4, "{behind:?}");
            book.done(&event(told, 1), later);
        }
        assert_eq!((book.behind(), book.next(later)), (0, None));
        let (changes, _) = book.take_changes();
        assert!(changes.caught_up.contains(&feed(1)) && changes.behind.is_empty());
        book.take(event(5, 1), true);
        assert_eq!(tell(&mut book).expect("as before").seq, 5);
    }

    #[test]
    fn feeds_that_are_due_and_feeds_that_go_well_take_turns() {
        let mut book = Book::new(0, 0, Vec::new(), true);
        let later = NOW + Duration::seconds(5);
        for chat in 1..=2 {
            book.take(event(chat.into(), chat), true);
            let failed = tell(&mut book).expect("new");
            book.failed(&failed, 1, NOW, later);
        }
        for chat in 3..=6 {
            book.take(event(chat.into(), chat), true);
        }
        let feed_of = |next: &Next| match next {
            Next::Tell(event) => event.feed,
            Next::LookUp(behind, _) => behind.feed,
        };
        let mut turns = Vec::new();
        while let Some(next) = book.next(later) {
            // Not all that is wanted can be begun: whose turn it is stays.
            book.put_back(feed_of(&next));
            assert_eq!(book.next(later).as_ref().map(feed_of), Some(feed_of(&next)));
            turns.push(feed_of(&next));
        }
        let place = |chat| turns.iter().position(|turn| *turn == feed(chat));
        assert_eq!(turns.len(), 6, "{turns:?}");
        // However many go well, the second that is due is not behind more than two of them.
        assert!(place(1) <= Some(1) && place(2) <= Some(3), "{turns:?}");
        assert!(place(3) <= Some(1) && place(4) <= Some(3), "{turns:?}");
    }

    #[test]
    fn what_was_told_and_stands_elsewhere_now_is_passed_over_and_nothing_more() {
        let mut book = Book::new(0, 0, Vec::new(), true);
        for seq in 1..=3 {
            book.take(event(seq, 1), true);
        }
        let one = tell(&mut book).expect("new");
        book.done(&one, NOW);
        let two = tell(&mut book).expect("the next");
        book.failed(&two, 7, NOW, NOW);
        let now = NOW + Duration::seconds(1);
        // The stream was filled again, and what was told stands where the one that fails was.
        let Some(Next::LookUp(behind, _)) = book.next(now) else { panic!("it is due") };
        let again = Hooked { log_seq: one.log_seq, ..event(behind.seq, 1) };
        book.done(&again, now);
        let Some(Next::LookUp(behind, _)) = book.next(now) else { panic!("it is due") };
        assert_eq!((behind.seq, behind.log_seq), (3, two.log_seq));
        assert_eq!((behind.attempts, behind.failing_since), (7, Some(NOW)));
    }

    #[test]
    fn a_feed_that_is_behind_waits_for_a_stream_that_has_lost_its_end() {
        let one = event(1, 1);
        let behind = Behind {
            feed: one.feed,
            seq: 2,
            log_seq: 20,
            at: NOW,
            attempts: 3,
            failing_since: Some(NOW),
            due_at: NOW,
        };
        // Two to four were there; now only the first is, and once more at the second's place.
        let mut book = Book::new(1, 40, vec![behind], false);
        let Some(Next::LookUp(..)) = book.next(NOW) else { panic!("it is due") };
        book.done(&Hooked { log_seq: 10, ..event(2, 1) }, NOW);
        assert!(book.behind() == 1 && !book.whole());
        let Some(Next::LookUp(behind, _)) = book.next(NOW) else { panic!("it is due") };
        assert_eq!((behind.seq, behind.attempts), (3, 3));
        book.again_at(behind.feed, NOW);
        for (seq, log_seq) in [(3, 20), (4, 30), (5, 40)] {
            assert!(!book.whole());
            book.take(Hooked { log_seq, ..event(seq, 1) }, true);
        }
        assert!(book.whole());
        let Some(Next::LookUp(_, upto)) = book.next(NOW) else { panic!("it is due") };
        assert_eq!(upto, 5);
    }

    #[test]
    fn what_was_told_before_the_stream_was_lost_is_not_told_again() {
        let mut book = Book::new(2, 20, Vec::new(), true);
        let again = |seq, log_seq| Hooked { log_seq, ..event(seq, 1) };
        book.take(again(1_000, 20), true);
        assert_eq!(tell(&mut book), None);
        book.take(again(1_001, 30), true);
        assert_eq!(tell(&mut book).expect("is new").seq, 1_001);
    }

    /// One stream, told with failures and deaths in between.
    fn run(chats: &[u8], steps: &[(u8, u8)]) -> (Vec<Hooked>, Vec<Hooked>) {
        let stream: Vec<Hooked> = (1..).zip(chats).map(|(seq, chat)| event(seq, *chat)).collect();
        let (mut told, mut now) = (Vec::new(), NOW);
        let mut saved = (0, 0);
        let mut rows: HashMap<Feed, Behind> = HashMap::new();
        let mut book = Book::new(0, 0, Vec::new(), true);
        let mut out: Vec<(Hooked, u16)> = Vec::new();
        let steps = steps.iter().copied();
        // In the end nothing fails any more.
        let calm = std::iter::repeat_n([(0, 0), (1, 0), (2, 0), (1, 0)], 8 * chats.len() + 8);
        for (what, which) in steps.chain(calm.flatten()) {
            now += Duration::seconds(1);
            match what % 6 {
                0 => {
                    let next = stream.iter().find(|event| event.seq > book.read());
                    if let Some(event) = next {
                        book.take(event.clone(), true);
                    }
                }
                1 => match book.next(now) {
                    Some(Next::Tell(event)) => out.push((event, 0)),
                    Some(Next::LookUp(behind, upto)) => {
                        let found = stream
                            .iter()
                            .find(|event| event.feed == behind.feed && event.seq >= behind.seq);
                        match found.filter(|event| event.seq <= upto) {
                            Some(event) => out.push((event.clone(), behind.attempts)),
                            None if book.passed_since(behind.feed, upto) => {
                                book.again_at(behind.feed, now);
                            }
                            None => book.caught_up(behind.feed),
                        }
                    }
                    None => {}
                },
                2 | 3 if !out.is_empty() => {
                    let (event, attempts) = out.remove(usize::from(which) % out.len());
                    if what % 6 == 2 {
                        told.push(event.clone());
                        book.done(&event, now);
                    } else {
                        book.failed(&event, attempts + 1, now, now + Duration::seconds(2));
                    }
                }
                4 => {
                    let (changes, behind) = book.take_changes();
                    for feed in changes.caught_up {
                        rows.remove(&feed);
                    }
                    rows.extend(behind.into_iter().map(|behind| (behind.feed, behind)));
                    saved = book.floor();
                }
                // Dies, and another goes on from what is written.
                5 => {
                    out.clear();
                    book = Book::new(saved.0, saved.1, rows.values().copied().collect(), true);
                }
                _ => {}
            }
        }
        (stream, told)
    }

    proptest! {
        #[test]
        fn every_event_is_told_and_none_before_an_earlier_one_of_its_feed(
            chats in proptest::collection::vec(0_u8..3, 1..24),
            steps in proptest::collection::vec((0_u8..6, any::<u8>()), 0..160),
        ) {
            let (stream, told) = run(&chats, &steps);
            let mut seen: HashSet<Seq> = HashSet::new();
            for event in &told {
                let earlier = stream.iter().filter(|e| e.feed == event.feed && e.seq < event.seq);
                for earlier in earlier {
                    prop_assert!(seen.contains(&earlier.seq), "{} before {}", event.seq, earlier.seq);
                }
                seen.insert(event.seq);
            }
            prop_assert_eq!(seen.len(), stream.len(), "all of it");
        }
    }
}
