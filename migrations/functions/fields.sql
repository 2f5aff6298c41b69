-- A task's fields, said once: which they are, how a task with them looks to clients, and how the log has their values. A new field of a task
-- is a column (a step), a line in each of these, and one in what write.sql sets.

-- How tasks look in this version. A version in which a task looks different has the next number: bodies of another look are made anew.
CREATE FUNCTION task_look() RETURNS smallint LANGUAGE sql IMMUTABLE
RETURN 1::smallint;

-- The fields that are logged, in the order of one revision's entries, and their values as the log has them.
CREATE FUNCTION task_field_names() RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN ARRAY['name', 'description', 'status', 'completion_at', 'completed_at', 'deleted_at'];

CREATE FUNCTION task_field_values(t task) RETURNS text[] LANGUAGE sql STABLE
RETURN ARRAY[t.name, t.description, t.status, t.completion_at::text, t.completed_at::text, t.deleted_at::text];

-- What fields have that a creation doesn't name, where that isn't NULL.
CREATE FUNCTION task_defaults() RETURNS jsonb LANGUAGE sql IMMUTABLE
RETURN '{}'::jsonb;

CREATE FUNCTION day_text(day date) RETURNS text LANGUAGE sql STABLE
RETURN to_char(day::timestamp, 'DD-MM-YYYY');

CREATE FUNCTION moment_text(moment timestamptz) RETURNS text LANGUAGE sql STABLE
RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- How a task looks. In plpgsql, which keeps the expression's plan. Whatever may be NULL needs coalesce, or the whole text is NULL.
CREATE FUNCTION task_json(t task) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    moment CONSTANT text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
BEGIN
    RETURN '{"id":' || t.id
        || ',"name":' || to_json(t.name)
        || ',"description":' || to_json(t.description)
        || ',"status":"' || t.status
        || '","completion_at":' || coalesce('"' || to_char(t.completion_at::timestamp, 'DD-MM-YYYY') || '"', 'null')
        || ',"created_at":"' || to_char(t.created_at AT TIME ZONE 'UTC', moment)
        || '","updated_at":"' || to_char(t.updated_at AT TIME ZONE 'UTC', moment)
        || '","completed_at":' || coalesce('"' || to_char(t.completed_at AT TIME ZONE 'UTC', moment) || '"', 'null')
        || ',"deleted_at":' || coalesce('"' || to_char(t.deleted_at AT TIME ZONE 'UTC', moment) || '"', 'null')
        || ',"revision":' || t.revision || '}';
END $$;

-- A stored task as clients see it. Inlined by the planner (a test reads the plan).
CREATE FUNCTION task_shown(t task) RETURNS text LANGUAGE sql STABLE
RETURN CASE WHEN t.look = task_look() THEN t.body ELSE task_json(t) END;

-- A task as clients see it, and the UID that came with it, if one did.
CREATE FUNCTION with_uid(shown text, uid text) RETURNS text LANGUAGE sql STABLE
RETURN CASE WHEN uid IS NULL THEN shown ELSE left(shown, -1) || ',"uid":' || to_json(uid) || '}' END;

-- A value of the log as clients see it.
CREATE FUNCTION log_value(field text, value text) RETURNS text LANGUAGE sql STABLE
RETURN coalesce(to_json(CASE field WHEN 'completion_at' THEN day_text(value::date)
                                   WHEN 'completed_at' THEN moment_text(value::timestamptz)
                                   WHEN 'deleted_at' THEN moment_text(value::timestamptz)
                                   ELSE value END)::text, 'null');

-- A value that clients send as the log has it.
CREATE FUNCTION log_value_kept(field text, value text) RETURNS text LANGUAGE sql STABLE
RETURN CASE WHEN field IN ('completed_at', 'deleted_at') THEN value::timestamptz::text ELSE value END;

-- Tell whether a task's field can have held a value, as the log has it: whether a task is sound that has it, and the rest as it must be.
CREATE FUNCTION log_value_fits(field text, value text) RETURNS boolean LANGUAGE sql STABLE
RETURN coalesce(CASE field
    WHEN 'name' THEN task_is_sound(value, '', 'new', NULL, 'epoch', 'epoch', NULL, NULL)
    WHEN 'description' THEN task_is_sound('-', value, 'new', NULL, 'epoch', 'epoch', NULL, NULL)
    WHEN 'status' THEN task_is_sound('-', '', value, NULL, 'epoch', 'epoch', CASE value WHEN 'completed' THEN timestamptz 'epoch' END, NULL)
    WHEN 'completion_at' THEN value IS NULL OR CASE WHEN value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' AND pg_input_is_valid(value, 'date')
                                                    THEN task_is_sound('-', '', 'new', value::date, 'epoch', 'epoch', NULL, NULL) END
    WHEN 'completed_at' THEN value IS NULL OR CASE WHEN value ~ '^[0-9]' AND pg_input_is_valid(value, 'timestamptz')
                                                   THEN task_is_sound('-', '', 'completed', NULL, 'epoch', 'epoch', value::timestamptz, NULL) END
    WHEN 'deleted_at' THEN value IS NULL OR (value ~ '^[0-9]' AND pg_input_is_valid(value, 'timestamptz'))
END, false);

-- A log entry as clients see it, of one task's log and of the account's. Inlined by the planner (a test reads the plan).
CREATE FUNCTION log_json(l task_log) RETURNS text LANGUAGE sql STABLE
RETURN '{"revision":' || l.revision
    || ',"changed_at":"' || moment_text(l.changed_at)
    || '","field":"' || l.field
    || '","old":' || log_value(l.field, l.old)
    || ',"new":' || log_value(l.field, l.new) || '}';

CREATE FUNCTION account_log_json(l task_log) RETURNS text LANGUAGE sql STABLE
RETURN '{"task_id":' || l.task_id || ',' || substr(log_json(l), 2);
