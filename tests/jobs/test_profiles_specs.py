"""How ends are written: what text means what, what is one place, what shows, and what is kept."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postdicom_async import DicomWeb, PostDicom, UsageError
from postdicom_async.jobs.ends import specs
from postdicom_async.jobs.ends.specs import EndSpec, end_of, parse_end
from postdicom_async.jobs.pace.pace import Pace
from postdicom_async.jobs.pace.presets import fill_in, limited_settings
from postdicom_async.profiles import Profile
from tests.support.canaries import CANARIES, canary_watch

URL = "https://archive.example/dicom-web"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of profiles that is used, with two names of one archive in it."""
    path = tmp_path / "profiles.toml"
    path.write_text(
        '[hospital]\nurl = "https://archive.example/dicom-web"\nusername = "alice"\n'
        '[same]\nurl = "HTTPS://Archive.example:443/dicom%2Dweb/"\nkind = "postdicom"\n'
        '["a.b"]\nkind = "cloud"\nfolder_uuid = "F"\n'
    )
    monkeypatch.setenv("POSTDICOM_CONFIG", str(path))
    for name in ("POSTDICOM_URL", "POSTDICOM_USERNAME", "POSTDICOM_PASSWORD", "POSTDICOM_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    return path


class Made:
    """Stands for a kind of end: keeps what it was made of."""

    identity = features = studies = name = ""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args, self.kwargs = args, kwargs


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every end that is opened is a `Made`; return the names of their kinds."""
    asked: list[str] = []

    def made(name: str) -> type[Made]:
        class Kind(Made):
            def __init__(self, *args: object, **kwargs: object) -> None:
                asked.append(name)
                super().__init__(*args, **kwargs)

        return Kind

    for name in ("archive.ArchiveEnd", "cloud.CloudEnd", "folder.FolderEnd"):
        monkeypatch.setattr(f"postdicom_async.jobs.ends.{name}", made(name))
    return asked


@pytest.mark.parametrize(
    ("text", "kind", "place"),
    [
        ("/data", "folder", "/data"),
        ("/data/../data/x/", "folder", "/data/x"),
        ("C:\\images", "folder", f"{Path.cwd()}/C:\\images"),
        ("C:", "folder", f"{Path.cwd()}/C:"),
        (".", "folder", str(Path.cwd())),
        ("folder", "folder", f"{Path.cwd()}/folder"),
        ("./hospital:", "folder", f"{Path.cwd()}/hospital:"),
        ("/a/hospital:", "folder", "/a/hospital:"),
        ("what?x=1", "folder", f"{Path.cwd()}/what?x=1"),
        ("hospital:", "profile", "hospital"),
        ("a.b-c_1:", "profile", "a.b-c_1"),
        (URL, "dicomweb", URL),
        (f"{URL}/", "dicomweb", URL),
        (f"postdicom+{URL}", "postdicom", URL),
        (f"dicomweb+{URL}", "dicomweb", URL),
        ("http://[::1]:8042/x", "dicomweb", "http://[::1]:8042/x"),
    ],
)
def test_what_a_text_names(text: str, kind: str, place: str) -> None:
    spec = parse_end(text)
    assert (spec.kind, spec.place, spec.filters) == (kind, place, ())


@pytest.mark.parametrize("start", ["hospital:", URL, f"postdicom+{URL}"])
def test_filters(start: str) -> None:
    spec = parse_end(f"{start}?StudyDate=20240101-&00080061=CT&PatientName=M%C3%9CLLER%5EA%26B")
    assert dict(spec.filters) == {"00080020": "20240101-", "00080061": "CT", "00100010": "MÜLLER^A&B"}
    assert (
        spec.filters == parse_end(f"{start}?PatientName=MÜLLER^A%26B&ModalitiesInStudy=CT&StudyDate=20240101-").filters
    )
    more = parse_end(f"{start}?StudyDate=2024-01-01-2024-02-01", filters={"ModalitiesInStudy": "MR"})
    assert dict(more.filters) == {"00080020": "20240101-20240201", "00080061": "MR"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a\0b", "no path and no address"),
        ("\ud800", "no path and no address"),
        ("hospital:folder", r"\./"),
        ("hospital:/data", r"\./"),
        ("hos pital:", "letters"),
        ("-x:", "letters"),
        ("https:", "beginning of an address"),
        ("ftp://host/x", "https://"),
        ("file:///data", "https://"),
        ("s3+https://host/x", "https://"),
        ("https://", "absolute address"),
        ("https://host:99999/x", "address"),
        (f"{URL}#x", "'#'"),
        ("https://alice:SECRET@archive.example/x", "password"),
        ("hospital:?StudyDate", "KEY=VALUE"),
        ("hospital:?StudyDate=", "StudyDate: give"),
        ("hospital:?=SECRET", "KEY=VALUE"),
        ("hospital:?StudyDat=SECRET", "StudyDat.*neither"),
        ("hospital:?StudyDate=SECRET", "StudyDate"),
        ("hospital:?StudyDate=2024&StudyDate=2024", "StudyDate is given twice"),
        ("hospital:?StudyDate=20240101&00080020=20240102", "given twice"),
        (f"{URL}?PatientID=SECRET%00", "PatientID"),
    ],
)
def test_what_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_end(text)
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_says_as_whom() -> None:
    spec = parse_end("https://alice%40x.example@archive.example/dicom-web?StudyDate=2024")
    assert (spec.place, spec.username) == (URL, "alice@x.example")
    assert spec.shown == "https://archive.example"


def test_one_place_has_one_identity(config: Path, tmp_path: Path) -> None:
    """Also through two profiles, an address, other filters, a link; and what differs is not one place."""
    same = {
        parse_end(text).identity()
        for text in ("hospital:", "same:", URL, f"{URL}/?StudyDate=2024", "hospital:?PatientID=1")
    }
    assert len(same) == 1
    other = {
        parse_end(text).identity() for text in ("a.b:", f"{URL}/x", "http://archive.example/dicom-web", f"{URL}%2F")
    }
    assert len(other | same) == 5
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    folders = {parse_end(str(tmp_path / name)).identity() for name in ("there", "link", "link/../there/.")}
    assert len(folders) == 1
    assert parse_end(str(tmp_path / "elsewhere")).identity() not in folders
    assert parse_end("http://localhost/x").identity() != parse_end("http://127.0.0.1/x").identity()
    assert parse_end("http://[0:0::1]/x").identity() == parse_end("http://[::1]:80/x/").identity()


def test_nothing_private_shows(config: Path) -> None:
    texts = [
        f"/{CANARIES['path']}",
        f"https://{CANARIES['username']}@archive.example/{CANARIES['path']}?PatientName={CANARIES['patient_name']}",
        f"hospital:?PatientID={CANARIES['patient_id']}",
    ]
    with canary_watch() as watch:
        for text in texts:
            spec = parse_end(text)
            watch.feed(spec)
            watch.feed_text(spec.shown)
    assert [parse_end(text).shown for text in texts] == ["folder", "https://archive.example", "hospital"]


@pytest.mark.parametrize("text", ["x", "hospital:?StudyDate=2024", "postdicom+https://a@archive.example/x?PatientID=1"])
def test_kept_and_sent(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job keeps, and what goes to a worker, is the same end wherever it is read."""
    spec = parse_end(text)
    kept, sent = json.dumps(spec.private), pickle.dumps(spec)
    monkeypatch.chdir(tmp_path)
    assert EndSpec.from_private(json.loads(kept)) == spec == pickle.loads(sent)


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"kind": "ftp", "place": "x", "username": "", "filters": {}},
        {"kind": "folder", "place": 1, "username": "", "filters": {}},
        {"kind": "folder", "place": "x", "username": "", "filters": []},
        {"kind": "folder", "place": "x", "username": "", "filters": {"StudyDate": 1}},
    ],
)
def test_what_is_kept_is_checked(kept: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        EndSpec.from_private(kept)


def test_opening_by_profile(config: Path, ends: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTDICOM_PASSWORD_HOSPITAL", "pw")
    end: Any = parse_end("hospital:?StudyDate=2024").open()
    (client,) = end.args
    assert isinstance(client, DicomWeb)
    assert end.kwargs == {"name": "hospital", "filters": {"00080020": "20240101-20241231"}}
    same: Any = parse_end("same:").open()
    assert same.kwargs == {"name": "same", "filters": None}
    monkeypatch.setenv("POSTDICOM_API_KEY_A_B", "1f0e5b6a-3c1d-4e57-9a10-000000000001")
    monkeypatch.setenv("POSTDICOM_ACCOUNT_KEY_A_B", "1f0e5b6a-3c1d-4e57-9a10-000000000002")
    cloud: Any = parse_end("a.b:").open()
    assert cloud.kwargs == {"name": "a.b", "institution_uuid": None, "folder_uuid": "F"}
    assert ends == ["archive.ArchiveEnd", "archive.ArchiveEnd", "cloud.CloudEnd"]
    with pytest.raises(UsageError, match="not searched by filters"):
        parse_end("a.b:?StudyDate=2024").open()
    with pytest.raises(UsageError, match=r"no profile hospitl.*did you mean hospital"):
        parse_end("hospitl:").open()


def test_opening_the_rest(ends: list[str], tmp_path: Path, config: Path) -> None:
    folder: Any = end_of(tmp_path / "x", index=tmp_path / "index", filters={"StudyDate": "20240101"})
    assert folder.args == (tmp_path / "x",)
    assert folder.kwargs == {"index": tmp_path / "index", "filters": {"00080020": "20240101"}, "target": False}
    client = PostDicom(URL, "a", "b")
    end: Any = end_of(client)
    assert (end.args, end.kwargs) == ((client,), {"name": None, "filters": None})
    assert end_of(end) is end
    assert ends == ["folder.FolderEnd", "archive.ArchiveEnd"]
    with pytest.raises(UsageError, match="give a client"):
        end_of(5)  # type: ignore[arg-type]


def test_variables_of_no_name_go_to_one_archive_only(
    config: Path, ends: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two archives in a job, the password of the one must not go to the other."""
    monkeypatch.setenv("POSTDICOM_PASSWORD", "pw")
    with pytest.raises(UsageError, match="no password for profile hospital: set POSTDICOM_PASSWORD_HOSPITAL"):
        parse_end("hospital:").open()
    parse_end("hospital:").open(alone=True)
    parse_end("hospital:").open(ask=lambda _prompt: "typed")
    monkeypatch.setenv("POSTDICOM_URL", "https://other.example/dicom-web")
    with pytest.raises(UsageError, match="no password"):
        parse_end("hospital:").open(alone=True)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every client that is made for an address is told of here with its credentials."""
    made: list[Any] = []

    def client(url: str, *, auth: Any, **_: object) -> object:
        made.append(auth)
        return DicomWeb(url)

    monkeypatch.setattr("postdicom_async.dicomweb.client.DicomWeb", client)
    return made


@pytest.mark.parametrize(
    ("address", "alone", "goes"),
    [
        (None, True, True),
        (None, False, False),
        (URL, False, True),
        ("https://ARCHIVE.example:443/other", False, True),
        ("https://other.example/dicom-web", True, False),
        ("http://archive.example/dicom-web", True, False),
        ("nonsense", True, False),
    ],
)
def test_whose_the_variables_are(
    config: Path,
    ends: list[str],
    credentials: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    alone: bool,
    goes: bool,
) -> None:
    """They are of the archive that POSTDICOM_URL names; without it, of the only one that takes part."""
    if address is not None:
        monkeypatch.setenv("POSTDICOM_URL", address)
    monkeypatch.setattr(specs, "_end_of_client", lambda *_: Made())
    monkeypatch.setenv("POSTDICOM_TOKEN", "t")
    parse_end(URL).open(alone=alone)
    monkeypatch.delenv("POSTDICOM_TOKEN")
    monkeypatch.setenv("POSTDICOM_USERNAME", "u")
    monkeypatch.setenv("POSTDICOM_PASSWORD", "p")
    parse_end(URL).open(alone=alone)
    assert credentials == (["t", ("u", "p")] if goes else [None, None])


def test_rates_and_windows_of_both_profiles(config: Path) -> None:
    """The lower rate of two counts, and only where the job says nothing itself."""
    one = Profile("one", url=URL, max_rate="40M", windows="Sat 10:00-12:00")
    two = Profile("two", url=URL, max_rate="30M", requests_per_second=7, preset="google")
    pace = Pace()
    fill_in(pace, [one, two])
    known = pace.snapshot()
    assert [known[name] for name in ("max_rate", "max_requests", "windows")] == ["30M", "7/s", "Sat 10:00-12:00"]
    pace = Pace(max_rate="50M")
    fill_in(pace, [one, Profile("two", url=URL, preset="google")])
    assert (pace.snapshot()["max_rate"], pace.snapshot()["max_requests"]) == ("50M", "50/s")
    pace = Pace()
    fill_in(pace, [])
    assert pace.snapshot() == Pace().snapshot()
    with pytest.raises(UsageError, match="both profiles"):
        fill_in(pace, [one, replace(two, windows="Sun 10:00-12:00")])
    fill_in(pace, [one, replace(two, windows="sat 10:00-12:00")])


def test_a_preset_leaves_what_the_profile_says(config: Path) -> None:
    limits = limited_settings(Profile("one", url=URL, preset="google", parallel_stores=2), alone=True).limits
    assert (limits.batch_instances, limits.page_size, limits.parallel_stores, limits.parallel_retrieves) == (
        50,
        5000,
        2,
        8,
    )
    limits = limited_settings(Profile("one", url=URL, preset="google", connections=3), alone=True).limits
    assert (limits.connections, limits.parallel_stores, limits.parallel_retrieves) == (3, 3, 3)


def test_a_proxy_with_a_password(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot stand in the file, so it comes from the variable, unless the profile names another."""
    monkeypatch.setenv("POSTDICOM_PROXY", "http://me:pw@proxy.example:3128")
    assert limited_settings(Profile("one", url=URL), alone=True).proxy == "http://me:pw@proxy.example:3128"
    own = Profile("one", url=URL, proxy="http://own.example:3128")
    assert limited_settings(own, alone=True).proxy == "http://own.example:3128"


PIECES = st.sampled_from([
    "https://", "postdicom+", "hospital:", "?", "StudyDate", "=", "2024", "&", "@", "u", ":", "[", "]", "::1", "%zz",
    "%41", "/", "\\", "00080020", ":99999", "\ud800", "\n",
])  # fmt: skip


@settings(deadline=None)
@given(st.text() | st.lists(PIECES).map("".join))
def test_any_text_is_an_end_or_refused_in_one_line(text: str) -> None:
    try:
        spec = parse_end(text)
    except UsageError as error:
        problem = str(error)
    else:
        problem = ""
    if problem:
        assert "\n" not in problem
        return
    assert EndSpec.from_private(spec.private) == spec
    if spec.kind != "profile":
        assert spec.identity()
