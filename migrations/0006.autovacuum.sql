-- A change leaves a task's old row behind: vacuum is to come when a twentieth of the tasks have been changed, and not only a fifth.

ALTER TABLE task SET (autovacuum_vacuum_scale_factor = 0.05);
