"""HTTP manners that any service could use; nothing here knows of tasks."""
