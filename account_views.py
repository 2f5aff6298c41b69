"""HTTP for accounts and tokens."""

from http import HTTPStatus

from aiohttp import web

import auth
from accounts import LoginTaken
from rest.contract import Answer, contract
from rest.errors import Unavailable
from schemas import Credentials, Registration, Token
from views import Resource


def _token_answer(token: Token, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(text=token.model_dump_json(), status=status, content_type="application/json", headers={"Cache-Control": "no-store"})


class Accounts(Resource):
    """The accounts."""

    @contract(Answer(Token, HTTPStatus.CREATED), LoginTaken, Unavailable)
    async def post(self, registration: Registration) -> web.Response:
        """Register, and get a first token."""
        return _token_answer(await auth.register(self.request.app[auth.HASHING], registration), HTTPStatus.CREATED)


class Tokens(Resource):
    """The tokens."""

    @contract(Answer(Token), auth.WrongCredentials, Unavailable)
    async def post(self, credentials: Credentials) -> web.Response:
        """Get a token."""
        return _token_answer(await auth.get_token(self.request.app[auth.HASHING], credentials))
