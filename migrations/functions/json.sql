-- How things look to clients. The planner inlines task_json and log_json (a test reads the plan).

CREATE OR REPLACE FUNCTION day_text(day date) RETURNS text LANGUAGE sql STABLE
RETURN to_char(day::timestamp, 'DD-MM-YYYY');

CREATE OR REPLACE FUNCTION moment_text(moment timestamptz) RETURNS text LANGUAGE sql STABLE
RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- NULL for no task. Whatever may be NULL needs coalesce, or the whole text is NULL.
CREATE OR REPLACE FUNCTION task_json(t task) RETURNS text LANGUAGE sql STABLE
RETURN '{"id":' || t.id
    || ',"name":' || to_json(t.name)
    || ',"description":' || to_json(t.description)
    || ',"status":"' || t.status
    || '","completion_at":' || coalesce('"' || day_text(t.completion_at) || '"', 'null')
    || ',"created_at":"' || moment_text(t.created_at)
    || '","updated_at":"' || moment_text(t.updated_at)
    || '","completed_at":' || coalesce('"' || moment_text(t.completed_at) || '"', 'null')
    || ',"deleted_at":' || coalesce('"' || moment_text(t.deleted_at) || '"', 'null')
    || ',"revision":' || t.revision || '}';

CREATE OR REPLACE FUNCTION log_value(field text, value text) RETURNS text LANGUAGE sql STABLE
RETURN coalesce(to_json(CASE field WHEN 'completion_at' THEN day_text(value::date)
                                   WHEN 'deleted_at' THEN moment_text(value::timestamptz)
                                   ELSE value END)::text, 'null');

CREATE OR REPLACE FUNCTION log_json(l task_log) RETURNS text LANGUAGE sql STABLE
RETURN '{"revision":' || l.revision
    || ',"changed_at":"' || moment_text(l.changed_at)
    || '","field":"' || l.field
    || '","old":' || log_value(l.field, l.old)
    || ',"new":' || log_value(l.field, l.new) || '}';
