-- Groups that are managed, and users who are blocked.

-- Whoever waits for a lock makes others wait: rather give up, and try again.
SET LOCAL lock_timeout = '2s';

ALTER TABLE chats
    ADD COLUMN description text,
    -- A group that was deleted: nobody takes part in it any more, and nobody can again. Its entries
    -- stay, since the log may still hold some that are to be written.
    ADD COLUMN deleted_at timestamptz,
    -- A one-to-one in which one has blocked the other: neither can write to it. It follows from
    -- `blocks`, and is kept here so that a handshake and a send need not look there.
    ADD COLUMN shut boolean NOT NULL DEFAULT false;

-- Who may not come back to a group.
CREATE TABLE chat_bans (
    chat_id   uuid        NOT NULL REFERENCES chats ON DELETE CASCADE,
    user_id   uuid        NOT NULL REFERENCES users,
    banned_by uuid        NOT NULL REFERENCES users,
    banned_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    PRIMARY KEY (chat_id, user_id)
);
CREATE INDEX chat_bans_in_order ON chat_bans (chat_id, banned_at, user_id);

-- Links into a group. What is shared is a random code; only its SHA-256 is kept. A row goes when it
-- is revoked; one that has expired goes when the chat gets another.
CREATE TABLE chat_invites (
    id         uuid        PRIMARY KEY,
    chat_id    uuid        NOT NULL REFERENCES chats ON DELETE CASCADE,
    hash       bytea       NOT NULL CONSTRAINT chat_invites_hash UNIQUE,
    created_by uuid        NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    expires_at timestamptz NOT NULL,
    -- How often it may be used, and was; null for any number of times.
    max_uses   integer     CHECK (max_uses > 0),
    uses       integer     NOT NULL DEFAULT 0
);
CREATE INDEX chat_invites_of_chat ON chat_invites (chat_id, created_at, id);

-- Who wants nothing from whom. A change holds the advisory lock of the pair, as does the making of
-- their one-to-one: so there is none between two of whom one has blocked the other before.
CREATE TABLE blocks (
    user_id    uuid        NOT NULL REFERENCES users,
    blocked_id uuid        NOT NULL REFERENCES users,
    blocked_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    PRIMARY KEY (user_id, blocked_id),
    CHECK (user_id <> blocked_id)
);
CREATE INDEX blocks_in_order ON blocks (user_id, blocked_at, blocked_id);
