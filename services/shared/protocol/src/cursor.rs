//! How far a connection has come on all its feeds: what the wire's opaque `cursor` says.
//!
//! A node knows of each shard up to where it has delivered everything on the feeds that it
//! follows: its [`Bases`], the same for all its connections. A connection's own [`Cursor`] adds
//! what differs from that: `floors`, where it began later than the base, and `feeds`, which are
//! ahead of the base (their entries came since the last digest) or, for a chat that was added and
//! is being read, behind it. Sequences are never given twice, also not by a stream that was made
//! anew, so no epoch is needed beside them.
//!
//! As text: the bases, a dot, the rest, each base64url without padding; numbers are LEB128. The
//! first part is rendered once for all connections, the second for each. The rest begins with a
//! [`Seal`]: a cursor says what its user has been given already, so one that could be made up
//! would get what was said in a chat before the user's part in it, or after it had ended.

use std::{collections::HashMap, hash::Hasher as _, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use siphasher::sip::SipHasher24;

use crate::{
    feed::{Feed, FeedKind},
    ids::{Seq, Shard, UserId},
};

/// Bytes of a cursor's text at most; longer ones are refused. A feed that is ahead of the base takes
/// about 18 of them.
pub const CURSOR_BYTES: usize = 32 * 1024;
/// The text's first byte; another one is another format.
const VERSION: u8 = 2;
const SEAL_BYTES: usize = 8;
const SHARDS_MAX: usize = 1024;

/// Up to where everything has been delivered, for each shard from 0 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bases {
    seqs: Box<[Seq]>,
    text: Box<str>,
}

impl Bases {
    /// From one sequence for each shard.
    #[must_use]
    pub fn new(seqs: Box<[Seq]>) -> Self {
        let mut bytes = vec![VERSION];
        put(&mut bytes, seqs.len() as u64);
        for seq in &seqs {
            put(&mut bytes, *seq);
        }
        let text = URL_SAFE_NO_PAD.encode(bytes).into();
        Self { seqs, text }
    }

    /// Of one shard; 0 for one that is not among them.
    #[must_use]
    pub fn of(&self, shard: Shard) -> Seq {
        self.seqs.get(usize::from(shard)).copied().unwrap_or(0)
    }

    /// One for each shard.
    #[must_use]
    pub fn seqs(&self) -> &[Seq] {
        &self.seqs
    }

    /// The first part of a cursor's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Makes cursors that nobody else can make: SipHash-2-4 under a secret key, 64 bits, of the whole
/// text and its owner.
#[derive(Clone, Copy)]
pub struct Seal([u8; 16]);

impl Seal {
    /// By a key, the same on every node.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    fn of(self, bases: &str, owner: UserId, rest: &[u8]) -> [u8; SEAL_BYTES] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        // The text of bases cannot hold a dot, so no two cursors are hashed alike.
        hasher.write(bases.as_bytes());
        hasher.write(b".");
        hasher.write(owner.0.as_bytes());
        hasher.write(rest);
        hasher.finish().to_le_bytes()
    }
}

/// Without the key.
impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

/// A feed as cursors name it: half of its id, which is random, tells a user's feeds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    shard: Shard,
    tag: u64,
    seq: Seq,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    bases: Arc<Bases>,
    floors: Vec<(Shard, Seq)>,
    feeds: Vec<Place>,
}

/// A text that is no cursor of this user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It was not made by a server of this deployment and version.
    #[error("not a cursor")]
    Malformed,
    /// It is another user's.
    #[error("another user's cursor")]
    Foreign,
}

impl Cursor {
    /// At the bases on all feeds.
    #[must_use]
    pub fn at(bases: Arc<Bases>) -> Self {
        Self { bases, floors: Vec::new(), feeds: Vec::new() }
    }

    /// With each of these feeds, which are all that there are, at its place, or at the base where
    /// that is further. As short as it can be: where most feeds of a shard stand is its floor.
    #[must_use]
    pub fn standing(bases: &Arc<Bases>, places: &[(Feed, Seq)]) -> Self {
        let place = |&(feed, seq): &(Feed, Seq)| (feed, seq.max(bases.of(feed.shard)));
        let mut counts: HashMap<(Shard, Seq), usize> = HashMap::new();
        for (feed, seq) in places.iter().map(place) {
            *counts.entry((feed.shard, seq)).or_default() += 1;
        }
        let mut floors: HashMap<Shard, (usize, Seq)> = HashMap::new();
        for ((shard, seq), count) in counts {
            let most = floors.entry(shard).or_default();
            *most = (*most).max((count, seq));
        }
        let mut cursor = Self::at(Arc::clone(bases));
        for (feed, seq) in places.iter().map(place) {
            let floor = floors.get(&feed.shard).map_or(0, |(_, seq)| *seq);
            if seq != floor {
                cursor.feeds.push(Place { shard: feed.shard, tag: tag(feed), seq });
            }
        }
        for (shard, (_, floor)) in floors {
            cursor.raise(shard, floor);
        }
        cursor
    }

    /// The bases that it stands on.
    #[must_use]
    pub fn bases(&self) -> &Arc<Bases> {
        &self.bases
    }

    /// The last entry of the feed that has been delivered, or that needs no delivering.
    #[must_use]
    pub fn position(&self, feed: Feed) -> Seq {
        self.explicit(feed).unwrap_or_else(|| self.level(feed.shard))
    }

    /// Whether the feed's entry `seq` has been delivered.
    #[must_use]
    pub fn covers(&self, feed: Feed, seq: Seq) -> bool {
        seq <= self.position(feed)
    }

    /// Where all feeds of the shard stand that are not named themselves.
    #[must_use]
    pub fn level(&self, shard: Shard) -> Seq {
        let floor =
            self.floors.iter().find(|(other, _)| *other == shard).map_or(0, |(_, seq)| *seq);
        floor.max(self.bases.of(shard))
    }

    /// How far the furthest of the shard's feeds has come.
    #[must_use]
    pub fn furthest(&self, shard: Shard) -> Seq {
        let places = self.feeds.iter().filter(|place| place.shard == shard);
        places.map(|place| place.seq).max().unwrap_or(0).max(self.level(shard))
    }

    /// The shard's feeds stand at `seq` at least.
    pub fn raise(&mut self, shard: Shard, seq: Seq) {
        if seq <= self.level(shard) {
            return;
        }
        self.floors.retain(|(other, _)| *other != shard);
        self.floors.push((shard, seq));
    }

    /// The feed stands at `seq`, wherever it stood.
    pub fn set(&mut self, feed: Feed, seq: Seq) {
        let tag = tag(feed);
        match self.feeds.iter_mut().find(|place| place.tag == tag) {
            Some(place) => place.seq = seq,
            None => self.feeds.push(Place { shard: feed.shard, tag, seq }),
        }
    }

    /// The feed's entry `seq` was delivered.
    pub fn advance(&mut self, feed: Feed, seq: Seq) {
        if !self.covers(feed, seq) {
            self.set(feed, seq);
        }
    }

    /// Everything up to these bases has been delivered, on all feeds, those behind included.
    pub fn rebase(&mut self, bases: &Arc<Bases>) {
        if Arc::ptr_eq(bases, &self.bases) {
            return;
        }
        self.bases = Arc::clone(bases);
        let bases = &self.bases;
        self.floors.retain(|(shard, seq)| *seq > bases.of(*shard));
        let floors = &self.floors;
        self.feeds.retain_mut(|place| {
            let base = bases.of(place.shard);
            if place.seq > base {
                return true;
            }
            // One behind the floor is not where the floor is only because it is named no more.
            place.seq = base;
            floors.iter().any(|(shard, _)| *shard == place.shard)
        });
        // Most connections are quiet most of the time, and then hold nothing.
        if self.feeds.is_empty() {
            self.feeds = Vec::new();
        }
        if self.floors.is_empty() {
            self.floors = Vec::new();
        }
    }

    /// The further of the two on every feed, on the bases of `other`: for a connection that has
    /// replayed all that lay between this and `other`.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut merged =
            Self { floors: other.floors.clone(), ..Self::at(Arc::clone(&other.bases)) };
        let shards = self.bases.seqs.iter().enumerate().map(|(shard, seq)| (shard as Shard, *seq));
        for (shard, seq) in shards.chain(self.floors.iter().copied()) {
            merged.raise(shard, seq);
        }
        for place in self.feeds.iter().chain(&other.feeds) {
            let seq = self.place(place).max(other.place(place));
            let known = merged.feeds.iter().any(|known| known.tag == place.tag);
            if !known && seq != merged.level(place.shard) {
                merged.feeds.push(Place { seq, ..*place });
            }
        }
        merged
    }

    /// Where the feed stands here that another cursor may name.
    fn place(&self, other: &Place) -> Seq {
        let place = self.feeds.iter().find(|place| place.tag == other.tag);
        place.map_or_else(|| self.level(other.shard), |place| place.seq)
    }

    /// The second part of the text, for a user's own connection.
    #[must_use]
    pub fn suffix(&self, owner: UserId, seal: Seal) -> String {
        let head = 4 + SEAL_BYTES;
        let mut bytes =
            Vec::with_capacity(head + 8 + 8 * self.floors.len() + 16 * self.feeds.len());
        bytes.extend(owner_tag(owner));
        bytes.extend([0; SEAL_BYTES]);
        put(&mut bytes, self.floors.len() as u64);
        for (shard, seq) in &self.floors {
            put(&mut bytes, u64::from(*shard));
            put(&mut bytes, *seq);
        }
        for Place { shard, tag, seq } in &self.feeds {
            put(&mut bytes, u64::from(*shard));
            bytes.extend(tag.to_le_bytes());
            put(&mut bytes, *seq);
        }
        let sealed = seal.of(self.bases.text(), owner, &bytes[head..]);
        bytes[4..head].copy_from_slice(&sealed);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self, owner: UserId, seal: Seal) -> String {
        format!("{}.{}", self.bases.text(), self.suffix(owner, seal))
    }

    /// Reads a text that was made under one of these seals.
    ///
    /// # Errors
    /// [`CursorError`] when it is none, or another user's.
    pub fn parse(text: &str, owner: UserId, seals: &[Seal]) -> Result<Self, CursorError> {
        let (head, bases, rest) = split(text).ok_or(CursorError::Malformed)?;
        let seqs = read_bases(&bases).ok_or(CursorError::Malformed)?;
        let (tag, rest) = rest.split_first_chunk().ok_or(CursorError::Malformed)?;
        if *tag != owner_tag(owner) {
            return Err(CursorError::Foreign);
        }
        let (sealed, rest) = rest.split_first_chunk().ok_or(CursorError::Malformed)?;
        // Not in constant time: a guess that is right in part makes the next one no easier to
        // tell, over a network, from 8 bytes compared at once.
        if !seals.iter().any(|seal| seal.of(head, owner, rest) == *sealed) {
            return Err(CursorError::Malformed);
        }
        let mut cursor = Self::at(Arc::new(Bases::new(seqs)));
        cursor.read_rest(rest).ok_or(CursorError::Malformed)?;
        Ok(cursor)
    }

    fn read_rest(&mut self, mut bytes: &[u8]) -> Option<()> {
        let floors = take(&mut bytes)?;
        for _ in 0..floors {
            let shard = Shard::try_from(take(&mut bytes)?).ok()?;
            self.raise(shard, take(&mut bytes)?);
        }
        while !bytes.is_empty() {
            let shard = Shard::try_from(take(&mut bytes)?).ok()?;
            let (tag, rest) = bytes.split_first_chunk()?;
            bytes = rest;
            let place = Place { shard, tag: u64::from_le_bytes(*tag), seq: take(&mut bytes)? };
            if self.feeds.iter().any(|other| other.tag == place.tag) {
                return None;
            }
            self.feeds.push(place);
        }
        Some(())
    }

    fn explicit(&self, feed: Feed) -> Option<Seq> {
        if self.feeds.is_empty() {
            return None;
        }
        let tag = tag(feed);
        self.feeds.iter().find(|place| place.tag == tag).map(|place| place.seq)
    }
}

fn tag(feed: Feed) -> u64 {
    let (_, low) = feed.id.as_u64_pair();
    // A user and a chat could have one id; their feeds are two.
    match feed.kind {
        FeedKind::Chat => low,
        FeedKind::User => low ^ (1 << 63),
    }
}

fn owner_tag(owner: UserId) -> [u8; 4] {
    let (_, low) = owner.0.as_u64_pair();
    (low as u32).to_le_bytes()
}

/// The bases as text and as bytes, and the rest.
fn split(text: &str) -> Option<(&str, Vec<u8>, Vec<u8>)> {
    if text.len() > CURSOR_BYTES {
        return None;
    }
    let (bases, rest) = text.split_once('.')?;
    Some((bases, URL_SAFE_NO_PAD.decode(bases).ok()?, URL_SAFE_NO_PAD.decode(rest).ok()?))
}

fn read_bases(bytes: &[u8]) -> Option<Box<[Seq]>> {
    let (VERSION, mut bytes) = bytes.split_first().map(|(version, rest)| (*version, rest))? else {
        return None;
    };
    let count = usize::try_from(take(&mut bytes)?).ok().filter(|count| *count <= SHARDS_MAX)?;
    let seqs: Option<Box<[Seq]>> = (0..count).map(|_| take(&mut bytes)).collect();
    seqs.filter(|_| bytes.is_empty())
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(first & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::ChatId;

    const SEAL: Seal = Seal([7; 16]);

    fn bases(seqs: &[Seq]) -> Arc<Bases> {
        Arc::new(Bases::new(seqs.into()))
    }

    #[test]
    fn what_the_bases_reach_is_named_no_more() {
        let (chat, quiet) = (Feed::chat(0, ChatId::generate()), Feed::chat(1, ChatId::generate()));
        let mut cursor = Cursor::at(bases(&[10, 5]));
        cursor.raise(1, 8);
        cursor.raise(0, 3);
        cursor.advance(chat, 12);
        assert!(cursor.covers(chat, 12) && !cursor.covers(chat, 13));
        assert_eq!((cursor.position(quiet), cursor.level(0)), (8, 10));
        cursor.rebase(&bases(&[11, 9]));
        assert_eq!((cursor.position(chat), cursor.position(quiet)), (12, 9));
        cursor.rebase(&bases(&[20, 9]));
        assert_eq!(cursor, Cursor::at(bases(&[20, 9])));
        // A chat that was added is behind until it has been read.
        cursor.set(chat, 15);
        assert!(!cursor.covers(chat, 16));
        assert_eq!(cursor.position(Feed::chat(7, ChatId::generate())), 0);
    }

    #[test]
    fn one_behind_the_floor_stays_behind_it() {
        let [chats, own] = [0, 0].map(|shard| Feed::chat(shard, ChatId::generate()));
        let mut cursor = Cursor::at(bases(&[10]));
        cursor.raise(0, 100);
        cursor.set(own, 20);
        cursor.rebase(&bases(&[60]));
        assert_eq!((cursor.position(own), cursor.position(chats)), (60, 100));
        cursor.rebase(&bases(&[100]));
        assert_eq!(cursor, Cursor::at(bases(&[100])));
    }

    #[test]
    fn two_are_merged_to_the_further_one_of_each_feed() {
        let [a, b, c] = [0, 0, 1].map(|shard| Feed::chat(shard, ChatId::generate()));
        // From a node that knew more of shard 0 and less of shard 1.
        let mut old = Cursor::at(bases(&[100, 5]));
        old.set(a, 110);
        old.set(c, 7);
        let mut here = Cursor::at(bases(&[90, 50]));
        here.raise(0, 95);
        here.set(a, 105);
        here.set(b, 120);
        let merged = old.merged(&here);
        assert_eq!([a, b, c].map(|feed| merged.position(feed)), [110, 120, 50]);
        assert_eq!((merged.level(0), merged.level(1)), (100, 50));
        assert!(Arc::ptr_eq(merged.bases(), here.bases()));
    }

    #[test]
    fn others_cursors_are_refused() {
        let (ana, ben) = (UserId::generate(), UserId::generate());
        let text = Cursor::at(bases(&[1])).text(ana, SEAL);
        assert_eq!(Cursor::parse(&text, ben, &[SEAL]), Err(CursorError::Foreign));
        for text in ["", ".", "AQ", "AQA.", &text[1..], &format!("{text}AAAA"), &"A".repeat(99_999)]
        {
            assert!(Cursor::parse(text, ana, &[SEAL]).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn a_standing_names_only_what_is_elsewhere() {
        let feeds: Vec<Feed> = (0..100).map(|_| Feed::chat(0, ChatId::generate())).collect();
        let mut places: Vec<_> = feeds.iter().map(|feed| (*feed, 50)).collect();
        places[3].1 = 7;
        places[4].1 = 80;
        places[5].1 = 20;
        let cursor = Cursor::standing(&bases(&[20]), &places);
        for (feed, seq) in &places {
            assert_eq!(cursor.position(*feed), (*seq).max(20));
        }
        assert_eq!((cursor.feeds.len(), cursor.floors.len()), (3, 1));
        // Everybody at the base, but one.
        let cursor = Cursor::standing(&bases(&[60]), &places);
        assert_eq!((cursor.feeds.len(), cursor.floors.len()), (1, 0));
        assert_eq!((cursor.position(feeds[4]), cursor.position(feeds[3])), (80, 60));
    }

    #[test]
    fn nobody_else_makes_a_cursor() {
        let ana = UserId::generate();
        let (chat, other) = (Feed::chat(0, ChatId::generate()), Seal([8; 16]));
        let mut cursor = Cursor::at(bases(&[100]));
        let before = cursor.text(ana, SEAL);
        cursor.set(chat, 120);
        let text = cursor.text(ana, SEAL);
        assert!(Cursor::parse(&text, ana, &[other, SEAL]).is_ok());
        assert_eq!(Cursor::parse(&text, ana, &[other]), Err(CursorError::Malformed));
        // Neither half counts with another half, nor with a byte changed.
        let (bases, rest) = text.split_once('.').unwrap_or_default();
        let earlier = Bases::new([0].into());
        assert!(Cursor::parse(&format!("{}.{rest}", earlier.text()), ana, &[SEAL]).is_err());
        let rest = URL_SAFE_NO_PAD.decode(rest).unwrap_or_default();
        for place in 4..rest.len() {
            let mut forged = rest.clone();
            forged[place] ^= 1;
            let forged = format!("{bases}.{}", URL_SAFE_NO_PAD.encode(forged));
            assert!(Cursor::parse(&forged, ana, &[SEAL]).is_err(), "{place}");
        }
        assert!(Cursor::parse(&before, ana, &[SEAL]).is_ok());
    }

    proptest! {
        #[test]
        fn a_text_says_what_was_written(
            seqs in prop::collection::vec(any::<u64>(), 0..17),
            floors in prop::collection::vec((0..20_u16, any::<u64>()), 0..4),
            feeds in prop::collection::vec((0..20_u16, any::<u128>(), any::<u64>()), 0..30),
            owner in any::<u128>(),
        ) {
            let owner = UserId(uuid::Uuid::from_u128(owner));
            let mut cursor = Cursor::at(bases(&seqs));
            for (shard, seq) in floors { cursor.raise(shard, seq); }
            for (shard, id, seq) in feeds { cursor.set(Feed::chat(shard, uuid::Uuid::from_u128(id).into()), seq); }
            let text = cursor.text(owner, SEAL);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
            prop_assert_eq!(Cursor::parse(&text, owner, &[SEAL]), Ok(cursor));
        }

        /// Whatever is named and whatever is behind: on every feed the merged one stands where the
        /// further of the two stands, and going on to new bases never passes by an entry.
        #[test]
        fn merging_and_going_on_keep_every_place(
            levels in prop::array::uniform4(0..50_u64),
            places in prop::collection::vec((any::<bool>(), 0..6_usize, 0..100_u64), 0..12),
            next in 0..80_u64,
        ) {
            let feeds: Vec<Feed> =
                (0..7).map(|n| Feed::chat(0, uuid::Uuid::from_u128(n + 1).into())).collect();
            let [mut one, mut two] = [(levels[0], levels[1]), (levels[2], levels[3])]
                .map(|(base, floor)| {
                    let mut cursor = Cursor::at(bases(&[base]));
                    cursor.raise(0, floor);
                    cursor
                });
            for (first, feed, seq) in places {
                let cursor = if first { &mut one } else { &mut two };
                cursor.set(feeds[feed], seq);
            }
            let mut merged = one.merged(&two);
            for feed in &feeds {
                prop_assert_eq!(merged.position(*feed), one.position(*feed).max(two.position(*feed)));
            }
            let before: Vec<Seq> = feeds.iter().map(|feed| merged.position(*feed)).collect();
            merged.rebase(&bases(&[next.max(merged.bases().of(0))]));
            for (feed, before) in feeds.iter().zip(before) {
                prop_assert_eq!(merged.position(*feed), before.max(merged.bases().of(0)));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[A-Za-z0-9_.-]{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let owner = UserId(uuid::Uuid::nil());
            let _ = Cursor::parse(&text, owner, &[SEAL]);
            // Sealed, so that what is behind the seal is read too.
            for head in [URL_SAFE_NO_PAD.encode(&bytes), "AgEF".to_owned()] {
                let sealed = SEAL.of(&head, owner, &bytes);
                let rest = URL_SAFE_NO_PAD.encode([&[0; 4], &sealed[..], &bytes].concat());
                let _ = Cursor::parse(&format!("{head}.{rest}"), owner, &[SEAL]);
            }
            prop_assert!(read_bases(&[2, 1, 5]).is_some(), "the second head is one");
        }
    }
}
