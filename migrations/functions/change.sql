-- The steps of a change: open_change, then the task that is wanted, then task_save and close_change.

-- Lock the user's state and give it, with the moment of the change: later than every change before it, also when
-- the clock stepped back. All NULL where the user is gone or the token's generation is past, and, unless p_wait,
-- where another transaction holds it.
CREATE OR REPLACE FUNCTION open_change(p_user_id bigint, p_generation bigint, p_wait boolean) RETURNS user_state LANGUAGE plpgsql AS $$
DECLARE
    s user_state;
BEGIN
    IF p_wait THEN
        SELECT * INTO s FROM user_state u WHERE u.user_id = p_user_id AND u.token_generation = p_generation FOR NO KEY UPDATE;
    ELSE
        SELECT * INTO s FROM user_state u WHERE u.user_id = p_user_id AND u.token_generation = p_generation FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    s.changed_at := greatest(clock_timestamp(), s.changed_at + interval '1 microsecond');  -- now() would precede the wait
    RETURN s;
END $$;

-- Why a change without a state is refused: busy is to be sent again, with p_wait, and then knows.
CREATE OR REPLACE FUNCTION no_state(p_wait boolean) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE WHEN p_wait THEN 'unauthorized' ELSE 'busy' END;

-- Make a task what is wanted: the row, and a log entry for each field that differs. After creation nothing else
-- writes either. A task that is so already keeps its revision.
CREATE OR REPLACE FUNCTION task_save(old task, wanted task, p_revision bigint, p_moment timestamptz) RETURNS task LANGUAGE plpgsql AS $$
BEGIN
    IF wanted IS NOT DISTINCT FROM old THEN
        RETURN old;
    END IF;
    IF wanted.status <> old.status THEN
        wanted.completed_at := CASE WHEN wanted.status = 'completed' THEN p_moment END;
    END IF;
    wanted.revision := p_revision;
    wanted.updated_at := p_moment;
    UPDATE task t
       SET (name, description, status, completion_at, completed_at, deleted_at, revision, updated_at) = ROW (wanted.name, wanted.description,
           wanted.status, wanted.completion_at, wanted.completed_at, wanted.deleted_at, wanted.revision, wanted.updated_at)
     WHERE t.user_id = old.user_id AND t.id = old.id
 RETURNING t.body INTO wanted.body;
    INSERT INTO task_log (user_id, task_id, revision, field, old, new, changed_at)
    SELECT old.user_id, old.id, p_revision, f.field, f.old, f.new, p_moment
      FROM (VALUES ('name',          old.name,                wanted.name),
                   ('description',   old.description,         wanted.description),
                   ('status',        old.status,              wanted.status),
                   ('completion_at', old.completion_at::text, wanted.completion_at::text),
                   ('deleted_at',    old.deleted_at::text,    wanted.deleted_at::text)) f (field, old, new)
     WHERE f.old IS DISTINCT FROM f.new;
    RETURN wanted;
END $$;

-- Put down how far a change has come; nothing where it changed nothing.
CREATE OR REPLACE FUNCTION close_change(s user_state, p_revision bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF p_revision > s.revision THEN
        UPDATE user_state u SET revision = p_revision, changed_at = s.changed_at WHERE u.user_id = s.user_id;
    END IF;
    RETURN greatest(s.revision, p_revision);
END $$;
