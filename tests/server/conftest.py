"""What the tests of connections have in common."""

from tests.server.test_connections import opened

__all__ = ["opened"]
