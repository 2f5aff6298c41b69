-- Whole accounts on their way out, and files on their way in.

CREATE FUNCTION account_json(s user_state) RETURNS text LANGUAGE sql STABLE
RETURN '{"revision":' || s.revision
    || ',"last_task_id":' || s.last_task_id
    || ',"kept_from":' || s.kept_from
    || ',"kept_from_at":"' || moment_text(s.kept_from_at)
    || '","purged":' || s.purged
    || ',"changed_at":"' || moment_text(s.changed_at) || '"}';

-- The next tasks by id, those in the trash too, as they were at a revision; NULL where none follow. A part closes as it gets long.
CREATE FUNCTION export_tasks(p_user_id bigint, p_revision bigint, p_after bigint, OUT lines text, OUT last bigint) LANGUAGE plpgsql STABLE AS $$
DECLARE
    t task;
    made text[];
    length bigint := 0;
BEGIN
    FOR t IN SELECT * FROM task x WHERE x.user_id = p_user_id AND x.id > p_after AND x.created_revision <= p_revision ORDER BY x.id LIMIT 1000 LOOP
        t := task_at(t, p_revision);
        made := made || with_uid(left(t.body, -1) || ',"created_revision":' || t.created_revision || '}', t.uid);
        last := t.id;
        length := length + octet_length(made[cardinality(made)]);
        EXIT WHEN length > 250000;
    END LOOP;
    lines := array_to_string(made, E',\n');
END $$;

-- The next log entries up to a revision, by revision and field.
CREATE FUNCTION export_log(p_user_id bigint, p_revision bigint, p_after_revision bigint, p_after_field text,
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

-- Put some lines of a file aside, where they count for nothing until all have come. False: the token is of the past.
CREATE FUNCTION import_keep(p_user_id bigint, p_generation bigint, p_import_id uuid, p_part bigint, p_kind text, p_content jsonb)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO import_row (user_id, import_id, part, kind, content)
    SELECT s.user_id, p_import_id, p_part, p_kind, p_content FROM user_state s WHERE s.user_id = p_user_id AND s.token_generation = p_generation;
    RETURN FOUND;
END $$;

CREATE FUNCTION import_drop(p_user_id bigint, p_import_id uuid) RETURNS void LANGUAGE sql AS $$
    DELETE FROM import_row i WHERE i.user_id = p_user_id AND i.import_id = p_import_id
$$;

-- Lock the account for an import of which p_kept parts were put aside. `answer` is there where its key has been answered already.
CREATE FUNCTION import_open(p_user_id bigint, p_generation bigint, p_import_id uuid, p_kept bigint, p_key text, p_digest text,
                                       OUT s user_state, OUT refused text, OUT answer text) LANGUAGE plpgsql AS $$
DECLARE
    known idempotency_key;
BEGIN
    s := state_lock(p_user_id, p_generation, true);
    SELECT * INTO known FROM idempotency_key k WHERE k.user_id = s.user_id AND k.key = p_key;
    answer := known.answer;
    refused := CASE WHEN s.user_id IS NULL THEN 'unauthorized'
                    WHEN known.digest <> p_digest THEN 'key_reused'
                    WHEN known.key IS NULL AND p_kept <> (SELECT count(*) FROM (
                             SELECT FROM import_row i WHERE i.user_id = s.user_id AND i.import_id = p_import_id FOR KEY SHARE) kept)
                    THEN 'swept' END;  -- it took so long that housekeeping, or a crash, took a part away; from now on the lock keeps them
END $$;

-- Answer what an import did and, under its key, keep the answer. Of what was skipped it tells the first hundred.
CREATE FUNCTION import_close(p_user_id bigint, p_before bigint, p_revision bigint, p_count bigint, p_key text, p_digest text,
                                        p_skipped jsonb DEFAULT '[]', p_skipped_count bigint DEFAULT 0) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    SELECT '{"before":' || p_before || ',"revision":' || p_revision || ',"count":' || p_count
           || ',"skipped":' || coalesce(jsonb_agg(x.told ORDER BY x.line), '[]') || ',"skipped_count":' || p_skipped_count || '}' INTO answer
      FROM (SELECT t.told, (t.told -> 'line')::bigint AS line FROM jsonb_array_elements(p_skipped) t (told) ORDER BY 2 LIMIT 100) x;
    IF p_key IS NOT NULL THEN
        INSERT INTO idempotency_key (user_id, key, digest, answer, created_at) VALUES (p_user_id, p_key, p_digest, answer, now());
    END IF;
    RETURN answer;
END $$;

-- What was put aside of a sheet or a calendar: what is to change, or to be created, where that is the first of its UID, and what there is already
-- of the task of that UID: one that came with it, or that its id gives it (`our_id`). Inlined by the planner.
CREATE FUNCTION import_changes(p_user_id bigint, p_import_id uuid)
RETURNS TABLE (line bigint, uid text, our_id bigint, change jsonb, creation jsonb, alike jsonb, id bigint, status text, completed_at timestamptz,
               deleted_at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT x.line, x.uid, x.task_id, x.change, jsonb_strip_nulls(jsonb_build_object('name', x.title, 'uid', x.uid)) || x.change, x.alike, t.*
      FROM import_row i CROSS JOIN LATERAL jsonb_to_recordset(i.content) x (
               line bigint, task_id bigint, uid text, title text, change jsonb, alike jsonb)
           LEFT JOIN LATERAL (
               SELECT o.id, o.status, o.completed_at, o.deleted_at FROM task o
                WHERE o.user_id = p_user_id AND uid_digest(o.uid) = uid_digest(x.uid COLLATE "C") AND o.uid = x.uid COLLATE "C"
                UNION ALL
               SELECT o.id, o.status, o.completed_at, o.deleted_at FROM task o WHERE o.user_id = p_user_id AND o.id = x.task_id AND o.uid IS NULL) t ON true
     WHERE i.user_id = p_user_id AND i.import_id = p_import_id
$$;

-- Change the tasks whose UIDs are named, by their ids, and create the others, by their lines, all in one moment. What is in the trash comes back if
-- its UID is ours, and otherwise stays there; what has been purged is created anew; a status that is one of `alike` stays, and so does a moment of
-- completion to the second, which is all that calendars say. `faults` are lines that can't be done, and why: then nothing is, or, where p_skip is
-- true, what stands on the others. `p_skipped` has been skipped already.
CREATE FUNCTION import_tasks(p_user_id bigint, p_generation bigint, p_import_id uuid, p_kept bigint, p_key text, p_digest text,
                                        p_max_tasks bigint, p_max_log_entries bigint,
                                        p_skip boolean, p_skipped jsonb, p_skipped_count bigint,
                                        OUT refused text, OUT answer text, OUT user_revision bigint, OUT faults jsonb) LANGUAGE plpgsql AS $$
DECLARE
    opened record;
    s user_state;
    moment timestamptz;
    part record;
    altered bigint;
    count bigint := 0;
    left_out bigint[];  -- lines
BEGIN
    SELECT * INTO opened FROM import_open(p_user_id, p_generation, p_import_id, p_kept, p_key, p_digest);
    s := opened.s; refused := opened.refused; answer := opened.answer; user_revision := s.revision; moment := next_moment(s);
    IF refused IS NOT NULL OR answer IS NOT NULL THEN
        RETURN;
    END IF;
    SELECT jsonb_agg(jsonb_build_object('line', f.line, 'code', f.code, 'message', f.message) ORDER BY f.line)
               FILTER (WHERE f.number <= 100 AND f.code <> 'in_trash'),
           p_skipped || coalesce(jsonb_agg(jsonb_build_object('line', f.line, 'code', CASE f.code WHEN 'in_trash' THEN f.code ELSE 'not_taken' END,
                                                              'reason', f.message)) FILTER (WHERE f.number <= 100), '[]'),
           array_agg(f.line)
      INTO faults, p_skipped, left_out
      FROM (SELECT c.line, c.code, row_number() OVER (PARTITION BY c.code = 'in_trash' ORDER BY c.line) AS number,
                   CASE c.code WHEN 'repeated' THEN 'has the UID of line ' || c.first
                               WHEN 'in_trash' THEN 'is of a task that is in the trash, and stays there'
                               WHEN 'reserved' THEN 'has the UID that a task of yours is still to have: to create one, leave the UID out'
                               ELSE 'is of a task that is not there: to create it, it needs name, description and status' END AS message
              FROM (SELECT u.line, u.first, CASE WHEN u.line > u.first THEN 'repeated'
                                                 WHEN u.deleted_at IS NOT NULL AND u.our_id IS NULL THEN 'in_trash'
                                                 WHEN u.id IS NULL AND u.our_id > s.last_task_id THEN 'reserved'
                                                 WHEN u.id IS NULL AND NOT u.creation ?& ARRAY['name', 'description', 'status'] THEN 'not_found' END AS code
                      FROM (SELECT x.*, min(x.line) OVER (PARTITION BY x.uid) AS first FROM import_changes(p_user_id, p_import_id) x
                             WHERE x.uid IS NOT NULL) u) c
             WHERE c.code IS NOT NULL) f;
    IF faults IS NOT NULL AND NOT p_skip THEN
        RETURN;
    END IF;
    faults := NULL;
    FOR part IN  -- of few, since a loop reads some parts ahead, and a change may be long
        SELECT array_agg(c.id ORDER BY c.place) AS ids, array_agg(c.change ORDER BY c.place) AS changes,
               array_agg(CASE WHEN c.id IS NULL THEN p_max_tasks ELSE p_max_log_entries END ORDER BY c.place) AS most
          FROM (SELECT x.id, row_number() OVER by_id_then_line AS place, (row_number() OVER by_id_then_line - 1) / 25 AS number,
                       CASE WHEN x.id IS NULL THEN x.creation
                            ELSE x.change - array_remove(ARRAY[CASE WHEN x.alike ? x.status THEN 'status' END, CASE
                                     WHEN date_trunc('second', (x.change ->> 'completed_at')::timestamptz) = date_trunc('second', x.completed_at)
                                     THEN 'completed_at' END], NULL) || '{"deleted": false}' END AS change
                  FROM import_changes(p_user_id, p_import_id) x
                 WHERE x.line NOT IN (SELECT unnest(left_out))
                WINDOW by_id_then_line AS (ORDER BY x.id NULLS LAST, x.line)) c
         GROUP BY c.number ORDER BY c.number
    LOOP
        SELECT count(*) FILTER (WHERE w.revision > s.revision), max(w.user_revision), max(w.refused) INTO altered, user_revision, refused
          FROM task_write(array_fill(p_user_id, ARRAY[cardinality(part.ids)]), array_fill(p_generation, ARRAY[cardinality(part.ids)]),
                          part.ids, '{}', part.changes, part.most, true, moment, true) w;
        IF refused IS NOT NULL THEN
            RAISE SQLSTATE 'IMPRT';
        END IF;
        count := count + altered;
        s.revision := user_revision;
    END LOOP;
    answer := import_close(p_user_id, (opened.s).revision, s.revision, count, p_key, p_digest,
                           p_skipped, p_skipped_count + coalesce(cardinality(left_out), 0));
    user_revision := s.revision;
EXCEPTION WHEN SQLSTATE 'IMPRT' THEN
    user_revision := (opened.s).revision;  -- nothing has happened
END $$;

-- A task as an export has it, for a user to have.
CREATE FUNCTION task_of_user(t task, p_user_id bigint) RETURNS task LANGUAGE plpgsql STABLE AS $$
BEGIN
    t.user_id := p_user_id;
    t.look := task_look();
    t.body := task_json(t);
    RETURN t;
END $$;

-- Restore an account that never had a task to what was put aside of an export. It is verified as a whole; where anything is wrong with it,
-- `faults` says with which lines, and all is rolled back.
CREATE FUNCTION import_account(p_user_id bigint, p_generation bigint, p_import_id uuid, p_kept bigint, p_key text, p_digest text,
                                          p_max_tasks bigint, p_max_log_entries bigint,
                                          OUT refused text, OUT answer text, OUT user_revision bigint, OUT faults jsonb) LANGUAGE plpgsql AS $$
DECLARE
    opened record;
    s user_state;
    part record;
    count bigint := 0;
    entries bigint;
BEGIN
    SELECT * INTO opened FROM import_open(p_user_id, p_generation, p_import_id, p_kept, p_key, p_digest);
    s := jsonb_populate_record(opened.s, (
        SELECT i.content -> 0 FROM import_row i WHERE i.user_id = p_user_id AND i.import_id = p_import_id AND i.kind = 'account'));
    refused := coalesce(opened.refused, CASE WHEN opened.answer IS NULL AND (opened.s).revision > 0 THEN 'in_use' END);
    answer := opened.answer; user_revision := (opened.s).revision;
    IF refused IS NOT NULL OR answer IS NOT NULL THEN
        RETURN;
    END IF;
    FOR part IN
        SELECT array_agg(task_of_user(t, p_user_id) ORDER BY t.id) AS tasks
          FROM import_row i CROSS JOIN LATERAL jsonb_populate_recordset(NULL::task, i.content) t
         WHERE i.user_id = p_user_id AND i.import_id = p_import_id AND i.kind = 'task' GROUP BY i.part ORDER BY i.part
    LOOP
        PERFORM task_insert(part.tasks);
        count := count + cardinality(part.tasks);
        IF count > p_max_tasks THEN
            refused := 'too_many_tasks';
            RAISE SQLSTATE 'IMPRT';
        END IF;
    END LOOP;
    SELECT jsonb_agg(jsonb_build_object('line', f.line, 'code', 'not_found', 'message', 'is of a task that there isn''t') ORDER BY f.line) INTO faults
      FROM (SELECT x.line FROM import_entries(p_user_id, p_import_id) x
             WHERE NOT EXISTS (SELECT FROM task t WHERE t.user_id = p_user_id AND t.id = x.task_id) ORDER BY x.line LIMIT 100) f;
    IF faults IS NULL THEN
        INSERT INTO task_log (user_id, revision, field, task_id, changed_at, old, new)
        SELECT p_user_id, l.revision, l.field, l.task_id, l.changed_at, log_value_kept(l.field, l.old), log_value_kept(l.field, l.new)
          FROM import_row i CROSS JOIN LATERAL jsonb_populate_recordset(NULL::task_log, i.content) l
         WHERE i.user_id = p_user_id AND i.import_id = p_import_id AND i.kind = 'entry' ORDER BY i.part;
        GET DIAGNOSTICS entries = ROW_COUNT;
        IF entries > p_max_log_entries THEN
            refused := 'too_many_entries';
            RAISE SQLSTATE 'IMPRT';
        END IF;
        UPDATE user_state u
           SET (revision, last_task_id, kept_from, kept_from_at, purged, changed_at, log_entries, log_counted)
             = ROW (s.revision, s.last_task_id, s.kept_from, s.kept_from_at, s.purged, s.changed_at, entries, s.revision)
         WHERE u.user_id = p_user_id;
        answer := import_close(p_user_id, user_revision, s.revision, count, p_key, p_digest);
        faults := import_faults(p_user_id, p_import_id, clock_timestamp());
    END IF;
    IF faults IS NOT NULL THEN
        RAISE SQLSTATE 'IMPRT';
    END IF;
    user_revision := s.revision;
EXCEPTION
    WHEN SQLSTATE 'IMPRT' THEN
        answer := NULL;  -- nothing has happened
    WHEN unique_violation THEN  -- of UIDs: the ids ascend
        SELECT jsonb_agg(jsonb_build_object('line', d.line, 'code', 'repeated', 'message', 'has the uid of line ' || d.first) ORDER BY d.line) INTO faults
          FROM (SELECT u.line, u.first
                  FROM (SELECT x.line, first_value(x.line) OVER alike AS first, row_number() OVER alike AS number
                          FROM import_row i CROSS JOIN LATERAL jsonb_to_recordset(i.content) x (line bigint, id bigint, uid text)
                         WHERE i.user_id = p_user_id AND i.import_id = p_import_id AND i.kind = 'task' AND x.uid IS NOT NULL
                        WINDOW alike AS (PARTITION BY x.uid ORDER BY x.id)) u
                 WHERE u.number > 1 ORDER BY u.line LIMIT 100) d;
END $$;

CREATE FUNCTION import_entries(p_user_id bigint, p_import_id uuid)
RETURNS TABLE (line bigint, task_id bigint, revision bigint) LANGUAGE sql STABLE AS $$
    SELECT x.* FROM import_row i CROSS JOIN LATERAL jsonb_to_recordset(i.content) x (line bigint, task_id bigint, revision bigint)
     WHERE i.user_id = p_user_id AND i.import_id = p_import_id AND i.kind = 'entry'
$$;

-- What is wrong with an account that was just restored, and on which of its lines that stands: with what isn't there, on the first.
CREATE FUNCTION import_faults(p_user_id bigint, p_import_id uuid, p_now timestamptz) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM user_state u WHERE u.user_id = p_user_id AND u.changed_at > p_now + interval '1 day') THEN
        RETURN '[{"line": 1, "code": "inconsistent", "message": "changed_at must not lie in the future"}]';
    END IF;
    IF NOT EXISTS (SELECT FROM account_faults(p_user_id)) THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT jsonb_agg(jsonb_build_object('line', w.line, 'code', 'inconsistent', 'message', w.message) ORDER BY w.line)
              FROM (SELECT DISTINCT coalesce(e.line, t.line, 1) AS line,
                           concat_ws(': ', nullif(concat_ws(', ', 'task ' || f.task_id, 'revision ' || f.revision), ''), f.fault) AS message
                      FROM account_faults(p_user_id) f
                           LEFT JOIN import_entries(p_user_id, p_import_id) e ON e.task_id = f.task_id AND e.revision = f.revision
                           LEFT JOIN (SELECT x.* FROM import_row i CROSS JOIN LATERAL jsonb_to_recordset(i.content) x (line bigint, id bigint)
                                       WHERE i.user_id = p_user_id AND i.import_id = p_import_id AND i.kind = 'task') t ON t.id = f.task_id
                     ORDER BY 1 LIMIT 100) w);
END $$;
