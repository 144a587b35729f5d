"""What an exception still carries when it leaves a public call: the caller's frames, and none of the package's."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import sys
import time
import tomllib
import traceback
import typing
from collections.abc import AsyncIterator, Callable
from enum import Enum
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import anyio
import httpx
import pytest

import postdicom_async
from postdicom_async import (
    Anonymization,
    CloudApi,
    DicomWeb,
    Limits,
    PostDicom,
    PostdicomError,
    Results,
    Retry,
    Settings,
    Timeouts,
    Tls,
    UsageError,
    face,
    read_files,
)
from postdicom_async.face import public_face
from tests.faults.clients import FAST
from tests.support.canaries import CANARIES, CanaryWatch, frames_that_left
from tests.support.dicom_files import small_dicom

PROJECT = Path(inspect.getfile(postdicom_async)).parents[1]
SECRET = CANARIES["password"]


def in_the_package(function: Callable[..., Any], module: str = "postdicom_async.somewhere") -> Any:
    """Return the function as if it stood in the package."""
    code = function.__code__
    assert isinstance(code, CodeType)
    closure = getattr(function, "__closure__", None)
    return FunctionType(code, {**globals(), "__name__": module}, function.__name__, function.__defaults__, closure)


def leaving(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing left")


def own_functions(error: BaseException) -> list[str]:
    """Return the names of the functions below the one that caught the exception."""
    return [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)][1:]


# --- the rule -------------------------------------------------------------------------------------------------------


def test_frames_of_the_package_are_cut_and_named() -> None:
    def deeper(secret: str) -> None:
        raise UsageError("wrong")

    inner = in_the_package(deeper)
    outer = public_face(in_the_package(lambda secret: inner(secret)))
    error = leaving(lambda: outer(SECRET))
    assert own_functions(error) == ["<lambda>"]
    assert not frames_that_left(error)
    assert isinstance(error, UsageError)
    assert [place.rpartition(":")[0].rpartition(".")[2] for place in error.origin] == ["<lambda>", "deeper"]
    assert all(place.startswith("somewhere:") and place.rpartition(":")[2].isdigit() for place in error.origin)


def test_libraries_that_the_package_calls_are_cut_too() -> None:
    outer = public_face(in_the_package(lambda: httpx.URL(5)))  # type: ignore[arg-type]
    error = leaving(outer)
    assert own_functions(error) == []
    assert error.__notes__ == [pytest.approx(error.__notes__[0])]
    assert error.__notes__[0].startswith("raised in somewhere:")


def test_a_callback_keeps_its_frames_and_what_it_called() -> None:
    def callback() -> None:
        httpx.URL(5)  # type: ignore[arg-type]

    outer = public_face(in_the_package(lambda what: what()))
    error = leaving(lambda: outer(callback))
    assert own_functions(error)[:2] == ["<lambda>", "callback"]
    assert len(own_functions(error)) > 2
    assert not hasattr(error, "__notes__")


def test_a_callback_that_calls_the_package_keeps_its_own_frames_only() -> None:
    def fails(secret: str) -> None:
        raise UsageError("wrong")

    inner = public_face(in_the_package(fails))

    def callback() -> None:
        inner(SECRET)

    error = leaving(lambda: public_face(in_the_package(lambda what: what()))(callback))
    assert own_functions(error) == ["<lambda>", "callback"]
    assert isinstance(error, UsageError)
    assert len(error.origin) == 2


def test_what_was_caught_inside_does_not_hang_on_it() -> None:
    def fails(secret: str) -> None:
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise UsageError("wrong") from error

    error = leaving(lambda: public_face(in_the_package(fails))(SECRET))
    assert error.__cause__ is None
    assert error.__context__ is None


def test_what_the_caller_is_handling_stays_behind_it() -> None:
    def fails() -> None:
        raise UsageError("wrong")

    call = public_face(in_the_package(fails))
    theirs = KeyError("the caller's")
    try:
        raise theirs
    except KeyError:
        error = leaving(call)
    assert error.__context__ is theirs


def test_the_chain_of_a_callback_stays() -> None:
    def callback() -> None:
        try:
            raise KeyError("the caller's")
        except KeyError as error:
            raise ValueError("theirs too") from error

    error = leaving(lambda: public_face(in_the_package(lambda what: what()))(callback))
    assert isinstance(error.__cause__, KeyError)
    assert own_functions(error) == ["<lambda>", "callback"]


class Private(Exception):
    """What a library raises, with a URL in it."""


def reachable(error: BaseException | None) -> list[object]:
    """Return an exception's texts, and what its chain and the frames of its traceback hold."""
    found: list[object] = []
    while error is not None:
        found += [error, *error.args]
        for frame, _ in traceback.walk_tb(error.__traceback__):
            found += frame.f_locals.values()
        error = error.__cause__ or error.__context__
    return found


def fails(secret: str) -> None:
    raise Private(secret)


def translated_once(to: Callable[[Private], BaseException | None]) -> None:
    with face.translated(Private, to):
        fails("https://archive.example/studies?PatientName=DOE")


async def translated_in_a_generator() -> AsyncIterator[int]:
    with face.translated((Private, OSError), lambda _: LookupError("plain")):
        yield 1
        fails("https://archive.example/studies?PatientName=DOE")


async def test_a_translated_exception_keeps_nothing_of_the_other() -> None:
    with pytest.raises(LookupError, match="plain") as caught:
        translated_once(lambda _: LookupError("plain"))
    with pytest.raises(LookupError, match="plain") as later:
        async for _ in translated_in_a_generator():
            pass
    for one in (caught, later):
        assert one.value.__context__ is None
        held = reachable(one.value)
        assert not [thing for thing in held if isinstance(thing, Private)]
        assert "DOE" not in repr(held)


def test_what_is_not_translated_goes_through() -> None:
    made: list[Private] = []

    def same(error: Private) -> Private:
        made.append(error)
        return error

    with pytest.raises(Private) as as_it_is:
        translated_once(same)
    assert made == [as_it_is.value]
    with pytest.raises(Private):
        translated_once(lambda _: None)
    with pytest.raises(KeyError), face.translated(Private, lambda _: LookupError()):
        raise KeyError


def test_what_a_caller_handles_stays_behind_a_translated_exception() -> None:
    def while_handling() -> None:
        try:
            raise OSError("the caller's")
        except OSError:
            translated_once(lambda _: LookupError("plain"))

    with pytest.raises(LookupError, match="plain") as caught:
        while_handling()
    assert isinstance(caught.value.__context__, OSError)
    assert caught.value.__context__.__context__ is None


def test_groups_are_looked_into() -> None:
    def fails(secret: str) -> None:
        raise UsageError("wrong")

    inner = in_the_package(fails)

    def group(secret: str) -> None:
        errors = []
        try:
            inner(secret)
        except UsageError as error:
            errors.append(error)
        raise ExceptionGroup("several", errors)

    error = leaving(lambda: public_face(in_the_package(group))(SECRET))
    assert isinstance(error, ExceptionGroup)
    assert not frames_that_left(error)


def test_wrong_arguments_show_none() -> None:
    def takes(one: str) -> None: ...

    error = leaving(lambda: public_face(in_the_package(takes))(SECRET, SECRET))
    assert isinstance(error, TypeError)
    assert "takes() takes 1 positional argument" in str(error)
    assert not frames_that_left(error)
    assert own_functions(error) == ["<lambda>"]


async def test_generators_are_closed_at_once_and_pass_items_on() -> None:
    closed = []

    async def numbers(secret: str) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
            raise UsageError("wrong")
        finally:
            closed.append(secret)

    call = public_face(in_the_package(numbers))
    async with contextlib.aclosing(call("left early")) as some:
        assert await anext(some) == 1
    assert closed == ["left early"]
    found = call(SECRET)
    assert [await anext(found), await anext(found)] == [1, 2]
    with pytest.raises(UsageError) as caught:
        await anext(found)
    assert not frames_that_left(caught.value)
    assert closed == ["left early", SECRET]


@pytest.mark.parametrize("how", ["cancel", "asyncio.timeout", "anyio.fail_after"])
async def test_a_cancellation_carries_no_frames_either(how: str, canary_watch: CanaryWatch) -> None:
    async def waits(secret: str) -> None:
        await asyncio.sleep(60)

    call = public_face(in_the_package(waits))
    error: BaseException | None = None
    try:
        if how == "cancel":
            task = asyncio.create_task(call(SECRET))
            await asyncio.sleep(0)
            task.cancel()
            await task
        elif how == "asyncio.timeout":
            async with asyncio.timeout(0.01):
                await call(SECRET)
        else:
            with anyio.fail_after(0.01):
                await call(SECRET)
    except (asyncio.CancelledError, TimeoutError) as caught:
        error = caught
    assert error is not None
    canary_watch.feed(error)
    assert not frames_that_left(error)


def test_methods_keep_names_signatures_documents_and_kinds() -> None:
    for kind in (DicomWeb, PostDicom, CloudApi, Results, Anonymization, Settings):
        for name, member in inspect.getmembers(kind, inspect.isfunction):
            inner = inspect.unwrap(member)
            assert inspect.signature(member) == inspect.signature(inner), name
            assert member.__doc__ == inner.__doc__
            assert member.__module__ == inner.__module__
            for is_kind in (inspect.iscoroutinefunction, inspect.isasyncgenfunction):
                assert is_kind(member) == is_kind(inner), name


def test_a_call_costs_microseconds() -> None:
    async def nothing(one: int) -> int:
        return one

    async def took(call: Callable[[int], Any]) -> float:
        started = time.perf_counter()
        for number in range(2000):
            await call(number)
        return (time.perf_counter() - started) / 2000

    bare = min(asyncio.run(took(nothing)) for _ in range(5))
    faced = min(asyncio.run(took(public_face(in_the_package(nothing)))) for _ in range(5))
    assert faced - bare < 20e-6  # it is a seventh of one


# --- where it holds -------------------------------------------------------------------------------------------------


def faced(member: object) -> bool:
    function = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
    return hasattr(function, face._MARK)


def public_classes() -> set[type]:
    """Return the classes that callers meet: those of the package's front, and what their properties give."""
    found = {one for name in postdicom_async.__all__ if isinstance(one := getattr(postdicom_async, name), type)}
    for kind in list(found):
        for name, member in inspect.getmembers(kind, lambda one: isinstance(one, property)):
            if name.startswith("_") or name == "internals":  # the latter is for the package alone
                continue
            getter = inspect.unwrap(member.fget)
            annotation = re.sub(r"\[.*", "", str(getter.__annotations__.get("return", "")))
            given = vars(sys.modules[getter.__module__]).get(annotation)
            if isinstance(given, type) and given.__module__.startswith("postdicom_async"):
                found.add(given)
    return {one for one in found if not issubclass(one, Enum | BaseException)}


def own_members(kind: type) -> dict[str, object]:
    """Return what a class offers that was written for it, by name."""
    written: dict[str, object] = {}
    for one in kind.__mro__:
        if one.__module__.startswith("postdicom_async"):
            for name, member in vars(one).items():
                if isinstance(member, FunctionType | property | classmethod | staticmethod):
                    written.setdefault(name, member)
    return written


@pytest.mark.parametrize("kind", sorted(public_classes(), key=repr), ids=repr)
def test_every_public_method_is_a_face(kind: type) -> None:
    """Of a frozen class of fields neither the generated constructor nor a property takes an argument to give away."""
    holds_fields = hasattr(kind, "__dataclass_fields__")
    entries = {"__aenter__", "__aexit__", "__aiter__", "__anext__"}
    if not issubclass(kind, tuple) and (hasattr(kind, "__post_init__") or not holds_fields):
        entries.add("__init__")
    missing = [
        name
        for name, member in own_members(kind).items()
        if (not name.startswith("_") or name in entries)
        and not (holds_fields and isinstance(member, property))
        and not faced(member)
    ]
    assert not missing


def test_every_public_function_is_a_face() -> None:
    functions = [one for name in postdicom_async.__all__ if inspect.isfunction(one := getattr(postdicom_async, name))]
    assert functions
    assert all(map(faced, functions))


def test_every_dependency_counts_as_a_library() -> None:
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for name in ("cli", "server") for one in declared["optional-dependencies"][name]]
    names = {re.split(r"[^\w-]", one)[0].replace("-", "_") for one in (*declared["dependencies"], *extras)}
    imported_as = {"pillow": "PIL"}
    assert {imported_as.get(name, name) for name in names} <= face._LIBRARIES


SETTINGS: dict[str, Callable[[], object]] = {
    "Tls": lambda: Settings(tls=SECRET, proxy=f"http://u:{SECRET}@x.example"),  # type: ignore[arg-type]
    "Timeouts": lambda: Timeouts(connect=SECRET),  # type: ignore[arg-type]
    "Retry": lambda: Retry(max_attempts=SECRET),  # type: ignore[arg-type]
    "Limits": lambda: Limits(piece=SECRET),  # type: ignore[arg-type]
    "an argument too many": lambda: Tls(None, None, None, SECRET, False, SECRET),  # type: ignore[call-arg]
    "DicomWeb": lambda: DicomWeb(f"http://u:{SECRET}@x.example", auth=("u", SECRET)),
    "DicomWeb without TLS": lambda: DicomWeb("http://x.example", auth=("u", SECRET)),
    "auth": lambda: DicomWeb("https://x.example", auth=("u", SECRET, 5)),  # type: ignore[arg-type]
    "dialect": lambda: PostDicom("https://x.example", "u", SECRET, dialect=SECRET),  # type: ignore[arg-type]
    "proxy": lambda: DicomWeb("https://x.example", settings=Settings(proxy=f"what://u:{SECRET}@x")),
    "key": lambda: DicomWeb("https://x.example", settings=Settings(tls=Tls(key=Path("/x"), key_password=SECRET))),
    "CloudApi": lambda: CloudApi(SECRET, SECRET),
    "Anonymization": lambda: Anonymization({"PatientBirthDate": SECRET}),
    "secret": lambda: Anonymization({"PatientName": "x\0"}, secret=SECRET),
    "profile": lambda: Anonymization.basic_profile({"PatientBirthDate": SECRET}),
    "vendor tags": lambda: Anonymization.vendor_tags(patient_birth_date=SECRET),  # type: ignore[call-arg]
}  # fmt: skip


@pytest.mark.parametrize("make", SETTINGS.values(), ids=SETTINGS)
def test_settings_and_constructors(make: Callable[[], object], canary_watch: CanaryWatch) -> None:
    left: object = None
    try:
        left = make()  # some faults show only when it is opened
    except (PostdicomError, TypeError) as error:
        left = error
    canary_watch.feed(left)
    assert not isinstance(left, BaseException) or not frames_that_left(left)


async def test_reading_files(canary_watch: CanaryWatch, tmp_path: Path) -> None:
    for wrong in (tmp_path / CANARIES["path"], [SECRET.encode()], 5):
        with pytest.raises(PostdicomError) as caught:
            await read_files(wrong)  # type: ignore[arg-type]
        assert not frames_that_left(caught.value)
        if not isinstance(wrong, Path):  # the name of the caller's own file is shown, on purpose
            canary_watch.feed(caught.value)


class Oops(Exception):
    """The caller's own."""


def fail(*_: object) -> Any:
    raise Oops


async def sources_that_fail() -> AsyncIterator[bytes]:
    yield small_dicom()
    fail()


CALLBACKS: dict[str, Callable[[DicomWeb, Path], Any]] = {
    "progress": lambda archive, _: archive.upload([small_dicom()], progress=fail),
    "sources": lambda archive, _: archive.upload(sources_that_fail()),
    "layout": lambda archive, folder: archive.download_study("1.2.3", to=folder, layout=fail),
    "progress of a scan": lambda _, folder: read_files(folder, progress=fail),
    "transport": lambda _archive, _folder: in_a_transport(),
}  # fmt: skip


async def in_a_transport() -> None:
    async with DicomWeb("http://127.0.0.1:1", transport=httpx.MockTransport(fail), settings=FAST) as archive:
        await archive.search_for_studies({"PatientName": CANARIES["patient_name"]}).all()


def answer(request: httpx.Request) -> httpx.Response:
    if request.method == "POST":
        return httpx.Response(200, json={})
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    if "application/dicom+json" in request.headers["accept"]:
        return httpx.Response(200, json=[])
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + small_dicom(study="1.2.3") + b"\r\n--b--"
    return httpx.Response(200, headers={"Content-Type": kind}, content=body)


@pytest.mark.parametrize("call", CALLBACKS.values(), ids=CALLBACKS)
async def test_an_exception_of_a_callback_passes_with_the_caller_s_frames(
    call: Callable[[DicomWeb, Path], Any], tmp_path: Path
) -> None:
    (tmp_path / "a.dcm").write_bytes(small_dicom())
    async with DicomWeb("http://127.0.0.1:1", transport=httpx.MockTransport(answer), settings=FAST) as archive:
        with pytest.raises((Oops, ExceptionGroup, PostdicomError)) as caught:
            await call(archive, tmp_path)
    assert not frames_that_left(caught.value)
    if isinstance(caught.value, Oops):
        assert own_functions(caught.value)[-1] == "fail"


def test_types_are_seen_through() -> None:
    assert typing.get_type_hints(Settings.__init__)["proxy"] == str | None
