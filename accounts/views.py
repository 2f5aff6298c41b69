"""HTTP for accounts, passwords and tokens."""

from http import HTTPStatus

from aiohttp import hdrs, web

from accounts import passwords, rate_limits, sign_in, users
from accounts.schemas import Closure, Credentials, PasswordChange, PasswordReset, Registration
from accounts.users import LoginTaken
from auth import Resource, Token
from rest import addresses, quotas
from rest.errors import EXTRA_HEADERS, Unavailable
from rest.operation import Answer, operation
from rest.quotas import QuotaExceeded

TOKEN = Answer(Token)
COUNTED_TOKEN = Answer(Token, sometimes=quotas.HEADERS)
FIRST_TOKEN = Answer(Token, HTTPStatus.CREATED, sometimes=quotas.HEADERS)
CLOSED = Answer(None, HTTPStatus.NO_CONTENT, sometimes=quotas.HEADERS)


class AccountResource(Resource):
    """What has to do with accounts."""

    @property
    def hashing(self) -> passwords.Hashing:
        """Where passwords are hashed, in turn with those from other addresses."""
        site = addresses.site(addresses.client(self.request, self.service.settings.trusted_proxies))
        return self.request.app[passwords.HASHING].of(site)

    def token_answer(self, token: Token, status: int = HTTPStatus.OK) -> web.Response:
        """Answer with a token, which nobody is to store."""
        self.request[EXTRA_HEADERS][hdrs.CACHE_CONTROL] = "no-store"
        return web.Response(text=f"{token.model_dump_json()}\n", status=status, content_type="application/json")


class Accounts(AccountResource):
    """The accounts."""

    @operation("register", FIRST_TOKEN, sign_in.RegistrationClosed, LoginTaken, QuotaExceeded, Unavailable, tag="Accounts")
    async def post(self, registration: Registration) -> web.Response:
        """Make an account, and get a first token.

        The token is sent as `Authorization: Bearer <access_token>`. The operator may have closed registration, or ask for an invitation.
        """
        sign_in.check_registration(self.service)
        async with rate_limits.attempt(self.request, registration.login, registers=True):
            token = await sign_in.register(self.service, self.hashing, registration)
        return self.token_answer(token, HTTPStatus.CREATED)


class Tokens(AccountResource):
    """The tokens."""

    @operation("get_token", COUNTED_TOKEN, sign_in.WrongCredentials, QuotaExceeded, Unavailable, tag="Accounts")
    async def post(self, credentials: Credentials) -> web.Response:
        """Get a token."""
        async with rate_limits.attempt(self.request, credentials.login):
            token = await sign_in.get_token(self.service, self.hashing, credentials)
        return self.token_answer(token)


class ForgottenPassword(AccountResource):
    """A password that its owner doesn't know any more."""

    @operation("reset_password", COUNTED_TOKEN, QuotaExceeded, Unavailable, tag="Accounts")
    async def post(self, reset: PasswordReset) -> web.Response:
        """Set a forgotten password again, and get a token: all tokens up to now end.

        The code is the operator's, and good once.
        """
        await rate_limits.count_address(self.request)
        token = await sign_in.reset_password(self.service, self.hashing, reset)
        return self.token_answer(token)


class Password(AccountResource):
    """The caller's password."""

    @operation("change_password", COUNTED_TOKEN, tag="Accounts")
    async def post(self, change: PasswordChange) -> web.Response:
        """Change the password, and get a new token: all tokens up to now end."""
        login = await users.get_login(self.service, self.caller)
        async with rate_limits.attempt(self.request, login):
            token = await sign_in.change_password(self.service, self.hashing, self.caller, login, change)
        return self.token_answer(token)


class Revocation(AccountResource):
    """The end of the caller's tokens."""

    @operation("revoke_tokens", TOKEN, tag="Accounts")
    async def post(self) -> web.Response:
        """Log out everywhere, and get a new token: all tokens up to now end."""
        return self.token_answer(await sign_in.revoke_tokens(self.service, self.caller))


class AccountClosure(AccountResource):
    """The end of the caller's account."""

    @operation("delete_account", CLOSED, tag="Accounts")
    async def post(self, closure: Closure) -> web.Response:
        """Delete the account with all that is in it; its login is free at once."""
        async with rate_limits.attempt(self.request, await users.get_login(self.service, self.caller), is_last=True):
            await sign_in.delete_account(self.service, self.hashing, self.caller, closure)
        return web.Response(status=HTTPStatus.NO_CONTENT)
