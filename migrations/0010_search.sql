-- What messages are found by.
--
-- A table of its own: an inverted index costs many times what a row of `messages` does, and the
-- worker must not pay for it while it writes the log. A task of the worker follows what is written
-- and keeps this up to date: a fraction of a second behind, later while there is a backlog.

-- Whoever waits for a lock makes others wait: rather give up, and try again.
SET LOCAL lock_timeout = '2s';

-- For words with typing errors: the known words that are like them. Trusted extension, offered
-- everywhere.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Of migrations that may come before or after this one.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
ALTER TABLE messages ADD COLUMN IF NOT EXISTS mentions uuid[];

-- Who searches has few chats, or many; words are rare, or everywhere. With 1,000,000 messages in
-- 10,000 chats four tables were measured: this one; one whose words have the chat among them, so that
-- one scan finds "these words in one of these chats" (5 ms for 20 chats, but 45 ms when a word is
-- only begun, and 100 ms for 300 chats); one with the chat as first column of the index of words
-- (reads the index once for each chat: 50 ms for 20 chats); one in 16 partitions by chat (13 ms for
-- 20 chats, as most partitions are read, and slower than this one for everybody else). Here one of
-- three ways is short for everybody: by the chats (the key) for who has few, from the newest on for
-- frequent words, by the words for rare ones: 1 to 4 ms for 20 chats, 1 to 13 ms for 300 and 5,000.
--
-- A row for each message that is shown, and none for those that are deleted. No foreign keys, as
-- for messages.
CREATE TABLE message_search (
    chat_id uuid        NOT NULL,
    seq     bigint      NOT NULL,
    -- When the message was sent: the order of what is found.
    at      timestamptz NOT NULL,
    -- Its words as the program folds them, in any language, with their positions; and what it is
    -- filtered by: '@' and the end of the sender's id, '^' and that of somebody mentioned, '!' and
    -- the kind of its file. No word begins with one of these.
    words   tsvector    NOT NULL,
    PRIMARY KEY (chat_id, seq)
);

-- What is put in waits in a list that every search reads to its end: a short one.
CREATE INDEX message_search_words ON message_search USING gin (words)
    WITH (fastupdate = on, gin_pending_list_limit = 512);
-- For words that are in so many messages that the newest of these are found sooner by looking.
CREATE INDEX message_search_newest ON message_search (at, chat_id, seq);

-- All words of messages that may be mistyped.
CREATE TABLE search_words (
    word text COLLATE "C" PRIMARY KEY
);
CREATE INDEX search_words_like ON search_words USING gin (word gin_trgm_ops);

-- How far each shard is followed.
CREATE TABLE search_progress (
    shard       smallint PRIMARY KEY,
    -- All that is written up to here is in message_search.
    indexed_seq bigint   NOT NULL DEFAULT 0,
    -- What is beyond, and was not followed as it was written, is gone through chat by chat, up to
    -- this place. Null while there is nothing to catch up with.
    target_seq  bigint,
    -- So far: the chats up to this one; of this one the entries up to that place, or all.
    chat_id     uuid,
    chat_seq    bigint
);
