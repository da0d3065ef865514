-- Media: what is known of files. The files themselves are in the object store, by their id.

-- Whoever waits for a lock makes others wait: rather give up, and try again. The worker locks
-- messages before chats, and so does this.
SET LOCAL lock_timeout = '2s';

-- The media of a message, as it is shown. Null for those without.
ALTER TABLE messages ADD COLUMN media jsonb;

CREATE TABLE media (
    id          uuid        PRIMARY KEY,
    -- None once the chat is gone: the file then follows.
    chat_id     uuid        REFERENCES chats ON DELETE SET NULL,
    uploader_id uuid        NOT NULL REFERENCES users,
    -- Made safe; the type is told by the content.
    name        text        NOT NULL,
    media_type  text        NOT NULL,
    -- Known once the file is whole. Not the hash of what went past the gateways.
    size        bigint      CHECK (size >= 0),
    sha256      bytea,
    -- Of what is seen, in pixels.
    width       integer,
    height      integer,
    -- A file comes ('uploading'), may be sent ('ready'), and is to be removed ('gone').
    state       text        NOT NULL DEFAULT 'uploading'
                            CHECK (state IN ('uploading', 'ready', 'gone')),
    -- The message that it is promised to, before that is published; `sent` once it is written.
    message_id  uuid        CONSTRAINT media_of_message UNIQUE,
    sent        boolean     NOT NULL DEFAULT false,
    -- What the store calls an upload in parts: whoever removes the file ends it.
    unfinished  text,
    -- Until when something may be put into the store past the gateways: then it is looked once more
    -- for what nobody will read.
    open_until  timestamptz,
    -- Until when somebody is making a file of what was put there.
    taken_until timestamptz,
    -- None, to be made, made.
    thumbnail   text        CHECK (thumbnail IN ('wanted', 'made')),
    -- How often it was tried to make one.
    tries       smallint    NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    -- When something last happened to it: an upload that goes on moves this.
    touched_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (state <> 'ready' OR size IS NOT NULL)
);

-- What the sweeps look for. Most files are sent, and in neither.
CREATE INDEX media_unsent ON media (touched_at) WHERE NOT sent OR state = 'gone';
CREATE INDEX media_without_thumbnail ON media (touched_at) WHERE thumbnail = 'wanted';
CREATE INDEX media_open ON media (open_until) WHERE open_until IS NOT NULL;
CREATE INDEX media_of_chat ON media (chat_id);
CREATE INDEX media_of_no_chat ON media (id) WHERE chat_id IS NULL;

-- Who has fetched what: a row an answer. No foreign keys: the record outlives the file, and a
-- batch must not fail for one row.
CREATE TABLE media_downloads (
    -- A UUIDv7, so in the order of time.
    id         uuid        PRIMARY KEY,
    media_id   uuid        NOT NULL,
    message_id uuid        NOT NULL,
    user_id    uuid        NOT NULL,
    device_id  uuid        NOT NULL,
    at         timestamptz NOT NULL,
    -- Where the answer began, and how many bytes of it were written; none when the client was
    -- sent to the store.
    first_byte bigint      NOT NULL DEFAULT 0,
    bytes      bigint,
    -- Whether the whole file was; unknown likewise.
    complete   boolean
);

CREATE INDEX media_downloads_of_message ON media_downloads (message_id, id);

-- Whatever takes the media from a message, or the message itself, takes the file. The worker
-- removes it.
CREATE FUNCTION media_goes_with_its_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE media SET state = 'gone', tries = 0, touched_at = now()
    WHERE id = (OLD.media ->> 'id')::uuid AND message_id = OLD.id;
    RETURN NULL;
END $$;

CREATE TRIGGER messages_lose_media AFTER UPDATE OF media ON messages
    FOR EACH ROW WHEN (OLD.media IS NOT NULL AND NEW.media IS NULL)
    EXECUTE FUNCTION media_goes_with_its_message();
CREATE TRIGGER messages_deleted_with_media AFTER DELETE ON messages
    FOR EACH ROW WHEN (OLD.media IS NOT NULL)
    EXECUTE FUNCTION media_goes_with_its_message();
