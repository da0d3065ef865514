-- What the servers of an embedding product can do: tokens of their own, users without a password here,
-- bots, accounts that are disabled.

-- Whoever waits for a lock makes others wait: rather give up, and try again.
SET LOCAL lock_timeout = '2s';

-- A token names its row, so that one is looked up by the primary key. The hash is of a long random
-- string: no salt, no slow hash. Rows of revoked tokens stay, so that an operator sees what there was.
CREATE TABLE service_tokens (
    id               uuid        PRIMARY KEY,
    name             text        NOT NULL,
    hash             bytea       NOT NULL,
    scopes           text[]      NOT NULL CHECK (cardinality(scopes) > 0),
    -- Calls a second through one gateway; null for what the deployment says.
    calls_per_second integer     CHECK (calls_per_second > 0),
    created_at       timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    -- To the minute.
    last_used_at     timestamptz,
    revoked_at       timestamptz
);

ALTER TABLE users
    -- What the embedding product calls the user. It goes with the account.
    ADD COLUMN external_id text COLLATE "C" CONSTRAINT users_external_id_key UNIQUE,
    -- A program, and no person.
    ADD COLUMN bot         boolean NOT NULL DEFAULT false,
    -- Nobody is let in as the user since then.
    ADD COLUMN disabled_at timestamptz;

-- Whom messages are of that the deployment itself sends, and who has done what the product's servers do
-- to chats. As the row of a deleted account: nobody logs in as it, finds it, or makes it take part.
INSERT INTO users (id, name, name_lower, bot, shard, created_at, deleted_at)
VALUES ('00000000-0000-0000-0000-000000000000', 'System', '', true, 0,
        '1970-01-01 00:00:00+00', '1970-01-01 00:00:00+00');
