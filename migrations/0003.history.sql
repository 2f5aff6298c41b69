-- What it takes to give everything back, and to let go of it for good.

DROP FUNCTION IF EXISTS task_get(bigint, bigint, bigint);  -- a select that keeps its plan is cheaper

ALTER TABLE users ADD COLUMN uid uuid NOT NULL DEFAULT gen_random_uuid();      -- in the UIDs of its tasks' calendar entries

ALTER TABLE user_state
    ADD COLUMN kept_from_at timestamptz NOT NULL DEFAULT 'epoch',   -- the moment of that revision
    ADD COLUMN purged       bigint NOT NULL DEFAULT 0;              -- how many tasks are gone for good

-- An account that is closed has a negative generation, of which there are no tokens, until its rows are gone.
CREATE INDEX user_state_closed ON user_state (user_id) WHERE token_generation < 0;

CREATE INDEX task_in_trash ON task (deleted_at) WHERE deleted_at IS NOT NULL;

-- Requests that were answered, so that a repeated one is answered alike.
CREATE TABLE idempotency_key (
    user_id    bigint NOT NULL REFERENCES user_state,
    key        text COLLATE "C" NOT NULL,
    digest     text NOT NULL,                           -- of the values that were sent
    task_id    bigint,                                  -- what was created: the answer was the task as it was then
    answer     text,                                    -- or what was answered
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, key),
    CHECK (num_nonnulls(task_id, answer) = 1)
);
CREATE INDEX idempotency_key_by_age ON idempotency_key (created_at);

-- Open streams of events, so that they can be counted over all workers. After a crash it is empty, and so are the streams.
CREATE UNLOGGED TABLE event_stream (
    user_id    bigint NOT NULL REFERENCES user_state,
    slot       smallint NOT NULL,
    held_until timestamptz NOT NULL,
    PRIMARY KEY (user_id, slot)
);

-- What is on its way in, some lines to a row, before it is checked as a whole. After a crash the import is to be sent again.
CREATE UNLOGGED TABLE import_row (
    user_id    bigint NOT NULL REFERENCES user_state,
    import_id  uuid NOT NULL,
    line       bigint NOT NULL,                         -- the first of them
    kind       text NOT NULL,
    content    jsonb NOT NULL,                          -- an array of what they say
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, import_id, line)
);
CREATE INDEX import_row_by_age ON import_row (created_at);
