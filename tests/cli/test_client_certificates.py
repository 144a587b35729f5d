"""Certificates on the command line: which option is wrong, in its own name; and what the server says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.support.bodies import json_reply
from tests.support.certificates import Authority, self_signed, tls_server
from tests.support.faulty_server import FaultyServer

SEARCH = ("search", "studies", "--limit", "1", "--url")
HERE = "https://127.0.0.1:1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


async def test_each_option_by_its_own_name(cli: Cli, authority: Authority, tmp_path: Path) -> None:
    certificate, locked = authority.client_files(b"open sesame")
    _, foreign = Authority(tmp_path / "other").client_files()
    cases = {
        "error: POSTDICOM_KEY_PASSWORD: the key in ": ("--client-cert", certificate, "--client-key", locked),
        "error: --client-key: ": ("--client-cert", certificate, "--client-key", foreign),
        "error: --client-key: give the file": ("--client-cert", certificate),
        "error: --client-key: give --client-cert": ("--client-key", foreign),
        "error: --client-cert: ": ("--client-cert", foreign, "--client-key", foreign),
        "error: --ca-file: ": ("--ca-file", foreign),
    }
    for expected, options in cases.items():
        ran = await cli.here(*SEARCH, HERE, *options)
        assert ran.code == 2
        assert ran.error_line.startswith(expected)
        assert "tls." not in ran.error_line
    cli.environment["POSTDICOM_KEY_PASSWORD"] = "wrong secret"
    ran = await cli.here(*SEARCH, HERE, "--client-cert", certificate, "--client-key", locked)
    assert (ran.code, "wrong secret" in ran.err) == (2, False)
    assert "does not open the key" in ran.error_line


async def test_what_the_server_refuses(cli: Cli, authority: Authority, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path / "other").client_files()
    with tls_server(authority.server("127.0.0.1", wants_client=True)) as url:
        none = await cli.here(*SEARCH, url, "--ca-file", authority.ca_file)
        foreign = await cli.here(
            *SEARCH, url, "--ca-file", authority.ca_file, "--client-cert", certificate, "--client-key", key
        )
    assert (none.code, foreign.code) == (4, 4)
    assert "give --client-cert and --client-key" in none.error_line
    assert "does not accept the client certificate (--client-cert)" in foreign.error_line


async def test_the_server_s_certificate(cli: Cli, authority: Authority, tmp_path: Path) -> None:
    context = authority.server("archive.example")
    async with FaultyServer(json_reply([]), ssl_context=context) as server:
        unknown = await cli.here(*SEARCH, server.url)
        other_name = await cli.here(*SEARCH, server.url, "--ca-file", authority.ca_file)
    assert (unknown.code, other_name.code) == (1, 1)
    assert "give the authority's certificate as --ca-file" in unknown.error_line
    assert "another host name" in other_name.error_line
    assert "--ca-file" not in other_name.error_line
    own, context = self_signed(tmp_path, "/CN=127.0.0.1", "subjectAltName=IP:127.0.0.1")
    async with FaultyServer(json_reply([]), ssl_context=context) as server:
        assert (await cli.here(*SEARCH, server.url, "--ca-file", own)).code == 0
