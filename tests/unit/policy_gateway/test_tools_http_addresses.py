"""Which addresses are public: the list, checked against the ranges that registries and clouds publish."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy_gateway.tools.addresses import why_closed

CLOSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255",
    "127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1",
    "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:a00:1", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:10::1",
    "2001:20::1", "2001:2::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "2620:4f:8000::1", "3fff::1",
    "3fff:fff:ffff::", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fdff::1", "fe80::1", "fe80::1%eth0",
    "2606:4700::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
    "", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.4.5", "1.2.3.4 ", "[::1]",
]  # fmt: skip
OPEN = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
    "128.0.0.0", "140.82.121.4", "168.63.129.15", "169.253.255.255", "172.15.255.255", "172.32.0.0",
    "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
    "2606:4700:4700::1111", "2a00:1450:4001::1", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2620:4f:8001::1",
]  # fmt: skip


@pytest.mark.parametrize("address", CLOSED)
def test_what_is_not_plainly_public_is_closed(address: str) -> None:
    assert why_closed(address)


@pytest.mark.parametrize("address", OPEN)
def test_what_is_public_is_open(address: str) -> None:
    assert why_closed(address) is None


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_calls_private_is_open(address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_loopback:
        assert why_closed(str(address))


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_one_is_closed(inner) -> None:
    number = int(inner)
    for outer in (0xFFFF << 32, 0x64FF9B << 96, 0x2002 << 112, 0):
        shift = 80 if outer >> 112 == 0x2002 else 0
        assert why_closed(str(ipaddress.IPv6Address(outer | number << shift)))
