-- The past: what it was, and bringing it back.

-- A task as it was at a revision not before its creation; its body is of this version's look, whatever `look` says. Of a task that is itself
-- one of the past, the log is read only up to then.
CREATE FUNCTION task_at(t task, p_revision bigint) RETURNS task LANGUAGE plpgsql STABLE AS $$
DECLARE
    past jsonb;
    status_revision bigint;        -- of the first entry of the status after then
    completed_at_revision bigint;
    last task_log;
BEGIN
    IF t.revision <= p_revision THEN
        t.body := task_shown(t);
        RETURN t;
    END IF;
    SELECT jsonb_object_agg(l.field, l.old ORDER BY l.revision DESC),  -- of one field's the last stays: what the first entry calls old
           min(l.revision) FILTER (WHERE l.field = 'status'), min(l.revision) FILTER (WHERE l.field = 'completed_at')
      INTO past, status_revision, completed_at_revision
      FROM task_log l WHERE l.user_id = t.user_id AND l.task_id = t.id AND l.revision > p_revision AND l.revision <= t.revision;
    t := jsonb_populate_record(t, past);
    SELECT * INTO last FROM task_log l WHERE l.user_id = t.user_id AND l.task_id = t.id AND l.revision <= p_revision ORDER BY l.revision DESC LIMIT 1;
    t.revision := coalesce(last.revision, t.created_revision);
    t.updated_at := coalesce(last.changed_at, t.created_at);
    IF coalesce(status_revision < completed_at_revision, status_revision IS NOT NULL) THEN
        t.completed_at := completed_by_rule(t);
    END IF;
    t.body := task_json(t);
    RETURN t;
END $$;

-- The fields that a user's tasks with these ids had at a revision and that were altered after it: each is what the first entry after it calls old.
-- That of completed_at is not, where one of the status comes before it.
CREATE FUNCTION fields_at(p_user_id bigint, p_revision bigint, p_first_id bigint, p_last_id bigint)
RETURNS TABLE (id bigint, fields jsonb) LANGUAGE sql STABLE AS $$
    SELECT f.task_id, jsonb_object_agg(f.field, CASE WHEN f.field = 'completed_at' AND f.status_revision < f.revision THEN (
                          SELECT past.completed_at::text FROM task t CROSS JOIN LATERAL task_at(t, p_revision) past
                           WHERE t.user_id = p_user_id AND t.id = f.task_id)
                      ELSE f.old END)
      FROM (SELECT DISTINCT ON (l.task_id, l.field) l.task_id, l.field, l.old, l.revision,
                   min(l.revision) FILTER (WHERE l.field = 'status') OVER (PARTITION BY l.task_id) AS status_revision
              FROM task_log l
             WHERE l.user_id = p_user_id AND l.task_id BETWEEN p_first_id AND p_last_id AND l.revision > p_revision
               AND l.field = ANY (task_field_names())  -- a later version has logged more
             ORDER BY l.task_id, l.field, l.revision) f
     GROUP BY f.task_id
$$;

-- The last revision not later than a moment. What was purged has left no moments but that of kept_from. Moments ascend with the revisions of
-- changes, and with the ids of what was created: in each of the two, every look halves what is left.
CREATE FUNCTION revision_at(s user_state, p_at timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
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

-- A task as it was at a revision, or none where it wasn't there, or in the trash.
CREATE FUNCTION task_past(p_user_id bigint, p_id bigint, p_revision bigint) RETURNS SETOF task LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT past.* FROM task t CROSS JOIN LATERAL task_at(t, p_revision) past
     WHERE t.user_id = p_user_id AND t.id = p_id AND t.created_revision <= p_revision AND past.deleted_at IS NULL
$$;

-- The last id that a user's tasks had at a revision: ids ascend as creations do, and none is larger than the revision that created it. Every look
-- halves what is left.
CREATE FUNCTION last_id_at(p_user_id bigint, p_revision bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := 0;
    high bigint := least(p_revision, (SELECT s.last_task_id FROM user_state s WHERE s.user_id = p_user_id));
    middle bigint;
    last record;
BEGIN
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        SELECT t.id, t.created_revision INTO last FROM task t WHERE t.user_id = p_user_id AND t.id > low AND t.id <= middle ORDER BY t.id DESC LIMIT 1;
        IF last.created_revision > p_revision THEN
            high := last.id - 1;
        ELSE
            low := middle;
        END IF;
    END LOOP;
    RETURN low;
END $$;

-- The first p_most tasks by revision that were changed after one, those in the trash included. There is no index on the revision (no change could
-- be a heap-only one): the log knows what was altered, in this order, and ids ascend as creations do. These are asked of an eighth as many
-- revisions as there are tasks; where that isn't enough, since what was altered then was mostly altered again, the list is read.
CREATE FUNCTION tasks_since(p_user_id bigint, p_since bigint, p_most bigint) RETURNS TABLE (revision bigint, body text) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    s user_state;
    until bigint;
    found bigint;
BEGIN
    SELECT * INTO s FROM user_state u WHERE u.user_id = p_user_id;
    until := p_since + greatest(2 * p_most, s.last_task_id / 8);
    RETURN QUERY
        SELECT f.revision, f.body
          FROM ((SELECT t.revision, task_shown(t) AS body
                   FROM (SELECT DISTINCT ON (l.revision) l.revision, l.task_id FROM task_log l
                          WHERE l.user_id = p_user_id AND l.revision > p_since AND l.revision <= until ORDER BY l.revision) altered,
                        LATERAL (SELECT x.* FROM task x WHERE x.user_id = p_user_id AND x.id = altered.task_id AND x.revision = altered.revision OFFSET 0) t
                  ORDER BY altered.revision LIMIT p_most)
                UNION ALL
                (SELECT t.revision, task_shown(t) FROM task t
                  WHERE t.user_id = p_user_id AND t.id > last_id_at(p_user_id, p_since) AND t.id <= last_id_at(p_user_id, until)
                    AND t.revision = t.created_revision
                  ORDER BY t.id LIMIT p_most)) f
         ORDER BY f.revision LIMIT p_most;
    GET DIAGNOSTICS found = ROW_COUNT;
    IF found < p_most AND until < s.revision THEN
        RETURN QUERY
            SELECT t.revision, task_shown(t) FROM task t
             WHERE t.user_id = p_user_id AND t.revision > until ORDER BY t.revision LIMIT p_most - found;
    END IF;
END $$;

-- What explains a conflict: the task as it is, and the fields altered since the latest of the client's revisions that is one of the task's.
CREATE FUNCTION task_conflict(p_user_id bigint, p_generation bigint, p_id bigint, p_if_match bigint[])
RETURNS TABLE (id bigint, revision bigint, body text, user_revision bigint, changed text) LANGUAGE plpgsql STABLE ROWS 1 AS $$
DECLARE
    known bigint;
BEGIN
    SELECT max(r) INTO known FROM unnest(p_if_match) r
     WHERE EXISTS (SELECT FROM task t WHERE t.user_id = p_user_id AND t.id = p_id AND t.created_revision = r)
        OR EXISTS (SELECT FROM task_log l WHERE l.user_id = p_user_id AND l.task_id = p_id AND l.revision = r);
    RETURN QUERY SELECT t.id, t.revision, task_shown(t), s.revision, CASE WHEN known IS NOT NULL THEN (
                            SELECT coalesce(json_agg(DISTINCT l.field), '[]')::text FROM task_log l
                             WHERE l.user_id = p_user_id AND l.task_id = p_id AND l.revision > known) END
                   FROM user_state s LEFT JOIN task t ON t.user_id = s.user_id AND t.id = p_id
                  WHERE s.user_id = p_user_id AND s.token_generation = p_generation;
END $$;

-- Take back everything that a user did after a revision: what existed then is as it was, what was created since goes to the trash.
-- Where it is refused half-way, or only tried, all of it is rolled back. `tasks` are the first that it altered, as JSON: up to 1000, and 4 MiB.
CREATE FUNCTION task_undo(p_user_id bigint, p_generation bigint, p_wait boolean, p_since bigint, p_expected bigint, p_most bigint, p_try boolean,
                          OUT refused text, OUT before bigint, OUT revision bigint, OUT count bigint, OUT tasks text, OUT user_revision bigint,
                          OUT kept_from bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := state_lock(p_user_id, p_generation, p_wait);
    moment timestamptz := next_moment(s);
    part record;
    shown text[] := '{}';
    shown_bytes CONSTANT bigint := 4 * 1024 * 1024;
    length bigint := 0;  -- of all that were altered, in bytes
    is_full boolean := false;
    altered text[];
BEGIN
    refused := CASE WHEN s.user_id IS NULL THEN no_state(p_wait)
                    WHEN p_since > s.revision THEN 'to_come'
                    WHEN p_since < s.kept_from THEN 'history_gone'
                    WHEN p_expected <> s.revision THEN 'not_as_expected' END;
    before := s.revision; revision := s.revision; count := 0; user_revision := s.revision; kept_from := s.kept_from;
    IF refused IS NOT NULL THEN
        RETURN;
    END IF;
    FOR part IN  -- of ids alone: what they are to be is fetched part by part, since an account may be large
        SELECT array_agg(c.id ORDER BY c.id) AS ids
          FROM (SELECT t.id, (row_number() OVER (ORDER BY t.id) - 1) / 100 AS number FROM task t WHERE t.user_id = p_user_id AND t.revision > p_since) c
         GROUP BY c.number ORDER BY c.number
    LOOP
        SELECT array_agg(w.body ORDER BY w.n), max(w.revision), count + count(*), length + coalesce(sum(octet_length(w.body) + 1), 0)
          INTO altered, user_revision, count, length
          FROM (SELECT array_agg(CASE WHEN t.created_revision > p_since THEN '{"deleted": true}'
                                      ELSE coalesce(p.fields - 'deleted_at', '{}') || jsonb_build_object('deleted',
                                               CASE WHEN p.fields ? 'deleted_at' THEN p.fields -> 'deleted_at' <> 'null' ELSE t.deleted_at IS NOT NULL END)
                                 END ORDER BY t.id) AS changes
                  FROM task t LEFT JOIN fields_at(p_user_id, p_since, part.ids[1], part.ids[cardinality(part.ids)]) p ON p.id = t.id
                 WHERE t.user_id = p_user_id AND t.id = ANY (part.ids)) c,
               LATERAL task_write(array_fill(p_user_id, ARRAY[cardinality(part.ids)]), array_fill(p_generation, ARRAY[cardinality(part.ids)]),
                                  part.ids, '{}', c.changes, '{}', true, moment, true) w
         WHERE w.revision > s.revision;
        CONTINUE WHEN altered IS NULL;
        s.revision := user_revision;
        IF count > p_most THEN
            refused := 'too_many';
            RAISE SQLSTATE 'UNDO1';
        END IF;
        IF cardinality(shown) < 1000 AND NOT is_full THEN
            shown := shown || altered;
            is_full := length > shown_bytes;
        END IF;
    END LOOP;
    revision := s.revision; user_revision := s.revision;
    SELECT string_agg(f.body, ',' ORDER BY f.n) INTO tasks
      FROM (SELECT a.n, a.body, sum(octet_length(a.body) + 1) OVER (ORDER BY a.n) AS length FROM unnest(shown) WITH ORDINALITY a (body, n)) f
     WHERE f.n <= 1000 AND f.length <= shown_bytes;
    IF p_try THEN
        RAISE SQLSTATE 'UNDO1';
    END IF;
EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
    user_revision := before;  -- nothing has happened, and what it would have been is known
END $$;
