-- The same look, made without functions of ours: pg_restore runs with no schema on the search path, where it didn't find them, and lost
-- every task. Other functions are of `RETURN`, which is resolved as they are made, or run for the service alone.
CREATE OR REPLACE FUNCTION task_json(id bigint, name text, description text, status text, completion_at date, created_at timestamptz,
                                     updated_at timestamptz, completed_at timestamptz, deleted_at timestamptz, revision bigint) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    moment CONSTANT text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
BEGIN
    RETURN '{"id":' || id
        || ',"name":' || to_json(name)
        || ',"description":' || to_json(description)
        || ',"status":"' || status
        || '","completion_at":' || coalesce('"' || to_char(completion_at::timestamp, 'DD-MM-YYYY') || '"', 'null')
        || ',"created_at":"' || to_char(created_at AT TIME ZONE 'UTC', moment)
        || '","updated_at":"' || to_char(updated_at AT TIME ZONE 'UTC', moment)
        || '","completed_at":' || coalesce('"' || to_char(completed_at AT TIME ZONE 'UTC', moment) || '"', 'null')
        || ',"deleted_at":' || coalesce('"' || to_char(deleted_at AT TIME ZONE 'UTC', moment) || '"', 'null')
        || ',"revision":' || revision || '}';
END $$;
