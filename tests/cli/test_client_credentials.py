"""The command as a client of an identity provider: from options, variables and profiles, with the secret in none."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.support.bodies import json_reply
from tests.support.canaries import CanaryWatch
from tests.support.dicom_files import study_files
from tests.support.faulty_server import FaultyServer
from tests.support.token_endpoint import TokenEndpoint, embedded_archive_for

SECRET = "cnry-s3cret/of:the client"
SEARCH = ("search", "studies", "--json")


@pytest.fixture
def config(cli: Cli, tmp_path: Path) -> Path:
    path = tmp_path / "profiles.toml"
    cli.environment |= {"POSTDICOM_CONFIG": str(path), "POSTDICOM_STATE": str(tmp_path / "state")}
    return path


@pytest.fixture
def watch() -> CanaryWatch:
    return CanaryWatch({"secret": SECRET, "token": "cnry-token-"})


@asynccontextmanager
async def servers(endpoint: TokenEndpoint) -> AsyncIterator[tuple[str, str]]:
    async with (
        FaultyServer(endpoint) as tokens,
        FaultyServer(endpoint.guard(lambda _: json_reply([]))) as archive,
    ):
        yield archive.url, f"{tokens.url}/token"


def endpoint_of(client: str = "me") -> TokenEndpoint:
    return TokenEndpoint(client=(client, SECRET))


async def test_options_and_the_secret_from_a_variable(cli: Cli, config: Path, watch: CanaryWatch) -> None:
    endpoint = endpoint_of()
    async with servers(endpoint) as (url, token_url):
        options = ("--url", url, "--token-url", token_url, "--client-id", "me", "--scope", "dicom.read more")
        missing = await cli.here(*SEARCH, *options)
        assert missing.code == 2
        assert (
            f"set POSTDICOM_CLIENT_SECRET, store it in a keyring (keyring set postdicom-async me@{token_url[:-6]})"
            in (missing.error_line)
        )
        cli.environment["POSTDICOM_CLIENT_SECRET"] = SECRET
        found = await cli.here(*SEARCH, *options)
        assert (found.code, found.told) == (0, [])
        assert endpoint.asked[0]["scope"] == "dicom.read more"
        cli.environment["POSTDICOM_CLIENT_SECRET"] = f"{SECRET}!"
        refused = await cli.here(*SEARCH, *options)
        assert (refused.code, "invalid_client: check client_id" in refused.error_line) == (4, True)
        half = await cli.here(*SEARCH, "--url", url, "--client-id", "me")
        assert (half.code, "client_id needs token_url too" in half.error_line) == (2, True)
        both = await cli.here(*SEARCH, *options, "--username", "me")
        assert (both.code, "username and client_id are both given" in both.error_line) == (2, True)
        for ran in (missing, found, refused, half, both):
            watch.feed_text(ran.out + ran.err)
    watch.assert_clean()


async def test_all_of_it_from_variables(cli: Cli, config: Path) -> None:
    """What is typed wins over them; a user name there stands before a client there."""
    endpoint = endpoint_of()
    async with servers(endpoint) as (url, token_url):
        cli.environment |= {
            "POSTDICOM_URL": url,
            "POSTDICOM_TOKEN_URL": token_url,
            "POSTDICOM_CLIENT_ID": "me",
            "POSTDICOM_SCOPE": "read",
            "POSTDICOM_CLIENT_SECRET": SECRET,
        }
        assert (await cli.here(*SEARCH)).code == 0
        assert endpoint.asked[-1]["scope"] == "read"
        cli.environment |= {"POSTDICOM_USERNAME": "demo", "POSTDICOM_PASSWORD": "demo"}
        assert (await cli.here(*SEARCH)).code == 4  # the archive takes tokens only
        assert len(endpoint.asked) == 1
        assert (await cli.here(*SEARCH, "--client-id", "me")).code == 0


async def test_a_profile(cli: Cli, config: Path, watch: CanaryWatch) -> None:
    endpoint = endpoint_of()
    async with servers(endpoint) as (url, token_url):
        add = ("profiles", "add", "pacs", "--url", url, "--token-url", token_url, "--client-id", "me")
        more = (
            "--scope",
            "read",
            "--audience",
            "pacs",
            "--client-auth",
            "post",
            "--client-secret-file",
            str(cli.folder / "secret"),
        )
        assert (await cli.here(*add, *more)).code == 0
        assert tomllib.loads(config.read_text())["pacs"] == {
            "kind": "dicomweb",
            "url": url,
            "token_url": token_url,
            "client_id": "me",
            "scope": "read",
            "audience": "pacs",
            "client_auth": "post",
            "client_secret_file": str(cli.folder / "secret"),
        }
        (cli.folder / "secret").write_text(f"{SECRET}\n")
        (cli.folder / "secret").chmod(0o600)
        shown = await cli.here("profiles", "show", "pacs")
        assert "client_secret_file" in shown.out
        tested = await cli.here("profiles", "test", "pacs")
        assert (tested.code, "works (client_secret_file)" in tested.out) == (0, True)
        assert {key: endpoint.asked[0].get(key) for key in ("scope", "audience", "in")} == {
            "scope": "read",
            "audience": "pacs",
            "in": None,
        }
        endpoint.client = ("me", "another")
        refused = await cli.here("profiles", "test", "pacs")
        assert refused.code == 4
        assert [line.split(None, 1)[1] for line in refused.out.splitlines()] == [
            "not tried", "none: http://", "does not work (client_secret_file)", "not tried",
        ]  # fmt: skip
        elsewhere = await cli.here(*SEARCH, "--profile", "pacs", "--token-url", f"{token_url}/2")
        assert (elsewhere.code, "--token-url is not that of the profile" in elsewhere.error_line) == (2, True)
        as_user = await cli.here(*SEARCH, "--profile", "pacs", "--username", "demo")
        assert (as_user.code, "no password for profile pacs" in as_user.error_line) == (2, True)
        listed = await cli.here("profiles", "list")
        for ran in (shown, tested, refused, elsewhere, as_user, listed):
            watch.feed_text(ran.out + ran.err)
    assert " me" in listed.out
    watch.feed_text(config.read_text())
    watch.assert_clean()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('token_url = "https://h/t"', "profile pacs: token_url needs client_id too"),
        ('client_id = "me"', "profile pacs: client_id needs token_url too"),
        ('scope = "read"', "profile pacs: scope needs token_url too"),
        (
            'token_url = "https://h/t"\nclient_id = "me"\nusername = "me"',
            "profile pacs: username and client_id are both",
        ),
        ('token_url = "https://h/t"\nclient_id = "me"\nclient_auth = "jwt"', "client_auth: give basic or post"),
        ('token_url = "http://h/t"\nclient_id = "me"', "token_url: the secret would travel unencrypted"),
        ('token_url = "https://a:b@h/t"\nclient_id = "me"', "token_url: leave user and password out"),
        ('client_secret = "x"', "'client_secret' does not belong in this file"),
        ('kind = "cloud"\nclient_id = "me"', "client_id is not for kind cloud"),
    ],
)
async def test_a_profile_that_cannot_be_used(cli: Cli, config: Path, table: str, words: str) -> None:
    url = "" if "cloud" in table else 'url = "https://archive.example"\n'
    config.write_text(f"[pacs]\n{url}{table}\n")
    ran = await cli.here("profiles", "test", "pacs")
    assert (ran.code, words in ran.error_line) == (2, True), ran.err


async def test_a_job_between_archives_whose_tokens_end(cli: Cli, config: Path, tmp_path: Path) -> None:
    """Each end has a client of its own, with its own endpoint; every token is good for three requests."""
    files, source, target = study_files(24), endpoint_of("reader"), endpoint_of("writer")
    source.uses = target.uses = 3
    incoming = [cli.folder / f"{number}.dcm" for number in range(len(files))]
    for path, file in zip(incoming, files.values(), strict=True):
        path.write_bytes(file)
    async with embedded_archive_for(source) as (old, old_tokens), embedded_archive_for(target) as (new, tokens):
        await old.add(incoming)
        config.write_text(
            f'[old]\nurl = "{old.url}"\ntoken_url = "{old_tokens.url}/t"\nclient_id = "reader"\n'
            f'[new]\nurl = "{new.url}"\ntoken_url = "{tokens.url}/t"\nclient_id = "writer"\n'
        )
        cli.environment |= {"POSTDICOM_CLIENT_SECRET_OLD": SECRET, "POSTDICOM_CLIENT_SECRET_NEW": SECRET}
        ran = await cli.here("copy", "old:", "new:", "--verify", "bytes", "--job", tmp_path / "move")
        assert ran.code == 0, ran.err
        stored = [path.read_bytes() for path in new.folder.rglob("*.dcm")]
    assert sorted(stored) == sorted(files.values())
    assert min(source.issued, target.issued) >= 2
    assert len(old_tokens.requests) == source.issued  # none was asked for in vain
    assert len(tokens.requests) == target.issued


async def test_the_variables_of_an_end_that_is_an_address(cli: Cli, config: Path) -> None:
    endpoint = endpoint_of()
    async with embedded_archive_for(endpoint) as (archive, tokens):
        (cli.folder / "in").mkdir()
        for number, file in enumerate(study_files(3).values()):
            (cli.folder / "in" / f"{number}.dcm").write_bytes(file)
        cli.environment |= {
            "POSTDICOM_TOKEN_URL": f"{tokens.url}/t",
            "POSTDICOM_CLIENT_ID": "me",
            "POSTDICOM_CLIENT_SECRET": SECRET,
        }
        ran = await cli.here("copy", cli.folder / "in", archive.url)
        assert ran.code == 0, ran.err
    assert endpoint.issued == 1
