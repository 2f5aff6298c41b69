"""Where a request comes from, and whom one believes about it."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from unittest.mock import Mock

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

import settings
from rest import addresses

PROXIES = [ip_network(text) for text in ("10.0.0.0/8", "fd00::/8")]
WHO = "203.0.113.7"


def client(peer: str | None, forwarded: Sequence[str] = ()) -> str:
    """Return what is taken for the client's address; `forwarded` are the header's lines."""
    headers = CIMultiDict([("X-Forwarded-For", line) for line in forwarded])
    return str(addresses.client(Mock(remote=peer, headers=headers), PROXIES))


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ([WHO], WHO),
        (["198.51.100.1, " + WHO], WHO),  # what the client wrote, and what the proxy appended
        (["garbage,,, " + WHO], WHO),
        (["198.51.100.1", WHO], WHO),  # several lines are one list
        ([WHO + ", 10.0.0.2", "10.0.0.3"], WHO),
        ([WHO + " ,\tfd00::2"], WHO),
        (["2001:db8::7"], "2001:db8::7"),
        (["::ffff:203.0.113.7"], WHO),
        (["10.0.0.9, 10.0.0.2"], "10.0.0.9"),  # one of their own
        ([WHO + ":4711"], WHO),  # as Azure's gateways and IIS have it
        ([WHO + ":4711, 10.0.0.2:80"], WHO),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["[2001:db8::7]:443"], "2001:db8::7"),
        (["[2001:DB8::7]:1, [fd00::2]:65535"], "2001:db8::7"),
        (["[::ffff:203.0.113.7]:443"], WHO),
        (["fe80::1%eth0"], "fe80::1%eth0"),
        (["[fe80::1%eth0]:443"], "fe80::1%eth0"),
        (["", WHO, ""], WHO),  # empty members are none (RFC 9110, section 5.6.1)
        ([WHO + ", \t,"], WHO),
    ],
)
def test_a_trusted_proxy_is_believed_and_nobody_before_the_first_who_is_not(forwarded: list[str], address: str) -> None:
    assert client("10.0.0.1", forwarded) == address
    assert client("::ffff:10.0.0.1", forwarded) == address  # a socket for both kinds says it so
    assert client("fd00::1", forwarded) == address


def test_nobody_else_is_believed() -> None:
    assert client(WHO, ["198.51.100.1"]) == WHO
    assert client("2001:db8::7", ["198.51.100.1"]) == "2001:db8::7"


@pytest.mark.parametrize(
    "forwarded",
    [
        *([], [""], ["garbage"], ["\udcff"], ["0.0.0.0"], ["1.2.3"], ["0x7f.1"], ["１.2.3.4"], ["1.2.3.4/8"], ["2001:db8::7::"]),
        *([", ,"], [f"{WHO}, unknown"], [f"{WHO}, _hidden"], [f"{WHO}, for={WHO}"], [f'{WHO}, "{WHO}"']),
        *([f"{WHO}:"], [f"{WHO}:x"], [f"{WHO}:123456"], [f"{WHO}:-1"], [f"{WHO}:1:2"], [f"{WHO} :1"], [f"{WHO}:１"]),
        *(
            ["[2001:db8::7"],
            ["2001:db8::7]"],
            ["[2001:db8::7]443"],
            ["[2001:db8::7]:"],
            ["[[2001:db8::7]]"],
            ["[]"],
            [":80"],
        ),
        *([", ".join([WHO] + ["10.0.0.2"] * 100)], ["10.0.0.2," * 5000]),
    ],
    ids=lambda lines: "".join(lines)[:20],
)
def test_where_the_list_is_missing_or_malformed_it_is_the_peer(forwarded: list[str]) -> None:
    assert client("10.0.0.1", forwarded) == "10.0.0.1"


ANYTHING = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=[]))
LIKE_AN_ADDRESS = st.text("0123456789abcdef.:[]%, ", max_size=50)
LINES = st.lists(ANYTHING | LIKE_AN_ADDRESS | st.ip_addresses().map(str) | st.ip_addresses(v=6).map("[{}]:443".format), max_size=4)


@given(LINES)
def test_no_list_makes_it_fail(forwarded: list[str]) -> None:
    assert ip_address(client("10.0.0.1", forwarded))


def heard_as(kind: str, *forms: str) -> st.SearchStrategy[tuple[str, str]]:
    """Return how proxies write whom they heard: the address, and what it may look like."""
    return st.tuples(st.ip_addresses(v=4 if kind == "IPv4" else 6).map(str), st.sampled_from(forms))


@example([], ("::ffff:0.0.0.0", "{}"), False)
@given(LINES, heard_as("IPv4", "{}", "{}:4711") | heard_as("IPv6", "{}", "[{}]", "[{}]:443"), st.booleans())
def test_no_client_chooses_its_address(written: list[str], heard: tuple[str, str], adds_a_line: bool) -> None:
    address, form = heard
    assume(client(address) != "0.0.0.0" and not any(ip_address(client(address)) in network for network in PROXIES))
    appended = form.format(address)
    forwarded = [*written, appended] if adds_a_line or not written else [*written[:-1], f"{written[-1]}, {appended}"]
    assert client("10.0.0.1", forwarded) == client(address)
    assert client("10.0.0.1", [*forwarded, "10.0.0.2:80,[fd00::2]"]) == client(address)
    assert client(WHO, forwarded) == WHO


@pytest.mark.parametrize("peer", [None, "", "/run/service.sock"])
def test_a_peer_without_an_address_has_one_that_is_nobodys(peer: str | None) -> None:
    assert client(peer, [WHO]) == "0.0.0.0"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.7", "203.0.113.8", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("203.0.113.7", "cb00:7107::", False),  # as bytes they begin alike
    ],
)
def test_an_ipv4_address_counts_alone_and_an_ipv6_address_with_its_64(one: str, other: str, same: bool) -> None:
    assert (addresses.site(ip_address(one)) == addresses.site(ip_address(other))) is same


def test_the_setting_is_a_list_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", " 10.0.0.0/8, ::1 ,")
    assert [str(network) for network in settings.load().trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.1/8")
    with pytest.raises(SystemExit, match=r"^TRUSTED_PROXIES: value is not a valid IPv4 or IPv6 network\.$"):
        settings.load()
