-- Every row has been checked by the constraints before: now the new ones say so, too.

ALTER TABLE task VALIDATE CONSTRAINT task_is_sound;

ALTER TABLE task_log VALIDATE CONSTRAINT task_log_is_sound;
