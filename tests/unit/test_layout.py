"""Names on disk: below the folder, on every file system, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postdicom_async.dicom.header import read_values
from postdicom_async.dicom.layout import (
    DEFAULT_LAYOUT,
    HEADER_FIELDS,
    Layout,
    naming_of,
    patterns_of,
    relative_names,
)
from postdicom_async.dicom.tags import TAG
from postdicom_async.errors import UsageError
from postdicom_async.results import InstanceUids
from tests.support.dicom_files import small_dicom
from tests.support.ids import shown

UIDS = InstanceUids("1.2", "1.2.3", "1.2.3.4")

GOOD: list[tuple[Layout, tuple[str, ...]]] = [
    (DEFAULT_LAYOUT, ("1.2", "1.2.3", "1.2.3.4.dcm")),
    ("{instance}", ("1.2.3.4",)),
    ("{instance}.dcm", ("1.2.3.4.dcm",)),
    ("all/{instance}.dcm", ("all", "1.2.3.4.dcm")),
    ("{study}_{series}_{instance}.dcm", ("1.2_1.2.3_1.2.3.4.dcm",)),
    ("with space/{instance}.dcm", ("with space", "1.2.3.4.dcm")),
    ("Größe/{instance}.dcm", ("Größe", "1.2.3.4.dcm")),
    ("日本/{instance}", ("日本", "1.2.3.4")),
    ("{{x}}/{instance}", ("{x}", "1.2.3.4")),
    ("a-b_c(1)[2]'x'/{instance}", ("a-b_c(1)[2]'x'", "1.2.3.4")),
    ("console/{instance}", ("console", "1.2.3.4")),
    ("x.con/{instance}", ("x.con", "1.2.3.4")),
    (lambda uids: f"{uids.study_instance_uid}/{uids.sop_instance_uid}", ("1.2", "1.2.3.4")),
    (lambda uids: PurePath("x", uids[2]), ("x", "1.2.3.4")),
    (lambda uids: PurePosixPath("x") / uids[2], ("x", "1.2.3.4")),
    (lambda uids: PureWindowsPath("x\\y") / uids[2], ("x", "y", "1.2.3.4")),
    (lambda uids: Path(uids[2]), ("1.2.3.4",)),
    (lambda _uids: "n" * 200, ("n" * 200,)),
]


@pytest.mark.parametrize(("layout", "expected"), GOOD, ids=shown)
def test_good_layouts(layout: Layout, expected: tuple[str, ...]) -> None:
    assert relative_names(layout)(UIDS) == expected


BAD_TEMPLATES = [
    "",
    "x",
    "{study}/{series}",
    "{patient}/{instance}",
    "{PatientName}{instance}",
    "{0}{instance}",
    "{}{instance}",
    "{instance",
    "instance}",
    "{instance}{",
    "{study.__class__}{instance}",
    "{study[0]}{instance}",
    "{instance.__init__.__globals__}",
    "{instance!r}",
    "{instance!s:>10}",
    "{instance:d}",
    "{instance:>20}",
    "{instance:{study}}",
    "{instance:>999999999999}",
    "{instance:%Y}",
    "{instance!x}",
    "{{instance}}",
    "{ instance }",
    "{INSTANCE}",
]


@pytest.mark.parametrize("template", BAD_TEMPLATES)
def test_bad_templates_are_refused_before_anything_is_fetched(template: str) -> None:
    with pytest.raises(UsageError, match=r"^layout: "):
        relative_names(template)


# --- what must not become a name ------------------------------------------------------------------------------------

DEVICES = ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789")]
HOSTILE = [
    *("", ".", "..", "...", " ", "  ", "\t", "\n"),
    *("/", "//", "/etc/passwd", "//server/share", "~/x/..", "/x", "x/", "x//y", "x/./y", "x/../y"),
    *("../x", "../../x", "x/..", "x/../../y", "./x", "./../x", "..\\x", "\\x", "x\\y", "\\\\server\\share"),
    *("c:x", "c:\\x", "C:/x", "x:stream", "x::$DATA", "file:///etc/passwd", "http://x"),
    *(".hidden", ".postdicom-0.part", "x/.ssh", ".git/config", "..x", "...x"),
    *(" x", "x ", "x.", "x. ", "x .", "x..", "x/y ", "x/ y", "\u00a0x", "x\u00a0", "\u3000x", "x\u2003"),
    *(f"x{char}y" for char in '<>:"|?*\\'),
    *(f"x{chr(code)}y" for code in range(32)),
    *(f"x{chr(code)}y" for code in range(127, 160)),
    *(f"x{char}y" for char in "\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\ufeff\ufff9\U000e0001\ue000"),
    *("x\ud800y", "\udcff", "x\udc80", "x\udfff"),
    *DEVICES,
    *(name.upper() for name in DEVICES),
    *(f"{name}.dcm" for name in DEVICES),
    *(f"x/{name}.tar.gz" for name in DEVICES[:4]),
    *(f"{name} .dcm" for name in DEVICES[:4]),
    *(f"{name}/x" for name in DEVICES[:4]),
    *("n" * 201, "n" * 10_000, "é" * 101, "日" * 67, "x/" + "n" * 201, "/".join("ab" * 10_000)),
    *("a\0", "\0", "a\0.dcm", "x/\0/y"),
    *("%00\n", "x\r", "x\ry", "\x1b[2J", "a\x7f"),
]


def test_the_table_is_large() -> None:
    assert len(HOSTILE) > 200


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:40])
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"^layout: ") as caught:
        relative_names(lambda _uids: name)(UIDS)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", HOSTILE[1:], ids=lambda name: repr(name)[:40])
def test_hostile_templates_are_refused(name: str) -> None:
    escaped = name.replace("{", "{{").replace("}", "}}")
    with pytest.raises(UsageError, match=r"^layout: "):
        relative_names(f"{escaped}/{{instance}}")(UIDS)


@pytest.mark.parametrize(
    "path", [PurePosixPath("/x"), PurePosixPath("../x"), PureWindowsPath("c:\\x"), Path(), Path("..")]
)
def test_hostile_paths_are_refused(path: PurePath) -> None:
    with pytest.raises(UsageError, match=r"^layout: "):
        relative_names(lambda _uids: path)(UIDS)


@pytest.mark.parametrize("made", [None, 1, b"x", ["x"], ("x", "y"), object()], ids=shown)
def test_what_is_no_path_is_refused(made: Any) -> None:
    with pytest.raises(UsageError, match=r"^layout: "):
        relative_names(lambda _uids: made)(UIDS)


@pytest.mark.parametrize(
    "uids",
    [
        ("", "", ""),
        ("..", "..", ".."),
        ("1.2", "1.2.3", "../../x"),
        ("1.2", "1.2.3", ""),
        ("1.2", "a", "1.2"),
        ("1.2/3", "1", "1"),
        ("1", "1", "1" * 65),
    ],
)
@pytest.mark.parametrize("layout", [DEFAULT_LAYOUT, lambda _uids: "harmless"])
def test_invalid_uids_name_nothing(uids: tuple[str, str, str], layout: Layout) -> None:
    with pytest.raises(UsageError, match="valid UIDs"):
        relative_names(layout)(InstanceUids(*uids))


# --- whatever a layout gives ----------------------------------------------------------------------------------------

NASTY = st.text(st.sampled_from("./\\: ab\0\n~{}\u202e\ud800CONcon1é"), max_size=12)


def stays_below(names: tuple[str, ...], kind: Callable[..., PurePath]) -> bool:
    root = kind("/root/folder") if kind is PurePosixPath else kind("C:\\root\\folder")
    path = root.joinpath(*names)
    return path.is_relative_to(root) and ".." not in path.parts and len(path.parts) == len(root.parts) + len(names)


@given(st.text(max_size=40) | NASTY | st.lists(NASTY, max_size=5).map("/".join))
def test_a_name_stays_below_the_folder_or_is_refused(text: str) -> None:
    try:
        names = relative_names(lambda _uids: text)(UIDS)
    except UsageError:
        return
    assert names
    assert stays_below(names, PurePosixPath)
    assert stays_below(names, PureWindowsPath)
    assert not any(name.startswith(".") for name in names)
    assert "/".join(names).encode()


@given(st.text(max_size=30) | st.text("{}!:.[]instancestudy0/ \\", max_size=30))
def test_any_template_names_or_is_refused(template: str) -> None:
    try:
        name = relative_names(template)
        names = name(UIDS)
    except UsageError:
        return
    assert stays_below(names, PurePosixPath)
    assert names != name(InstanceUids("1.2", "1.2.3", "9.9"))


UID_TEXT = st.from_regex(r"[0-9]{1,5}(\.[0-9]{1,5}){0,9}", fullmatch=True)


@given(UID_TEXT, UID_TEXT, UID_TEXT)
def test_any_valid_uids_have_a_default_name(study: str, series: str, instance: str) -> None:
    uids = InstanceUids(study, series, instance)
    assert relative_names(DEFAULT_LAYOUT)(uids) == (study, series, f"{instance}.dcm")


# --- by values of the header ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("{PatientID}/{instance}.dcm", {"PatientID": b"4711"}, "4711/1.2.3.4.dcm"),
        ("{PatientID}/{SeriesNumber}-{Modality}/{instance}.dcm", {"SeriesNumber": b"7 ", "Modality": b"CT"},
         "unknown/7-CT/1.2.3.4.dcm"),
        ("{PatientID}/{instance}", {"PatientID": b"../../etc/passwd"}, "_.._etc_passwd/1.2.3.4"),
        ("{PatientID}/{instance}", {"PatientID": b".."}, "unknown/1.2.3.4"),
        ("{PatientID}/{instance}", {"PatientID": b" . "}, "unknown/1.2.3.4"),
        ("{PatientID}/{instance}", {"PatientID": b"con"}, "_con/1.2.3.4"),
        ("CO{PatientID}/{instance}", {"PatientID": b"M1"}, "_COM1/1.2.3.4"),
        ("{PatientID}/{instance}", {"PatientID": b'a<b>c:d"e|f?g*h\x00i'}, "a_b_c_d_e_f_g_h_i/1.2.3.4"),
        ("{PatientName}/{instance}", {"PatientName": b"M\xfcller^J"}, "Müller^J/1.2.3.4"),
        ("{PatientID}/{instance}", {"PatientID": b"x" * 300}, f"{'x' * 64}/1.2.3.4"),
        ("{study}/{series}_{Modality}/{instance}", {"Modality": b"MR"}, "1.2/1.2.3_MR/1.2.3.4"),
        ("{InstanceNumber}-{instance}.dcm", {"InstanceNumber": b"12"}, "12-1.2.3.4.dcm"),
    ],
    ids=shown,
)  # fmt: skip
def test_values_in_names(template: str, values: dict[str, bytes], expected: str) -> None:
    naming = naming_of(template)
    assert {TAG[keyword] for keyword in values} <= naming.wanted
    name = naming.name(UIDS, {TAG[keyword]: value for keyword, value in values.items()})
    assert "/".join(name) == expected
    matches = [pattern.fullmatch(part) for pattern, part in zip(patterns_of(template, "1.2", None), name, strict=True)]
    assert all(matches)
    assert UIDS.sop_instance_uid in {
        match["instance"] for match in matches if match and "instance" in match.groupdict()
    }


def test_a_name_of_text_in_another_script() -> None:
    values = {TAG["PatientName"]: "山田^太郎".encode() * 20, TAG["SpecificCharacterSet"]: b"ISO_IR 192"}
    first, _ = naming_of("{PatientName}/{instance}").name(UIDS, values)
    assert first.startswith("山田^太郎山田")
    assert len(first.encode()) <= 64
    assert "\ufffd" not in first


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{PatientID}", "must contain {instance}"),
        ("{PatientID}/{instance!r}", "without ':' or '!'"),
        ("{PatientAge}/{instance}", "unknown field 'PatientAge'; there are {study}"),
        ("{study}/{sop}", "unknown field 'sop'; there are {study}, {series}, {instance}, {AccessionNumber}, "),
        ("../{PatientID}/{instance}", "cannot be part"),
        ("{PatientID}{instance}", "between {PatientID} and {instance}"),
        ("{instance}.{SeriesNumber}", "between {instance} and {SeriesNumber}"),
        ("{study}-{series}-{instance}-{PatientID}", "may be too long"),
        ("{PatientID}-{study}.{instance}", "between {study} and {instance}"),
        ("{PatientID}-{instance}-{Modality}", "{PatientID} and {Modality} must be on one side of {instance}"),
        ("x/{StudyID}-{instance}-{instance}-{Modality}", "one side of {instance}, or have a folder of their own"),
        ("{PatientID}/{instance", "braces"),
    ],
)
def test_templates_with_values_that_are_refused(template: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        naming_of(template)
    assert words in str(caught.value)


def test_where_uids_are_enough_no_value_is_wanted() -> None:
    assert naming_of(DEFAULT_LAYOUT).wanted == frozenset()
    assert naming_of(DEFAULT_LAYOUT).name(UIDS, {}) == relative_names(DEFAULT_LAYOUT)(UIDS)
    assert naming_of(lambda uids: uids[2]).name(UIDS, {}) == ("1.2.3.4",)
    with pytest.raises(UsageError):
        naming_of("{PatientID}/{instance}").name(InstanceUids("1.2", "x", "1.2.3"), {})
    with pytest.raises(UsageError):
        patterns_of("{PatientID}", "1.2", None)


def test_names_from_the_first_bytes_of_a_file() -> None:
    data = small_dicom("1.2", "1.2.3", "1.2.3.4", patient_id="A/1", number=3)
    naming = naming_of("{PatientID}/{Modality}/{InstanceNumber}-{instance}.dcm")

    def name(uids: InstanceUids, start: bytes) -> tuple[str, ...]:
        return naming.name(uids, read_values(start, naming.wanted)[0])

    assert name(UIDS, data) == ("A_1", "CT", "3-1.2.3.4.dcm")
    assert name(UIDS, data[:200]) == ("unknown", "unknown", "unknown-1.2.3.4.dcm")
    assert not naming_of(DEFAULT_LAYOUT).wanted
    assert naming_of(DEFAULT_LAYOUT).name(UIDS, {}) == ("1.2", "1.2.3", "1.2.3.4.dcm")


@given(st.dictionaries(st.sampled_from(HEADER_FIELDS), st.binary(max_size=100)), st.sampled_from(["", "ISO_IR 192"]))
def test_whatever_the_values_are_the_name_is_a_file_of_that_folder(values: dict[str, bytes], charset: str) -> None:
    template = "x/{PatientID}{PatientName}/{StudyDescription}/{Modality} {SeriesNumber}/{instance}_{SeriesDescription}"
    tags = {TAG[keyword]: value for keyword, value in values.items()}
    name = naming_of(template).name(UIDS, tags | {TAG["SpecificCharacterSet"]: charset.encode()})
    assert len(name) == 5
    assert name == relative_names(lambda _uids: "/".join(name))(UIDS)  # by the rules for every other name
    assert not {".", ".."} & set(name)
    matches = [pattern.fullmatch(part) for pattern, part in zip(patterns_of(template, "1.2", None), name, strict=True)]
    assert matches[-1] is not None
    assert matches[-1]["instance"] == "1.2.3.4"
    assert all(matches)


# Any template of one component with values, and what someone writes into a header who wants another's name.
FIELDS_OF_ONE = st.sampled_from(["series", "study", "instance", "Modality", ""]).flatmap(
    lambda more: st.permutations([field for field in ("instance", "PatientID", "SeriesDescription", more) if field])
)
BETWEEN = st.lists(st.sampled_from(["-", "x", "-1", "1-", ".", ""]), min_size=4, max_size=4)
PRETENDING = st.lists(st.sampled_from(["1.2", "1.4", "1.5", ".", "-", "_", " ", "x", "com"]), max_size=6).map("".join)
SOME_UIDS = st.sampled_from(["1.2", "1.4", "1.5", "1.2.1.4", "1"])


@example(["PatientID", "instance"], ["."], "", [(UIDS, "x", "x")])
@example(["PatientID", "instance", "SeriesDescription"], ["-", "-"], "", [(UIDS, "x", "1.5-x")])
@given(
    FIELDS_OF_ONE,
    BETWEEN,
    st.sampled_from(["", ".dcm", "-1.4", ".5"]),
    st.lists(st.tuples(st.builds(InstanceUids, SOME_UIDS, SOME_UIDS, SOME_UIDS), PRETENDING, PRETENDING), min_size=2),
)
def test_the_uid_of_the_instance_can_be_read_back_whatever_the_values_are(
    fields: list[str], between: list[str], end: str, instances: list[tuple[InstanceUids, str, str]]
) -> None:
    first, *others = (f"{{{field}}}" for field in fields)
    template = first + "".join(text + field for text, field in zip(between, others, strict=False)) + end
    try:
        naming = naming_of(template)
    except UsageError:
        return
    owners: dict[str, str] = {}
    for uids, patient, other in instances:
        values = {TAG["PatientID"]: patient, TAG["SeriesDescription"]: other, TAG["Modality"]: other}
        try:
            (name,) = naming.name(uids, {tag: text.encode() for tag, text in values.items()})
        except UsageError:
            continue  # it would begin with a dot, or end with one
        assert owners.setdefault(name, uids.sop_instance_uid) == uids.sop_instance_uid
        (pattern,) = patterns_of(template, uids.study_instance_uid, None)
        match = pattern.fullmatch(name)
        assert match is not None
        assert match["instance"] == uids.sop_instance_uid


@pytest.mark.parametrize(
    ("template", "name", "instance"),
    [
        ("{PatientID}-{series}-{Modality} {instance}.dcm", "-1.5- x-1.2.3-y 1.4.dcm", "1.4"),
        ("{study}_{instance}_{PatientID}_{series}_{Modality}", "1.2_1.4_1.5_1.6_1.7_1.8", "1.4"),
        ("{instance}-{PatientID}-{instance}", "1.4-1.5-1.4", "1.4"),
        ("{instance}-{PatientID}-{instance}", "1.4-1.5-1.6", None),
        ("{series}.{series}-{PatientID}-{instance}", "1.1.1.1-x-1.4", "1.4"),
        ("{study}-{PatientID}-{instance}", "1.3-x-1.4", None),
    ],
)
def test_the_uid_in_a_name_that_lies_there(template: str, name: str, instance: str | None) -> None:
    match = patterns_of(template, "1.2", None)[0].fullmatch(name)
    assert (match and match["instance"]) == instance


def test_a_long_name_that_is_none_of_them_is_soon_told() -> None:
    """With a wildcard for each field this took longer than anyone lives."""
    many = "-".join(f"{{{field}}}" for field in HEADER_FIELDS)
    name = "a" + "-a" * 124
    for template in (f"{many}-{{instance}}.dcm", f"{{instance}}-{many}.dcm", f"{many}.x/{{instance}}"):
        assert not patterns_of(template, "1.2", None)[0].fullmatch(name + ".dcm")
    assert not patterns_of("{series}-{series}.{instance}.dcm/x", "1.2", None)[0].fullmatch("1." * 120 + "-")


def test_a_value_that_slipped_through_would_be_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postdicom_async.dicom.layout._safe_value", lambda _text, _room: "../CANARY")
    with pytest.raises(UsageError, match="a name that no file can have") as caught:
        naming_of("{PatientID}/{instance}").name(UIDS, {})
    assert "CANARY" not in str(caught.value)
