"""What takes an account out as a whole."""

from aiohttp import web

import transfer
from account_format import Export as ExportShown
from rest import conditions, streaming
from rest.contract import Answer, contract
from rest.errors import EXTRA_HEADERS
from views import SHOWN, Resource

EXPORT = Answer(ExportShown, headers=SHOWN, sometimes=("Content-Disposition",))
REPRESENTATION = 1  # goes into the ETag: raise it when the same account comes to look different


class Export(Resource):
    """The caller's account as a whole."""

    @contract(EXPORT)
    async def get(self) -> web.StreamResponse:
        """Take out the whole account, log included, as it is now: to be kept, or imported into a new account."""
        account, body = await transfer.export(self.caller)
        self.request[EXTRA_HEADERS]["X-Revision"] = str(account.revision)
        tag = conditions.digest_tag("export", REPRESENTATION, self.caller.user_id, account.revision, account.purged)
        if conditions.is_known(self.request, tag):
            return conditions.not_modified(tag)
        headers = {
            "ETag": tag,
            "Content-Type": "application/json; charset=utf-8",
            "Content-Disposition": 'attachment; filename="tasks.json"',
        }
        return await streaming.send(self.request, web.StreamResponse(headers=headers), body)
