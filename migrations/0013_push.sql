-- Push: where devices that are offline hear of messages, what their users want to hear, and what became
-- of each notification.

-- Whoever waits for a lock makes others wait: rather give up, and try again.
SET LOCAL lock_timeout = '2s';

-- Where a device is reached while it is offline. A row goes with the device's login. It stays when a
-- push service says that its target is no more, without the target: the device's owner can see why.
CREATE TABLE push_targets (
    device_id  uuid        PRIMARY KEY REFERENCES devices ON DELETE CASCADE,
    user_id    uuid        NOT NULL,
    -- Another one whenever the target is: what was queued for one does not go to the next.
    id         uuid        NOT NULL,
    provider   text        NOT NULL CHECK (provider IN ('webpush', 'fcm', 'apns', 'webhook')),
    -- As the device said it; null once it is gone. Who has it can show things on the device, no more.
    target     jsonb,
    -- Names the target: a browser that somebody else has logged in with is theirs alone, whoever
    -- forgot to log out before.
    hash       bytea       CONSTRAINT push_targets_hash UNIQUE,
    set_at     timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    expires_at timestamptz,
    tested_at  timestamptz,
    -- What the last attempt came to.
    last_state  text,
    last_answer text,
    last_at     timestamptz,
    CHECK ((target IS NULL) = (hash IS NULL))
-- Each attempt moves the last three, which no index holds.
) WITH (fillfactor = 80);

CREATE INDEX push_targets_of_user ON push_targets (user_id) WHERE target IS NOT NULL;

-- Whatever ends a login ends the target: log-out, another login, revocation, the account's end; also
-- where the version before does it. (A device of an outside issuer has no session: setting it to null
-- again is how it logs out.)
CREATE FUNCTION push_targets_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM push_targets WHERE device_id = NEW.id;
    RETURN NULL;
END $$;

CREATE TRIGGER push_targets_end_with_login AFTER UPDATE OF session, revoked_at ON devices
    FOR EACH ROW WHEN (NEW.session IS NULL OR NEW.session IS DISTINCT FROM OLD.session
                       OR NEW.revoked_at IS NOT NULL)
    EXECUTE FUNCTION push_targets_end();

-- What users want to be notified of. Who has no row wants the defaults.
CREATE TABLE notification_settings (
    user_id               uuid    PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    -- How much of a message is shown.
    preview               text    NOT NULL DEFAULT 'full' CHECK (preview IN ('full', 'sender', 'none')),
    mentions_through_mute boolean NOT NULL DEFAULT true,
    -- Nothing from one time of the day until another, where the user lives; over midnight where the
    -- second is the lesser.
    quiet_from            time,
    quiet_until           time,
    time_zone             text,
    CHECK ((quiet_from IS NULL) = (quiet_until IS NULL)),
    CHECK ((quiet_from IS NULL) = (time_zone IS NULL))
);

-- Whether it is quiet now. A zone that the server's data do not know any more is no reason to fail
-- for everybody else of the page.
CREATE FUNCTION quiet_now(from_time time, until_time time, zone text) RETURNS boolean
STABLE LANGUAGE plpgsql AS $$
DECLARE
    here time;
BEGIN
    IF from_time IS NULL THEN
        RETURN false;
    END IF;
    here := (now() AT TIME ZONE zone)::time;
    IF from_time <= until_time THEN
        RETURN here >= from_time AND here < until_time;
    END IF;
    RETURN here >= from_time OR here < until_time;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN false;
END $$;

-- Which push services the workers are set up for, and what browsers subscribe with: the last worker
-- that started says so, and gateways need not be told.
CREATE TABLE push_providers (
    provider   text        PRIMARY KEY,
    configured boolean     NOT NULL,
    public_key text,
    said_at    timestamptz NOT NULL DEFAULT now()
);

-- What was decided about a message: a row for each page of participants, in the order of their ids,
-- with those who were not notified and why. A worker that takes a message over from one that died goes
-- on behind its last page. No foreign keys, as for messages, and compact: a message to 10,000 people
-- who are all online is twenty rows.
CREATE TABLE push_decisions (
    message_id  uuid        NOT NULL,
    -- The page is of the participants behind this one; zeros for the first page.
    after_user  uuid        NOT NULL,
    -- Its last participant; null for the last page.
    upto_user   uuid,
    chat_id     uuid        NOT NULL,
    seq         bigint      NOT NULL,
    decided_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    -- Those who were not notified, and why, in the same order.
    users       uuid[]      NOT NULL,
    reasons     "char"[]    NOT NULL,
    -- Nobody was looked at, for this reason.
    whole       "char",
    PRIMARY KEY (message_id, after_user)
);
-- Rows go after a time, the oldest first. They come in that order too.
CREATE INDEX push_decisions_at ON push_decisions (decided_at);

-- A notification for a device: queued -> sending -> delivered | gone | refused | given_up | cancelled,
-- or back to retrying. services/push/src/lib.rs has the whole of it.
CREATE TABLE pushes (
    -- Of a test: an id of its own.
    message_id   uuid        NOT NULL,
    device_id    uuid        NOT NULL,
    user_id      uuid        NOT NULL,
    -- Of a test: null, and the place too.
    chat_id      uuid,
    seq          bigint,
    provider     text        NOT NULL,
    -- push_targets.id
    target_id    uuid        NOT NULL,
    -- The message names the user: it is shown though the chat is muted, if the user wants so.
    mentioned    boolean     NOT NULL DEFAULT false,
    state        text        NOT NULL DEFAULT 'queued'
                             CHECK (state IN ('queued', 'sending', 'retrying', 'delivered', 'gone',
                                              'refused', 'given_up', 'cancelled')),
    -- Why it was cancelled or given up.
    reason       text,
    -- How often it was taken to be sent. Whoever writes what came of it names the number, so that one
    -- who stood still for too long changes nothing.
    attempts     smallint    NOT NULL DEFAULT 0,
    queued_at    timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    -- When it is to be taken (again); while it is sent, when others may take it over.
    due_at       timestamptz NOT NULL DEFAULT now(),
    attempted_at timestamptz,
    ended_at     timestamptz,
    -- What the push service said, in a line.
    answer       text,
    PRIMARY KEY (message_id, device_id)
-- Each is moved twice, and no index holds what moves.
) WITH (fillfactor = 70);

CREATE INDEX pushes_at ON pushes (queued_at);
-- Of a backlog only the newest notification of a chat is sent to a device.
CREATE INDEX pushes_of_device ON pushes (device_id, chat_id, seq);
