-- Letting go of tasks for good. No revision before a purged task's last one can be shown as a whole any more: kept_from says so.

-- Remove these tasks of a user whose state is locked, with all that was logged of them. What isn't there is no matter.
CREATE FUNCTION task_purge(p_user_id bigint, p_ids bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last task;
    count bigint;
BEGIN
    SELECT * INTO last FROM task t WHERE t.user_id = p_user_id AND t.id = ANY (p_ids) ORDER BY t.revision DESC LIMIT 1;
    DELETE FROM task_log l WHERE l.user_id = p_user_id AND l.task_id = ANY (p_ids);
    DELETE FROM task t WHERE t.user_id = p_user_id AND t.id = ANY (p_ids);
    GET DIAGNOSTICS count = ROW_COUNT;
    UPDATE user_state u
       SET purged = u.purged + count, kept_from = greatest(u.kept_from, last.revision), kept_from_at = greatest(u.kept_from_at, last.updated_at)
     WHERE u.user_id = p_user_id;
    RETURN count;
END $$;

-- Remove a task, whether in the trash or not. One that isn't is deleted first, which takes a revision: nobody can go back behind it.
CREATE FUNCTION task_erase(p_user_id bigint, p_generation bigint, p_wait boolean, p_id bigint, p_if_match bigint[], p_unless jsonb,
                           OUT refused text, OUT id bigint, OUT revision bigint, OUT body text, OUT user_revision bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := state_lock(p_user_id, p_generation, p_wait);
    t task;
BEGIN
    SELECT * INTO t FROM task x WHERE x.user_id = s.user_id AND x.id = p_id;
    refused := CASE WHEN s.user_id IS NULL THEN no_state(p_wait)
                    WHEN t.id IS NULL THEN 'not_found'
                    WHEN is_unwanted(t.revision, p_unless) THEN 'unchanged'
                    WHEN t.revision <> ALL (array_remove(p_if_match, NULL)) THEN 'changed_meanwhile' END;
    id := t.id; revision := t.revision; body := task_shown(t); user_revision := s.revision;
    IF refused IS NULL THEN
        SELECT w.id, w.revision, w.body, w.user_revision INTO id, revision, body, user_revision
          FROM task_write(ARRAY[p_user_id], ARRAY[p_generation], ARRAY[p_id], '{}', ARRAY['{"deleted": true}'::jsonb], '{}', p_wait, p_anywhere => true) w;
        PERFORM task_purge(p_user_id, ARRAY[p_id]);
    END IF;
END $$;

-- Purge what has been in the trash since before a moment: p_most tasks, or fewer where their logs are long. Who is changing something is
-- left for the next time. Returns how many are gone.
CREATE FUNCTION trash_sweep(p_before timestamptz, p_most bigint, p_most_entries bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    due record;
    gone bigint := 0;
BEGIN
    FOR due IN
        SELECT old.user_id, array_agg(old.id) AS ids
          FROM (SELECT t.user_id, t.id, sum(l.entries) OVER (ORDER BY t.deleted_at, t.user_id, t.id) - l.entries AS entries_before
                  FROM (SELECT * FROM task x WHERE x.deleted_at < p_before ORDER BY x.deleted_at LIMIT p_most) t
                       CROSS JOIN LATERAL (SELECT count(*) AS entries FROM task_log e WHERE e.user_id = t.user_id AND e.task_id = t.id) l) old
         WHERE old.entries_before < p_most_entries GROUP BY old.user_id ORDER BY old.user_id
    LOOP
        PERFORM FROM user_state u WHERE u.user_id = due.user_id FOR NO KEY UPDATE SKIP LOCKED;
        IF FOUND THEN  -- some may have been brought back just now
            gone := gone + task_purge(due.user_id, ARRAY(
                SELECT t.id FROM task t WHERE t.user_id = due.user_id AND t.id = ANY (due.ids) AND t.deleted_at < p_before));
        END IF;
    END LOOP;
    RETURN gone;
END $$;
