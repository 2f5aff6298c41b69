-- Live events: what is new to open streams, and the places that these hold.

-- A user's changes after one revision and up to another: each time the task as it was right after. Whoever asks sees to it that none of
-- them has been purged. Each task goes back from change to change, so that its log is read once, however many there are. Ids ascend as
-- creations do, and an id is never larger than the revision that created it.
CREATE FUNCTION task_changes(p_user_id bigint, p_since bigint, p_until bigint) RETURNS TABLE (revision bigint, body text) LANGUAGE plpgsql STABLE AS $$
DECLARE
    change record;
    t task;
BEGIN
    FOR change IN
        SELECT c.revision, c.task_id
          FROM (SELECT DISTINCT l.revision, l.task_id FROM task_log l WHERE l.user_id = p_user_id AND l.revision > p_since AND l.revision <= p_until
                 UNION ALL
                SELECT n.created_revision, n.id FROM task n
                 WHERE n.user_id = p_user_id AND n.created_revision > p_since AND n.created_revision <= p_until AND n.id <= p_until
                   AND n.id > coalesce((SELECT b.id FROM task b WHERE b.user_id = p_user_id AND b.id <= p_since AND b.created_revision <= p_since
                                         ORDER BY b.id DESC LIMIT 1), 0)) c (revision, task_id)
         ORDER BY c.task_id, c.revision DESC
    LOOP
        IF change.task_id IS DISTINCT FROM t.id THEN
            SELECT * INTO t FROM task x WHERE x.user_id = p_user_id AND x.id = change.task_id;
        END IF;
        t := task_at(t, change.revision);
        revision := change.revision; body := t.body;
        RETURN NEXT;
    END LOOP;
END $$;

-- What is new to several users, each at a revision of its own: at most p_each changes of one user and p_most of all, so that nobody's many
-- hold up the others. No user_revision: the account is gone, or the token's generation past. No revision: the changes since can't be had
-- any more (they were purged, or an older backup is in place), and the user is at user_revision now. No body: there are more than p_reach
-- changes since, which are to be asked for apart, as what they cost depends on the logs.
CREATE FUNCTION events_after(p_user_ids bigint[], p_generations bigint[], p_since bigint[], p_reach bigint, p_each bigint, p_most bigint)
RETURNS TABLE (n bigint, user_revision bigint, revision bigint, body text) LANGUAGE plpgsql STABLE AS $$
DECLARE
    asked record;
    until bigint;
BEGIN
    FOR asked IN
        SELECT a.n, a.user_id, a.since, s.revision, s.kept_from
          FROM unnest(p_user_ids, p_generations, p_since) WITH ORDINALITY a (user_id, generation, since, n)
          LEFT JOIN user_state s ON s.user_id = a.user_id AND s.token_generation = a.generation
         WHERE s.revision IS DISTINCT FROM a.since ORDER BY a.n
    LOOP
        n := asked.n; user_revision := asked.revision; body := NULL;
        IF asked.revision IS NULL OR asked.since NOT BETWEEN asked.kept_from AND asked.revision THEN
            revision := NULL;
            RETURN NEXT;
        ELSIF asked.revision - asked.since > p_reach THEN
            revision := asked.since;
            RETURN NEXT;
        ELSE
            until := least(asked.revision, asked.since + least(p_each, p_most));
            RETURN QUERY SELECT asked.n, asked.revision, c.revision, c.body FROM task_changes(asked.user_id, asked.since, until) c ORDER BY c.revision;
            p_most := p_most - (until - asked.since);
            EXIT WHEN p_most <= 0;
        END IF;
    END LOOP;
END $$;

-- Take a place for a stream, and say where its user's changes are. A place whose holder didn't come back is free: it gets a new holder, so that
-- the old one, where it comes back late, neither keeps nor frees what is another's. None is held for longer than p_held: where it seems so, the
-- clock has stepped back.
CREATE FUNCTION event_place_take(p_user_id bigint, p_generation bigint, p_places int, p_held interval, OUT refused text, OUT place int,
                                            OUT holder uuid, OUT user_revision bigint, OUT kept_from bigint) LANGUAGE plpgsql AS $$
BEGIN
    SELECT u.revision, u.kept_from INTO user_revision, kept_from FROM user_state u
     WHERE u.user_id = p_user_id AND u.token_generation = p_generation FOR KEY SHARE;
    IF NOT FOUND THEN
        refused := 'unauthorized';
        RETURN;
    END IF;
    FOR n IN 1..p_places LOOP
        INSERT INTO event_stream AS e (user_id, slot, held_until) VALUES (p_user_id, n, clock_timestamp() + p_held)
        ON CONFLICT (user_id, slot) DO UPDATE SET held_until = excluded.held_until, holder = excluded.holder
         WHERE e.held_until NOT BETWEEN clock_timestamp() AND clock_timestamp() + p_held
        RETURNING e.holder INTO holder;
        IF FOUND THEN
            place := n;
            RETURN;
        END IF;
    END LOOP;
    refused := 'too_many';
END $$;

-- Keep places for longer; also those that a crash of the server has emptied out of its table. A closed account has none.
CREATE FUNCTION event_places_hold(p_user_ids bigint[], p_places int[], p_holders uuid[], p_held interval) RETURNS void LANGUAGE sql AS $$
    INSERT INTO event_stream AS e (user_id, slot, holder, held_until)
    SELECT s.user_id, h.place, h.holder, clock_timestamp() + p_held
      FROM unnest(p_user_ids, p_places, p_holders) h (user_id, place, holder) JOIN user_state s ON s.user_id = h.user_id AND s.token_generation >= 0
     ORDER BY s.user_id, h.place
    ON CONFLICT (user_id, slot) DO UPDATE SET held_until = excluded.held_until WHERE e.holder = excluded.holder
$$;

CREATE FUNCTION event_place_free(p_user_id bigint, p_place int, p_holder uuid) RETURNS void LANGUAGE sql AS $$
    DELETE FROM event_stream e WHERE e.user_id = p_user_id AND e.slot = p_place AND e.holder = p_holder
$$;
