"""A server's words after masking, and the HTTP libraries' log lines."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import re
from collections.abc import Callable
from dataclasses import asdict
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async import Outcome, ServerError, Status
from postdicom_async.http import redaction as vocabulary
from postdicom_async.http.endpoint import origin_of
from postdicom_async.http.exchange import quiet_http_logs
from postdicom_async.http.redaction import safe_reason

UID = "1.2.840.113619.2.55.3.604688119.971.1448467264.468"

# The words of a server, and what must not be left of them.
MUST_NOT_SHOW: list[tuple[str, list[str]]] = [
    ("Patient DOE^JANE not found", ["DOE", "JANE"]),
    ("Patient Doe^Jane^^Dr. not found", ["Doe", "Jane", "Dr"]),
    ("no study of O'Hara^Mary-Ann", ["Hara", "Mary", "Ann"]),
    ("Müller^Jérôme is unknown", ["Müller", "Jérôme"]),
    ("Święty^Łukasz is unknown", ["Święty", "Łukasz"]),
    ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["Yamada", "Tarou", "山田", "太郎", "たろう"]),
    ("قباني^لنزار", ["قباني", "لنزار"]),
    ("^JANE", ["JANE"]),
    ("DOE^", ["DOE"]),
    ("PatientID 1234567 is locked", ["1234567"]),
    ("PatientID=1234567", ["1234567"]),
    ("id:99887", ["99887"]),
    ("born 19700102", ["19700102"]),
    ("born 1970-01-02", ["1970", "01-02"]),
    ("between 1970-01-02 and 1980-03-04.", ["1970", "1980"]),
    ("accession 2024000123 exists", ["2024000123"]),
    ("phone 00441632960961", ["00441632960961"]),
    ("mail jane.doe@example.org please", ["jane", "doe", "example"]),
    ("mail jane+x@sub.example.co.uk", ["jane", "example"]),
    ("GET http://host:8042/dicom-web/studies?PatientName=DOE failed", ["host", "8042", "studies", "DOE"]),
    ("see https://user:secret@host/path", ["user", "secret", "host", "path"]),
    ("see HTTPS://HOST/PATH", ["HOST", "PATH"]),
    ("jdbc:postgresql://db.internal/pacs", ["db.internal", "pacs"]),
    ("ftp://files/doe.dcm", ["files", "doe"]),
    ("cannot open /var/lib/pacs/DOE_JANE/1.dcm", ["var", "pacs", "DOE", "JANE"]),
    ("cannot open ./data/DOE/1.dcm", ["DOE", "data"]),
    ("cannot open ../../etc/passwd", ["etc", "passwd"]),
    ("cannot open C:\\archive\\DOE_JANE\\1.dcm", ["archive", "DOE", "JANE"]),
    ("cannot open \\\\server\\share\\DOE_JANE", ["share", "DOE", "JANE"]),
    ("D:\\pacs\\Doe Jane\\1.dcm is missing", ["pacs", "Doe"]),
    ("Traceback\nDOE^JANE\n  at 19700102", ["\n", "DOE", "JANE", "19700102"]),
    ("a\x00b\x1b[31mred", ["\x00", "\x1b"]),
    ("a\u2028b\u202ec", ["\u2028", "\u202e"]),
    ("DOE\t^\tJANE", ["\t"]),
    # What no request of ours held, and no shape gives away.
    ("Patient Jane Doe not found", ["Jane", "Doe"]),
    ("patient jane doe is locked", ["jane", "doe"]),
    ("DOE, JANE (F) is locked by SMITH", ["DOE", "JANE", "SMITH"]),
    ("Patient Young not found", ["Young"]),
    ("Patient YOUNG not found", ["YOUNG"]),
    ("Page is locked", ["Page"]),
    ("patient Long, Will", ["Long", "Will"]),
    ("Patient An Do Van Long not found", ["An", "Do", "Van", "Long"]),
    ("Mary-Ann O'Hara", ["Mary", "Ann", "Hara"]),
    ("study of Mary-Study", ["Mary"]),
    ("PatientDoe is unknown", ["Doe"]),
    ("doe_jane.dcm is damaged", ["doe", "jane"]),
    ("Müller is unknown", ["Müller"]),
    ("राम कुमार is unknown", ["र", "म", "क"]),
    ("患者山田太郎が見つかりません", ["山田", "太郎"]),
    ("Größe überschritten", ["Größe"]),  # no harm, but nobody here knows that
    ("Accession ABC123 exists", ["ABC123"]),
    ("The AccessionNumber Z-17 was not found", ["Z-17", "17"]),
    ("accession number 12 exists", ["12"]),
    ("Patient 4711 not found", ["4711"]),
    ("patient id 17 is gone", ["17"]),
    ("MRN: 0042", ["0042"]),
    ("PatientID=12", ["12"]),
    ("id 99887 exists", ["99887"]),
    ("visit 20411", ["20411"]),
    ("born 1970", ["1970"]),
    ("born 31.12.1970", ["31", "1970"]),
    ("born 31/12/1970", ["1970"]),
    ("unknown 'page'", ["page"]),
    ('Patient "not found" is unknown', ["not found"]),
    ("no tenant “North”", ["North"]),
    ("no tenant `server`", ["server"]),
    ("jane@clinic is not allowed", ["jane", "clinic"]),
    ("John\u2019s study", ["John"]),
    ("Key (patient_id)=(4711) already exists", ["4711"]),
    ("host pacs01.clinic.example refused", ["pacs01", "clinic", "example"]),
    ("connect to 10.0.0.5 failed", ["10.0.0.5"]),
    ("J. D. is unknown", ["J", "D"]),
    ("NHS 943 476 5919 is gone", ["943", "476", "5919"]),
    ("patient 943 476 591 is gone", ["943", "476", "591"]),
    ("call +49 170 123 456", ["170", "123", "456"]),
    ("12 34 56 78", ["12", "34", "56", "78"]),
    ("dob 1931 01 31", ["1931", "01", "31"]),
]

# The words of a server, and what must still be there.
MUST_SHOW: list[tuple[str, list[str]]] = [
    ("Study not found", ["Study not found"]),
    (f"Unknown study {UID}", [UID]),
    (f"StudyInstanceUID={UID} is locked", [UID]),
    (f"instance '{UID}'", [UID]),
    ("SOP class 1.2.840.10008.5.1.4.1.1.2 not supported", ["1.2.840.10008.5.1.4.1.1.2"]),
    ("1.2.276.0.7230010.3.1.2.8323329", ["1.2.276.0.7230010.3.1.2.8323329"]),
    ("2.25.12345678901234567890 twice", ["2.25.12345678901234567890"]),
    ("limit is 5000", ["5000"]),
    ("status 409 code 272", ["409", "272"]),
    ("code 0xA700: out of resources", ["0xA700"]),
    ("Failure reason A900H", ["A900H"]),
    ("quota of 10 GB used up", ["quota of 10 GB used up"]),
    ("The Accept header is not acceptable", ["The Accept header is not acceptable"]),
    ("multipart/related is required", ["multipart/related"]),
    ("application/dicom+json only", ["application/dicom+json"]),
    ("retry in 30 seconds", ["30"]),
    ("tag (0010,0010) unsupported", ["(0010,0010)"]),
    ("tag 00100010 unsupported", ["unsupported"]),
    ("and/or", ["and/or"]),
    ("e.g. this", ["e.g. this"]),
    ("Page not found", ["not found"]),
    ("Patient Jane Doe not found", ["Patient […] not found"]),
    ("Bad Request", ["Bad Request"]),
    ("413 Request Entity Too Large", ["413 Request Entity Too Large"]),
    ("Too Many Requests", ["Too Many Requests"]),
    ("Service Unavailable", ["Service Unavailable"]),
    ("Session expired", ["Session expired"]),
    ("STUDY NOT FOUND", ["STUDY NOT FOUND"]),
    ("Institution not found or user is not authorized", ["Institution not found or user is not authorized"]),
    ("InstitutionUuid is invalid", ["InstitutionUuid is invalid"]),
    ("You don't have permission to do that.", ["You don't have permission to do that."]),
    ('299 dcm4chee "There are 10 more results"', ["299 There are 10 more results"]),
    ('"There are 10 more results"', ["There are 10 more results"]),
    ("Bad type for a parameter", ["Bad type for a parameter"]),
    ("Accessing an inexistent study with WADO-RS", ["Accessing an inexistent study with WADO-RS"]),
    ("Cannot parse an invalid DICOM file (size: 132 bytes)", ["Cannot parse an invalid DICOM file (size: 132 bytes)"]),
    ("java.lang.NullPointerException: null", ["java.lang.NullPointerException"]),
    ("Failure reason 272 (0x0110): Processing failure", ["Failure reason 272 (0x0110): Processing failure"]),
    ("Warning code 45063", ["Warning code 45063"]),
    ("The fuzzymatching parameter is not supported.", ["The fuzzymatching parameter is not supported."]),
    ("DICOM data set does not match SOP Class", ["DICOM data set does not match SOP Class"]),
    ("StudyDate: not a date", ["StudyDate: not a date"]),
    ("OrthancStatus 8: Bad request", ["OrthancStatus 8: Bad request"]),
    ("timeout after 30000 ms", ["timeout after 30000 ms"]),
    ("The limit is 2GB", ["2GB"]),
    ("Disk quota exceeded", ["Disk quota exceeded"]),
    ("No such study", ["No such study"]),
    ("Share link has expired", ["Share link has expired"]),
    ("Can't connect to database", ["Can't connect to database"]),
    ("version 1.12.4", ["1.12.4"]),
    ("status 409 12: 10 more", ["409 12", "10"]),
    ("", []),
]


@pytest.mark.parametrize(("words", "hidden"), MUST_NOT_SHOW)
def test_what_looks_private_is_masked(words: str, hidden: list[str]) -> None:
    shown = safe_reason(words) or ""
    assert not [part for part in hidden if part in shown], shown


@pytest.mark.parametrize(("words", "kept"), MUST_SHOW)
def test_what_helps_is_kept(words: str, kept: list[str]) -> None:
    shown = safe_reason(words) or ""
    assert [part for part in kept if part in shown] == kept, shown


def test_the_whole_text_is_there_for_whoever_asks_and_shows_nowhere() -> None:
    words = "Patient Jane Doe not found\nat 4711"
    error = ServerError("the archive refused it", status=400, reason=safe_reason(words))
    assert error.server_words == words
    for text in (
        str(error),
        repr(error),
        repr(error.reason),
        f"{error.reason}",
        repr(vars(error)),
        json.dumps(error.reason),
    ):
        assert "Jane" not in text
        assert "4711" not in text
    for copied in (pickle.dumps(error), pickle.dumps(error.reason), pickle.dumps(copy.deepcopy(vars(error)))):
        assert b"Jane" not in copied
    assert "Jane" not in repr(asdict(Outcome("a", Status.FAILED, reason=error.reason)))


def test_an_error_without_words_has_none() -> None:
    assert ServerError("the archive refused it").server_words is None
    assert ServerError("the archive refused it", reason="ours").server_words is None


def test_the_vocabulary_is_plain_and_holds_no_word_twice() -> None:
    known = vocabulary._vocabulary()
    assert len(known.words) > 2000
    assert not known.words & (known.names | known.beginnings)
    assert all(word.islower() and word.isascii() for group in known for word in group)


@given(st.text(max_size=200) | st.text("aAdeJn^@'\" -_./:09", max_size=80))
def test_whatever_is_said_only_known_words_are_shown(text: str) -> None:
    known = vocabulary._vocabulary()
    shown = re.sub(r"\[(address|e-mail|name|path|date|number|sent value)\]", "", safe_reason(text) or "")
    assert shown.replace("…", "").isascii()
    humps = re.findall(
        r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", re.sub(r"\b0[xX]\w+|\b[0-9A-F]{4}H\b|\([0-9A-Fa-f, ]+\)", "", shown)
    )
    whole = {*re.split(r"[^\w'-]+", shown.lower()), "ms", "s", "kb", "b"}
    every = known.words | known.names | known.beginnings | whole & known.words
    assert {hump.lower() for hump in humps if len(hump) > 1} <= every


COMMON_NAMES = (
    "Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez Wilson "
    "Anderson Thomas Taylor Moore Jackson Martin Lee Perez Thompson White Harris Sanchez Clark Ramirez Lewis "
    "Robinson Walker Young Allen King Wright Scott Torres Nguyen Hill Flores Green Adams Nelson Baker Hall Rivera "
    "Campbell Mitchell Carter Page Field Link Block Holder Root Parent Power Price Pool Post Read Close Case Best "
    "Short Small Long Little Main May Mark Will Rose Grace Faith Hope Joy Dawn Art Bill Bob Max Min Jack Frank "
    "Grant Drew Chase Hunter Mason Forest Müller Schmidt Schneider Fischer Weber Klein Wolf Lang Kurz Yilmaz Kaya "
    "Demir Şahin Çelik Jansen Bakker Visser Li Wang Zhang Chen Liu Kim Park Choi Tanaka Sato Suzuki Singh Kumar "
    "Khan Ali Hassan Ivanov Kowalski Novák Horváth "
)


@pytest.mark.parametrize("spelled", [str, str.upper])
def test_common_names_are_masked(spelled: Callable[[str], str]) -> None:
    shown = [
        name
        for name in COMMON_NAMES.split()
        if spelled(name) in (safe_reason(f"Patient {spelled(name)} is locked") or "")
    ]
    assert not shown


SENT = ["Quillfeather", "Quillfeather*", "  Quillfeather ", "qUILLFEATHER", "*Quillfeather?"]


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize(
    "words",
    ["Patient Quillfeather unknown", "patient QUILLFEATHER", "x=quillfeather;", "'Quillfeather'", "Quillfeather"],
)
def test_what_was_sent_is_masked_in_any_case(words: str, sent: str) -> None:
    assert "quillfeather" not in (safe_reason(words, [sent]) or "").lower()


SECRETS = ["pass word", "p+ss/w0rd", "Müller", "a&b=c", "50%off", 'quo"te', "two  spaces", "Łukasz Święty", "x" * 300]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("spelled", [str, quote, quote_plus, lambda text: quote(text, safe="*?-,:^")])
def test_what_was_sent_is_masked_as_it_travels(secret: str, spelled: object) -> None:
    assert callable(spelled)
    echo = " ".join(spelled(secret).split())
    shown = safe_reason(f"refused: {echo} (sorry)", [secret])
    assert shown is not None
    assert echo not in shown
    assert shown.endswith("(sorry)")


def test_longer_values_are_masked_before_their_parts() -> None:
    assert safe_reason("user tester-secret", ["tester", "tester-secret"]) == "user [sent value]"


def test_very_short_values_are_not_masked_or_nothing_would_be_left() -> None:
    assert safe_reason("a CT is a CT", ["CT", "a", "", "*"]) == "a CT is a CT"


@pytest.mark.parametrize("words", [None, "", " \n ", "\x00"])
def test_nothing_to_say(words: str | None) -> None:
    assert safe_reason(words) is None


@given(st.text(max_size=600), st.lists(st.text(max_size=30), max_size=4))
def test_always_one_short_printable_line(words: str, sent: list[str]) -> None:
    shown = safe_reason(words, sent)
    assert shown is None or (0 < len(shown) <= 240 and shown.isprintable())


@given(
    st.text(st.characters(categories=["L", "N"]), min_size=4, max_size=20), st.text(max_size=40), st.text(max_size=40)
)
def test_no_sent_value_survives(secret: str, before: str, after: str) -> None:
    shown = safe_reason(f"{before} {secret} {after}", [secret]) or ""
    assert secret not in shown.replace("[sent value]", "").split()


def test_megabytes_of_words_are_harmless() -> None:
    assert len(safe_reason("DOE^JANE " * 500_000) or "") <= 240
    assert len(safe_reason("^" * 5_000_000) or "") <= 240
    assert len(safe_reason("a" * 4096 + "@" + "b." * 4096) or "") <= 240


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://archive.example/dicom-web", "https://archive.example"),
        ("https://archive.example:8443/x?PatientName=DOE#f", "https://archive.example:8443"),
        ("http://127.0.0.1:8042", "http://127.0.0.1:8042"),
        ("http://[::1]:8042/x", "http://[::1]:8042"),
        ("https://user:secret@archive.example/x", "https://archive.example"),
    ],
)
def test_origin_is_all_of_a_url_that_shows(url: str, origin: str) -> None:
    assert origin_of(url) == origin


# --- log lines of httpx and httpcore --------------------------------------------------------------------------------


LIBRARY_LOGGERS = ["httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy"]


@pytest.mark.parametrize("name", LIBRARY_LOGGERS)
def test_library_lines_are_dropped_only_during_our_requests(name: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger(name)
    with caplog.at_level(logging.DEBUG, logger=name):
        logger.info("before")
        with quiet_http_logs():
            logger.info("ours: http://host/?PatientName=DOE")
            with quiet_http_logs():
                logger.info("ours, nested")
            logger.info("ours again")
        logger.info("after")
    assert caplog.messages == ["before", "after"]


def test_other_loggers_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), quiet_http_logs():
        logging.getLogger("application").info("kept")
        logging.getLogger("postdicom_async").info("kept too")
    assert caplog.messages == ["kept", "kept too"]


def test_lines_are_let_through_again_after_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="httpx"):
        with pytest.raises(KeyError), quiet_http_logs():
            raise KeyError
        logging.getLogger("httpx").info("after")
    assert caplog.messages == ["after"]


async def test_another_task_of_the_application_still_logs(caplog: pytest.LogCaptureFixture) -> None:
    inside, done = asyncio.Event(), asyncio.Event()

    async def ours() -> None:
        with quiet_http_logs():
            inside.set()
            await done.wait()
            logging.getLogger("httpx").info("ours")

    with caplog.at_level(logging.DEBUG, logger="httpx"):
        task = asyncio.create_task(ours())
        await inside.wait()
        logging.getLogger("httpx").info("theirs")
        done.set()
        await task
    assert caplog.messages == ["theirs"]


def test_the_filter_is_added_once() -> None:
    for _ in range(50):
        with quiet_http_logs():
            pass
    assert all(len(logging.getLogger(name).filters) <= 1 for name in LIBRARY_LOGGERS)
