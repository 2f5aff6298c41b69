-- What goes by itself when its time is over. Each function removes a part of what is past, and returns how many rows; 0 where nothing is.
-- What others hold is left for the next time, so none waits for anybody.

-- Remove the rows of closed accounts, from the outermost on: a task is gone only after its log, a user after everything else. Without
-- seq scans, which one plan for users of all sizes could come to.
CREATE FUNCTION account_sweep(p_most bigint) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
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

-- Remove the answers that nobody will ask for again, imports that were given up, places of streams that have long ended, and codes that are not
-- good any more.
CREATE FUNCTION leftover_sweep(p_most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    keys bigint;
    lines bigint;
    places bigint;
    codes bigint;
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
    DELETE FROM one_time_code WHERE ctid = ANY (ARRAY(
        SELECT x.ctid FROM one_time_code x WHERE x.expires_at < now() ORDER BY x.expires_at LIMIT p_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS codes = ROW_COUNT;
    RETURN keys + lines + places + codes;
END $$;

-- Make the bodies of older looks anew, in the next p_pages pages of the table; return how many pages that were, 0 where none is left, or somebody
-- holds a user of one: that page is for the next time. When some were found all begins anew, as workers of an older version may still write them.
-- No revision is taken, since nothing of a task changes.
CREATE FUNCTION look_sweep(p_pages bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    pages bigint := pg_relation_size('task') / current_setting('block_size')::bigint;
    page bigint;
    number_found bigint;
    users bigint[];
BEGIN
    IF task_look() = 1 THEN
        RETURN 0;  -- there was none before
    END IF;
    INSERT INTO look_refreshed (look, next_page, found) VALUES (task_look(), 0, 0) ON CONFLICT DO NOTHING;
    SELECT r.next_page, r.found INTO page, number_found FROM look_refreshed r WHERE r.look = task_look() FOR UPDATE;
    IF page >= pages THEN
        UPDATE look_refreshed r SET next_page = 0, found = 0 WHERE r.look = task_look() AND number_found > 0;
        RETURN 0;
    END IF;
    p_pages := least(p_pages, pages - page);
    SELECT array_agg(DISTINCT t.user_id) INTO users FROM task t
     WHERE t.ctid >= format('(%s,0)', page)::tid AND t.ctid < format('(%s,0)', page + p_pages)::tid AND t.look < task_look();
    IF (SELECT count(*) FROM (SELECT FROM user_state u WHERE u.user_id = ANY (users) FOR NO KEY UPDATE SKIP LOCKED) l) < cardinality(users) THEN
        RETURN 0;
    END IF;
    UPDATE task t SET look = task_look(), body = task_json(t)
     WHERE t.ctid >= format('(%s,0)', page)::tid AND t.ctid < format('(%s,0)', page + p_pages)::tid AND t.look < task_look() AND t.user_id = ANY (users);
    GET DIAGNOSTICS number_found = ROW_COUNT;
    UPDATE look_refreshed r SET next_page = page + p_pages, found = r.found + number_found WHERE r.look = task_look();
    RETURN p_pages;
END $$;

-- Remove the functions of versions that nobody has run for so long; return how many versions that were. Each version says that it is running.
CREATE FUNCTION functions_sweep(p_lifetime interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    version text;
    gone bigint := 0;
BEGIN
    INSERT INTO functions_used (name, used_at) SELECT n.nspname, now() FROM pg_namespace n WHERE n.nspname ~ '^functions_[0-9a-f]{8}$' ON CONFLICT DO NOTHING;
    UPDATE functions_used f SET used_at = now() WHERE f.name = current_schema() AND f.used_at < now() - interval '1 hour';
    FOR version IN SELECT f.name FROM functions_used f WHERE f.used_at < now() - p_lifetime AND f.name <> current_schema() LOOP
        EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', version);
        DELETE FROM functions_used f WHERE f.name = version;
        gone := gone + 1;
    END LOOP;
    RETURN gone;
END $$;
