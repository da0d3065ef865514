-- A file that several messages of another system named.

-- Whoever waits for a lock makes others wait: rather give up, and try again.
SET LOCAL lock_timeout = '2s';

-- A file is one message's here, and goes with it. Another message that named it has the same as a file of
-- its own, which says of which one it is the same: what is told of that later is told of both.
ALTER TABLE imported_files ADD COLUMN same_as uuid;

CREATE INDEX imported_files_same ON imported_files (same_as) WHERE same_as IS NOT NULL;
