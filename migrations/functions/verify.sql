-- Does what is stored hang together? Of each user the log must lead from each task's creation to the task as it is.

-- What is wrong with a user's tasks and logs, and where; nothing where all is well. It only reads, sorts and counts, each row a few times.
-- One plan serves users of all sizes: without seq scans a small one never waits until the large ones' rows are read.
CREATE FUNCTION account_faults(p_user_id bigint) RETURNS TABLE (task_id bigint, revision bigint, fault text) LANGUAGE plpgsql STABLE
SET timezone = 'UTC' SET datestyle = 'ISO' SET work_mem = '64MB' SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    s user_state;
    step record;
    status text;
    by_rule text;  -- when the task was completed, if nothing says otherwise
    kept text;     -- and when it is said to be
BEGIN
    SELECT * INTO s FROM user_state u WHERE u.user_id = p_user_id;

    -- Each entry's old value is the new one of the entry before, and the present one is the last. What a task is now counts as an entry without a revision.
    RETURN QUERY
    SELECT c.task_id, c.revision, c.fault
      FROM (SELECT e.task_id, e.revision,
                   CASE WHEN lag(e.field) OVER chain IS NOT NULL AND e.old IS DISTINCT FROM lag(e.new) OVER chain AND e.field <> 'completed_at'
                        THEN CASE WHEN e.revision IS NULL THEN 'its ' || e.field || ' is not what its last entry made it'
                                  ELSE 'the old ' || e.field || ' is not what the entry before made it' END
                        WHEN lag(e.field) OVER chain IS NULL AND e.field = 'deleted_at' AND e.old IS NOT NULL
                        THEN 'it is in the trash before any entry says so'
                        WHEN e.revision IS NULL THEN NULL  -- the table's own constraints see to the present values
                        WHEN NOT log_value_fits(e.field, e.old) OR NOT log_value_fits(e.field, e.new)
                        THEN 'the entry has a ' || e.field || ' that no task can have'
                        WHEN e.field = 'deleted_at' AND e.new <> e.moment THEN 'it goes to the trash at another moment than its entry has'
                        WHEN e.old IS NOT DISTINCT FROM e.new THEN 'the entry alters nothing' END AS fault
              FROM (SELECT l.task_id, l.revision, l.field, l.old, l.new, l.changed_at::text AS moment FROM task_log l WHERE l.user_id = p_user_id
                     UNION ALL
                    SELECT t.id, NULL, f.field, f.value, NULL, NULL
                      FROM task t CROSS JOIN LATERAL unnest(task_field_names(), task_field_values(t)) f (field, value)
                     WHERE t.user_id = p_user_id) e
            WINDOW chain AS (PARTITION BY e.task_id, e.field ORDER BY e.revision NULLS LAST)) c
     WHERE c.fault IS NOT NULL;

    -- completed_at has an entry wherever the old or the new moment isn't that of the status. (0.1.0 writes none, so one may be missing.)
    FOR step IN
        SELECT l.task_id, l.revision, l.changed_at, t.created_at, bool_or(l.field = 'completed_at') AS is_said,
               max(l.old) FILTER (WHERE l.field = 'status') AS old_status, max(l.new) FILTER (WHERE l.field = 'status') AS new_status,
               max(l.old) FILTER (WHERE l.field = 'completed_at') AS old, max(l.new) FILTER (WHERE l.field = 'completed_at') AS new
          FROM task_log l JOIN task t ON t.user_id = l.user_id AND t.id = l.task_id
         WHERE l.user_id = p_user_id AND l.field IN ('status', 'completed_at') AND l.task_id IN (
                   SELECT x.task_id FROM task_log x WHERE x.user_id = p_user_id AND x.field = 'completed_at')
         GROUP BY l.task_id, l.revision, l.changed_at, t.created_at ORDER BY l.task_id, l.revision
    LOOP
        IF step.task_id IS DISTINCT FROM task_id THEN
            SELECT coalesce((SELECT l.old FROM task_log l WHERE l.user_id = p_user_id AND l.task_id = step.task_id AND l.field = 'status'
                              ORDER BY l.revision LIMIT 1), t.status) INTO status
              FROM task t WHERE t.user_id = p_user_id AND t.id = step.task_id;
            by_rule := CASE status WHEN 'completed' THEN step.created_at::text END;
            kept := CASE WHEN step.is_said THEN step.old ELSE by_rule END;
        END IF;
        task_id := step.task_id; revision := step.revision;
        fault := CASE WHEN step.is_said AND step.old IS DISTINCT FROM kept THEN 'the old completed_at is not what it was'
                      WHEN step.is_said AND step.new_status <> 'completed' AND step.old = by_rule THEN 'its entry of completed_at says nothing new'
                      WHEN (kept IS NULL) <> (status <> 'completed') THEN 'its completed_at is not as its status is' END;
        IF step.new_status IS NOT NULL THEN
            status := step.new_status;
            by_rule := CASE status WHEN 'completed' THEN step.changed_at::text END;
        END IF;
        fault := coalesce(fault, CASE WHEN NOT step.is_said THEN NULL
                                      WHEN (step.new IS NULL) <> (status <> 'completed') THEN 'its completed_at is not as its status is'
                                      WHEN step.new_status = 'completed' AND step.new = by_rule THEN 'its entry of completed_at says nothing new' END);
        kept := CASE WHEN step.is_said THEN step.new ELSE by_rule END;
        IF fault IS NOT NULL THEN
            RETURN NEXT;
        END IF;
    END LOOP;

    -- Each revision up to the user's, from kept_from on, is one change of one task, and their moments ascend; only those of one request, which
    -- go by the tasks' ids, share one. The revision of kept_from, which went with its task, has its place among them; the one to come closes the row.
    RETURN QUERY
    SELECT CASE WHEN r.fault = 'it is missing' THEN NULL ELSE r.task_id END,
           CASE WHEN r.fault = 'it is missing' THEN greatest(r.last, s.kept_from) + 1 ELSE r.revision END, r.fault
      FROM (SELECT c.task_id, c.revision, c.creates, coalesce(lag(c.revision) OVER line, 0) AS last,
                   CASE WHEN c.task_id IS NOT NULL AND (c.revision < 1 OR c.revision > s.revision) THEN 'the user never had this revision'
                        WHEN c.revision = lag(c.revision) OVER line AND c.creates IS NULL THEN 'it is said to be purged, and is there'
                        WHEN c.revision = lag(c.revision) OVER line AND c.task_id <> lag(c.task_id) OVER line THEN 'it is a change of two tasks'
                        WHEN c.revision = lag(c.revision) OVER line AND lag(c.creates) OVER line THEN 'it creates the task and changes it'
                        WHEN c.revision = lag(c.revision) OVER line AND c.moment <> lag(c.moment) OVER line THEN 'it has two moments'
                        WHEN c.revision > greatest(coalesce(lag(c.revision) OVER line, 0), s.kept_from) + 1 THEN 'it is missing'
                        WHEN c.moment < lag(c.moment) OVER line THEN 'it is earlier than the revision before'
                        WHEN c.revision > lag(c.revision) OVER line AND c.moment = lag(c.moment) OVER line AND c.task_id <= lag(c.task_id) OVER line
                        THEN 'it has the moment of the revision before, and is not of the same request'
                        WHEN c.revision = s.revision AND c.moment <> s.changed_at THEN 'it has another moment than the user''s last change' END AS fault
              FROM (SELECT t.id AS task_id, t.created_revision AS revision, t.created_at AS moment, true AS creates FROM task t WHERE t.user_id = p_user_id
                     UNION ALL
                    SELECT l.task_id, l.revision, l.changed_at, false FROM task_log l WHERE l.user_id = p_user_id
                     UNION ALL
                    SELECT NULL, s.kept_from, s.kept_from_at, NULL WHERE s.kept_from > 0
                     UNION ALL
                    SELECT NULL, s.revision + 1, 'infinity', false) c
            WINDOW line AS (ORDER BY c.revision, c.task_id, c.creates DESC)) r
     WHERE r.fault = 'it is missing' OR (r.fault IS NOT NULL AND (r.task_id IS NOT NULL OR r.creates IS NULL));

    -- A task's own numbers and moments follow from its log.
    RETURN QUERY
    SELECT f.id, f.revision, f.fault
      FROM (SELECT t.id, t.revision,
                   CASE WHEN t.id < 1 OR t.id > s.last_task_id THEN 'the user never had this task'
                        WHEN t.created_revision <= lag(t.created_revision) OVER (ORDER BY t.id) THEN 'it was created before a task of a lower id'
                        WHEN l.first <= t.created_revision THEN 'it was changed before its creation'
                        WHEN t.revision <> coalesce(l.last, t.created_revision) THEN 'its revision is not that of its last change'
                        WHEN t.updated_at <> coalesce(l.changed_at, t.created_at) THEN 'its updated_at is not the moment of its last change'
                        WHEN t.completed_at::text IS DISTINCT FROM CASE
                                 WHEN l.said_at >= coalesce(l.status_revision, 0)
                                 THEN (SELECT x.new FROM task_log x WHERE x.user_id = t.user_id AND x.revision = l.said_at AND x.field = 'completed_at')
                                 WHEN t.status = 'completed' THEN coalesce(l.status_at, t.completed_at)::text END
                        THEN 'its completed_at is not when it was completed'
                        WHEN t.look = task_look() AND t.body <> task_json(t) THEN 'it is kept otherwise than it looks' END AS fault
              FROM task t CROSS JOIN LATERAL (
                   SELECT min(x.revision) AS first, max(x.revision) AS last, max(x.changed_at) AS changed_at,
                          max(x.changed_at) FILTER (WHERE x.field = 'status') AS status_at,
                          max(x.revision) FILTER (WHERE x.field = 'status') AS status_revision,
                          max(x.revision) FILTER (WHERE x.field = 'completed_at') AS said_at
                     FROM task_log x WHERE x.user_id = t.user_id AND x.task_id = t.id) l
             WHERE t.user_id = p_user_id) f
     WHERE f.fault IS NOT NULL;

    -- What the user's state says. Ids count up without a gap, so what isn't there was purged; and what was has taken two revisions at least.
    RETURN QUERY
    SELECT NULL::bigint, NULL::bigint, f.fault
      FROM (SELECT (SELECT count(*) FROM task t WHERE t.user_id = p_user_id) AS tasks,
                   (SELECT count(*) FROM task_log l WHERE l.user_id = p_user_id AND l.revision <= s.log_counted) AS entries,
                   (SELECT count(*) FROM task t WHERE t.user_id = p_user_id AND t.created_revision <= s.kept_from) AS creations,
                   (SELECT count(DISTINCT l.revision) FROM task_log l WHERE l.user_id = p_user_id AND l.revision <= s.kept_from) AS changes) n
           CROSS JOIN LATERAL unnest(ARRAY[
               CASE WHEN n.tasks + s.purged <> s.last_task_id OR s.purged < 0
                    THEN 'there are ' || n.tasks || ' tasks of ' || s.last_task_id || ', and ' || s.purged || ' were purged' END,
               CASE WHEN s.kept_from > s.revision THEN 'its history is kept from revision ' || s.kept_from || ' on, which the user never had'
                    WHEN n.creations + n.changes + 2 * s.purged > s.kept_from OR (s.kept_from = 0) <> (s.purged = 0)
                    THEN 'its history is kept from revision ' || s.kept_from || ' on, and ' || s.purged || ' tasks were purged' END,
               CASE WHEN s.kept_from_at > s.changed_at THEN 'its history is kept from a moment on that is later than its last change' END,
               CASE WHEN s.log_counted NOT BETWEEN 0 AND s.revision OR s.log_entries <> n.entries
                    THEN 'there are ' || n.entries || ' log entries up to revision ' || s.log_counted || ', and ' || s.log_entries || ' were counted' END,
               (SELECT 'an Idempotency-Key is of task ' || k.task_id || ', which the user never had' FROM idempotency_key k
                 WHERE k.user_id = p_user_id AND k.task_id NOT BETWEEN 1 AND s.last_task_id ORDER BY k.task_id LIMIT 1)]) f (fault)
     WHERE f.fault IS NOT NULL;
END $$;
