-- The past: what it was, and bringing it back.

-- A task as it was at a revision not before its creation: each field has what the first entry after it calls old. It may be given as it was
-- later than that: then what came after that isn't read again.
CREATE OR REPLACE FUNCTION task_at(t task, p_revision bigint) RETURNS task LANGUAGE plpgsql STABLE AS $$
DECLARE
    past jsonb;
    last task_log;
BEGIN
    IF t.revision <= p_revision THEN
        RETURN t;
    END IF;
    SELECT jsonb_object_agg(first.field, first.old) INTO past
      FROM (SELECT DISTINCT ON (l.field) l.field, l.old FROM task_log l
             WHERE l.user_id = t.user_id AND l.task_id = t.id AND l.revision > p_revision AND l.revision <= t.revision
             ORDER BY l.field, l.revision) first;
    t := jsonb_populate_record(t, past);
    SELECT * INTO last FROM task_log l WHERE l.user_id = t.user_id AND l.task_id = t.id AND l.revision <= p_revision ORDER BY l.revision DESC LIMIT 1;
    t.revision := coalesce(last.revision, t.created_revision);
    t.updated_at := coalesce(last.changed_at, t.created_at);
    IF past ? 'status' THEN
        t.completed_at := CASE WHEN t.status = 'completed' THEN coalesce((
            SELECT l.changed_at FROM task_log l
             WHERE l.user_id = t.user_id AND l.task_id = t.id AND l.revision <= p_revision AND l.field = 'status'
             ORDER BY l.revision DESC LIMIT 1), t.created_at) END;
    END IF;
    t.body := task_json(t.id, t.name, t.description, t.status, t.completion_at, t.created_at, t.updated_at, t.completed_at, t.deleted_at, t.revision);
    RETURN t;
END $$;

-- The last revision not later than a moment. What was purged has left no moments but that of kept_from. Moments ascend with the revisions of
-- changes, and with the ids of what was created: in each of the two, every look halves what is left.
CREATE OR REPLACE FUNCTION revision_at(s user_state, p_at timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    latest bigint := CASE WHEN s.kept_from_at <= p_at THEN s.kept_from ELSE 0 END;
    part text;
    low bigint;   -- up to here nothing is later
    high bigint;  -- after here everything is
    middle bigint;
    entry record; -- the last one up to there; none: all its parts are NULL
BEGIN
    IF s.changed_at <= p_at THEN
        RETURN s.revision;
    END IF;
    FOREACH part IN ARRAY ARRAY['changes', 'creations'] LOOP
        low := 0;
        high := CASE part WHEN 'changes' THEN s.revision ELSE s.last_task_id END;
        WHILE low < high LOOP
            middle := (low + high + 1) / 2;
            IF part = 'changes' THEN
                SELECT l.revision AS place, l.changed_at AS moment, l.revision INTO entry FROM task_log l
                 WHERE l.user_id = s.user_id AND l.revision > low AND l.revision <= middle ORDER BY l.revision DESC LIMIT 1;
            ELSE
                SELECT t.id AS place, t.created_at AS moment, t.created_revision AS revision INTO entry FROM task t
                 WHERE t.user_id = s.user_id AND t.id > low AND t.id <= middle ORDER BY t.id DESC LIMIT 1;
            END IF;
            IF entry.moment > p_at THEN
                high := entry.place - 1;
            ELSE
                low := middle;
                latest := greatest(latest, entry.revision);
            END IF;
        END LOOP;
    END LOOP;
    RETURN latest;
END $$;

-- The tasks that there were at a revision, as they were then. Inlined by the planner; what never changes comes from the table, so that
-- a page in the order of ids looks at no more tasks than it shows.
CREATE OR REPLACE FUNCTION tasks_at(p_user_id bigint, p_revision bigint) RETURNS SETOF task LANGUAGE sql STABLE AS $$
    SELECT t.user_id, t.id, past.name, past.description, past.status, past.completion_at, t.created_at, past.updated_at, past.completed_at,
           past.deleted_at, t.created_revision, past.revision, past.body
      FROM task t CROSS JOIN LATERAL task_at(t, p_revision) past
     WHERE t.user_id = p_user_id AND t.created_revision <= p_revision AND (t.revision > p_revision OR t.deleted_at IS NULL) AND past.deleted_at IS NULL
$$;

-- One of them, or none.
CREATE OR REPLACE FUNCTION task_past(p_user_id bigint, p_id bigint, p_revision bigint) RETURNS SETOF task LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT past.* FROM task t CROSS JOIN LATERAL task_at(t, p_revision) past
     WHERE t.user_id = p_user_id AND t.id = p_id AND t.created_revision <= p_revision AND past.deleted_at IS NULL
$$;

-- The first p_most tasks by revision that were changed after one, those in the trash included. There is no index on the revision
-- (no change could be a heap-only one): the log knows what was altered, and ids ascend as creations do. Where the log is longer
-- than the list, the list is read.
CREATE OR REPLACE FUNCTION tasks_since(p_user_id bigint, p_since bigint, p_most bigint) RETURNS SETOF task LANGUAGE plpgsql STABLE AS $$
DECLARE
    s user_state;
BEGIN
    SELECT * INTO s FROM user_state u WHERE u.user_id = p_user_id;
    IF s.revision - p_since < s.last_task_id THEN
        RETURN QUERY
            SELECT t.* FROM task t
             WHERE t.user_id = p_user_id AND t.id IN (
                       SELECT l.task_id FROM task_log l WHERE l.user_id = p_user_id AND l.revision > p_since
                        UNION
                       SELECT c.id FROM task c WHERE c.user_id = p_user_id AND c.id > coalesce((
                           SELECT b.id FROM task b WHERE b.user_id = p_user_id AND b.created_revision <= p_since ORDER BY b.id DESC LIMIT 1), 0))
             ORDER BY t.revision LIMIT p_most;
    ELSE
        RETURN QUERY SELECT t.* FROM task t WHERE t.user_id = p_user_id AND t.revision > p_since ORDER BY t.revision LIMIT p_most;
    END IF;
END $$;

-- What explains a conflict: the task as it is, and the fields altered since the latest of the client's revisions that is one of the task's.
CREATE OR REPLACE FUNCTION task_conflict(p_user_id bigint, p_generation bigint, p_id bigint, p_if_match bigint[])
RETURNS TABLE (id bigint, revision bigint, body text, user_revision bigint, changed text) LANGUAGE plpgsql STABLE ROWS 1 AS $$
DECLARE
    known bigint;
BEGIN
    SELECT max(r) INTO known FROM unnest(p_if_match) r
     WHERE EXISTS (SELECT FROM task t WHERE t.user_id = p_user_id AND t.id = p_id AND t.created_revision = r)
        OR EXISTS (SELECT FROM task_log l WHERE l.user_id = p_user_id AND l.task_id = p_id AND l.revision = r);
    RETURN QUERY SELECT t.id, t.revision, t.body, s.revision, CASE WHEN known IS NOT NULL THEN (
                            SELECT coalesce(json_agg(DISTINCT l.field), '[]')::text FROM task_log l
                             WHERE l.user_id = p_user_id AND l.task_id = p_id AND l.revision > known) END
                   FROM user_state s LEFT JOIN task t ON t.user_id = s.user_id AND t.id = p_id
                  WHERE s.user_id = p_user_id AND s.token_generation = p_generation;
END $$;

-- Bring a task out of the trash, and, with p_revision, its four fields back to what they were then.
CREATE OR REPLACE FUNCTION task_restore(p_user_id bigint, p_generation bigint, p_wait boolean, p_id bigint, p_if_match bigint[], p_revision bigint,
                                        OUT refused text, OUT id bigint, OUT revision bigint, OUT body text, OUT user_revision bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := open_change(p_user_id, p_generation, p_wait);
    t task;
    wanted task;
BEGIN
    SELECT * INTO t FROM task x WHERE x.user_id = s.user_id AND x.id = p_id;
    IF t.created_revision <= p_revision THEN
        wanted := task_fields_of(t, task_at(t, p_revision));
    ELSE
        wanted := t;
    END IF;
    wanted.deleted_at := NULL;
    refused := CASE WHEN s.user_id IS NULL THEN no_state(p_wait)
                    WHEN p_revision > s.revision THEN 'to_come'
                    WHEN t.id IS NULL OR t.created_revision > p_revision THEN 'not_found'
                    WHEN t.revision <> ALL (p_if_match) AND wanted IS DISTINCT FROM t THEN 'changed_meanwhile' END;
    IF refused IS NULL THEN
        t := task_save(t, wanted, s.revision + 1, s.changed_at);
    END IF;
    id := t.id; revision := t.revision; body := t.body; user_revision := close_change(s, t.revision);
END $$;

-- A task with the fields, the four that are a user's to change, of another state of it.
CREATE OR REPLACE FUNCTION task_fields_of(t task, past task) RETURNS task LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    t.name := past.name; t.description := past.description; t.status := past.status; t.completion_at := past.completion_at;
    RETURN t;
END $$;

-- Take back everything that a user did after a revision: what existed then is as it was, what was created since goes to the trash.
-- Where it is refused half-way, or only tried, all of it is rolled back. `tasks` are the first that it altered, as JSON: up to 1000, and 4 MiB.
CREATE OR REPLACE FUNCTION task_undo(p_user_id bigint, p_generation bigint, p_wait boolean, p_since bigint, p_expected bigint, p_most bigint, p_try boolean,
                                     OUT refused text, OUT before bigint, OUT revision bigint, OUT count bigint, OUT tasks text, OUT user_revision bigint,
                                     OUT kept_from bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := open_change(p_user_id, p_generation, p_wait);
    shown text[] := '{}';
    length bigint := 0;
    old task;
    past task;
    wanted task;
    saved task;
BEGIN
    refused := CASE WHEN s.user_id IS NULL THEN no_state(p_wait)
                    WHEN p_since > s.revision THEN 'to_come'
                    WHEN p_since < s.kept_from THEN 'history_gone'
                    WHEN p_expected <> s.revision THEN 'not_as_expected' END;
    before := s.revision; revision := s.revision; count := 0; user_revision := s.revision; kept_from := s.kept_from;
    IF refused IS NOT NULL THEN
        RETURN;
    END IF;
    FOR old IN SELECT * FROM task x WHERE x.user_id = s.user_id AND x.revision > p_since ORDER BY x.id LOOP
        wanted := old;
        wanted.deleted_at := coalesce(old.deleted_at, s.changed_at);
        IF old.created_revision <= p_since THEN
            past := task_at(old, p_since);
            wanted := task_fields_of(wanted, past);
            IF past.deleted_at IS NULL THEN
                wanted.deleted_at := NULL;
            END IF;
        END IF;
        saved := task_save(old, wanted, revision + 1, s.changed_at);
        IF saved.revision > revision THEN
            revision := saved.revision;
            count := count + 1;
            IF count > p_most THEN
                refused := 'too_many';
                RAISE SQLSTATE 'UNDO1';
            END IF;
            length := length + octet_length(saved.body) + 1;
            IF count <= 1000 AND length <= 4 * 1024 * 1024 THEN
                shown := shown || saved.body;
            END IF;
        END IF;
    END LOOP;
    tasks := array_to_string(shown, ',');
    IF p_try THEN
        RAISE SQLSTATE 'UNDO1';
    END IF;
    user_revision := close_change(s, revision);
EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
    NULL;  -- nothing has happened, and what it would have been is known
END $$;
