"""File descriptors: for how many connections there are any. Where none is left, uvloop closes a new connection without a word."""

import logging
import resource

log = logging.getLogger(__name__)

FOR_OTHERS = 200  # than clients: listeners, the database, files


def room_for(connections: int) -> int:
    """Return how many of so many connections have room, and say so where it isn't all; the limit is raised as far as this process may."""
    limit, most = (float("inf") if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(resource.RLIMIT_NOFILE))
    if limit < (wanted := connections + FOR_OTHERS):
        limit = min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if (room := int(min(connections, max(limit - FOR_OTHERS, 1)))) < connections:
        log.warning("No more than %s connections of %s: this process may open %s files (`ulimit -n`).", room, connections, limit)
    return room
