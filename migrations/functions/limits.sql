-- Exact over all workers and hosts: who wants to count under a key waits for its row, and all go by this server's clock.

-- Those of these moments that there have been, in order. Where the clock has stepped back, others lie ahead: they count for nothing, as it isn't
-- known when they were, and who waited for them would wait for as long as the step.
CREATE FUNCTION moments_past(p_moments timestamptz[]) RETURNS timestamptz[] LANGUAGE sql AS $$
    SELECT coalesce(array_agg(moment ORDER BY moment), '{}') FROM unnest(p_moments) moment WHERE moment <= clock_timestamp()
$$;

-- Count one more under a key, if fewer than p_most were within the last p_seconds, whenever one looks: give the last p_most moments, this one
-- at their end. NULL where there were as many; the row is locked then, too. What is older than those decides nothing, so it isn't kept.
CREATE FUNCTION rate_limit_hit(p_key bytea, p_most bigint, p_seconds double precision) RETURNS timestamptz[] LANGUAGE plpgsql AS $$
DECLARE
    span interval := make_interval(secs => p_seconds);
    counted timestamptz[];
BEGIN
    INSERT INTO rate_limit AS r (key, hits, ends_at) VALUES (p_key, ARRAY[clock_timestamp()], clock_timestamp() + span)
    ON CONFLICT (key) DO UPDATE
       SET hits = (SELECT (past || clock_timestamp())[greatest(cardinality(past) + 2 - p_most, 1):] FROM moments_past(r.hits) past),
           ends_at = clock_timestamp() + span
     WHERE (SELECT coalesce(past[cardinality(past) + 1 - p_most] <= clock_timestamp() - span, true) FROM moments_past(r.hits) past)
    RETURNING r.hits INTO counted;
    RETURN counted;
END $$;

-- Begin an attempt: count it under each of the keys, or under none. The third is the login's: not where p_pair, of login and address, is known,
-- that is, where the account that has the login now (p_login_key) has been got into from there.
-- A row for each key under which it counts now, with what is left and for how long; last, where a key refuses it, a row without a moment.
CREATE FUNCTION attempt_begin(p_keys bytea[], p_most bigint[], p_seconds double precision[], p_pair bytea, p_login_key text,
                              p_known_seconds double precision)
RETURNS TABLE (place int, remaining bigint, seconds double precision, moment timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    counted timestamptz[];
    span interval;
BEGIN
    FOR n IN 1 .. cardinality(p_keys) LOOP  -- address, pair, login: always in this order, so that no two wait for each other
        EXIT WHEN n = 3 AND EXISTS (
            SELECT FROM known_address k JOIN users u ON u.login_key = p_login_key AND (u.created_at <= k.succeeded_at OR u.created_at > clock_timestamp())
             WHERE k.key = p_pair AND k.succeeded_at > clock_timestamp() - make_interval(secs => p_known_seconds));
        place := n;
        span := make_interval(secs => p_seconds[n]);
        counted := rate_limit_hit(p_keys[n], p_most[n], p_seconds[n]);
        IF counted IS NULL THEN
            UPDATE rate_limit r SET hits = r.hits[:cardinality(r.hits) - 1] WHERE r.key = ANY (p_keys[:n - 1]);
            SELECT 0, extract(epoch FROM past[cardinality(past) + 1 - p_most[n]] + span - clock_timestamp()), NULL
              INTO remaining, seconds, moment FROM rate_limit r, moments_past(r.hits) past WHERE r.key = p_keys[n];
            RETURN NEXT;
            RETURN;
        END IF;
        SELECT p_most[n] - count(*), extract(epoch FROM min(hit) + span - clock_timestamp()), max(hit)
          INTO remaining, seconds, moment FROM unnest(counted) hit WHERE hit > clock_timestamp() - span;
        RETURN NEXT;
    END LOOP;
END $$;

-- Say that an attempt succeeded: the pair is known from now on, and for the login it wasn't a failure. p_moment: when it was counted there, if it was.
CREATE FUNCTION attempt_succeeded(p_pair bytea, p_login bytea, p_moment timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO known_address AS k (key, succeeded_at) VALUES (p_pair, clock_timestamp())
    ON CONFLICT (key) DO UPDATE SET succeeded_at = clock_timestamp();
    UPDATE rate_limit r SET hits = array_remove(r.hits, p_moment) WHERE r.key = p_login AND p_moment IS NOT NULL;
END $$;

-- Remove what decides nothing any more, and give how many rows that were. Whoever counts under such a key just now makes it anew.
CREATE FUNCTION limits_sweep(p_known_seconds double precision, p_most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    counts bigint;
    addresses bigint;
BEGIN
    DELETE FROM rate_limit WHERE ctid = ANY (ARRAY(
        SELECT x.ctid FROM rate_limit x WHERE x.ends_at < now() ORDER BY x.ends_at LIMIT p_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS counts = ROW_COUNT;
    DELETE FROM known_address WHERE ctid = ANY (ARRAY(
        SELECT x.ctid FROM known_address x WHERE x.succeeded_at < now() - make_interval(secs => p_known_seconds)
         ORDER BY x.succeeded_at LIMIT p_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS addresses = ROW_COUNT;
    RETURN counts + addresses;
END $$;
