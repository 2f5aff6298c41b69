"""Tasks as they were, and what happens to them: logs, undo, live events."""
