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
