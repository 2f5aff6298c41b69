-- The changes of one task that are more than a call of the writer.

-- Create a task, unless the same was asked for under this key already: then answer what was answered. p_digest tells the same from another
-- request. It runs under the user's lock, so of two at once the second sees what the first did.
CREATE FUNCTION task_create_once(p_user_id bigint, p_generation bigint, p_wait boolean, p_new jsonb, p_most bigint, p_key text, p_digest text,
                                 OUT refused text, OUT id bigint, OUT revision bigint, OUT body text, OUT user_revision bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := state_lock(p_user_id, p_generation, p_wait);
    known idempotency_key;
    t task;
BEGIN
    IF s.user_id IS NULL THEN  -- also where who held it has let go since: without the lock nobody knows what is known under the key
        refused := no_state(p_wait);
        RETURN;
    END IF;
    SELECT * INTO known FROM idempotency_key k WHERE k.user_id = s.user_id AND k.key = p_key;
    IF known.key IS NULL THEN
        SELECT w.refused, w.id, w.revision, w.body, w.user_revision INTO refused, id, revision, body, user_revision
          FROM task_write(ARRAY[p_user_id], ARRAY[p_generation], '{}', '{}', ARRAY[p_new], ARRAY[p_most], p_wait) w;
        IF refused IS NULL THEN
            INSERT INTO idempotency_key (user_id, key, digest, task_id, created_at) VALUES (s.user_id, p_key, p_digest, id, now());
        END IF;
        RETURN;
    END IF;
    SELECT * INTO t FROM task x WHERE x.user_id = s.user_id AND x.id = known.task_id;
    refused := CASE WHEN known.digest <> p_digest THEN 'key_reused' WHEN t.id IS NULL THEN 'purged' END;
    IF refused IS NULL AND t.revision - t.created_revision > 10000 AND NOT p_wait THEN
        refused := 'busy';  -- its log may be long: nobody else is to wait for that
    ELSIF refused IS NULL THEN
        t := task_at(t, t.created_revision);
    END IF;
    id := t.id; revision := t.revision; body := t.body; user_revision := s.revision;
END $$;

-- Bring a task out of the trash, and, with p_revision, its fields back to what they were then.
CREATE FUNCTION task_restore(p_user_id bigint, p_generation bigint, p_wait boolean, p_id bigint, p_if_match bigint[], p_unless jsonb, p_revision bigint,
                             OUT refused text, OUT id bigint, OUT revision bigint, OUT body text, OUT user_revision bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := state_lock(p_user_id, p_generation, p_wait);
    known boolean := EXISTS (SELECT FROM task t WHERE t.user_id = s.user_id AND t.id = p_id AND coalesce(t.created_revision <= p_revision, true));
BEGIN
    IF p_revision > s.revision OR NOT known THEN
        refused := CASE WHEN s.user_id IS NULL THEN no_state(p_wait) WHEN p_revision > s.revision THEN 'to_come' ELSE 'not_found' END;
        user_revision := s.revision;
        RETURN;
    END IF;
    SELECT w.refused, w.id, w.revision, w.body, w.user_revision INTO refused, id, revision, body, user_revision
      FROM task_write(ARRAY[p_user_id], ARRAY[p_generation], ARRAY[p_id], ARRAY[p_if_match::text], ARRAY[
               '{"deleted": false}' || coalesce((SELECT p.fields - 'deleted_at' FROM fields_at(p_user_id, p_revision, p_id, p_id) p), '{}')
               || CASE WHEN p_unless IS NULL THEN '{}' ELSE jsonb_build_object('unless', p_unless) END], '{}', p_wait) w;
END $$;
