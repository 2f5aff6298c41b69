"""HTTP for accounts and tokens."""

from http import HTTPStatus

from aiohttp import web

import auth
from accounts import LoginTaken
from rest.contract import Answer, contract
from rest.errors import EXTRA_HEADERS, Unavailable
from schemas import Closure, Credentials, PasswordChange, Registration, Token
from views import Resource

TOKEN = Answer(Token)


class AccountResource(Resource):
    """What has to do with accounts."""

    @property
    def hashing(self) -> auth.Hashing:
        """Where passwords are hashed."""
        return self.request.app[auth.HASHING]

    def token_answer(self, token: Token, status: int = HTTPStatus.OK) -> web.Response:
        """Answer with a token, which nobody is to store."""
        self.request[EXTRA_HEADERS] = self.request.get(EXTRA_HEADERS, {}) | {"Cache-Control": "no-store"}
        return web.Response(text=token.model_dump_json(), status=status, content_type="application/json")


class Accounts(AccountResource):
    """The accounts."""

    @contract(Answer(Token, HTTPStatus.CREATED), LoginTaken, Unavailable)
    async def post(self, registration: Registration) -> web.Response:
        """Register, and get a first token."""
        return self.token_answer(await auth.register(self.hashing, registration), HTTPStatus.CREATED)


class Tokens(AccountResource):
    """The tokens."""

    @contract(TOKEN, auth.WrongCredentials, Unavailable)
    async def post(self, credentials: Credentials) -> web.Response:
        """Get a token."""
        return self.token_answer(await auth.get_token(self.hashing, credentials))


class Password(AccountResource):
    """The caller's password."""

    @contract(TOKEN)
    async def post(self, change: PasswordChange) -> web.Response:
        """Change the password; all tokens up to now end, and here is a new one."""
        return self.token_answer(await auth.change_password(self.hashing, self.caller, change))


class Revocation(AccountResource):
    """The end of the caller's tokens."""

    @contract(TOKEN)
    async def post(self) -> web.Response:
        """Log out everywhere: all tokens up to now end, and here is a new one."""
        return self.token_answer(await auth.revoke_tokens(self.caller))


class AccountClosure(AccountResource):
    """The end of the caller's account."""

    @contract(Answer(None, HTTPStatus.NO_CONTENT))
    async def post(self, closure: Closure) -> web.Response:
        """Delete the account with all that is in it; its login is free at once."""
        await auth.delete_account(self.hashing, self.caller, closure)
        return web.Response(status=HTTPStatus.NO_CONTENT)
