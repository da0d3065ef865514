-- What chats' feeds hold: every entry has a row, also one that is not shown, so the entry
-- before a message on its feed is the row before it here.
--
-- Partitioned by chat from the beginning: all that is asked is asked of one chat, so a query
-- goes to one partition, and vacuum and indexes stay of a size that can be worked with. The
-- number of partitions cannot be changed without rewriting the table; 16 suit some billions.
--
-- No foreign keys on purpose. The log has accepted these entries, and what is in it must be
-- written: a message that names a chat, sender or answered message that is not here must not
-- stop the batch that it came with. They would also cost two look-ups and row locks a message.
CREATE TABLE messages (
    chat_id       uuid        NOT NULL,
    -- The entry's place in the log of the chat's shard.
    seq           bigint      NOT NULL CHECK (seq > 0),
    -- A message; something about the chat; or a place whose entry could not be read or written,
    -- or repeats a message: counted, not shown.
    kind          text        NOT NULL CHECK (kind IN ('message', 'system', 'void')),
    -- Derived from (chat_id, sender_id, client_msg_id); null for the other kinds.
    id            uuid,
    -- Who sent it, or did what a system entry tells.
    sender_id     uuid,
    device_id     uuid,
    client_msg_id text        COLLATE "C",
    content       text        NOT NULL DEFAULT '',
    reply_to      uuid,
    -- The event of a system entry; the reason of a void one.
    detail        jsonb,
    -- The broker's time, in whole milliseconds.
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (chat_id, seq),
    -- The idempotency key. A unique constraint of a partitioned table must contain its partition
    -- key, and this one does. The other kinds have no client_msg_id, and nulls do not clash.
    CONSTRAINT messages_sent_once UNIQUE (chat_id, sender_id, client_msg_id),
    CHECK (kind <> 'message' OR (id IS NOT NULL AND sender_id IS NOT NULL AND client_msg_id IS NOT NULL))
) PARTITION BY HASH (chat_id);

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format(
            'CREATE TABLE messages_p%s PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
            lpad(part::text, 2, '0'), part);
    END LOOP;
END $$;
