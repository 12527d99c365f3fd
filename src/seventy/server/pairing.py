"""Codes by which a further device gets a user's key, so that no key stands in an address or is typed on a phone."""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request as HttpRequest

from seventy.server.errors import ApiError
from seventy.server.schemas import Body

CODE_SECONDS = 600.0
# None of them is taken for another; 30^8 codes.
_LETTERS, _LENGTH = "ABCDEFGHJKMNPQRSTVWXYZ23456789", 8
# A wrong code costs so long.
_WRONG_SECONDS = 0.5


class Pairing:
    """Codes of users, each for one use within CODE_SECONDS; a user's new code ends the one before.

    `keys` are keys by user; `address` is where other devices find the server, None where they cannot.
    """

    def __init__(
        self, keys: Mapping[str, str], address: str | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.keys, self.address = keys, address
        self._now = now
        # The user of each code, and until when it is good.
        self._codes: dict[str, tuple[str, float]] = {}

    def code(self, user: str) -> str:
        """Make a code for a user, written as ABCD-EFGH."""
        letters = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
        self._codes = {code: held for code, held in self._codes.items() if held[0] != user}
        self._codes[letters] = (user, self._now() + CODE_SECONDS)
        return f"{letters[:4]}-{letters[4:]}"

    def take(self, code: str) -> str | None:
        """Return the user of a code, which is used up by that; None for one that is wrong, used or old."""
        letters = "".join(letter for letter in code.upper() if letter in _LETTERS)
        user, until = self._codes.pop(letters, ("", 0.0))
        return user if user and self._now() < until else None

    def link(self, code: str, address: str | None = None) -> str:
        """Return the URL that a device opens to be paired."""
        return f"{address or self.address}/#pair={code}"


class NewCode(Body):
    """The user to create a code for; the user of the request if none is given."""

    user: str | None = None


class Code(Body):
    code: str = Field(max_length=64)


def router(pairing: Pairing, owners: frozenset[str]) -> APIRouter:
    routes = APIRouter(tags=["page"])

    @routes.post("/pair/codes")
    async def new(request: HttpRequest, body: NewCode) -> dict[str, Any]:
        """Create a pairing code for another device of the user. The server's owner may create one for any user."""
        mine = request.state.user
        user = body.user or mine
        if user != mine and mine not in owners:
            raise ApiError(403, "codes for other users are made by an owner's key", "not_owner")
        if user not in pairing.keys:
            raise ApiError(404, f"there is no user {user[:64]!r} with a key", "user_not_found", "user")
        import segno  # Not before it is needed: most servers never draw a code.

        code = pairing.code(user)
        link = pairing.link(code, pairing.address or f"http://{request.headers.get('host', '')}")
        picture = segno.make(link, error="m", micro=False).svg_data_uri(scale=5, border=3, light="#fff")
        return {"code": code, "user": user, "link": link, "picture": picture, "seconds": CODE_SECONDS}

    @routes.post("/pair")
    async def pair(body: Code) -> dict[str, str]:
        """Exchange a pairing code for the API key of its user."""
        if (user := pairing.take(body.code)) is None:
            await asyncio.sleep(_WRONG_SECONDS)
            raise ApiError(
                404, "the code is wrong, was used, or is older than ten minutes; ask for a new one", "wrong_code"
            )
        return {"user": user, "key": pairing.keys[user]}

    return routes
