-- What an operator hands out, to be used once: an invitation to register, or the way back to an account whose password is forgotten.
CREATE TABLE one_time_code (
    digest     bytea PRIMARY KEY,                       -- of the code, which nobody keeps
    user_id    bigint UNIQUE REFERENCES users ON DELETE CASCADE, -- whose password it sets, one at a time; NULL: an invitation
    expires_at timestamptz NOT NULL
);
CREATE INDEX one_time_code_by_end ON one_time_code (expires_at);
