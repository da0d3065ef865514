-- Chats and who takes part in them. A change of membership locks the chat's row first, so the
-- changes of one chat happen one after the other, in the order of `version`.

CREATE TABLE chats (
    id               uuid        PRIMARY KEY,
    is_group         boolean     NOT NULL,
    title            text,
    -- For the search; see users.name_lower.
    title_lower      text        COLLATE "C",
    -- Whether anybody may join.
    open             boolean     NOT NULL DEFAULT false,
    -- Both users of a one-to-one, the lesser id first: the same pair has one chat.
    direct_key       text        COLLATE "C" CONSTRAINT chats_direct_key UNIQUE,
    created_by       uuid        NOT NULL REFERENCES users,
    created_at       timestamptz NOT NULL,
    -- Where the chat's feed lives; stamped once.
    shard            smallint    NOT NULL CHECK (shard >= 0),
    -- Counts changes of membership.
    version          bigint      NOT NULL DEFAULT 0,
    -- How many take part now. Kept here since a count over a large chat is slow.
    members          bigint      NOT NULL DEFAULT 0 CHECK (members >= 0),
    -- What the worker has written: the feed's last entry, its last message, and when the latter
    -- was sent (the creation, before there is one). All three only go up.
    last_seq         bigint      NOT NULL DEFAULT 0,
    last_message_seq bigint,
    last_activity_at timestamptz NOT NULL,
    CHECK (is_group = (direct_key IS NULL)),
    CHECK (is_group OR NOT open)
-- The worker updates a row with every batch that touches the chat. No index holds what it
-- changes (a user's chats are few enough to sort), so with room on the page the update is cheap.
) WITH (fillfactor = 80);

CREATE TABLE chat_members (
    chat_id   uuid        NOT NULL REFERENCES chats ON DELETE CASCADE,
    user_id   uuid        NOT NULL REFERENCES users,
    role      text        NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    joined_at timestamptz NOT NULL,
    -- A row stays when its user leaves.
    left_at   timestamptz,
    -- The chat's version after the last change of this row. A relay that comes late writes the
    -- places below only if they are those of this change.
    version   bigint      NOT NULL,
    -- The entries of the chat's feed that began and ended the participation; null until the
    -- outbox has relayed the change.
    from_seq  bigint,
    until_seq bigint,
    PRIMARY KEY (chat_id, user_id)
);

CREATE INDEX chat_members_of_user ON chat_members (user_id, chat_id) WHERE left_at IS NULL;
CREATE INDEX chat_members_in_order ON chat_members (chat_id, joined_at, user_id) WHERE left_at IS NULL;
