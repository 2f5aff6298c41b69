-- transactional: false
-- Without a lock on the table; a try that was killed has left an index that isn't valid.

DROP INDEX CONCURRENTLY IF EXISTS task_by_uid;
CREATE UNIQUE INDEX CONCURRENTLY task_by_uid ON task (user_id, uid_digest(uid)) WHERE uid IS NOT NULL;
