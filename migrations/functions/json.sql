-- How a log entry looks to clients. The planner inlines log_json (a test reads the plan).

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

CREATE OR REPLACE FUNCTION account_log_json(l task_log) RETURNS text LANGUAGE sql STABLE
RETURN '{"task_id":' || l.task_id || ',' || substr(log_json(l), 2);
