"""Which handler a request is for: found at once, where aiohttp's router goes through the parts of the path and its view looks again.

The middlewares run as they always do. What isn't plain goes aiohttp's way, which answers it as it likes.
"""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from aiohttp.web_urldispatcher import AbstractResource, AbstractRoute, UrlMappingMatchInfo

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Target(NamedTuple):
    """A route, and what responds to a request for it: the middlewares, then its handler."""

    route: AbstractRoute
    respond: Respond


_Targets = dict[str, _Target]  # by method


class Routing:
    """Handles the requests for an application."""

    def __init__(self, app: web.Application) -> None:
        """Know the routes of an application to which none will be added."""
        self._app = app
        self._paths: dict[str, _Targets] = {}
        self._patterns: list[tuple[re.Pattern[str], _Targets]] = []  # in the order in which they were added
        for resource in app.router.resources():
            match resource.get_info():
                case {"path": path}:
                    self._paths[path] = self._targets(resource)
                case {"pattern": pattern}:
                    self._patterns.append((pattern, self._targets(resource)))

    def handle(self, request: web.Request) -> Awaitable[web.StreamResponse]:
        """Answer a request."""
        path, _, _ = request._message.path.partition("?")  # noqa: SLF001 - as it was sent; aiohttp decodes it each time
        named: dict[str, str] = {}
        targets = self._paths.get(path)
        if targets is None:
            targets, named = self._match(path)
        target = targets.get(request.method)
        if target is None or hdrs.EXPECT in request.headers:
            return self._app._handle(request)  # noqa: SLF001 - as aiohttp does
        info = UrlMappingMatchInfo(named, target.route)
        info.add_app(self._app)
        info.freeze()
        request._match_info = info  # noqa: SLF001 - as aiohttp does
        return target.respond(request)

    def _match(self, path: str) -> tuple[_Targets, dict[str, str]]:
        if "%" not in path:  # nothing is to be decoded
            for pattern, targets in self._patterns:
                if found := pattern.fullmatch(path):
                    return targets, found.groupdict()
        return {}, {}

    def _targets(self, resource: AbstractResource) -> _Targets:
        return {method: _Target(route, self._within(respond)) for route in resource for method, respond in _responses(route)}

    def _within(self, respond: Respond) -> Respond:
        """Put the middlewares around it."""
        for middleware in reversed(self._app.middlewares):
            respond = partial(middleware, handler=respond)
        return respond


def _responses(route: AbstractRoute) -> list[tuple[str, Respond]]:
    """Return what responds to each method."""
    handler = route.handler
    if isinstance(handler, type) and issubclass(handler, web.View):
        return [(method, _of_view(handler, method.lower())) for method in hdrs.METH_ALL if hasattr(handler, method.lower())]
    return [] if route.method == hdrs.METH_ANY else [(route.method, cast("Respond", handler))]


def _of_view(view: type[web.View], name: str) -> Handler:
    method = getattr(view, name)
    return lambda request: method(view(request))
