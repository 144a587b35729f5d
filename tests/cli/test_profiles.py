"""``postdicom profiles`` and ``--profile``: which archive is meant, as whom, and that no secret is to be seen."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import all_commands
from tests.cli.conftest import NO_KEYRING, Cli
from tests.cli.test_operations import _on_a_terminal
from tests.cloud.conftest import INSTITUTION
from tests.support.bodies import json_reply
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.certificates import Authority
from tests.support.faulty_server import FaultyServer, Reply, unused_port
from tests.support.keyring_files import FileKeyring, file_keyring

__all__ = ["file_keyring"]

SECRET = CANARIES["password"]
SEARCH = ("search", "studies", "--attempts", "1")
WITHOUT_AN_ARCHIVE = {
    "completion",
    "help",
    "man",
    "demo",
    "serve",
    "scan",
    "profiles",
    "copy",
    "sync",
    "verify",
    "jobs",
}


@pytest.fixture
def config(cli: Cli) -> Path:
    """Return the file of profiles that the command uses; it is not there yet."""
    path = cli.folder / "config" / "profiles.toml"
    cli.environment["POSTDICOM_CONFIG"] = str(path)
    return path


@pytest.fixture
async def named(cli: Cli, config: Path, embedded_archive: Any) -> Cli:
    """Give the archive the name ``hospital``; its password is in a variable."""
    ran = await cli.here("profiles", "add", "hospital", "--url", embedded_archive.url, "-u", "demo")
    assert (ran.code, ran.out) == (0, "")
    cli.environment["POSTDICOM_PASSWORD_HOSPITAL"] = "demo"
    return cli


# --- the commands ----------------------------------------------------------------------------------------------------


async def test_from_its_first_day_to_its_last(named: Cli, config: Path, embedded_archive: Any) -> None:
    listed = await named.here("profiles", "list")
    assert (listed.code, listed.err) == (0, "")
    assert any(embedded_archive.url in line and "demo" in line for line in listed.out.splitlines())
    shown = await named.here("profiles", "show", "hospital")
    assert "POSTDICOM_PASSWORD_HOSPITAL" in shown.out
    tried = await named.here("profiles", "test", "hospital")
    assert (tried.code, tried.err) == (0, "")
    assert [line.split() for line in tried.out.splitlines()] == [
        ["address", "works"],
        ["TLS", "none:", "http://"],
        ["credentials", "works", "(POSTDICOM_PASSWORD_HOSPITAL)"],
        ["search", "works"],
    ]
    asks = await named.here("profiles", "remove", "hospital")
    assert (asks.code, "give --yes" in asks.error_line) == (2, True)
    assert (await named.here("profiles", "remove", "hospital", "--yes")).code == 0
    assert tomllib.loads(config.read_text()) == {}
    gone = await named.here("profiles", "show", "hospital")
    assert gone.code == 2
    assert f"no profile hospital in {config}" in gone.error_line


async def test_every_field_is_written(cli: Cli, config: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (cli.folder / name).write_text("x")
    ran = await cli(
        "profiles", "add", "full", "--url", "https://archive.example/x", "--kind", "postdicom", "--username", "me",
        "-o", "pages=true", "--ca-file", "ca.pem", "--client-cert", "cert.pem", "--client-key", "key.pem", "--proxy",
        "http://proxy.example:3128", "--allow-http", "--password-file", "pw", "--connections", "9",
        "--parallel-stores", "3", "--parallel-retrieves", "2", "--max-rate", "40M", "--requests-per-second", "2.5",
        "--window", "Mon-Fri 20:00-06:00 Europe/Berlin", "--preset", "orthanc", "--no-password",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    here = cli.folder
    assert tomllib.loads(config.read_text()) == {
        "full": {
            "kind": "postdicom", "url": "https://archive.example/x", "username": "me", "options": {"pages": "true"},
            "ca_file": f"{here}/ca.pem", "client_cert": f"{here}/cert.pem", "client_key": f"{here}/key.pem",
            "proxy": "http://proxy.example:3128", "allow_http": True, "connections": 9, "parallel_stores": 3,
            "parallel_retrieves": 2, "max_rate": "40M", "requests_per_second": 2.5,
            "windows": "Mon-Fri 20:00-06:00 Europe/Berlin", "preset": "orthanc", "password_file": f"{here}/pw",
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "archive.example"], "absolute address"),
        ([], "url is missing"),
        (["--url", f"https://me:{SECRET}@archive.example"], "leave user and password out"),
        (["--url", "https://h", "--proxy", f"http://me:{SECRET}@proxy.example"], "proxy's user and password"),
        (["--url", "https://h", "--window", "20-6"], "windows: "),
        (["--url", "https://h", "--max-rate", "fast"], "max_rate: give"),
        (["--url", "https://h", "--max-rate", "10/s"], "max_rate: give"),
        (["--url", "https://h", "--preset", "nimbus"], "preset: unknown; give one of"),
        (["--url", "https://h", "-o", "pages"], "-o: give FIELD=VALUE"),
        (["--url", "https://h", "-o", "pages=maybe"], "options pages: give true or false"),
        (["--url", "https://h", "--folder", "x"], "folder_uuid is not for kind dicomweb"),
        (["--kind", "cloud", "--url", "https://h"], "url is not for kind cloud"),
        (["--url", "https://h", "--ca-file", "missing.pem"], "ca_file: there is no such file"),
        (["--url", "https://h", "--password", SECRET], "POSTDICOM_PASSWORD"),
    ],
)
async def test_what_makes_no_sense_is_not_written(cli: Cli, config: Path, arguments: list[str], words: str) -> None:
    ran = await cli.here("profiles", "add", "hospital", *arguments)
    assert (ran.code, ran.out, config.exists()) == (2, "", False)
    assert words in ran.error_line
    assert SECRET not in ran.err


async def test_the_password_is_asked_for_and_kept(cli: Cli, config: Path, file_keyring: FileKeyring) -> None:
    cli.environment |= file_keyring.environment
    add = ["profiles", "add", "hospital", "--url", "https://archive.example/x", "-u", "alice"]
    asked = b"Password for hospital, for the keyring (empty: not now): "
    assert (await _on_a_terminal(cli, add, [(asked, f"{SECRET}\n".encode())]))[0] == 0
    assert file_keyring.entries == {"postdicom-async alice@https://archive.example": SECRET}
    assert SECRET not in config.read_text()
    shown = await cli.here("profiles", "show", "hospital", "--json")
    assert shown.json["answer"]["secrets"] == {
        "password": "the keyring (postdicom-async, alice@https://archive.example)"
    }
    assert (await cli.here("profiles", "add", "other", *add[3:])).code == 0, "it is there, so nobody is asked"
    first = await cli.here("profiles", "remove", "other", "--yes")
    assert (first.err, len(file_keyring.entries)) == ("other is forgotten\n", 1)
    last = await cli.here("profiles", "remove", "hospital", "--yes")
    assert (last.err, file_keyring.entries) == ("hospital is forgotten, its keyring entry too\n", {})


async def test_a_keyring_that_keeps_nothing(cli: Cli, config: Path, file_keyring: FileKeyring) -> None:
    cli.environment |= {**file_keyring.environment, "PYTHON_KEYRING_BACKEND": "keyring_of_the_tests.Forgetful"}
    add = ["profiles", "add", "hospital", "--url", "https://archive.example/x", "-u", "alice"]
    assert (await _on_a_terminal(cli, add, [(b"not now): ", f"{SECRET}\n".encode())]))[0] == 0
    assert (file_keyring.entries, SECRET in config.read_text()) == ({}, False)
    assert "nowhere: it will be asked for" in (await cli.here("profiles", "show", "hospital")).out


async def test_no_secret_is_in_a_command_line(cli: Cli, config: Path, file_keyring: FileKeyring) -> None:
    """Neither of the command nor of what it starts: the keyring of this test looks at every process there is."""
    backend = Path(file_keyring.environment["PYTHONPATH"]) / "keyring_of_the_tests.py"
    seen = cli.folder / "seen"
    spying = (
        "\nclass Spying(Kept):\n    def set_password(self, service, username, password):\n"
        "        places = [f'/proc/{one}/cmdline' for one in (os.getpid(), os.getppid())]\n"
        "        lines = [open(place, 'rb').read() for place in places]\n"
        f"        open({str(seen)!r}, 'ab').write(b'|'.join(lines))\n"
        "        super().set_password(service, username, password)\n"
    )
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("there is no /proc")
    backend.write_text(backend.read_text() + spying)
    cli.environment |= {**file_keyring.environment, "PYTHON_KEYRING_BACKEND": "keyring_of_the_tests.Spying"}
    add = ["profiles", "add", "hospital", "--url", "https://archive.example/x", "-u", "alice"]
    await _on_a_terminal(cli, add, [(b"not now): ", f"{SECRET}\n".encode())])
    assert list(file_keyring.entries.values()) == [SECRET]
    lines = seen.read_bytes()
    assert lines.count(b"postdicom") >= 2
    assert SECRET.encode() not in lines


async def test_nothing_secret_is_written(cli: Cli, config: Path, canary_watch: CanaryWatch) -> None:
    """What the commands write, with secrets in every place that they look at."""
    (cli.folder / "pw").write_text(SECRET)
    (cli.folder / "pw").chmod(0o600)
    url = f"http://127.0.0.1:{unused_port()}"
    await cli.here("profiles", "add", "one", "--url", url, "-u", "alice", "--password-file", "pw")
    await cli.here("profiles", "add", "two", "--url", url)
    cli.environment |= {"POSTDICOM_TOKEN_TWO": CANARIES["token"], "POSTDICOM_PASSWORD_ONE": SECRET}
    for words in (["list"], ["list", "--json"], ["show", "one"], ["show", "two", "--json"], ["test", "one"]):
        ran = await cli.here("profiles", *words)
        canary_watch.feed_text(ran.out + ran.err)
    canary_watch.feed_text(config.read_text())


@pytest.mark.parametrize("status", [401, 400])
async def test_what_does_not_work_is_told_apart(cli: Cli, config: Path, status: int) -> None:
    async with FaultyServer(Reply(status)) as server:
        await cli.here("profiles", "add", "hospital", "--url", server.url, "-u", "demo")
        cli.environment["POSTDICOM_PASSWORD_HOSPITAL"] = SECRET
        ran = await cli.here("profiles", "test", "hospital")
    lines = {line.split()[0]: line for line in ran.out.splitlines()}
    assert "works" in lines["address"]
    if status == 401:
        assert (ran.code, "does not work" in lines["credentials"], "not tried" in lines["search"]) == (4, True, True)
    else:
        assert (ran.code, "works" in lines["credentials"], "does not work" in lines["search"]) == (1, True, True)
    assert len(ran.err.splitlines()) == 1


async def test_a_test_of_tls(cli: Cli, config: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    async with FaultyServer(json_reply([]), ssl_context=authority.server("127.0.0.1")) as server:
        await cli.here("profiles", "add", "unknown", "--url", server.url)
        await cli.here("profiles", "add", "known", "--url", server.url, "--ca-file", authority.ca_file)
        unknown, known = await cli.here("profiles", "test", "unknown"), await cli.here("profiles", "test", "known")
    assert (unknown.code, known.code) == (1, 0)
    assert [line.split()[1:] for line in unknown.out.splitlines()[:2]] == [["works"], ["does", "not", "work"]]
    assert [line.split()[1] for line in known.out.splitlines()] == ["works"] * 4
    nowhere = await cli.here("profiles", "add", "nowhere", "--url", f"http://127.0.0.1:{unused_port()}")
    assert nowhere.code == 0
    ran = await cli.here("profiles", "test", "nowhere")
    assert (ran.code, ran.out.split()[:4]) == (5, ["address", "does", "not", "work"])


async def test_a_test_without_its_password(named: Cli) -> None:
    del named.environment["POSTDICOM_PASSWORD_HOSPITAL"]
    ran = await named.here("profiles", "test", "hospital")
    assert (ran.code, ran.out) == (2, "")
    assert "no password for profile hospital: set POSTDICOM_PASSWORD_HOSPITAL, name its file (password_file), " in (
        ran.error_line
    )
    assert "(keyring set postdicom-async demo@http://" in ran.error_line


async def test_one_that_is_broken(named: Cli, config: Path) -> None:
    """By hand. The others can be used, and it can be taken out."""
    config.write_text(f"{config.read_text()}\n[broken]\nurl = 'https://h/x'\npasword = '{SECRET}'\n")
    listed, as_json = await named.here("profiles", "list"), await named.here("profiles", "list", "--json")
    assert (listed.code, as_json.code) == (2, 2)
    assert "hospital" in listed.out
    assert [one["name"] for one in as_json.json["items"]] == ["hospital"]
    assert "profile broken: 'pasword' does not belong in this file" in listed.error_line
    assert (await named.here(*SEARCH, "--profile", "hospital")).code == 0
    assert (await named.here(*SEARCH, "--profile", "broken")).code == 2
    assert (await named.here("profiles", "remove", "broken", "--yes")).code == 0
    assert (await named.here("profiles", "list")).code == 0


async def test_a_file_of_a_password(cli: Cli, config: Path, embedded_archive: Any) -> None:
    """It may be written after the profile; one that others may read is used by nobody."""
    file = cli.folder / "pw"
    add = ("profiles", "add", "hospital", "--url", embedded_archive.url, "-u", "demo", "--password-file", "pw")
    assert (await cli(*add)).code == 0
    assert f"password_file: there is no such file ({file})" in (await cli.here("profiles", "show", "hospital")).out
    file.write_text("demo\n")
    file.chmod(0o644)
    ran = await cli.here(*SEARCH, "--profile", "hospital")
    assert (ran.code, "password_file: others may read it" in ran.error_line) == (2, True)
    file.chmod(0o400)
    assert (await cli.here(*SEARCH, "--profile", "hospital")).code == 0


# --- --profile -------------------------------------------------------------------------------------------------------


def test_every_command_that_speaks_to_an_archive_takes_a_profile() -> None:
    without = {
        words for words, command in all_commands().items()
        if "--profile" not in {option for param in command.params for option in param.opts}
    }  # fmt: skip
    assert {words[0] for words in without} <= WITHOUT_AN_ARCHIVE


async def test_with_a_profile(named: Cli, embedded_archive: Any, one_file: Path) -> None:
    assert (await named.here("upload", one_file, "--profile", "hospital")).code == 0
    found = await named.here("search", "studies", "--json", "--profile", "hospital")
    assert len(found.told) == 1
    by_variable = await named.here("search", "studies", "--json")
    assert by_variable.code == 2
    named.environment["POSTDICOM_PROFILE"] = "hospital"
    assert (await named.here("search", "studies", "--json")).told == found.told
    unknown = await named.here(*SEARCH, "--profile", "hospitl")
    assert (unknown.code, "did you mean hospital?" in unknown.error_line) == (2, True)


async def test_options_win(named: Cli, config: Path, embedded_archive: Any) -> None:
    """Each against a field that would not work."""
    config.write_text(
        f'[wrong]\nurl = "{embedded_archive.url}"\nusername = "nobody"\nkind = "postdicom"\nconnections = 1\n'
        'proxy = "http://127.0.0.1:1"\n'
    )
    named.environment["POSTDICOM_PASSWORD_WRONG"] = "demo"
    named.environment["POSTDICOM_USERNAME"] = "demo"  # not typed: what the profile says counts
    search = (*SEARCH, "--profile", "wrong")
    assert (await named.here(*search)).code == 5
    refused = await named.here(*search, "--proxy", "")
    assert refused.code == 5, "an empty one is none given"
    config.write_text(config.read_text().replace('proxy = "http://127.0.0.1:1"\n', ""))
    assert (await named.here(*search)).code == 4
    assert (await named.here(*search, "--username", "demo", "--dialect", "dicomweb")).code == 0


async def test_two_archives_at_once(named: Cli, config: Path, embedded_archive: Any) -> None:
    """The credentials of one archive must not go to another: whichever is not clear is refused."""
    other = f"http://127.0.0.1:{unused_port()}/x"
    typed = await named.here(*SEARCH, "--profile", "hospital", "--url", other)
    assert (typed.code, "name two archives" in typed.error_line) == (2, True)
    same = await named.here(*SEARCH, "--profile", "hospital", "--url", embedded_archive.url + "/")
    assert same.code == 0
    named.environment["POSTDICOM_URL"] = other
    assert (await named.here(*SEARCH, "--profile", "hospital")).code == 0, "what is typed outranks the environment"
    del named.environment["POSTDICOM_PASSWORD_HOSPITAL"]
    named.environment["POSTDICOM_PASSWORD"] = "demo"
    foreign = await named.here(*SEARCH, "--profile", "hospital")
    assert (foreign.code, "no password" in foreign.error_line) == (2, True), "that password is the other archive's"
    named.environment["POSTDICOM_PROFILE"] = "hospital"
    unclear = await named.here(*SEARCH)
    assert (unclear.code, "POSTDICOM_PROFILE and an address" in unclear.error_line) == (2, True)
    del named.environment["POSTDICOM_URL"]
    assert (await named.here(*SEARCH)).code == 0
    async with FaultyServer(json_reply([])) as server:
        elsewhere = await named.here(*SEARCH, "--url", server.url)
        assert elsewhere.code == 0
        assert "authorization" not in str(server.requests[0].headers).lower()


async def test_kinds_that_do_not_fit(cli: Cli, config: Path) -> None:
    await cli.here("profiles", "add", "dicom", "--url", "https://h/x")
    await cli.here("profiles", "add", "cloud", "--kind", "cloud")
    for words, expected in (
        (["search", "studies", "--profile", "cloud"], "postdicom cloud takes it"),
        (["orders", "search", "--profile", "dicom"], "PostDICOM's operations need postdicom"),
        (["cloud", "account", "--profile", "dicom"], "the Cloud API needs kind cloud"),
    ):
        ran = await cli.here(*words)
        assert (ran.code, expected in ran.error_line) == (2, True)


async def test_vendor_operations(named: Cli, embedded_archive: Any) -> None:
    add = ("profiles", "add", "vendor", "--kind", "postdicom", "--url", embedded_archive.url, "-u", "demo")
    assert (await named.here(*add)).code == 0
    named.environment["POSTDICOM_PASSWORD_VENDOR"] = "demo"
    made = await named.here("folders", "create", "--name", "Conference", "--profile", "vendor")
    assert made.code == 0, made.err
    assert (await named.here("profiles", "test", "vendor")).code == 0
    named.environment.pop("POSTDICOM_PASSWORD_VENDOR")
    assert (await named.here("folders", "search", "--profile", "vendor")).code == 2


async def test_an_account_of_the_cloud_api(cli: Cli, config: Path, cloud_archive: Any, one_file: Path) -> None:
    add = (
        "profiles", "add", "work", "--kind", "cloud", "--router-url", cloud_archive.router_url, "-u", "some body",
        "--institution-uuid", INSTITUTION,
    )  # fmt: skip
    assert (await cli.here(*add)).code == 0
    cli.environment |= {
        "POSTDICOM_API_KEY_WORK": cloud_archive.cloud_api_key,
        "POSTDICOM_ACCOUNT_KEY_WORK": cloud_archive.cloud_account_key,
    }
    tried = await cli.here("profiles", "test", "work")
    assert (tried.code, tried.out.splitlines()[-1].split()) == (0, ["session", "works"]), tried.err
    assert (await cli.here("cloud", "account", "--profile", "work")).code == 0
    sent = await cli.here("cloud", "upload", one_file, "--profile", "work", "--json")
    assert sent.code == 0, sent.err
    cli.environment["POSTDICOM_API_KEY_WORK"] = "1f0e5b6a-3c1d-4e57-9a10-99999999f001"
    refused = await cli.here("profiles", "test", "work")
    assert (refused.code, "does not work" in refused.out.splitlines()[2]) == (4, True)


async def test_an_end_of_a_job(named: Cli, study_folder: Path, embedded_archive: Any) -> None:
    named.environment |= {"POSTDICOM_STATE": str(named.folder / "state"), **NO_KEYRING}
    moved = await named.here("copy", study_folder, "hospital:", "--json")
    assert moved.code == 0, moved.err
    assert moved.json["summary"]["counts"]["done"] == 6
    assert moved.json["summary"]["target"] == "hospital"
    back = await named.here("copy", "hospital:?PatientID=none", named.folder / "back", "--json")
    assert (back.code, back.json["summary"]["discovered"]) == (0, 0)
    same = await named.here("copy", "hospital:", embedded_archive.url)
    assert (same.code, "same place" in same.error_line) == (2, True)
