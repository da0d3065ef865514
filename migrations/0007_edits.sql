-- What becomes of a message after it was sent: edited, deleted, reacted to.

-- Whoever waits for a lock makes others wait: rather give up, and try again.
SET LOCAL lock_timeout = '2s';

-- Edits, deletes, reactions and replies name a message by its id. The ids begin with a time, so new
-- ones go to the end of this index, which costs a message little; the chat would scatter them. It is
-- built before the columns are added, so that history is readable meanwhile; what is sent waits in
-- the log.
CREATE INDEX messages_by_id ON messages (id) WHERE id IS NOT NULL;

-- Those who read are done within seconds. Giving up here would throw the index away.
SET LOCAL lock_timeout = '30s';

-- An edit writes over the content, a delete takes content and media away: what somebody has taken
-- back is not kept. The row stays, since it is an entry of the feed.
ALTER TABLE messages
    -- When it was last edited; null for most, and for deleted ones.
    ADD COLUMN IF NOT EXISTS edited_at  timestamptz,
    -- The entry that last changed it: an edit, or its deletion. What lies before it comes too late.
    ADD COLUMN IF NOT EXISTS edit_seq   bigint,
    ADD COLUMN IF NOT EXISTS deleted_at timestamptz,
    ADD COLUMN IF NOT EXISTS deleted_by uuid,
    -- The participants that the text names; null when there are none.
    ADD COLUMN IF NOT EXISTS mentions   uuid[];

-- An edit, a deletion and a reaction are entries of the feed too: counted, not shown. `detail` holds
-- the message's id and place, and of a reaction which and whether it is set; never a content.
-- Every stored row satisfies the narrower condition that was here, so none needs to be looked at.
ALTER TABLE messages DROP CONSTRAINT messages_kind_check;
ALTER TABLE messages ADD CONSTRAINT messages_kind_check
    CHECK (kind IN ('message', 'system', 'void', 'edit', 'delete', 'reaction')) NOT VALID;

-- Who has reacted how. A reaction taken back stays as a row, so that an older entry that is written
-- late does not set it again. Like messages: partitioned by chat, and without foreign keys.
CREATE TABLE reactions (
    chat_id     uuid    NOT NULL,
    -- The place of the message.
    message_seq bigint  NOT NULL,
    user_id     uuid    NOT NULL,
    emoji       text    COLLATE "C" NOT NULL,
    -- The entry that last set it or took it back.
    seq         bigint  NOT NULL,
    active      boolean NOT NULL,
    PRIMARY KEY (chat_id, message_seq, user_id, emoji)
) PARTITION BY HASH (chat_id);

-- How many: counted as they are written, since a page of history shows many messages, and one of
-- them may have thousands.
CREATE TABLE reaction_counts (
    chat_id     uuid   NOT NULL,
    message_seq bigint NOT NULL,
    emoji       text   COLLATE "C" NOT NULL,
    count       bigint NOT NULL,
    PRIMARY KEY (chat_id, message_seq, emoji)
) PARTITION BY HASH (chat_id);

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format(
            'CREATE TABLE reactions_p%s PARTITION OF reactions FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
            lpad(part::text, 2, '0'), part);
        EXECUTE format(
            'CREATE TABLE reaction_counts_p%s PARTITION OF reaction_counts FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
            lpad(part::text, 2, '0'), part);
    END LOOP;
END $$;
