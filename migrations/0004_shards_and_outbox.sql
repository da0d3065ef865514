-- How far the logs are written here, and what their feeds must still hear of.

-- One row a shard: its position, fence and owner. The position moves by compare-and-set in the
-- transaction that writes the entries; whoever has another idea of it fails there, so two
-- workers that both believe to own a shard cannot both write.
CREATE TABLE shards (
    shard         smallint    PRIMARY KEY CHECK (shard >= 0),
    -- The stream's life: 0 before the first stream is made.
    epoch         integer     NOT NULL DEFAULT 0,
    first_seq     bigint      NOT NULL DEFAULT 1,
    -- All up to here is written.
    persisted_seq bigint      NOT NULL DEFAULT 0,
    -- The broker's time of that entry, or later when nothing has come since.
    persisted_at  timestamptz NOT NULL DEFAULT 'epoch',
    owner         text,
    owner_until   timestamptz
);

-- A change of membership, device or profile commits with a row here and is published
-- afterwards: a lane (a chat, or a user) in the order of id. Ids are given before the commit, so
-- their order is that of the commits only because whoever adds to a lane has locked the chat's,
-- device's or user's row before.
CREATE TABLE outbox (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane       uuid        NOT NULL,
    payload    jsonb       NOT NULL,
    -- The place of the chat's entry, once it is published: the users' entries name it.
    chat_seq   bigint,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX outbox_lane ON outbox (lane, id);
