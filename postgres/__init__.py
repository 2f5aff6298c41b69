"""Talking to PostgreSQL: the pool, batches of requests, pages of rows, the schema's steps."""
