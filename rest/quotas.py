"""Quotas: how much may be asked for in a while, and the headers that tell (draft-ietf-httpapi-ratelimit-headers-11).

The package limits counts in memory or in servers such as Redis, which would be one more thing to run, and writes no headers.
"""

from collections.abc import Iterable
from math import ceil
from typing import Any, NamedTuple, Self

from pydantic import Field

from rest.errors import Problem, TooManyRequests

HEADERS = ("RateLimit", "RateLimit-Policy")


class Quota(NamedTuple):
    """So many in so many seconds; `words` say of what."""

    name: str
    most: int
    seconds: int
    words: str

    def left(self, left: int, seconds: float) -> str:
        """Say, as an item of RateLimit, how many are left until the time is over."""
        return f'"{self.name}";r={left};t={ceil(seconds)}'


USERS = Quota("user", 600, 60, "You have sent too many requests")


def headers(quotas: Iterable[Quota], left: Iterable[str]) -> dict[str, str]:
    """Return the headers that tell of these quotas, and what is left of some."""
    policies = (f'"{quota.name}";q={quota.most};w={quota.seconds}' for quota in quotas)
    return {"RateLimit": ", ".join(left), "RateLimit-Policy": ", ".join(policies)}


class QuotaProblem(Problem):
    """Which quota is used up."""

    violated_policies: list[str] = Field(alias="violated-policies", description="by their names in RateLimit-Policy", examples=[["user"]])


class QuotaExceeded(TooManyRequests):
    """It has been asked for too often: a quota that RateLimit-Policy names is used up until Retry-After. Such a request doesn't count."""

    kind = "quota-exceeded"
    is_explained = True
    carries = (*TooManyRequests.carries, *HEADERS)
    shape = QuotaProblem

    def __init__(self, quota: Quota, seconds: float) -> None:
        wait = ceil(seconds)
        super().__init__(
            f"{quota.words}: more than {quota.most} in {quota.seconds} seconds. Try again in {wait} s.", retry_after_seconds=wait
        )
        self.headers |= headers([quota], [quota.left(0, wait)])
        self.quota = quota

    @classmethod
    def example(cls) -> Self:
        return cls(USERS, seconds=30)

    @property
    def label(self) -> str:
        return f"{self.kind}: {self.quota.name}"

    def members(self) -> dict[str, Any]:
        return {"violated-policies": [self.quota.name]}
