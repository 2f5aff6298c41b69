-- What a task is called elsewhere: a UID that came with it. NULL: the one that its id gives it. An index needs keys of a bounded length.

ALTER TABLE task ADD COLUMN uid text COLLATE "C";
ALTER TABLE task ADD CONSTRAINT task_uid_is_sound CHECK (char_length(uid) BETWEEN 1 AND 1000) NOT VALID;

CREATE FUNCTION uid_digest(uid text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN sha256(convert_to(uid, 'UTF8'));
