-- A handshake asks which removals of one user are not told yet, so that it still counts the chats
-- that the user has left a moment ago. Without this index the answer is in no index, and every
-- handshake reads all memberships. Few rows are in it at a time: only those of removals that wait.
--
-- GIN, since a row of the outbox names any number of users. `jsonb_path_ops` answers `@>` alone,
-- which is all that is asked.
CREATE INDEX outbox_removals ON outbox USING gin ((payload -> 'users') jsonb_path_ops)
    WHERE payload -> 'users' @> '[{"change": "removed"}]';
