-- What is kept. Every key of a user's data begins with user_id, so that users can be spread over machines.

CREATE TABLE users (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    login         text NOT NULL,                        -- as typed
    login_key     text COLLATE "C" NOT NULL UNIQUE,     -- as compared
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- One slim row per user: the lock that makes a user's changes wait for one another, and what they count.
CREATE TABLE user_state (
    user_id          bigint PRIMARY KEY REFERENCES users,
    token_generation bigint NOT NULL,                   -- random; a token of another generation is dead
    revision         bigint NOT NULL DEFAULT 0,         -- of the latest change
    last_task_id     bigint NOT NULL DEFAULT 0,
    kept_from        bigint NOT NULL DEFAULT 0,         -- the revision from which history is whole
    changed_at       timestamptz NOT NULL DEFAULT 'epoch'
) WITH (fillfactor = 50);

CREATE TABLE task (
    user_id          bigint NOT NULL REFERENCES user_state,
    id               bigint NOT NULL,                   -- counts up from 1 within its user
    name             text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    description      text NOT NULL CHECK (char_length(description) <= 10000),
    status           text NOT NULL CHECK (status IN ('new', 'planned', 'in_work', 'completed')),
    completion_at    date CHECK (completion_at BETWEEN '1900-01-01' AND '9999-12-31'),
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    completed_at     timestamptz CHECK ((status = 'completed') = (completed_at IS NOT NULL)),
    deleted_at       timestamptz,
    created_revision bigint NOT NULL,
    revision         bigint NOT NULL,
    PRIMARY KEY (user_id, id),
    CONSTRAINT task_moments_can_be_shown CHECK (
        least(created_at, updated_at, completed_at, deleted_at) >= '0001-01-01 00:00+00'
        AND greatest(created_at, updated_at, completed_at, deleted_at) < '10000-01-01 00:00+00')
) WITH (fillfactor = 85);

CREATE INDEX task_by_status ON task (user_id, status, id) WHERE deleted_at IS NULL;
CREATE INDEX task_by_day ON task (user_id, completion_at, id) WHERE deleted_at IS NULL;
-- No index on revision or updated_at: with one, no change could be a heap-only (HOT) update.

CREATE TABLE task_log (
    user_id    bigint NOT NULL,
    revision   bigint NOT NULL,
    field      text NOT NULL CHECK (field IN ('name', 'description', 'status', 'completion_at', 'deleted_at')),
    task_id    bigint NOT NULL,
    old        text,                                    -- dates and moments as ISO writes them, so that they cast back
    new        text,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, revision, field),
    FOREIGN KEY (user_id, task_id) REFERENCES task
);

CREATE INDEX task_log_by_task ON task_log (user_id, task_id, revision);
