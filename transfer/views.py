"""HTTP for whole accounts on their way out, and files on their way in."""

from aiohttp import hdrs, web

from auth import Resource
from rest import bodies, conditions, idempotency, streamed_response
from rest.bodies import JSON
from rest.errors import EXTRA_HEADERS, FieldError, InvalidInput
from rest.idempotency import KeyReused
from rest.operation import Answer, operation
from server import responses
from tasks.errors import X_REVISION, AccountFull
from tasks.resource import SHOWN
from tasks.schemas import LOOK
from transfer import exports, imports
from transfer.charsets import find_encoding
from transfer.entries import read_pieces
from transfer.imports import AccountInUse, TooManyImports
from transfer.json_format import Export as ExportShown
from transfer.schemas import Imported, ImportQuery

EXPORT = Answer(ExportShown, headers=SHOWN, sometimes=("Content-Disposition",))
IMPORTED = Answer(Imported, headers=("X-Revision",))
FILES = {JSON: ExportShown, **exports.EXAMPLES}


class Export(Resource):
    """The caller's account as a whole."""

    @operation("export_account", EXPORT, tag="Transfer")
    async def get(self) -> web.StreamResponse:
        """Take out the whole account, log included, as it is now: to be kept, or imported into a new account.

        Each task and each log entry stands on a line of its own.
        """
        account = await exports.get_account(self.service, self.caller)
        self.request[EXTRA_HEADERS][X_REVISION] = str(account.revision)
        tag = conditions.digest_tag("export", LOOK, self.caller.user_id, account.revision, account.purged)
        if conditions.is_known(self.request, tag):
            return conditions.not_modified(tag)
        headers = {
            conditions.ETAG: tag,
            hdrs.CONTENT_TYPE: responses.CONTENT_TYPE,
            hdrs.CONTENT_DISPOSITION: 'attachment; filename="tasks.json"',
        }
        return await streamed_response.send(
            self.request, web.StreamResponse(headers=headers), exports.export(self.service, self.caller, account)
        )


class Import(Resource):
    """Files that come in."""

    @operation(
        "import_file",
        IMPORTED,
        AccountFull,
        AccountInUse,
        KeyReused,
        TooManyImports,
        tag="Transfer",
        takes=(idempotency.HEADER,),
        files=FILES,
    )
    async def post(self, query: ImportQuery) -> web.Response:
        """Restore an export in a new account, or create and change tasks as a sheet or a calendar says: all of it or nothing.

        The Content-Type says what it is, an export as JSON, CSV or iCalendar, and its charset where that isn't UTF-8. A refusal names the
        lines that can't be taken; with skip the others are. What a calendar has besides tasks is passed over. The answer tells of what was.
        """
        key, media_type = idempotency.key(self.request), bodies.media_type(self.request)
        bodies.refuse_coding(self.request)
        if media_type not in FILES:
            raise bodies.unsupported(
                self.request, f"A file must be of type {', '.join(FILES)}, and be the body itself (curl: --data-binary @file).", FILES
            )
        if query.skip and media_type == JSON:
            raise InvalidInput(
                FieldError("skip", "not_together", "doesn't go together with an export as JSON, which is restored as a whole")
            )
        encoding = None if media_type == JSON else self._encoding()
        pieces = read_pieces(self.request, self.service.settings.import_max_bytes, encoding)
        under_way = self.request.app[imports.IMPORTS]
        imported = await imports.import_file(self.service, under_way, self.caller, media_type, pieces, key, skip=query.skip)
        return web.Response(text=f"{imported.json}\n", content_type=JSON, headers={X_REVISION: str(imported.user_revision)})

    def _encoding(self) -> str | None:
        try:
            return find_encoding(bodies.parameter(self.request, "charset"))
        except LookupError:
            raise bodies.unsupported(self.request, "A file of this charset can't be read: send it as UTF-8.", FILES) from None
