-- Who is here, and on which devices.

-- What is compared without regard to case is kept a second time in lower case, made by the
-- program: lower() follows the server's locale, and knows only ASCII in the C locale.
-- COLLATE "C" makes the search by the start of a name a plain range of the index.
CREATE TABLE users (
    id               uuid        PRIMARY KEY,
    name             text        NOT NULL,
    name_lower       text        COLLATE "C" NOT NULL,
    phone            text        CONSTRAINT users_phone_key UNIQUE,
    email            text,
    email_lower      text        COLLATE "C" CONSTRAINT users_email_key UNIQUE,
    -- A PHC string; none for the users of an outside issuer.
    password_hash    text,
    -- Who they are to an outside issuer.
    issuer           text,
    external_subject text,
    -- Where the user's feed lives. Stamped once, so the number of shards can grow without
    -- moving a feed.
    shard            smallint    NOT NULL CHECK (shard >= 0),
    -- The last entry of the user's feed that the worker has seen.
    last_seq         bigint      NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    CONSTRAINT users_external_key UNIQUE (issuer, external_subject),
    CHECK ((issuer IS NULL) = (external_subject IS NULL)),
    CHECK ((email IS NULL) = (email_lower IS NULL))
-- last_seq moves with every batch: room on the page keeps such updates off the indexes.
) WITH (fillfactor = 85);

CREATE INDEX users_name_lower ON users (name_lower, id);

-- One installation of a user's app. A device row is also the lock of its login: whatever
-- changes the session or the refresh tokens locks the device first, so none of it deadlocks.
CREATE TABLE devices (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    name         text,
    platform     text,
    -- The device's name in an outside issuer's tokens.
    external_id  text,
    -- The login whose tokens count; none when signed out, and for outside issuers' devices.
    session      uuid,
    revoked_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    last_seen_at timestamptz,
    CONSTRAINT devices_external_key UNIQUE (user_id, external_id)
) WITH (fillfactor = 85);

CREATE INDEX devices_user ON devices (user_id);

-- A used token stays until it expires, so that a second use is recognised as a replay. A token
-- that is void is deleted. The hash is of a long random string: no salt, no slow hash.
CREATE TABLE refresh_tokens (
    hash       bytea       PRIMARY KEY,
    -- All tokens since one login: the device's session.
    family     uuid        NOT NULL,
    user_id    uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    device_id  uuid        NOT NULL REFERENCES devices ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);

CREATE INDEX refresh_tokens_device ON refresh_tokens (device_id, expires_at);
