"""The torture: `make torture`."""
