-- What is kept. Every key of a user's data begins with user_id, so that users can be spread over machines.

CREATE TABLE users (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    login         text NOT NULL,                        -- as typed
    login_key     text COLLATE "C" NOT NULL UNIQUE,     -- as compared
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    uid           uuid NOT NULL DEFAULT gen_random_uuid()   -- in the UIDs of its tasks' calendar entries
);

-- One slim row per user: the lock that makes a user's changes wait for one another, and what they count.
CREATE TABLE user_state (
    user_id          bigint PRIMARY KEY REFERENCES users,
    token_generation bigint NOT NULL,                   -- random; a token of another generation is dead. Negative: the account is closed
    revision         bigint NOT NULL DEFAULT 0,         -- of the latest change
    last_task_id     bigint NOT NULL DEFAULT 0,
    kept_from        bigint NOT NULL DEFAULT 0,         -- the revision from which history is whole
    changed_at       timestamptz NOT NULL DEFAULT 'epoch',
    kept_from_at     timestamptz NOT NULL DEFAULT 'epoch',  -- the moment of that revision
    purged           bigint NOT NULL DEFAULT 0          -- how many tasks are gone for good
) WITH (fillfactor = 50);

CREATE INDEX user_state_closed ON user_state (user_id) WHERE token_generation < 0;

-- What a row must be, asked in one function of plpgsql, which keeps its plan: PostgreSQL reads every CHECK anew from its text for each statement,
-- and these were a fifth of a change (20 us). What is stored doesn't follow a function that changes: another rule needs one of another name.
-- They run with no schema on the search path, as pg_restore has it: so they call no functions of ours.

CREATE FUNCTION task_is_sound(name text, description text, status text, completion_at date, created_at timestamptz, updated_at timestamptz,
                              completed_at timestamptz, deleted_at timestamptz) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN char_length(name) BETWEEN 1 AND 200
       AND char_length(description) <= 10000
       AND status IN ('new', 'planned', 'in_work', 'completed')
       AND coalesce(completion_at BETWEEN '1900-01-01' AND '9999-12-31', true)
       AND (status = 'completed') = (completed_at IS NOT NULL)
       AND least(created_at, updated_at, completed_at, deleted_at) >= '0001-01-01 00:00+00'
       AND greatest(created_at, updated_at, completed_at, deleted_at) < '10000-01-01 00:00+00';
END $$;

CREATE TABLE task (
    user_id          bigint NOT NULL REFERENCES user_state,
    id               bigint NOT NULL,                   -- counts up from 1 within its user
    name             text NOT NULL,
    description      text NOT NULL,
    status           text NOT NULL,
    completion_at    date,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    completed_at     timestamptz,
    deleted_at       timestamptz,
    created_revision bigint NOT NULL,
    revision         bigint NOT NULL,
    look             smallint NOT NULL DEFAULT 0,       -- of the body: another version may show a task otherwise, and makes it anew
    body             text NOT NULL DEFAULT '',          -- how clients see the task, so that to show one or to list many is to read
    PRIMARY KEY (user_id, id),
    CONSTRAINT task_is_sound CHECK (task_is_sound(name, description, status, completion_at, created_at, updated_at, completed_at, deleted_at))
) WITH (fillfactor = 85);

CREATE INDEX task_by_status ON task (user_id, status, id) WHERE deleted_at IS NULL;
CREATE INDEX task_by_day ON task (user_id, completion_at, id) WHERE deleted_at IS NULL;
CREATE INDEX task_in_trash ON task (deleted_at) WHERE deleted_at IS NOT NULL;
-- No index on revision or updated_at: with one, no change could be a heap-only (HOT) update.

-- How far the bodies of older looks have been made anew, page by page of the table.
CREATE TABLE look_refreshed (
    look      smallint PRIMARY KEY,
    next_page bigint NOT NULL,
    found     bigint NOT NULL DEFAULT 0                 -- in this pass: another one follows where any were
);

-- When each version's functions were last used, so that those that nobody runs can go.
CREATE TABLE functions_used (
    name    text PRIMARY KEY,                           -- of their schema
    used_at timestamptz NOT NULL
);

CREATE TABLE task_log (
    user_id    bigint NOT NULL,
    revision   bigint NOT NULL,
    field      text NOT NULL,                           -- one of task_field_names()
    task_id    bigint NOT NULL,
    old        text,                                    -- dates and moments as ISO writes them, so that they cast back
    new        text,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, revision, field),
    FOREIGN KEY (user_id, task_id) REFERENCES task
);

CREATE INDEX task_log_by_task ON task_log (user_id, task_id, revision);

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
    holder     uuid NOT NULL DEFAULT gen_random_uuid(), -- another stream may have taken the slot since
    PRIMARY KEY (user_id, slot)
);

-- What is on its way in, some items to a row, before it is checked as a whole. After a crash the import is to be sent again.
CREATE UNLOGGED TABLE import_row (
    user_id    bigint NOT NULL REFERENCES user_state,
    import_id  uuid NOT NULL,
    part       bigint NOT NULL,                         -- which of the file's it is, from 1
    kind       text NOT NULL,
    content    jsonb NOT NULL,                          -- an array of what they say
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, import_id, part)
);
CREATE INDEX import_row_by_age ON import_row (created_at);

-- How often somebody tries to get in. Whom a row is about only the service can tell: keys are digests made with a secret that isn't here.

-- The last moments at which something was done under a key. After a crash it is empty, and the counting begins anew.
CREATE UNLOGGED TABLE rate_limit (
    key     bytea PRIMARY KEY,
    hits    timestamptz[] NOT NULL,                     -- oldest first
    ends_at timestamptz NOT NULL                        -- from then on none of them counts
);
CREATE INDEX rate_limit_by_end ON rate_limit (ends_at);

-- From where a login has succeeded: whatever others do with that login doesn't lock it out there.
CREATE TABLE known_address (
    key          bytea PRIMARY KEY,                     -- of the login and the address
    succeeded_at timestamptz NOT NULL
);
CREATE INDEX known_address_by_age ON known_address (succeeded_at);
