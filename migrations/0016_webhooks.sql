-- Webhooks: other people's servers that are told of events, how far each has been told, and what could not
-- be told.

-- Whoever waits for a lock makes others wait: rather give up, and try again.
SET LOCAL lock_timeout = '2s';

CREATE TABLE webhook_endpoints (
    id              uuid        PRIMARY KEY,
    name            text        NOT NULL CONSTRAINT webhook_endpoints_name UNIQUE,
    url             text        NOT NULL,
    -- What signs, as it was shown when it was made: whoever signs needs it whole.
    secret          text        NOT NULL,
    -- Which kinds of events, and of which chats; null for all.
    kinds           text[],
    chats           uuid[],
    enabled         boolean     NOT NULL DEFAULT true,
    -- Why it is not, where nobody said so by hand.
    disabled_reason text,
    created_at      timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    -- What is asked of the workers: a request of a test, and what came of the last one.
    test_asked      uuid,
    test_answered   uuid,
    test_answer     text
);

-- One row an endpoint and shard: how far it has been told, by whom, and how that goes. Whoever owns it
-- writes the place, in one statement that names the owner and the generation: one that stood still for
-- too long, or that an operator has moved the place behind, writes nothing.
CREATE TABLE webhook_lanes (
    endpoint_id  uuid        NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
    shard        smallint    NOT NULL CHECK (shard >= 0),
    -- Counts the times that an operator has moved the place.
    generation   bigint      NOT NULL DEFAULT 0,
    -- All up to here of the shard's stream of events is told, or has a row in webhook_behind or
    -- webhook_dead_letters; null until the first owner has looked up where `from_at` is.
    seq          bigint,
    -- The place of that event in the shard's log. What is stored again, since the stream was lost, is
    -- told by it.
    log_seq      bigint      NOT NULL DEFAULT 0,
    from_at      timestamptz NOT NULL,
    owner        text,
    owner_until  timestamptz,
    -- Events that the stream dropped before they could be told.
    lost         bigint      NOT NULL DEFAULT 0,
    -- As the owner saw it last: events before it, when the oldest of them was stored, whether the endpoint
    -- is left alone for now.
    lag          bigint      NOT NULL DEFAULT 0,
    oldest_at    timestamptz,
    resting      boolean     NOT NULL DEFAULT false,
    last_answer  text,
    last_at      timestamptz,
    PRIMARY KEY (endpoint_id, shard)
-- Each save moves what no index holds.
) WITH (fillfactor = 50);

-- Feeds whose event could not be told: they wait by themselves, and hold up nobody else. What lies between
-- `seq` and the lane's place is told from the stream, in order.
CREATE TABLE webhook_behind (
    endpoint_id uuid        NOT NULL,
    shard       smallint    NOT NULL,
    -- 'chat' or 'user', and whose feed it is.
    kind        text        NOT NULL CHECK (kind IN ('chat', 'user')),
    feed_id     uuid        NOT NULL,
    -- The event that comes next, and its place in the log.
    seq         bigint      NOT NULL,
    log_seq     bigint      NOT NULL,
    at          timestamptz NOT NULL,
    -- Of that event.
    attempts    smallint    NOT NULL DEFAULT 0,
    failing_since timestamptz,
    due_at      timestamptz NOT NULL,
    PRIMARY KEY (endpoint_id, shard, kind, feed_id),
    FOREIGN KEY (endpoint_id, shard) REFERENCES webhook_lanes ON DELETE CASCADE
) WITH (fillfactor = 70);

-- Events that were given up. What they say is in the stream, and only there: a letter goes when the
-- stream has dropped it.
CREATE TABLE webhook_dead_letters (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id uuid        NOT NULL,
    shard       smallint    NOT NULL,
    seq         bigint      NOT NULL,
    kind        text        NOT NULL,
    feed_id     uuid        NOT NULL,
    -- `webhook-id`, and what kind of event it is.
    event_id    text        NOT NULL,
    type        text        NOT NULL,
    at          timestamptz NOT NULL,
    died_at     timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    attempts    smallint    NOT NULL,
    answer      text        NOT NULL,
    -- An operator wants it told after all.
    replay_at   timestamptz,
    CONSTRAINT webhook_dead_letters_once UNIQUE (endpoint_id, shard, seq),
    FOREIGN KEY (endpoint_id, shard) REFERENCES webhook_lanes ON DELETE CASCADE
);

CREATE INDEX webhook_dead_letters_of_endpoint ON webhook_dead_letters (endpoint_id, id);
CREATE INDEX webhook_dead_letters_to_replay ON webhook_dead_letters (endpoint_id, shard, id)
    WHERE replay_at IS NOT NULL;

-- Who fills a shard's stream of events from its log, and up to which place of the log that is done.
CREATE TABLE webhook_fills (
    shard       smallint    PRIMARY KEY CHECK (shard >= 0),
    owner       text,
    owner_until timestamptz,
    log_seq     bigint      NOT NULL,
    -- The last place of the stream, as of the last save: a stream that is made anew begins beyond.
    stream_seq  bigint      NOT NULL DEFAULT 0,
    -- Entries that the log dropped before they were looked at.
    lost        bigint      NOT NULL DEFAULT 0
);

-- The workers that are there, so that each takes its share.
CREATE TABLE webhook_workers (
    name       text        PRIMARY KEY,
    seen_until timestamptz NOT NULL
);
