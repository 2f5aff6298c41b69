"""The OpenAPI document's address, and the pages that show it."""

import importlib.util
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from aiohttp import web

from rest import conditions
from rest.errors import Failure, Unavailable
from rest.operation import Answer, operation

DOCUMENT = web.AppKey("document", bytes)
STATIC = ("swagger-ui.css", "swagger-ui-bundle.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'"
)


class Document(web.View):
    """The document."""

    @operation("get_document", Answer(dict[str, Any], headers=("ETag",)), Unavailable, tag="Service")
    async def get(self) -> web.Response:
        """Show this document."""
        document = self.request.app[DOCUMENT]
        return conditions.answer(self.request, document, conditions.digest_tag(document))

    head = get


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{files}swagger-ui.css">
</head>
<body>
{body}
</body>
</html>
"""
# References are relative to the page, so that they lead somewhere below a proxy's path, too.
SWAGGER = '<div id="swagger-ui"></div>\n<script src="docs/swagger-ui-bundle.js"></script>\n<script src="docs/start.js"></script>'
START = b'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'


class Docs(web.View):
    """The page on which the operations can be read and tried."""

    @operation("show_docs", Answer(str, media_type="text/html"), tag="Service")
    async def get(self) -> web.Response:
        """Show the documentation."""
        return _html("The API", SWAGGER, files="docs/")

    head = get


class Problems(web.View):
    """The kinds of problem that have a name."""

    @operation("explain_problems", Answer(str, media_type="text/html"), tag="Service")
    async def get(self) -> web.Response:
        """Explain the kinds of problem."""
        kinds = "\n".join(f'<h2 id="{kind.kind}">{kind.kind}</h2>\n<p>{escape(kind.__doc__ or "")}</p>' for kind in problems(Failure))
        return _html("Problems", f"<h1>Problems</h1>\n{kinds}")

    head = get


class DocsFile(web.View):
    """A file that the documentation needs: nothing of it comes from another host."""

    @operation("get_docs_file", Answer(str, media_type="*/*"), tag="Service")
    async def get(self) -> web.StreamResponse:
        """Show a file of the documentation."""
        name = self.request.path.rpartition("/")[2]
        if name == "start.js":
            return web.Response(body=START, content_type="text/javascript", headers={"Cache-Control": "no-cache"})
        return web.FileResponse(_swagger() / name, headers={"Cache-Control": "max-age=86400"})

    head = get


FILES = (*STATIC, "start.js")
PAGES = [
    web.view("/docs", Docs),
    web.view("/docs/problems", Problems),
    *(web.view(f"/docs/{name}", DocsFile) for name in FILES),
]
ROUTES = [web.view("/openapi.json", Document), *PAGES]


def problems(family: type[Failure]) -> Iterator[type[Failure]]:
    """Return the failures of a family that are explained."""
    if "is_explained" in vars(family) and family.is_explained:
        yield family
    for kind in family.__subclasses__():
        yield from problems(kind)


def _html(title: str, body: str, files: str = "") -> web.Response:
    page = PAGE.format(title=title, body=body, files=files)
    return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": POLICY})


@cache
def _swagger() -> Path:
    package = importlib.util.find_spec("swagger_ui")  # its files only: importing it would bring a web framework's glue
    return Path(package.origin).parent / "static"  # type: ignore[union-attr, arg-type]  # it is installed
