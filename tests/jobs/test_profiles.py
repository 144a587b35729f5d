"""Named archives: the file is the user's and whole at any instant, no secret gets into it, and each finds its own."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postdicom_async import CloudApi, DicomWeb, LocalFileError, PostDicom, UsageError, profiles
from postdicom_async.profiles import Profile, secrets
from postdicom_async.profiles.file import _without
from postdicom_async.profiles.model import KEYS, NOT_OF, profile_of, table_of
from tests.support.canaries import CANARIES, canary_watch
from tests.support.keyring_files import FileKeyring, file_keyring

__all__ = ["file_keyring"]

URL = "https://archive.example/dicom-web"
KEY = "1f0e5b6a-3c1d-4e57-9a10-00000000000{}"
SECRET = CANARIES["password"]
HOSPITAL = '[hospital]\nurl = "https://archive.example/dicom-web"\nusername = "alice"\n'


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that is used; it is not there yet, nor is its folder."""
    path = tmp_path / "config" / "profiles.toml"
    monkeypatch.setenv("POSTDICOM_CONFIG", str(path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    for name in [name for name in os.environ if name.startswith("POSTDICOM_") and name != "POSTDICOM_CONFIG"]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return path


def written(config: Path, text: str, mode: int = 0o600) -> Path:
    config.parent.mkdir(exist_ok=True)
    config.write_text(text)
    config.chmod(mode)
    return config


def pipe(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_file_is_the_users_alone(config: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        profiles.add_profile("hospital", {"url": URL})
    finally:
        os.umask(before)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert [path.name for path in config.parent.iterdir()] == ["profiles.toml"], "nothing else is left there"


def test_what_is_written_by_hand_stays(config: Path) -> None:
    before = f"# mine\n{HOSPITAL}# about the next\n[other]  # yes\nurl = 'http://127.0.0.1/x'\n"
    written(config, before.rstrip("\n"))
    new = {"kind": "dicomweb", "url": URL, "options": {"pages": "false"}, "connections": 4, "allow_http": True}
    profiles.add_profile("new.one", new)
    added = config.read_text()
    assert added.startswith(before)
    assert tomllib.loads(added)["new.one"] == new
    profiles.remove_profile("new.one")
    assert config.read_text().rstrip("\n") == before.rstrip("\n")
    profiles.remove_profile("hospital")
    assert "# mine" in config.read_text()
    assert set(tomllib.loads(config.read_text())) == {"other"}


def test_replaced(config: Path) -> None:
    profiles.add_profile("hospital", {"url": URL, "username": "alice"})
    with pytest.raises(UsageError, match="--replace"):
        profiles.add_profile("hospital", {"url": URL + "/2"})
    assert profiles.load_profile("hospital").username == "alice"
    profiles.add_profile("hospital", {"url": URL + "/2"}, replace=True)
    assert profiles.load_profile("hospital") == Profile("hospital", url=URL + "/2")


@pytest.mark.parametrize(
    "text",
    [
        '[hospital]\nurl = "https://h/x"\nwindows = """\n[other]\n"""\n[other]\nurl = "https://o/x"\n',
        'hospital.url = "https://h/x"\n[other]\nurl = "https://o/x"\n',
    ],
)
def test_what_cannot_be_cut_out_as_text_is_left_alone(config: Path, text: str) -> None:
    written(config, text)
    with pytest.raises(UsageError, match="only an editor"):
        profiles.remove_profile("hospital")
    assert config.read_text() == text


def test_tables_below_go_too(config: Path) -> None:
    written(config, f'{HOSPITAL}[other]\nurl="{URL}"\n[hospital.options]\npages = false\n')
    assert profiles.load_profile("hospital").options == (("pages", "false"),)
    profiles.remove_profile("hospital")
    assert tomllib.loads(config.read_text()) == {"other": {"url": URL}}


PIECES = st.sampled_from(
    [
        "[a1]",
        "[b1]",
        "[a1.options]",
        "x=1",
        's="""',
        '"""',
        "#c",
        "[[a1]]",
        '["a1"]',
        "l=[",
        "1,",
        "]",
        "[ a1 ] # x",
        "",
    ]
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=12).map("\n".join))
def test_whatever_is_cut_out_leaves_the_rest(text: str) -> None:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    try:
        left = _without(text, "a1", Path("x"))
    except UsageError:
        return
    assert tomllib.loads(left) == {name: table for name, table in tables.items() if name != "a1"}


def test_a_link_stays_one(config: Path, tmp_path: Path) -> None:
    """Dotfiles are kept elsewhere by some."""
    real = tmp_path / "dotfiles" / "mine.toml"
    real.parent.mkdir()
    written(real, HOSPITAL)
    config.parent.mkdir()
    config.symlink_to(real)
    profiles.add_profile("other", {"url": URL})
    assert config.is_symlink()
    assert set(tomllib.loads(real.read_text())) == {"hospital", "other"}


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_disk_that_is_full(config: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    written(config, HOSPITAL)

    def full(*_args: object, **_kwargs: object) -> Any:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        if call == "replace":
            patch.setattr(Path, "replace", full)
        else:
            patch.setattr(os, call, full)
        with pytest.raises(LocalFileError, match="disk is full") as caught:
            profiles.add_profile("other", {"url": URL})
    assert caught.value.disk_full
    assert config.read_text() == HOSPITAL
    assert [path.name for path in config.parent.iterdir()] == ["profiles.toml"]


def test_what_a_killed_process_left_is_in_nobodys_way(config: Path) -> None:
    written(config, HOSPITAL)
    lock = config.with_name("profiles.toml.lock")
    lock.touch()
    code = "import fcntl, os, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(lock)], check=False).returncode == -9
    profiles.add_profile("other", {"url": URL})
    assert set(profiles.load_profiles()) == {"hospital", "other"}
    assert not lock.exists()


def test_many_add_at_once(config: Path) -> None:
    """Threads here and processes of their own: none loses what another wrote."""
    code = "import sys; from postdicom_async import profiles; profiles.add_profile(sys.argv[1], {'url': sys.argv[2]})"
    others = [subprocess.Popen([sys.executable, "-c", code, f"process-{n}", URL]) for n in range(4)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: profiles.add_profile(f"thread-{n}", {"url": URL}), range(16)))
    assert [process.wait(60) for process in others] == [0] * 4
    expected = {f"process-{n}" for n in range(4)} | {f"thread-{n}" for n in range(16)}
    assert set(profiles.load_profiles()) == expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: written(path, HOSPITAL, 0o620), "others may change it"),
        (lambda path: written(path, HOSPITAL, 0o602), "others may change it"),
        (lambda path: written(path, f'[hospital]\nurl = "{SECRET}'), r"not TOML \(at end"),
        (lambda path: written(path, "[" * 5000), "not TOML"),
        (lambda path: (written(path, ""), path.write_bytes(b"\xff"))[0], "not UTF-8"),
        (lambda path: written(path, "#" * 2_000_000), "too large"),
        (lambda path: path.mkdir(parents=True), "folder is in the way|no file"),
        (pipe, "no file"),
        (lambda path: written(path, '[a-b]\nurl="https://h"\n[a_b]\nurl="https://h"'), "a-b and a_b .* same name"),
        (lambda path: written(path, '[Prod]\nurl="https://h"\n[prod]\nurl="https://h"'), "same name"),
    ],
)
def test_files_that_are_refused(config: Path, make: Any, words: str) -> None:
    make(config)
    with canary_watch() as watch:
        with pytest.raises((UsageError, LocalFileError), match=words) as caught:
            profiles.load_profile("hospital")
        watch.feed(caught.value)
        with pytest.raises((UsageError, LocalFileError), match=words):
            profiles.add_profile("other", {"url": URL})


def test_no_file_is_no_profiles(config: Path) -> None:
    assert profiles.load_profiles() == {}
    with pytest.raises(UsageError, match="none; postdicom profiles add") as caught:
        profiles.load_profile("hospital")
    assert str(config) in str(caught.value)


def test_an_unknown_name(config: Path) -> None:
    written(config, HOSPITAL + '[hostel]\nurl = "https://h/x"\n')
    with pytest.raises(UsageError, match=r"no profile hospitel .*did you mean hospital or hostel\?"):
        profiles.load_profile("hospitel")
    with pytest.raises(UsageError, match="there are hospital, hostel"):
        profiles.load_profile("zzzz")


def test_without_platformdirs(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert profiles.profiles_file() == config
    monkeypatch.delenv("POSTDICOM_CONFIG")
    with pytest.raises(UsageError, match=r"pip install .*, or set POSTDICOM_CONFIG"):
        profiles.profiles_file()


def test_in_the_users_configuration_folder(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("platformdirs")
    monkeypatch.delenv("POSTDICOM_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert profiles.profiles_file().name == "profiles.toml"
    if sys.platform == "linux":
        assert profiles.profiles_file() == tmp_path / "postdicom" / "profiles.toml"


# --- what a table holds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"password = '{SECRET}'", r"'password' does not belong.*keyring.*_HOSPITAL.*password_file"),
        (f"Token = '{SECRET}'", "'Token' does not belong"),
        (f"api_key = '{SECRET}'", "'api_key' does not belong"),
        (f"account_key = '{SECRET}'", "'account_key' does not belong"),
        (f"client_secret = '{SECRET}'", "'client_secret' does not belong"),
        (f"passwd = '{SECRET}'", "'passwd' does not belong"),
        (f"key_passphrase = '{SECRET}'", "'key_passphrase' does not belong"),
        (f"usernam = '{SECRET}'", r"unknown key 'usernam'; did you mean username\?"),
        (f"zzz = '{SECRET}'", "unknown key 'zzz'; known are kind, url"),
        ("kind = 'dicom'", "kind: give dicomweb, postdicom, cloud"),
        ("folder_uuid = 'x'", "folder_uuid is not for kind dicomweb"),
        ("connections = 0", "connections: give a whole number"),
        ("connections = true", "connections: give a whole number"),
        ("allow_http = 'yes'", "allow_http: give true or false"),
        ("requests_per_second = -1", "requests_per_second: give a number"),
        ("username = 5", "username: give text"),
        ("username = 'a\\tb'\nproxy = \"a\\u0007\"", "proxy: give text"),
        ("ca_file = 5", "ca_file: give the path"),
        ("options = 'pages=false'", "options: give a table"),
        ("options = {pages = 1.5}", "options.pages: give text"),
        (f"proxy = 'http://me:{SECRET}@proxy.example'", "proxy's user and password"),
        ("[hospital.windows]\na = 1", "windows: give text"),
        ("[hospital.b]\na = 1", "'b' is a table"),
    ],
)
def test_what_a_table_may_not_hold(config: Path, line: str, words: str) -> None:
    written(config, f'[hospital]\nurl = "{URL}"\n{line}\n')
    with canary_watch() as watch:
        with pytest.raises(UsageError, match=words) as caught:
            profiles.load_profile("hospital")
        watch.feed(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[hospital]\nusername = 'x'", "url is missing"),
        (f"[hospital]\nurl = 'https://me:{SECRET}@archive.example'", "url: leave user and password out"),
        ("[hospital]\nkind = 'cloud'\nurl = 'https://x'", "url is not for kind cloud"),
        ("hospital = 5", r"give a table \[hospital\]"),
    ],
)
def test_addresses(config: Path, text: str, words: str) -> None:
    written(config, text)
    with canary_watch() as watch:
        with pytest.raises(UsageError, match=words) as caught:
            profiles.load_profile("hospital")
        watch.feed(caught.value)


@pytest.mark.parametrize(
    "name", ["", "a", "C", "-ab", ".ab", "a b", "a:b", "a/b", "ä1", "ab\n", "http", "HTTPS", "file"]
)
def test_names_that_are_none(config: Path, name: str) -> None:
    with pytest.raises(UsageError, match="profile"):
        profiles.add_profile(name, {"url": URL})
    assert not config.exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": "archive.example"}, "url: give an absolute address"),
        ({"url": URL, "options": {"pgaes": "false"}}, "options: give FIELD=VALUE"),
        ({"url": URL, "options": {"pages": "maybe"}}, "profile hospital, options pages: give true or false"),
        ({"url": URL, "ca_file": "/nowhere/at/all"}, "ca_file: there is no such file"),
        ({"kind": "cloud", "router_url": "x"}, "router_url: give an absolute"),
        ({"kind": "cloud", "options": {"nonsense": "1"}}, "options: give FIELD=VALUE"),
    ],
)
def test_nothing_is_written_that_no_client_can_be_made_of(config: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        profiles.add_profile("hospital", values)
    assert not config.exists()


def test_paths_are_those_beside_the_file(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    written(config, HOSPITAL + 'ca_file = "ca.pem"\nclient_cert = "~/my.pem"\nclient_key = "/etc/key.pem"\n')
    found = profiles.load_profile("hospital")
    assert (found.ca_file, found.client_key) == (config.parent / "ca.pem", Path("/etc/key.pem"))
    if os.name == "posix":
        assert found.client_cert == Path("/home/me/my.pem")


TEXT = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), max_size=20)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{1,8}", fullmatch=True),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("username", "windows", "max_rate", "preset"), TEXT)),
    st.dictionaries(TEXT, TEXT, max_size=3),
)
def test_what_is_written_is_what_is_read(name: str, texts: dict[str, str], options: dict[str, str]) -> None:
    values = {"url": URL, **texts, "options": options, "connections": 3, "requests_per_second": 1.5}
    read = tomllib.loads(table_of(name, values))
    assert set(read) == {name}
    if name.lower() in ("http", "https", "file", "postdicom"):
        return
    found = profile_of(name, read[name])
    printable = {key: text for key, text in texts.items() if text}
    assert {key: getattr(found, key) for key in printable} == printable
    assert dict(found.options) == options
    assert (found.connections, found.requests_per_second) == (3, 1.5)


def test_no_profile_shows_or_sends_more_than_its_name(config: Path) -> None:
    written(config, HOSPITAL)
    found = profiles.load_profile("hospital")
    assert repr(found) == "<Profile hospital dicomweb>"
    assert pickle.loads(pickle.dumps(found)) == found


# --- secrets ---------------------------------------------------------------------------------------------------------


def secret_file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_where_a_password_is_looked_for(
    config: Path, tmp_path: Path, file_keyring: FileKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place alone gives it; of all of them together, the first in this order does."""
    written(config, HOSPITAL + 'password_file = "pw"\n')
    places: list[tuple[str, Callable[[], object]]] = [
        ("POSTDICOM_PASSWORD_HOSPITAL", lambda: monkeypatch.setenv("POSTDICOM_PASSWORD_HOSPITAL", "own variable")),
        ("password_file", lambda: secret_file(config.parent / "pw", "own file\n")),
        ("$CREDENTIALS_DIRECTORY/hospital.password", lambda: _credential(tmp_path, monkeypatch)),
        ("POSTDICOM_PASSWORD", lambda: monkeypatch.setenv("POSTDICOM_PASSWORD", "variable")),
        (
            "the keyring (postdicom-async, alice@https://archive.example)",
            lambda: file_keyring.put("alice@https://archive.example", "keyring"),
        ),
    ]
    found = profiles.load_profile("hospital")
    secrets: list[str] = []
    for place, put in reversed(places):
        put()
        file = found.password_file if len(secrets) > 2 else None  # while it is named, it must be there
        got = profiles.find_secret(replace(found, password_file=file), "password")
        assert got is not None
        assert got.place == place
        secrets.append(got.secret)
        assert (got.secret in repr(got)) == (got.secret in place)
    assert secrets == ["keyring", "variable", "of the service", "own file", "own variable"]


def _credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret_file(tmp_path / "credentials" / "hospital.password", "of the service", 0o440)  # a list grants it: see there
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (SECRET, 0o644, "password_file: others may read it; chmod 600"),
        (SECRET, 0o640, "others may read it"),
        ("", 0o600, "holds nothing"),
        ("\n", 0o600, "holds nothing"),
        (f"{SECRET}\n{SECRET}", 0o600, "more than one line"),
    ],
)
def test_files_of_secrets_that_are_refused(config: Path, text: str, mode: int, words: str) -> None:
    written(config, HOSPITAL + 'password_file = "pw"\n')
    secret_file(config.parent / "pw", text, mode)
    with canary_watch() as watch:
        with pytest.raises(UsageError, match=words) as caught:
            profiles.open_profile("hospital")
        watch.feed(caught.value)
    (config.parent / "pw").unlink()
    with pytest.raises(UsageError, match="password_file: there is no such file"):
        profiles.open_profile("hospital")


def test_opened(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = f'[vendor]\nkind = "postdicom"\nurl = "{URL}"\nusername = "a"\noptions = {{pages = true}}\n'
    cloud = '["cloud.x"]\nkind = "cloud"\nconnections = 3\nallow_http = true\n'
    written(config, f'{HOSPITAL}{vendor}[bare]\nurl = "{URL}"\n{cloud}')
    for name in ("PASSWORD_HOSPITAL", "PASSWORD_VENDOR"):
        monkeypatch.setenv(f"POSTDICOM_{name}", SECRET)
    monkeypatch.setenv("POSTDICOM_API_KEY_CLOUD_X", KEY.format(1))
    monkeypatch.setenv("POSTDICOM_ACCOUNT_KEY_CLOUD_X", KEY.format(2))
    with canary_watch() as watch:
        opened = {name: profiles.open_profile(name) for name in ("hospital", "vendor", "bare", "cloud.x")}
        for client in opened.values():
            watch.feed(client)
    assert {name: type(client) for name, client in opened.items()} == {
        "hospital": DicomWeb, "vendor": PostDicom, "bare": DicomWeb, "cloud.x": CloudApi,
    }  # fmt: skip


def test_limits_reach_the_client(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(config, f'[bare]\nurl = "{URL}"\nconnections = 3\nparallel_stores = 2\n')
    limits = profiles.open_profile("bare").settings.limits
    assert (limits.connections, limits.parallel_stores, limits.parallel_retrieves) == (3, 2, 3)


def test_a_token(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(config, f'[bare]\nurl = "{URL}"\n{HOSPITAL}')
    monkeypatch.setenv("POSTDICOM_TOKEN_BARE", "t")
    bare, hospital = (profiles.load_profile(name) for name in ("bare", "hospital"))
    assert profiles.credentials_of(bare) == "t"
    monkeypatch.setenv("POSTDICOM_PASSWORD_HOSPITAL", "p")
    monkeypatch.setenv("POSTDICOM_TOKEN", "of another archive")
    assert profiles.credentials_of(hospital) == ("alice", "p")
    monkeypatch.setenv("POSTDICOM_TOKEN_HOSPITAL", "t")
    with pytest.raises(UsageError, match="both a user name and a token"):
        profiles.credentials_of(hospital)


def test_two_accounts_of_the_cloud_have_entries_of_their_own(
    config: Path, file_keyring: FileKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have one address. What was stored for it without a name serves both."""
    written(config, '[one]\nkind = "cloud"\n[two]\nkind = "cloud"\n')
    one, two = profiles.load_profile("one"), profiles.load_profile("two")
    (own, shared), (other, same) = profiles.entries_of(one, "api-key"), profiles.entries_of(two, "api-key")
    assert shared == same == "api-key@https://developer.postdicom.com"
    file_keyring.put(shared, "for all")
    file_keyring.put(own, "of one")
    assert [profiles.find_secret(each, "api-key") for each in (one, two)] == [
        ("of one", f"the keyring (postdicom-async, {own})"),
        ("for all", f"the keyring (postdicom-async, {shared})"),
    ]
    assert own != other


def test_keyring_keeps_and_forgets(file_keyring: FileKeyring, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "alice@https://archive.example"
    assert secrets.keep(entry, SECRET)
    assert file_keyring.entries == {f"postdicom-async {entry}": SECRET}
    assert secrets.forget(entry)
    assert not secrets.forget(entry)
    assert file_keyring.entries == {}
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring_of_the_tests.Forgetful")
    assert not secrets.keep(entry, SECRET), "it says that it works, and keeps nothing"


def test_nobody_to_ask(config: Path) -> None:
    written(config, HOSPITAL)
    with pytest.raises(UsageError, match=r"set POSTDICOM_PASSWORD_HOSPITAL, .*alice@https://archive\.example\)"):
        profiles.open_profile("hospital")
    typed = profiles.credentials_of(profiles.load_profile("hospital"), ask=lambda prompt: prompt)
    assert typed == ("alice", "Password of alice for profile hospital: ")


@pytest.mark.parametrize(
    ("kind", "leave_out"), [("cloud", ""), ("dicomweb", "username"), ("postdicom", "username")]
)  # a client has no user
def test_every_key_can_be_written_and_read(config: Path, kind: str, leave_out: str) -> None:
    """A key that is forgotten in a table of the writer would be lost without a word."""
    numbers = {"connections": 2, "parallel_stores": 2, "parallel_retrieves": 2, "requests_per_second": 2.5}
    values: dict[str, Any] = {
        key: numbers.get(key, "/x" if key.endswith("_file") or key in {"client_cert", "client_key"} else "x")
        for key in set(KEYS) - NOT_OF[kind] - {leave_out}
    }
    values |= {"client_auth": "post"} if "client_auth" in values else {}
    values |= {"kind": kind, "options": {"a": "b"}, "allow_http": True, "environment_proxy": True}
    found = profile_of("hospital", tomllib.loads(table_of("hospital", values))["hospital"])
    read = {key: getattr(found, key) for key in values}
    read = {key: str(value) if isinstance(value, Path) else value for key, value in read.items()}
    assert {**read, "options": dict(found.options)} == values
