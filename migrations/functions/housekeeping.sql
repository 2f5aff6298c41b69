-- What goes by itself when its time is over. Each function removes a part of what is past, and gives how many rows; 0 where nothing is.
-- What others hold is left for the next time, so none waits for anybody.

-- For workers of the release before; the next one drops it.
CREATE OR REPLACE FUNCTION sweep(p_trash_lifetime_seconds bigint, p_most_tasks bigint, p_most_rows bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(7461737) THEN  -- any number that no other program takes in this database
        RETURN 0;
    END IF;
    RETURN account_sweep(p_most_rows)
         + leftover_sweep(p_most_rows)
         + trash_sweep(now() - make_interval(secs => p_trash_lifetime_seconds), p_most_tasks, p_most_rows);  -- last: it holds users who are there
END $$;

-- Remove the rows of closed accounts, from the outermost on: a task is gone only after its log, a user after everything else. Without
-- seq scans, which one plan for users of all sizes could come to.
CREATE OR REPLACE FUNCTION account_sweep(p_most bigint) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    closed bigint;
    most bigint := p_most;  -- how many more
    n bigint;
BEGIN
    FOR closed IN SELECT u.user_id FROM user_state u WHERE u.token_generation < 0 ORDER BY u.user_id FOR UPDATE SKIP LOCKED LOOP
        DELETE FROM task_log WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM task_log x WHERE x.user_id = closed LIMIT most));
        GET DIAGNOSTICS n = ROW_COUNT;
        most := most - n;
        DELETE FROM task WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM task x WHERE x.user_id = closed LIMIT most));
        GET DIAGNOSTICS n = ROW_COUNT;
        most := most - n;
        DELETE FROM import_row WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM import_row x WHERE x.user_id = closed LIMIT most));
        GET DIAGNOSTICS n = ROW_COUNT;
        most := most - n;
        DELETE FROM idempotency_key WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM idempotency_key x WHERE x.user_id = closed LIMIT most));
        GET DIAGNOSTICS n = ROW_COUNT;
        most := most - n;
        EXIT WHEN most <= 0;
        DELETE FROM event_stream x WHERE x.user_id = closed;
        DELETE FROM user_state u WHERE u.user_id = closed;
        DELETE FROM users u WHERE u.id = closed;
        most := most - 1;
    END LOOP;
    RETURN p_most - most;
END $$;

-- Remove the answers that nobody will ask for again, imports that were given up, and places of streams that have long ended.
CREATE OR REPLACE FUNCTION leftover_sweep(p_most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    keys bigint;
    lines bigint;
    places bigint;
BEGIN
    DELETE FROM idempotency_key WHERE ctid = ANY (ARRAY(
        SELECT x.ctid FROM idempotency_key x WHERE x.created_at < now() - interval '24 hours' ORDER BY x.created_at LIMIT p_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS keys = ROW_COUNT;
    DELETE FROM import_row WHERE ctid = ANY (ARRAY(
        SELECT x.ctid FROM import_row x WHERE x.created_at < now() - interval '1 hour' ORDER BY x.created_at LIMIT p_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS lines = ROW_COUNT;
    DELETE FROM event_stream WHERE ctid = ANY (ARRAY(
        SELECT x.ctid FROM event_stream x WHERE x.held_until < now() - interval '1 hour' LIMIT p_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS places = ROW_COUNT;
    RETURN keys + lines + places;
END $$;
