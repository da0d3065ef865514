-- What is brought in from another system: how far that is, and what only an import knows.

-- Whoever waits for a lock makes others wait: rather give up, and try again.
SET LOCAL lock_timeout = '2s';

-- There is no table from old ids to new ones. An id that was a UUID is kept, and any other one is made
-- of the import's name, the kind and the old id, so whoever knows these knows the new id: a message
-- that answers another needs no look-up, an import that is done twice meets its own rows, and a
-- hundred million messages need no second index.

-- One import, by its name. What a run has done is counted in the transaction that does it, so that a run
-- that was killed goes on where it was, and its report tells of all of it.
CREATE TABLE imports (
    name     text        COLLATE "C" PRIMARY KEY,
    -- Who is at it: another one that begins puts its own here, and the one before is refused.
    run      uuid        NOT NULL,
    stage    text        NOT NULL,
    -- The old id up to which the stage is done.
    after    text,
    report   jsonb       NOT NULL,
    began_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    moved_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    ended_at timestamptz
);

-- Chats that were imported. Messages take the places 1, 2, 3 … of the chat's feed; nobody takes part in
-- it, so nobody can write to it, before all are there (`opened`) and the shard's log is beyond them.
CREATE TABLE imported_chats (
    chat_id     uuid        PRIMARY KEY REFERENCES chats ON DELETE CASCADE,
    import      text        COLLATE "C" NOT NULL REFERENCES imports,
    shard       smallint    NOT NULL,
    -- Said to be of two; whether it can be is seen when it is opened.
    one_to_one  boolean     NOT NULL,
    opened      boolean     NOT NULL DEFAULT false,
    -- Places that are given, and when the message at the last one was sent: what another run finds that is
    -- older has been dealt with.
    places      bigint      NOT NULL DEFAULT 0,
    last_at     timestamptz,
    -- Up to here messages are found by their words. A worker does that afterwards.
    indexed_seq bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 85);

CREATE INDEX imported_chats_of_shard ON imported_chats (shard, chat_id);
CREATE INDEX imported_chats_to_index ON imported_chats (shard, chat_id)
    WHERE opened AND indexed_seq < places;

-- Files of imported messages, wherever they are. What has been copied has a row of `media` too, of the
-- same id. No foreign keys, as for messages.
CREATE TABLE imported_files (
    id          uuid        PRIMARY KEY,
    import      text        COLLATE "C" NOT NULL,
    message_id  uuid,
    chat_id     uuid,
    uploader_id uuid,
    -- Where the old system had it: a URL or a path. The message says this where it says nothing else.
    url         text,
    name        text,
    media_type  text,
    size        bigint,
    created_at  timestamptz,
    -- Where it is: still there; here; not found, or refused, when it was to be copied.
    state       text        NOT NULL DEFAULT 'elsewhere'
                            CHECK (state IN ('elsewhere', 'copied', 'missing', 'refused'))
);

CREATE INDEX imported_files_of_message ON imported_files (message_id);
CREATE INDEX imported_files_elsewhere ON imported_files (import, id) WHERE state <> 'copied';
