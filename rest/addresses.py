"""Where a request comes from: its peer, or what a proxy says that is trusted."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import web

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NOWHERE = IPv4Address(0)  # for a peer that has none: it has gone, or came by a socket of the file system
MAX_PROXIES = 20  # in a row: nobody makes us read a longer list
MAX_REMEMBERED = 4096  # peers
MEMBER = re.compile(r"(?:\[([^\[\]]+)\]|([0-9.]+))(?::[0-9]{1,5})?")  # as some proxies write it


def client(request: web.BaseRequest, trusted: Sequence[Network]) -> Address:
    """Return the client's address: the peer's or, where that is trusted, the rightmost in X-Forwarded-For that isn't.

    Each proxy appends whom it heard, some with a port, so what is further left may be anybody's invention. Where the header is
    missing, or what counts in it is no address (`unknown`), it is the peer's; where all in it are trusted, the first.
    """
    peer = address = _read(request.remote or "") or NOWHERE
    if not _is_in(peer, trusted):
        return peer
    for text in reversed(",".join(request.headers.getall("X-Forwarded-For", [])).rsplit(",", MAX_PROXIES)):
        if not (text := text.strip(" \t")):
            continue  # RFC 9110, section 5.6.1
        form = MEMBER.fullmatch(text)
        address = _read(form[1] or form[2] if form else text) or NOWHERE
        if address == NOWHERE:
            return peer
        if not _is_in(address, trusted):
            break
    return address


def sites(trusted: Sequence[Network]) -> Callable[[str, web.BaseRequest | None], str]:
    """Return a function that says whose a connection is by its peer, and by the request on it where that is a trusted proxy's."""

    @lru_cache(MAX_REMEMBERED)
    def of_peer(peer: str) -> tuple[str, bool]:
        address = _read(peer) or NOWHERE
        return site(address), _is_in(address, trusted)

    def whose(peer: str, request: web.BaseRequest | None) -> str:
        known, is_proxy = of_peer(peer)
        return site(client(request, trusted)) if is_proxy and request is not None else known

    return whose


def site(address: Address) -> str:
    """Return what counts as one: an IPv4 address, or the first 64 bits of an IPv6 address; whoever has one has all that begin so."""
    return address.packed[:8].hex()


def _read(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address  # so a socket for both gives IPv4


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
