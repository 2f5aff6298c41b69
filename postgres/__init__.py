"""Talking to PostgreSQL; nothing here knows of tasks."""
