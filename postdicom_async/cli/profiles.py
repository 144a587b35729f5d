"""``postdicom profiles``: named archives in a file of this user; their secrets are stored elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from postdicom_async import AuthenticationFailed, ConnectionFailed, PostdicomError, UsageError, profiles
from postdicom_async.cli import output
from postdicom_async.cli.connection import asking
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.forms import OutputAs, OutputForm, form_of, write_list
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import AsJson, Assumed, Common
from postdicom_async.cli.paths import given_path
from postdicom_async.cli.vendor import Yes, confirmed, field_table

if TYPE_CHECKING:
    from postdicom_async.profiles import Profile, SecretName


ProfileName: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="What the archive is called.")]


class ArchiveFamily(StrEnum):
    """The families of archives that a profile can have."""

    DICOMWEB = "dicomweb"
    POSTDICOM = "postdicom"
    CLOUD = "cloud"


def _option(name: str, text: str, metavar: str = "TEXT", panel: str | None = None, **more: Any) -> Any:
    return typer.Option(f"--{name}", metavar=metavar, help=text, rich_help_panel=panel, **more)


def _file(name: str, text: str) -> Any:
    return _option(name, text, "FILE", parser=given_path)


_LIMITS, _CLOUD, _TOKENS = "Limits", "Cloud API", "Client credentials"


@dataclass(frozen=True)
class NewProfile:
    """The options of a new profile; the names are the keys of its table."""

    url: Annotated[str | None, _option("url", "Address of the DICOMweb service.", "URL")] = None
    kind: Annotated[
        ArchiveFamily,
        typer.Option("--kind", help="Family: DICOMweb, PostDICOM's DICOMweb service, or PostDICOM's Cloud API."),
    ] = ArchiveFamily.DICOMWEB
    username: Annotated[
        str | None, typer.Option("--username", "-u", metavar="NAME", help="As whom; for the Cloud API a UUID or name.")
    ] = None
    assumed: Assumed = None
    ca_file: Annotated[Path | None, _file("ca-file", "PEM file of authorities to trust besides the system's.")] = None
    client_cert: Annotated[Path | None, _file("client-cert", "PEM file of the client certificate.")] = None
    client_key: Annotated[Path | None, _file("client-key", "PEM file of the client key.")] = None
    proxy: Annotated[str | None, _option("proxy", "Proxy, without a password.", "URL")] = None
    environment_proxy: Annotated[
        bool, typer.Option("--environment-proxy", help="Use the proxies that the environment names.")
    ] = False
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Send credentials over http:// to another machine.")
    ] = False
    password_file: Annotated[
        Path | None, _file("password-file", "A file that holds the password, which nobody else may read.")
    ] = None
    token_file: Annotated[Path | None, _file("token-file", "The same for a bearer token.")] = None
    token_url: Annotated[
        str | None, _option("token-url", "Token endpoint of an identity provider.", "URL", _TOKENS)
    ] = None
    client_id: Annotated[
        str | None, _option("client-id", "The client that gets tokens there, instead of a user.", "ID", _TOKENS)
    ] = None
    scope: Annotated[str | None, _option("scope", "What the tokens are for.", "TEXT", _TOKENS)] = None
    audience: Annotated[str | None, _option("audience", "For whom they are, if asked for.", "TEXT", _TOKENS)] = None
    client_auth: Annotated[
        str | None, _option("client-auth", "Where the secret is sent: basic (a header) or post.", "WAY", _TOKENS)
    ] = None
    client_secret_file: Annotated[
        Path | None, _file("client-secret-file", "A file that holds the client's secret.")
    ] = None
    connections: Annotated[int | None, _option("connections", "Requests at once.", "N", _LIMITS, min=1)] = None
    parallel_stores: Annotated[
        int | None, _option("parallel-stores", "How many of them may store.", "N", _LIMITS, min=1)
    ] = None
    parallel_retrieves: Annotated[
        int | None, _option("parallel-retrieves", "How many of them may retrieve.", "N", _LIMITS, min=1)
    ] = None
    max_rate: Annotated[str | None, _option("max-rate", "What a job may move, such as 40M.", "RATE", _LIMITS)] = None
    requests_per_second: Annotated[
        float | None, _option("requests-per-second", "How often a job may ask.", "N", _LIMITS, min=0.001)
    ] = None
    windows: Annotated[
        str | None,
        _option("window", "When a job may use it: 'Mon-Fri 20:00-06:00, Sat-Sun 00:00-24:00'.", "TIMES", _LIMITS),
    ] = None
    preset: Annotated[
        str | None, _option("preset", "A known cloud, whose limits jobs then keep to.", "NAME", _LIMITS)
    ] = None
    router_url: Annotated[str | None, _option("router-url", "Where the Cloud API is looked for.", "URL", _CLOUD)] = None
    institution_uuid: Annotated[
        str | None, _option("institution-uuid", "Where images go: the institution.", "UUID|NAME", _CLOUD)
    ] = None
    folder_uuid: Annotated[str | None, _option("folder", "Where images go: the folder.", "UUID", _CLOUD)] = None

    def values(self) -> dict[str, Any]:
        """Return the keys of the table and their values.

        Raises:
            UsageError: ``-o`` is not FIELD=VALUE.
        """
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "assumed"}
        options: dict[str, str] = {}
        for text in self.assumed or ():
            name, equals, value = text.partition("=")
            if not equals:
                raise UsageError("-o: give FIELD=VALUE")
            options[name] = value
        plain = {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in given.items()}
        return {**plain, "kind": self.kind.value, "options": options}


def add(
    name: ProfileName,
    new: NewProfile,
    common: Common,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the archive of that name.")] = False,
    no_password: Annotated[bool, typer.Option("--no-password", help="Ask for no password.")] = False,
) -> int:
    """Give an archive a name, and put its password into the keyring.

    The password is asked for in a terminal, and goes into the keyring or nowhere: never into the file. Without it,
    commands look for POSTDICOM_PASSWORD_NAME, the file of --password-file, and ask.
    """
    made = profiles.add_profile(name, new.values(), replace=replace, check=_check)
    if not common.quiet:
        output.note(f"{name} written to {profiles.profiles_file()}")
    if not no_password:
        for which in _asked_for(made):
            _keep(made, which, quiet=common.quiet)
    return Exit.OK


def _check(profile: Profile) -> None:
    from postdicom_async import jobs

    profiles.check_profile(profile)
    jobs.check_limits(profile)


def _asked_for(profile: Profile) -> list[SecretName]:
    """Return the secrets that an archive needs and no source has yet; a file may be written later."""
    needed = [which for which in _secrets_of(profile) if which != "token" and not _has_file(profile, which)]
    return [which for which in needed if not profiles.find_secret(profile, which, alone=False)]


def _has_file(profile: Profile, which: SecretName) -> bool:
    return getattr(profile, f"{which.replace('-', '_')}_file") is not None


def _secrets_of(profile: Profile) -> list[SecretName]:
    if profile.kind == "cloud":
        return ["api-key", "account-key"]
    if profile.client_id:
        return ["client-secret"]
    return ["password"] if profile.username else ["token"]


def _keep(profile: Profile, which: SecretName, *, quiet: bool) -> None:
    ask, entries = asking(), profiles.entries_of(profile, which)
    secret = ask(f"{_words(which)} for {profile.name}, for the keyring (empty: not now): ") if ask and entries else ""
    if secret and profiles.keep(entries[0], secret):
        words = "is in the keyring"
    else:
        words = "is not stored: no keyring keeps it here" if secret else "is not stored"
    if not quiet:
        output.note(f"the {_words(which, small=True)} {words}")


def _words(which: str, *, small: bool = False) -> str:
    words = which.replace("api", "API").replace("-", " ")
    return words if small else words[0].upper() + words[1:]


# --- what there is ----------------------------------------------------------------------------------------------------


def list_profiles(common: Common, output_as: OutputAs = None, as_json: AsJson = False) -> int:
    """Show the named archives."""
    form = form_of(output_as, as_json=as_json)
    known, problems = [], []
    for name in profiles.profile_names():
        try:
            known.append(profiles.load_profile(name))
        except UsageError as error:
            problems.append(error)
    if form is OutputForm.JSON:
        output.write_document({"items": [_table(one) for one in known]}, error=problems[0] if problems else None)
    elif form is not OutputForm.TABLE:
        write_list(form, [_table(one) for one in known])
    elif known:
        rows = [(one.name, one.kind, _address(one), one.username or one.client_id) for one in known]
        output.write(output.render([output.table(("NAME", "KIND", "ADDRESS", "USER"), rows)]))
    elif not problems and not common.quiet:
        output.note(f"there are none in {profiles.profiles_file()}; postdicom profiles add makes one")
    for problem in problems:
        output.error(str(problem))
    return Exit.USAGE if problems else Exit.OK


def show(name: ProfileName, common: Common, as_json: AsJson = False) -> int:
    """Show a named archive, and where its secrets would come from."""
    del common
    found = profiles.load_profile(name)
    places = {which: _place_of(found, which) for which in _secrets_of(found)}
    if as_json:
        output.write_document({"answer": {**_table(found), "secrets": places}})
    else:
        secrets = [(_words(which, small=True), place or _nowhere(which)) for which, place in places.items()]
        output.write(field_table([*_table(found).items(), *secrets]))
    return Exit.OK


def _place_of(profile: Profile, which: SecretName) -> str | None:
    """Return the source of a secret, or why the named one cannot be used."""
    try:
        found = profiles.find_secret(profile, which)
    except UsageError as error:
        return error.message.rpartition(", ")[2]
    return None if found is None else found.place


def _nowhere(which: str) -> str:
    return "none: requests are anonymous" if which == "token" else "nowhere: it will be asked for"


def _table(profile: Profile) -> dict[str, Any]:
    """Return the keys that the file sets."""
    values = {one.name: getattr(profile, one.name) for one in fields(profile)}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    plain["options"] = dict(profile.options)
    return {name: value for name, value in plain.items() if value not in (None, "", False, {})}


def _address(profile: Profile) -> str:
    return profile.router_url or "PostDICOM's public router" if profile.kind == "cloud" else profile.url


def remove(name: ProfileName, common: Common, yes: Yes = False) -> int:
    """Remove a named archive and its entries in the keyring. Secrets stored elsewhere stay there."""
    if name not in profiles.profile_names():
        profiles.load_profile(name)  # raises with the existing names
    if not yes and not confirmed(f"Forget {name} and its secrets in the keyring?"):
        return Exit.ITEMS_FAILED
    # Read before the profile is gone. Another may be of the same user at the same host: then the entry is its own too.
    entries = {one: _entries(one) for one in profiles.profile_names()}
    profiles.remove_profile(name)
    others = {entry for one in entries for entry in entries[one] if one != name}
    gone = [entry for entry in entries.get(name, ()) if entry not in others and profiles.forget(entry)]
    if not common.quiet:
        output.note(f"{name} is forgotten{', its keyring entry too' if gone else ''}")
    return Exit.OK


def _entries(name: str) -> tuple[str, ...]:
    """Return the entries that belong to this profile alone; the one shared by all Cloud API accounts does not."""
    try:
        profile = profiles.load_profile(name)
    except UsageError:  # an invalid profile can be removed all the same
        return ()
    return tuple(entries[0] for which in _secrets_of(profile) if (entries := profiles.entries_of(profile, which)))


# --- whether it works -------------------------------------------------------------------------------------------------


def test(name: ProfileName, common: Common) -> int:
    """Open a named archive and send it one query.

    Reports on address, TLS, credentials and search, one line each. Only reads. Exits with 0 if all of it works.
    """
    del common
    found = profiles.load_profile(name)
    _check(found)
    client = profiles.client_of(found, ask=asking())
    problem = run_async(lambda: _tried(client))
    secure = (found.url or found.router_url or "https:").lower().startswith("https:")
    stage = _stage_of(problem)
    states = ["works"] * stage + ["does not work", "not tried", "not tried", "not tried"][: 4 - stage]
    if found.client_id and stage == _CREDENTIALS and problem is not None and "token" in problem.message:
        states[:_CREDENTIALS] = ["not tried"] * _CREDENTIALS  # without a token the archive was not asked
    if not secure:
        states[1] = "none: http://"
    place = next((place for which in _secrets_of(found) if (place := _place_of(found, which))), None)
    rows = zip(("address", "TLS", "credentials", "session" if found.kind == "cloud" else "search"), states, strict=True)
    origin = f" ({place})" if place else ""
    for what, state in rows:
        output.write(f"{what:<12} {state}{origin if what == 'credentials' else ''}")
    if problem is not None:
        raise problem
    return Exit.OK


_CREDENTIALS = 2  # the number of their stage


async def _tried(client: Any) -> PostdicomError | None:
    from postdicom_async import CloudApi

    try:
        async with client:
            if not isinstance(client, CloudApi):
                await client.search_for_studies(limit=1).all()
    except PostdicomError as error:
        return error
    return None


def _stage_of(problem: PostdicomError | None) -> int:
    """Return how many of the four stages work."""
    if problem is None:
        return 4
    if isinstance(problem, ConnectionFailed):
        return 1 if any(word in problem.message for word in ("certificate", "TLS", "handshake")) else 0
    return _CREDENTIALS if isinstance(problem, AuthenticationFailed) else 3
