-- Letting go of tasks for good. No revision before a purged task's last one can be shown as a whole any more: kept_from says so.

-- Remove these tasks of a user whose state is locked, with all that was logged of them. What isn't there is no matter.
CREATE OR REPLACE FUNCTION task_purge(p_user_id bigint, p_ids bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE FUNCTION task_erase(p_user_id bigint, p_generation bigint, p_wait boolean, p_id bigint, p_if_match bigint[],
                                      OUT refused text, OUT id bigint, OUT revision bigint, OUT body text, OUT user_revision bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := open_change(p_user_id, p_generation, p_wait);
    t task;
    wanted task;
BEGIN
    SELECT * INTO t FROM task x WHERE x.user_id = s.user_id AND x.id = p_id;
    refused := CASE WHEN s.user_id IS NULL THEN no_state(p_wait)
                    WHEN t.id IS NULL THEN 'not_found'
                    WHEN t.revision <> ALL (p_if_match) THEN 'changed_meanwhile' END;
    IF refused IS NULL THEN
        wanted := t;
        wanted.deleted_at := coalesce(t.deleted_at, s.changed_at);
        t := task_save(t, wanted, s.revision + 1, s.changed_at);
    END IF;
    id := t.id; revision := t.revision; body := t.body; user_revision := close_change(s, t.revision);
    IF refused IS NULL THEN
        PERFORM task_purge(s.user_id, ARRAY[t.id]);
    END IF;
END $$;
