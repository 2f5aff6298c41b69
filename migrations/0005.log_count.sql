-- How many entries a user's log has: counted up to a revision, and from there on when it matters (write.sql). So what a version writes that doesn't
-- count is counted later. What is erased is taken off at once, whichever version erases it.

ALTER TABLE user_state ADD COLUMN log_entries bigint NOT NULL DEFAULT 0;
ALTER TABLE user_state ADD COLUMN log_counted bigint NOT NULL DEFAULT 0;  -- the revision up to which

CREATE FUNCTION log_uncount() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE user_state u SET log_entries = u.log_entries - g.entries
      FROM (SELECT s.user_id, count(*) AS entries FROM gone l JOIN user_state s ON s.user_id = l.user_id AND s.log_counted >= l.revision GROUP BY s.user_id) g
     WHERE u.user_id = g.user_id;
    RETURN NULL;
END $$;

CREATE TRIGGER log_uncount AFTER DELETE ON task_log REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION log_uncount();
