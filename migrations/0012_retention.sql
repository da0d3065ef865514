-- Messages that are removed after a time, and what is left of groups that were deleted.

-- Whoever waits for a lock makes others wait: rather give up, and try again. The worker locks
-- messages before chats, and so does this.
SET LOCAL lock_timeout = '2s';

-- What tells that older entries have expired is an entry of the feed too: counted, not shown. Every
-- stored row satisfies the narrower condition that was here, so none needs to be looked at.
ALTER TABLE messages DROP CONSTRAINT messages_kind_check;
ALTER TABLE messages ADD CONSTRAINT messages_kind_check
    CHECK (kind IN ('message', 'system', 'void', 'edit', 'delete', 'reaction', 'expired')) NOT VALID;

ALTER TABLE chats
    -- Seconds after which messages are removed; null for what the deployment says.
    ADD COLUMN retention_secs  integer CHECK (retention_secs > 0),
    -- The feed begins anew behind this place: nothing at or below it is shown, whether its rows are
    -- still there or not. It only goes up.
    ADD COLUMN expired_seq     bigint NOT NULL DEFAULT 0,
    -- When the oldest message beyond that was sent, or earlier; null when there is none. Nobody has
    -- noted it of chats from before: whoever looks at them notes it then.
    ADD COLUMN oldest_at       timestamptz DEFAULT '1970-01-01 00:00:00+00',
    -- When it was last looked whether messages have expired.
    ADD COLUMN expiry_asked_at timestamptz,
    -- Rows at or below expired_seq are still there.
    ADD COLUMN to_purge        boolean NOT NULL DEFAULT false,
    -- Of a group that was deleted: all of it has expired. An entry that comes later undoes this.
    ADD COLUMN emptied         boolean NOT NULL DEFAULT false;
ALTER TABLE chats ALTER COLUMN oldest_at DROP DEFAULT;

-- What the worker looks for. What these hold changes seldom, so moving a chat forward stays cheap.
-- (A time less a time is the same in every time zone, which an index has to rely on.)
CREATE INDEX chats_expiring ON chats
    ((oldest_at - '1970-01-01 00:00:00+00'::timestamptz + make_interval(secs => retention_secs)))
    WHERE retention_secs IS NOT NULL AND oldest_at IS NOT NULL;
CREATE INDEX chats_oldest ON chats (oldest_at)
    WHERE retention_secs IS NULL AND oldest_at IS NOT NULL;
CREATE INDEX chats_to_purge ON chats (id) WHERE to_purge;
CREATE INDEX chats_to_empty ON chats (deleted_at) WHERE deleted_at IS NOT NULL AND NOT emptied;
