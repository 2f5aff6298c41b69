-- Whole accounts on their way out, and files on their way in.

CREATE OR REPLACE FUNCTION account_json(s user_state) RETURNS text LANGUAGE sql STABLE
RETURN '{"revision":' || s.revision
    || ',"last_task_id":' || s.last_task_id
    || ',"kept_from":' || s.kept_from
    || ',"kept_from_at":"' || moment_text(s.kept_from_at)
    || '","purged":' || s.purged
    || ',"changed_at":"' || moment_text(s.changed_at) || '"}';

-- The next tasks by id, those in the trash too, as they were at a revision; NULL where none follow. A part closes as it gets long.
CREATE OR REPLACE FUNCTION export_tasks(p_user_id bigint, p_revision bigint, p_after bigint, OUT lines text, OUT last bigint) LANGUAGE plpgsql STABLE AS $$
DECLARE
    t task;
    made text[];
    length bigint := 0;
BEGIN
    FOR t IN SELECT * FROM task x WHERE x.user_id = p_user_id AND x.id > p_after AND x.created_revision <= p_revision ORDER BY x.id LIMIT 1000 LOOP
        t := task_at(t, p_revision);
        made := made || (left(t.body, -1) || ',"created_revision":' || t.created_revision || '}');
        last := t.id;
        length := length + octet_length(t.body);
        EXIT WHEN length > 250000;
    END LOOP;
    lines := array_to_string(made, E',\n');
END $$;

-- The next log entries up to a revision, by revision and field.
CREATE OR REPLACE FUNCTION export_log(p_user_id bigint, p_revision bigint, p_after_revision bigint, p_after_field text,
                                      OUT lines text, OUT last_revision bigint, OUT last_field text) LANGUAGE plpgsql STABLE AS $$
DECLARE
    entry record;
    made text[];
    length bigint := 0;
BEGIN
    FOR entry IN
        SELECT l.revision, l.field, account_log_json(l) AS line FROM task_log l
         WHERE l.user_id = p_user_id AND (l.revision, l.field) > (p_after_revision, p_after_field) AND l.revision <= p_revision
         ORDER BY l.revision, l.field LIMIT 1000
    LOOP
        made := made || entry.line;
        last_revision := entry.revision; last_field := entry.field;
        length := length + octet_length(entry.line);
        EXIT WHEN length > 250000;
    END LOOP;
    lines := array_to_string(made, E',\n');
END $$;
