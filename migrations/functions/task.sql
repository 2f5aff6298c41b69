-- The changes of one task. Each answers why it was refused (NULL: it wasn't), the task as it is then, also where it was
-- refused for changed_meanwhile, and the user's revision.

CREATE OR REPLACE FUNCTION task_create(p_user_id bigint, p_generation bigint, p_wait boolean, p_new jsonb,
                                       OUT refused text, OUT id bigint, OUT revision bigint, OUT body text, OUT user_revision bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := open_change(p_user_id, p_generation, p_wait);
    t task := jsonb_populate_record(NULL::task, p_new);
BEGIN
    IF s.user_id IS NULL THEN
        refused := no_state(p_wait);
        RETURN;
    END IF;
    t.user_id := s.user_id;
    t.id := s.last_task_id + 1;
    t.revision := s.revision + 1;
    t.created_revision := t.revision;
    t.created_at := s.changed_at;
    t.updated_at := s.changed_at;
    t.completed_at := CASE WHEN t.status = 'completed' THEN s.changed_at END;
    INSERT INTO task (user_id, id, name, description, status, completion_at, created_at, updated_at, completed_at, created_revision, revision)
    VALUES (t.user_id, t.id, t.name, t.description, t.status, t.completion_at, t.created_at, t.updated_at, t.completed_at, t.created_revision, t.revision)
    RETURNING task.body INTO body;
    UPDATE user_state u SET revision = t.revision, last_task_id = t.id, changed_at = s.changed_at WHERE u.user_id = s.user_id;
    id := t.id; revision := t.revision; user_revision := t.revision;
END $$;

-- Change the fields that the JSON object names: what is absent stays, null clears. p_if_match: the revisions that the client takes for
-- the present one, NULL for any; a change that holds already is not refused (RFC 9110, 13.1.1). Refused or not, the task as it is comes back.
CREATE OR REPLACE FUNCTION task_update(p_user_id bigint, p_generation bigint, p_wait boolean, p_id bigint, p_if_match bigint[], p_change jsonb,
                                       OUT refused text, OUT id bigint, OUT revision bigint, OUT body text, OUT user_revision bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := open_change(p_user_id, p_generation, p_wait);
    t task;
    wanted task;
BEGIN
    SELECT * INTO t FROM task x WHERE x.user_id = s.user_id AND x.id = p_id AND x.deleted_at IS NULL;
    wanted := jsonb_populate_record(t, p_change);
    refused := CASE WHEN s.user_id IS NULL THEN no_state(p_wait)
                    WHEN t.id IS NULL THEN 'not_found'
                    WHEN t.revision <> ALL (p_if_match) AND wanted IS DISTINCT FROM t THEN 'changed_meanwhile' END;
    IF refused IS NULL THEN
        t := task_save(t, wanted, s.revision + 1, s.changed_at);
    END IF;
    id := t.id; revision := t.revision; body := t.body; user_revision := close_change(s, t.revision);
END $$;

CREATE OR REPLACE FUNCTION task_delete(p_user_id bigint, p_generation bigint, p_wait boolean, p_id bigint, p_if_match bigint[],
                                       OUT refused text, OUT id bigint, OUT revision bigint, OUT body text, OUT user_revision bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := open_change(p_user_id, p_generation, p_wait);
    t task;
    wanted task;
BEGIN
    SELECT * INTO t FROM task x WHERE x.user_id = s.user_id AND x.id = p_id AND x.deleted_at IS NULL;
    refused := CASE WHEN s.user_id IS NULL THEN no_state(p_wait)
                    WHEN t.id IS NULL THEN 'not_found'
                    WHEN t.revision <> ALL (p_if_match) THEN 'changed_meanwhile' END;
    IF refused IS NULL THEN
        wanted := t;
        wanted.deleted_at := s.changed_at;
        t := task_save(t, wanted, s.revision + 1, s.changed_at);
    END IF;
    id := t.id; revision := t.revision; body := t.body; user_revision := close_change(s, t.revision);
END $$;


-- Create a task, unless the same was asked for under this key already: then it answers what it answered. p_digest tells the same from another
-- request. It runs in the transaction of the creation, under the user's lock, so of two at once the second sees what the first did.
CREATE OR REPLACE FUNCTION task_create_once(p_user_id bigint, p_generation bigint, p_wait boolean, p_new jsonb, p_key text, p_digest text,
                                            OUT refused text, OUT id bigint, OUT revision bigint, OUT body text, OUT user_revision bigint) LANGUAGE plpgsql AS $$
DECLARE
    s user_state := open_change(p_user_id, p_generation, p_wait);
    known idempotency_key;
    t task;
BEGIN
    IF s.user_id IS NULL THEN
        refused := no_state(p_wait);
        RETURN;
    END IF;
    SELECT * INTO known FROM idempotency_key k WHERE k.user_id = s.user_id AND k.key = p_key;
    IF known.key IS NULL THEN
        SELECT c.* INTO refused, id, revision, body, user_revision FROM task_create(p_user_id, p_generation, p_wait, p_new) c;
        INSERT INTO idempotency_key (user_id, key, digest, task_id, created_at) VALUES (s.user_id, p_key, p_digest, id, now());
        RETURN;
    END IF;
    SELECT * INTO t FROM task x WHERE x.user_id = s.user_id AND x.id = known.task_id;
    refused := CASE WHEN known.digest <> p_digest THEN 'key_reused' WHEN t.id IS NULL THEN 'purged' END;
    IF refused IS NULL THEN
        t := task_at(t, t.created_revision);
    END IF;
    id := t.id; revision := t.revision; body := t.body; user_revision := s.revision;
END $$;
