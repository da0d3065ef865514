-- Accounts that are deleted, and what is exported of those that are not.

-- Whoever waits for a lock makes others wait: rather give up, and try again. The worker locks
-- reactions before chat_members, and so does this. While the indexes are built nobody writes there;
-- what is sent waits in the log.
SET LOCAL lock_timeout = '2s';

-- What somebody has reacted to, in any chat: taken back when their account is erased.
CREATE INDEX reactions_of_user ON reactions (user_id, chat_id, message_seq, emoji) WHERE active;

-- A user's chats, those they have left too: what is exported, and gone through when they go.
CREATE INDEX chat_members_ever ON chat_members (user_id, chat_id);

-- The row of a deleted account stays, so that ids in histories lead somewhere; nothing in it says
-- who it was. Where an outside issuer named the user, external_subject becomes a hash of itself:
-- enough to refuse the same user's next token.
ALTER TABLE users ADD COLUMN deleted_at timestamptz;

-- What is left to do for an account that was deleted: whoever deletes it begins, workers go on. Each
-- step can be done twice. A row stays when all is done.
CREATE TABLE erasures (
    user_id      uuid        PRIMARY KEY REFERENCES users,
    requested_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    -- Whether messages and reactions are taken back; else they stay, of a deleted user.
    messages     boolean     NOT NULL,
    -- What the user was called: taken out of the texts of system entries. Null once that is done.
    name         text,
    -- What comes next. All but the first are gone through a second time, for what was under way.
    step         text        NOT NULL DEFAULT 'devices'
                             CHECK (step IN ('devices', 'chats', 'messages', 'reactions', 'done')),
    round        smallint    NOT NULL DEFAULT 1,
    -- How far the step is: done with the chats before this one, and with so much of this one.
    chat_id      uuid,
    position     text        COLLATE "C",
    -- Nobody goes on with it before: somebody has it in hand, or it has to wait.
    due_at       timestamptz NOT NULL DEFAULT now(),
    done_at      timestamptz
);

CREATE INDEX erasures_due ON erasures (due_at) WHERE step <> 'done';
