-- The one writer of tasks and their logs. Beside it an account's import puts down a log as it was (transfer.sql), and housekeeping makes bodies anew.

-- Lock a user's state and return it; all NULL where the user is gone or the token's generation is past and, unless p_wait, where another
-- transaction holds it.
CREATE FUNCTION state_lock(p_user_id bigint, p_generation bigint, p_wait boolean) RETURNS user_state LANGUAGE plpgsql AS $$
DECLARE
    s user_state;
BEGIN
    IF p_wait THEN
        SELECT * INTO s FROM user_state u WHERE u.user_id = p_user_id AND u.token_generation = p_generation FOR NO KEY UPDATE;
    ELSE
        SELECT * INTO s FROM user_state u WHERE u.user_id = p_user_id AND u.token_generation = p_generation FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    RETURN s;
END $$;

-- Why a change without a state is refused: busy is to be sent again, with p_wait, and then knows.
CREATE FUNCTION no_state(p_wait boolean) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE WHEN p_wait THEN 'unauthorized' ELSE 'busy' END;

-- The moment of a user's next change: later than every change before it, also when the clock stepped back. To be asked under the state's lock.
CREATE FUNCTION next_moment(s user_state) RETURNS timestamptz LANGUAGE sql VOLATILE
RETURN greatest(clock_timestamp(), s.changed_at + interval '1 microsecond');

-- What a task is after a change to what is wanted, with which its user comes to this state; `old` is all NULL where it is created.
CREATE FUNCTION task_changed(old task, wanted task, s user_state) RETURNS task LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF old.id IS NULL THEN
        wanted.user_id := s.user_id;
        wanted.id := s.last_task_id;
        wanted.created_at := s.changed_at;
        wanted.created_revision := s.revision;
    END IF;
    wanted.revision := s.revision;
    wanted.updated_at := s.changed_at;
    wanted.look := task_look();
    wanted.body := task_json(wanted);
    RETURN wanted;
END $$;

-- When a task was completed, by the rule: the status became so at that moment.
CREATE FUNCTION completed_by_rule(t task) RETURNS timestamptz LANGUAGE sql STABLE
RETURN CASE WHEN t.status = 'completed' THEN coalesce((
           SELECT l.changed_at FROM task_log l
            WHERE l.user_id = t.user_id AND l.task_id = t.id AND l.revision <= t.revision AND l.field = 'status'
            ORDER BY l.revision DESC LIMIT 1), t.created_at) END;

-- Put new tasks into the table. The columns are named: those that a later version adds, while this one still runs, have their defaults.
CREATE FUNCTION task_insert(p_tasks task[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO task (user_id, id, name, description, status, completion_at, created_at, updated_at, completed_at, deleted_at, created_revision,
                      revision, look, body, uid)
    SELECT t.user_id, t.id, t.name, t.description, t.status, t.completion_at, t.created_at, t.updated_at, t.completed_at, t.deleted_at, t.created_revision,
           t.revision, t.look, t.body, t.uid
      FROM unnest(p_tasks) t;
END $$;

-- Whether a revision is one of those at which a change is not wanted: an array of them, or true for any; NULL where there are none.
CREATE FUNCTION is_unwanted(p_revision bigint, p_unless jsonb) RETURNS boolean LANGUAGE sql STABLE
RETURN p_unless = 'true' OR p_unless @> to_jsonb(p_revision);

CREATE TYPE task_change AS (
    old       task,
    new       task,
    is_last   boolean,      -- of its task in this call
    status_at timestamptz,  -- when the status was changed last, if in this call
    says_when boolean       -- it was completed, or is, at another moment than the rule gives
);

-- What the log has of changes.
CREATE FUNCTION log_of(p_changes task_change[])
RETURNS TABLE (user_id bigint, task_id bigint, revision bigint, field text, old text, new text, changed_at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT (c.new).user_id, (c.new).id, (c.new).revision, f.field, f.old, f.new, (c.new).updated_at
      FROM unnest(p_changes) c CROSS JOIN LATERAL unnest(task_field_names(), task_field_values(c.old), task_field_values(c.new)) f (field, old, new)
     WHERE f.old IS DISTINCT FROM f.new
       AND (f.field <> 'completed_at' OR c.says_when)
$$;

-- A user's state, whose lock is held, with the log counted up to its revision: what is stored, and what is still to be, of these changes. A long log
-- that nobody has counted yet is counted part by part, so that no change takes long; until then it counts for less than it is.
CREATE FUNCTION with_log_counted(s user_state, p_changes task_change[]) RETURNS user_state LANGUAGE plpgsql AS $$
DECLARE
    last bigint := least(s.revision, s.log_counted + 50000);
BEGIN
    s.log_entries := s.log_entries
                   + (SELECT count(*) FROM task_log l WHERE l.user_id = s.user_id AND l.revision > s.log_counted AND l.revision <= last)
                   + (SELECT count(*) FROM log_of(p_changes) l WHERE l.user_id = s.user_id AND l.revision > s.log_counted AND l.revision <= last);
    s.log_counted := last;
    RETURN s;
END $$;

-- Do many changes of many users' tasks in one step, each a row and, but for a creation, a log entry for each field that differs.
-- Change n: whose it is (user, and token's generation); of which task (NULL: of a new one); the revisions that the client takes for the present
-- one, as the text of an array (NULL: any); and what the task is to be, as an object: fields that are absent stay, null clears; "deleted": true is
-- into the trash, false out of it; "unless": the revisions at which it isn't to be done, not even where it changes nothing. What is in the trash
-- can be changed by "deleted": false alone, or p_anywhere. All have p_moment, or each one of its own. A task is completed at the moment at which
-- its status becomes so, unless completed_at says another: then the log has an entry of it, and another one where such a moment ends.
-- p_most: how many tasks the user may have after a creation, or log entries after a change (NULL: any number). Until a log may have as many it is
-- enough to know that a revision has an entry for each field at most; then it is counted, and now and then before, so that this is never much.
-- Each answers why it was refused (NULL: it wasn't), the task as it is then, and the user's revision. What is so already isn't written, and needs
-- no present revision (RFC 9110, 13.1.1). Busy is to be sent again: its user is held by another transaction, for which only p_wait waits. Changes
-- of one user happen in their order, each to what those before it have left.
-- One plan serves all sizes of table and batch: tasks are looked up, whatever the planner believes of a table that it has not analysed yet.
CREATE FUNCTION task_write(p_users bigint[], p_generations bigint[], p_ids bigint[], p_if_match text[], p_changes jsonb[], p_most bigint[],
                           p_wait boolean, p_moment timestamptz DEFAULT NULL, p_anywhere boolean DEFAULT false)
RETURNS TABLE (n bigint, refused text, id bigint, revision bigint, body text, user_revision bigint) LANGUAGE plpgsql ROWS 10
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    states user_state[];
    clock timestamptz;
    m record;
    s user_state;
    moment timestamptz;
    key text;
    earlier int;
    old task;
    wanted task;
    differs boolean;
    after task;
    created task[];
    changed task_change[];
    uncounted CONSTANT bigint := 1000;  -- revisions, at most
    entries bigint;
    is_counted boolean := false;
    touched text[];
    status_at timestamptz;
    says_when boolean;
BEGIN
    IF p_wait THEN
        SELECT array_agg(l.u) INTO states FROM (
            SELECT u FROM user_state u WHERE u.user_id = ANY (p_users) AND u.token_generation = ANY (p_generations) FOR NO KEY UPDATE) l;
    ELSE
        SELECT array_agg(l.u) INTO states FROM (
            SELECT u FROM user_state u WHERE u.user_id = ANY (p_users) AND u.token_generation = ANY (p_generations) FOR NO KEY UPDATE SKIP LOCKED) l;
    END IF;
    clock := clock_timestamp();  -- now() would precede the wait
    FOR m IN  -- a statement of its own: it sees what those have done who were waited for
        SELECT a.n, a.id, a.if_match::bigint[] AS if_match, a.change, a.most, s.place, t.old
          FROM unnest(p_users, p_generations, p_ids, p_if_match, p_changes, p_most)
                    WITH ORDINALITY a (user_id, generation, id, if_match, change, most, n)
               LEFT JOIN (SELECT u.user_id, u.token_generation, row_number() OVER () AS place FROM unnest(states) u) s
                      ON s.user_id = a.user_id AND s.token_generation = a.generation
               LEFT JOIN LATERAL (
                   SELECT o AS old FROM task o
                    WHERE o.user_id = s.user_id AND o.id = a.id AND (o.deleted_at IS NULL OR p_anywhere OR a.change @> '{"deleted": false}')
                    LIMIT 1) t ON true  -- kept apart by its LIMIT: in a join, all of a user's tasks may be read for each
         ORDER BY a.n
    LOOP
        n := m.n; refused := NULL; user_revision := NULL; old := m.old;
        IF m.place IS NULL THEN
            refused := no_state(p_wait);
            after := NULL;
        ELSE
            s := states[m.place];
            key := s.user_id || '/' || m.id;
            earlier := array_position(touched, key);
            IF earlier IS NOT NULL THEN
                old := changed[earlier].new;
                IF old.deleted_at IS NOT NULL AND NOT (p_anywhere OR m.change @> '{"deleted": false}') THEN
                    old := NULL;
                END IF;
            END IF;
            moment := coalesce(p_moment, greatest(clock, s.changed_at + interval '1 microsecond'));
            wanted := jsonb_populate_record(old, CASE WHEN m.id IS NULL THEN task_defaults() || m.change ELSE m.change END);
            IF m.change ? 'deleted' THEN
                wanted.deleted_at := CASE WHEN (m.change -> 'deleted')::boolean THEN coalesce(old.deleted_at, moment) END;
            END IF;
            wanted.completed_at := CASE WHEN wanted.status = 'completed' THEN coalesce(wanted.completed_at, old.completed_at, moment) END;
            differs := m.id IS NULL OR task_field_values(wanted) IS DISTINCT FROM task_field_values(old);  -- in what is logged, and only that
            refused := CASE WHEN m.id IS NULL THEN CASE WHEN s.last_task_id - s.purged >= m.most THEN 'too_many_tasks' END
                            WHEN old.id IS NULL THEN 'not_found'
                            WHEN m.change ? 'unless' AND is_unwanted(old.revision, m.change -> 'unless') THEN 'unchanged'
                            WHEN differs AND old.revision <> ALL (array_remove(m.if_match, NULL)) THEN 'changed_meanwhile' END;
            after := old;
            IF differs AND refused IS NULL THEN
                s.revision := s.revision + 1;
                s.last_task_id := s.last_task_id + (m.id IS NULL)::int;
                s.changed_at := moment;
                after := task_changed(old, wanted, s);
                IF m.id IS NULL THEN
                    created := created || after;
                ELSE
                    status_at := CASE WHEN earlier IS NOT NULL THEN changed[earlier].status_at END;
                    IF old.status = 'completed' AND after.status <> 'completed' THEN
                        says_when := old.completed_at <> coalesce(status_at, completed_by_rule(old));
                    ELSE
                        says_when := old.status = 'completed' OR after.completed_at <> moment;  -- of moments that differ one isn't the rule's
                    END IF;
                    IF after.status <> old.status THEN
                        status_at := moment;
                    END IF;
                    IF s.revision - s.log_counted > least(uncounted, (m.most - s.log_entries) / cardinality(task_field_names())) THEN
                        is_counted := true;
                        states[m.place] := with_log_counted(states[m.place], changed);
                        entries := (states[m.place]).log_entries
                                 + (SELECT count(*) FROM log_of(ARRAY[ROW(old, after, true, status_at, says_when)::task_change]));
                        IF entries > m.most THEN
                            refused := 'too_many_entries'; after := old; s := states[m.place];
                        ELSE
                            s.log_entries := (states[m.place]).log_entries; s.log_counted := (states[m.place]).log_counted;
                        END IF;
                    END IF;
                    IF refused IS NULL THEN
                        IF earlier IS NOT NULL THEN
                            changed[earlier].is_last := false;
                            touched[earlier] := '';
                        END IF;
                        changed := changed || ROW(old, after, true, status_at, says_when)::task_change;
                        touched := touched || key;
                    END IF;
                END IF;
                states[m.place] := s;
            END IF;
            user_revision := s.revision;
        END IF;
        id := after.id; revision := after.revision; body := task_shown(after);
        RETURN NEXT;
    END LOOP;
    IF created IS NOT NULL THEN
        PERFORM task_insert(created);
    END IF;
    IF changed IS NOT NULL THEN
        UPDATE task t
           SET (name, description, status, completion_at, completed_at, deleted_at, revision, updated_at, look, body)
             = ROW ((c.new).name, (c.new).description, (c.new).status, (c.new).completion_at, (c.new).completed_at, (c.new).deleted_at,
                    (c.new).revision, (c.new).updated_at, (c.new).look, (c.new).body)
          FROM unnest(changed) c
         WHERE c.is_last AND t.user_id = (c.new).user_id AND t.id = (c.new).id;
        INSERT INTO task_log (user_id, task_id, revision, field, old, new, changed_at)
        SELECT l.user_id, l.task_id, l.revision, l.field, l.old, l.new, l.changed_at FROM log_of(changed) l;
    END IF;
    IF created IS NOT NULL OR changed IS NOT NULL THEN
        UPDATE user_state u SET revision = s.revision, last_task_id = s.last_task_id, changed_at = s.changed_at
          FROM unnest(states) s
         WHERE u.user_id = s.user_id AND s.revision > u.revision;
    END IF;
    IF is_counted THEN
        UPDATE user_state u SET log_entries = s.log_entries, log_counted = s.log_counted
          FROM unnest(states) s
         WHERE u.user_id = s.user_id AND s.log_counted > u.log_counted;
    END IF;
END $$;
