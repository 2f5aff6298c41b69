-- How a task looks to clients is kept beside it, made with each write, so that to show a task or to list many is to read.
-- What is stored doesn't follow a function that changes: a new look needs a function and a column of another name.

CREATE OR REPLACE FUNCTION day_text(day date) RETURNS text LANGUAGE sql STABLE
RETURN to_char(day::timestamp, 'DD-MM-YYYY');

CREATE OR REPLACE FUNCTION moment_text(moment timestamptz) RETURNS text LANGUAGE sql STABLE
RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- IMMUTABLE, though to_char isn't: these patterns name no month in any language. In plpgsql, which keeps the expression's plan: LANGUAGE sql
-- would make one for each write (16 us). Whatever may be NULL needs coalesce, or the whole text is NULL.
CREATE FUNCTION task_json(id bigint, name text, description text, status text, completion_at date, created_at timestamptz,
                          updated_at timestamptz, completed_at timestamptz, deleted_at timestamptz, revision bigint) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN '{"id":' || id
        || ',"name":' || to_json(name)
        || ',"description":' || to_json(description)
        || ',"status":"' || status
        || '","completion_at":' || coalesce('"' || day_text(completion_at) || '"', 'null')
        || ',"created_at":"' || moment_text(created_at)
        || '","updated_at":"' || moment_text(updated_at)
        || '","completed_at":' || coalesce('"' || moment_text(completed_at) || '"', 'null')
        || ',"deleted_at":' || coalesce('"' || moment_text(deleted_at) || '"', 'null')
        || ',"revision":' || revision || '}';
END $$;

ALTER TABLE task ADD COLUMN body text NOT NULL GENERATED ALWAYS AS (
    task_json(id, name, description, status, completion_at, created_at, updated_at, completed_at, deleted_at, revision)) STORED;
