-- What is read and delivered, unread counts, and what a participant wants of a chat for themselves.

-- Whoever waits for a lock makes others wait: rather give up, and try again. The worker locks
-- messages before chats before chat_members, and so does this.
SET LOCAL lock_timeout = '2s';

-- Each entry of a chat's feed is numbered as it is written, by the count of the chat's messages up
-- to and with it. So the unread messages of any participant are one look at an index and one
-- subtraction, however many there are. Entries from before have no number and count as read: nobody
-- knows who has read them, and numbering them would rewrite the whole table.
ALTER TABLE messages ADD COLUMN nth bigint;
-- 0007 may have added it.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS deleted_at timestamptz;
-- Deleted messages keep their number; those among the unread ones are subtracted. Few are deleted
-- before they are read.
CREATE INDEX messages_deleted ON messages (chat_id, seq)
    WHERE deleted_at IS NOT NULL AND kind = 'message' AND nth IS NOT NULL;

-- The number of the chat's last entry.
ALTER TABLE chats ADD COLUMN message_count bigint NOT NULL DEFAULT 0;

ALTER TABLE chat_members
    -- How far the chat is read and delivered, on any device: places of its feed, which only go up.
    -- What lies before from_seq counts as read whatever stands here.
    ADD COLUMN read_seq      bigint NOT NULL DEFAULT 0,
    ADD COLUMN delivered_seq bigint NOT NULL DEFAULT 0,
    -- No notifications until then; 'infinity' for ever.
    ADD COLUMN muted_until   timestamptz,
    -- A one-to-one is not listed while its last message is not beyond this place: so the next one
    -- shows it, and nobody has to write anything.
    ADD COLUMN hidden_seq    bigint,
    -- The worker moves the first two with every batch. No index holds them, so with room on the page
    -- such updates are cheap.
    SET (fillfactor = 80);

-- What is written without a number gets it here: by workers of the version before, which may still
-- run, and where an entry takes a place between others. Those beyond it then count one more.
CREATE FUNCTION messages_are_numbered() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    more bigint := (NEW.kind = 'message')::int;
BEGIN
    UPDATE messages SET nth = more + COALESCE((
        SELECT p.nth FROM messages p WHERE p.chat_id = NEW.chat_id AND p.seq < NEW.seq
        ORDER BY p.seq DESC LIMIT 1
    ), 0)
    WHERE chat_id = NEW.chat_id AND seq = NEW.seq;
    IF more > 0 THEN
        -- Of a batch those beyond it wait for their own turn here, and the last one shows it.
        IF (SELECT l.nth FROM messages l WHERE l.chat_id = NEW.chat_id AND l.seq > NEW.seq
            ORDER BY l.seq DESC LIMIT 1) IS NOT NULL THEN
            UPDATE messages SET nth = nth + more
            WHERE chat_id = NEW.chat_id AND seq > NEW.seq AND nth IS NOT NULL;
        END IF;
        UPDATE chats SET message_count = message_count + more WHERE id = NEW.chat_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER messages_without_number AFTER INSERT ON messages
    FOR EACH ROW WHEN (NEW.nth IS NULL)
    EXECUTE FUNCTION messages_are_numbered();
