"""Shared by the commands for PostDICOM's own operations: options from the operations' tables, the call, its answer.

A command is a function that takes an `OperationCall`, decorated with `vendor_command` and its operations. Its options
are those operations' parameters, so the same function serves both of PostDICOM's APIs (``create.dicomweb``,
``create.cloud`` in `app.COMMANDS`): they differ only in the tables and the client that makes the call.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

import typer

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.connection import CloudOptions, PostdicomOptions, find_share_password
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.forms import OutputAs, OutputForm, form_of, write_list
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common, parameter
from postdicom_async.cli.search import column_tables, write_items

if TYPE_CHECKING:
    from postdicom_async import Folder, PatientOrder, Results, ShareLink, VendorAnswer
    from postdicom_async.vendor.fields import Operation, Parameter

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Write what the service answered, as JSON.")]
_WithPassword: TypeAlias = Annotated[
    bool,
    typer.Option("--with-password", help="Ask for a password for the link, if POSTDICOM_SHARE_PASSWORD holds none."),
]


@dataclass
class OperationCall:
    """One call as given on the command line.

    Attributes:
        given: the arguments of the operation, None or False where an option is not given.
        as_json: the answer is told as JSON.
        form: of a list.
        quiet: write nothing but the answer.
        password: the share's; it is found when the call is made, after the client, which may ask for one too.
    """

    account: PostdicomOptions | CloudOptions
    operations: Mapping[str, Operation]
    given: dict[str, Any]
    as_json: bool
    quiet: bool
    with_password: bool = False
    form: OutputForm = OutputForm.TABLE
    password: str | None = field(default=None, init=False)

    @cached_property
    def client(self) -> Any:
        """The client, not yet open."""
        return self.account.client()

    def identity(self) -> tuple[str, ...]:
        """Return what tells the account from others; it may be secret.

        Raises:
            UsageError: no client can be made for it.
        """
        return self.account.identity() if self.client else ()

    def run(self, **more: Any) -> Any:
        """Open the client, make the call, close; return what it answered.

        ``more`` are arguments that are not options. Of several operations, the one whose own argument is given is
        called.

        Raises:
            UsageError: of several operations, none or more than one has its own argument given.
        """
        name = self._meant()
        takes = {one.argument for one in self.operations[name].parameters}
        given = {argument: value for argument, value in self.given.items() if argument in takes}
        method = self._method(name)
        if "password" in takes:
            self.password = given["password"] = find_share_password(wanted=self.with_password)
        return self.run_method(method, **given, **more)

    def run_method(self, method: Callable[..., Any], **given: Any) -> Any:
        """Open the client, call a method of its, close; return what it answered."""

        async def work() -> Any:
            async with self.client:
                return await method(**given)

        return run_async(work)

    def require(self) -> None:
        """Refuse a call without what must be given.

        Raises:
            UsageError: which option is missing.
        """
        for one in self.operations[self._meant()].parameters:
            if one.must_be_given and self.given.get(one.argument) is None:
                raise UsageError(f"Missing option '--{one.argument.replace('_', '-')}'")

    def results(self) -> Results[Any]:
        """Describe the search; nothing is sent before it is read."""
        found: Results[Any] = self._method(self._meant())(**self.given)
        return found

    def _method(self, name: str) -> Callable[..., Any]:
        facade, _, method = name.partition(".")
        made: Callable[..., Any] = getattr(getattr(self.client, facade), method)
        return made

    def _meant(self) -> str:
        own = {name: _own_arguments(self.operations, name) for name in self.operations}
        if len(own) == 1:
            return next(iter(own))
        given = [name for name, arguments in own.items() if any(self.given[one] for one in arguments)]
        if len(given) != 1:
            *options, last = (f"--{one.replace('_', '-')}" for arguments in own.values() for one in arguments)
            raise UsageError(f"give {', '.join(options)} or {last}, one of them")
        return given[0]

    def is_confirmed(self, question: str) -> bool:
        """Ask for confirmation, once the client could be made.

        Without valid options and credentials nobody is asked.
        """
        return bool(self.client) and confirmed(question)


def _own_arguments(operations: Mapping[str, Operation], name: str) -> list[str]:
    """Return the arguments that only this one of the operations has."""
    others = {one.argument for other in operations if other != name for one in operations[other].parameters}
    return [one.argument for one in operations[name].parameters if one.argument not in others]


# --- options from a table -------------------------------------------------------------------------------------------


class vendor_command:  # noqa: N801 - used as a decorator
    """Make a command for each API from a function that takes an `OperationCall`.

    Its other parameters are its own options.

    Args:
        operations: what it calls, by method; of several, the one whose own argument is given.
        cloud: the first line of the help for the Cloud API; by default the docstring's.
        main: arguments shown first, in this order; the others get a panel of their own in the help.
        without: arguments that are not options.
        lists: it writes a list, in the form that --output says.
        from_file: a file may give what is otherwise required; `OperationCall.require` tells what is missing.
    """

    def __init__(
        self,
        *operations: str,
        cloud: str = "",
        main: Sequence[str] = (),
        without: Sequence[str] = (),
        lists: bool = False,
        from_file: bool = False,
    ) -> None:
        self.operations = operations
        self._cloud = cloud
        self._main = main
        self._without = {*without, "password"}
        self._lists = lists
        self._from_file = from_file

    def __call__(self, body: Callable[..., int]) -> vendor_command:
        """Take the function."""
        self._body = body
        return self

    @property
    def dicomweb(self) -> Callable[..., int]:
        """The command of PostDICOM's DICOMweb API."""
        from postdicom_async.postdicom.operations import OPERATIONS

        return self._made(OPERATIONS, PostdicomOptions, self._body.__doc__ or "")

    @property
    def cloud(self) -> Callable[..., int]:
        """The command of the Cloud API."""
        from postdicom_async.cloud.operations import OPERATIONS

        first, *rest = (self._body.__doc__ or "").split("\n\n")
        return self._made(OPERATIONS, CloudOptions, "\n\n".join([self._cloud or first, *rest]))

    def _made(self, table: Mapping[str, Operation], account: type, text: str) -> Callable[..., int]:
        operations = {name: table[name] for name in self.operations if name in table}
        options = self._options(operations)
        hints = get_type_hints(self._body, include_extras=True)
        own = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[one.name])
            for one in list(inspect.signature(self._body).parameters.values())[1:]
        ]
        shared = [parameter("account", account), parameter("common", Common), parameter("as_json", _AsJson, False)]
        if any(one.argument == "password" for operation in operations.values() for one in operation.parameters):
            shared.append(parameter("with_password", _WithPassword, False))

        if self._lists:
            shared.append(parameter("output_as", OutputAs, None))

        def command(
            account: Any,
            common: Common,
            as_json: bool,
            with_password: bool = False,
            output_as: OutputForm | None = None,
            **values: Any,
        ) -> int:
            own_values = {one.name: values.pop(one.name) for one in own}
            form = form_of(output_as, as_json=as_json)
            as_json = form is OutputForm.JSON
            call = OperationCall(account, operations, values, as_json, common.quiet, with_password, form)
            return self._body(call, **own_values)

        parameters = [*own, *options, *shared]
        command.__name__, command.__doc__ = self._body.__name__, text
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        return command

    def _options(self, operations: Mapping[str, Operation]) -> list[inspect.Parameter]:
        found: dict[str, Parameter] = {}
        for operation in operations.values():
            found |= {one.argument: one for one in operation.parameters if one.argument not in found}
        alternatives = {one for name in operations for one in _own_arguments(operations, name)}
        optional = alternatives if len(operations) > 1 else set(found) if self._from_file else set()
        names = [*self._main, *(name for name in found if name not in self._main)]
        made = [
            _option(found[name], optional=name in optional, details=bool(self._main) and name not in self._main)
            for name in names
            if name in found and name not in self._without
        ]
        return sorted(made, key=lambda one: one.default is not inspect.Parameter.empty)


def _option(given: Parameter, *, optional: bool, details: bool) -> inspect.Parameter:
    """Return the option of a parameter; required ones have no default."""
    is_flag = given.kind.name == "BOOLEAN"
    kind: Any = bool if is_flag else list[str] if given.takes_several else str
    must = given.must_be_given and not optional and not is_flag
    option = typer.Option(
        f"--{given.argument.replace('_', '-')}",
        help=given.help,
        metavar=None if is_flag else given.metavar,
        rich_help_panel="Details" if details else None,
    )
    if must:
        return parameter(given.argument, Annotated[kind, option])
    return parameter(given.argument, Annotated[kind if is_flag else kind | None, option], False if is_flag else None)


def confirmed(question: str) -> bool:
    """Ask before an irreversible action; anything but a clear yes is a no, which is reported.

    Raises:
        UsageError: there is no terminal to ask on.
    """
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("deleting asks first: run this in a terminal, or give --yes")
    sys.stderr.write(f"{output.clean(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in {"y", "yes"}:
        return True
    output.error("nothing was deleted")
    return False


# --- what a call answered -------------------------------------------------------------------------------------------


def write_answer(answer: VendorAnswer, *, as_json: bool = True, error: str | None = None) -> None:
    """Write the service's own object or text, in a JSON document or as it is."""
    found = answer.raw or answer.text
    if as_json:
        output.write_document({"answer": found}, error=error)
    else:
        output.write(json.dumps(found, indent=2))


def write_answers(answers: Iterable[VendorAnswer]) -> None:
    """Write several of them."""
    output.write_document({"items": [answer.raw or answer.text for answer in answers]})


def tell_done(call: OperationCall, words: str) -> int:
    """Make a call whose answer says nothing but that it was done."""
    answer = call.run()
    if call.as_json:
        write_answer(answer)
    elif not call.quiet:
        output.note(words)
    return Exit.OK


def tell_made(call: OperationCall, answer: VendorAnswer, uuid: str | None, words: str) -> int:
    """Write the UUID of the created object to standard output."""
    if call.as_json:
        write_answer(answer)
    elif uuid:
        output.write(output.clean(uuid))
    else:
        output.note(f"{words}, but the answer holds no UUID; a search finds it")
        return Exit.OK
    if not call.quiet:
        output.note(words)
    return Exit.OK


def tell_link(
    call: OperationCall,
    remark: str = "without a password: whoever has the address may look",
    *,
    words: str = "shared",
) -> int:
    """Make a call for a link and write its address; if there is none, write the whole answer and fail.

    ``remark`` is written for a link without a password.
    """
    link: ShareLink = call.run()
    failed = None if link.url else f"{words}, but the answer holds no address; it is on standard output"
    if call.as_json or not link.url:
        write_answer(link, as_json=call.as_json, error=failed)
    else:
        output.write(output.clean(link.url))
    if failed is not None:
        output.error(failed)
        return Exit.ITEMS_FAILED
    if call.password is None and not call.quiet:
        output.note(remark)
    return Exit.OK


# --- what was found -------------------------------------------------------------------------------------------------


def show_orders(call: OperationCall) -> int:
    """Search for orders and write them."""
    results = call.results()
    if call.form is not OutputForm.TABLE:
        return _write_results(call, results)
    return show_columns(order_columns(call.run_method(results.all)), ("order", "orders"), quiet=call.quiet)


def show_folders(call: OperationCall) -> int:
    """Search for folders and write them, and the orders in them if there are any."""
    results = call.results()
    if call.form is not OutputForm.TABLE:
        return _write_results(call, results)
    folders: list[Folder] = call.run_method(results.all)
    code = show_columns(folder_columns(folders), ("folder", "folders"), quiet=call.quiet)
    held = [(folder.folder_name or "", order) for folder in folders for order in folder.orders]
    if held:
        columns = {"Folder": [folder for folder, _ in held], **order_columns([order for _, order in held])}
        code = show_columns(columns, ("order", "orders"), quiet=call.quiet)
    return code


def _write_results(call: OperationCall, results: Results[Any]) -> int:
    if call.as_json:
        run_async(lambda: write_items(call.client, results, quiet=call.quiet))
    else:
        write_list(call.form, call.run_method(results.raw.all))
    return Exit.OK


# --- tables ---------------------------------------------------------------------------------------------------------


def show_columns(
    columns: dict[str, list[str]], what: tuple[str, str], *, quiet: bool, none: str = "nothing matches"
) -> int:
    """Write a table, without the columns that are empty everywhere, and how many there are."""
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    count = max(map(len, columns.values()), default=0)
    if filled:
        output.write(output.render(column_tables(filled)))
    if not quiet:
        output.note(f"{count} {what[count != 1]}" if count else none)
    return Exit.OK


def order_columns(orders: Sequence[PatientOrder]) -> dict[str, list[str]]:
    """Return what a table shows of orders, by headings."""
    return {
        "Patient": [order.patient_name or "" for order in orders],
        "ID": [order.patient_id or "" for order in orders],
        "Birth date": [order.get_text("PatientBirthdate") or "" for order in orders],
        "Modality": [(order.modality or "").replace("\\", ", ") for order in orders],
        "Description": [order.study_description or "" for order in orders],
        "Status": [order.order_status or "" for order in orders],
        "Institution UUID": [order.institution_uuid or "" for order in orders],
        "Order UUID": [order.patient_order_uuid if order.is_named else "" for order in orders],
    }


def folder_columns(folders: Sequence[Folder]) -> dict[str, list[str]]:
    """Return what a table shows of folders, by headings."""
    return {
        "Name": [folder.folder_name or "" for folder in folders],
        "Description": [folder.folder_description or "" for folder in folders],
        "Shared": ["yes" if folder.is_shared else "" for folder in folders],
        "Orders": [_number_text(folder.order_count) for folder in folders],
        "Folders": [_number_text(folder.sub_folder_count) for folder in folders],
        "Folder UUID": [folder.folder_uuid if folder.is_named else "" for folder in folders],
    }


def raw_columns(items: Iterable[Any]) -> dict[str, list[str]]:
    """Return the fields of objects whose names are not known beforehand, by headings."""
    objects = [item for item in items if isinstance(item, Mapping)]
    names = dict.fromkeys(name for item in objects for name in item)
    return {
        re.sub(r"(?<=[a-z])Uuid$", " UUID", str(name)): [_value_text(item.get(name)) for item in objects]
        for name in names
    }


def _number_text(number: int | None) -> str:
    return "" if number is None else str(number)


def field_table(rows: Iterable[tuple[str, Any]]) -> str:
    """Return fields and their values as a table; what is nested stays JSON."""
    shown = [(name, _value_text(value)) for name, value in rows]
    return output.render([output.table(("Field", "Value"), [row for row in shown if row[1]])])


def _value_text(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else str(value)
