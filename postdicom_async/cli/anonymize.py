"""Anonymisation from options, for every command that uploads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from postdicom_async import Anonymization, PatientTable, UidMap, UsageError, profiles
from postdicom_async.cli import output
from postdicom_async.cli.paths import given_path

if TYPE_CHECKING:
    from collections.abc import Callable


_SECRET = "POSTDICOM_ANONYMIZE_SECRET"  # noqa: S105 - its name
_SAME_UIDS = (
    "warning: the copies keep the UIDs of the originals: an archive that holds these may mix or lose them; "
    "--anonymize-uids gives new ones"
)


class AnonymizeProfile(StrEnum):
    """Sets of rules that come with the library."""

    VENDOR = "vendor"
    BASIC = "basic"


class PatientIds(StrEnum):
    """How new Patient IDs are made."""

    KEYED = "keyed"


@dataclass(frozen=True)
class Anonymizing:
    """Options for anonymising every file before it is sent."""

    PANEL: ClassVar[str] = "Anonymising"

    anonymize: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG=VALUE",
            help="Replace an element's value in every file sent; TAG= empties it, TAG- removes it. A keyword or "
            "GGGG,EEEE, once for each.",
        ),
    ] = None
    anonymize_profile: Annotated[
        AnonymizeProfile | None,
        typer.Option(help="Begin with the nine tags of PostDICOM's own uploader, or with the Basic Profile of PS3.15."),
    ] = None

    anonymize_uids: Annotated[
        bool,
        typer.Option(
            "--anonymize-uids",
            help="Give every study, series and instance another UID; the same again under the same secret "
            f"({_SECRET}, --anonymize-secret-file), else new ones each time.",
        ),
    ] = False
    anonymize_patient_ids: Annotated[
        PatientIds | None,
        typer.Option(help="Give every patient another Patient ID; the same again under the same secret."),
    ] = None
    anonymize_patients: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=given_path,
            help="Give each patient values of its own, from a CSV file: PatientID says who it is, the other columns "
            "what is set. Nothing is sent of patients who are not in it.",
        ),
    ] = None
    anonymize_secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=given_path,
            help=f"Read the secret from a file that only you can read, not {_SECRET}.",
        ),
    ] = None
    uid_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=given_path,
            help="Write which UID became which to a CSV file that only you can read; one that exists is continued.",
        ),
    ] = None

    def rules(self, *, writes: bool = True, sends: bool = True) -> Anonymization | None:
        """Return the rules, None without anonymisation; without ``writes`` no map of UIDs is written.

        With ``sends`` warn if an archive may take the copies for their originals: also under --quiet, as it may lose
        them.

        Raises:
            UsageError: a tag, a value, the table or the secret is wrong, or an option does nothing without another.
            LocalFileError: a file cannot be read or written.
        """
        given = [_rule(text) for text in self.anonymize or ()]
        rules = dict(given)
        if len(rules) < len(given):
            raise UsageError("--anonymize: a tag is given twice")
        if not (rules or self.anonymize_profile or self.anonymize_uids or self._is_by_patient):
            if self.anonymize_secret_file is not None or self.uid_map is not None:
                unused = "--uid-map" if self.uid_map is not None else "--anonymize-secret-file"
                raise UsageError(f"{unused}: say what to anonymise, with --anonymize-uids for example")
            return None
        if self.uid_map is not None and not self._changes_uids:
            raise UsageError("--uid-map: no UID becomes another one without --anonymize-uids")
        secret = self._secret()
        if self.anonymize_patient_ids is not None and secret is None:  # half a study would belong to another patient
            raise UsageError(f"--anonymize-patient-ids: set {_SECRET}, or give --anonymize-secret-file")
        how: dict[str, Any] = {
            "secret": secret,
            "patient_ids": self.anonymize_patient_ids and self.anonymize_patient_ids.value,
            "patients": self.anonymize_patients and PatientTable.from_csv(self.anonymize_patients),
        }
        if self.anonymize_profile is not AnonymizeProfile.BASIC:
            how["remap_uids"] = self.anonymize_uids
        make = self._maker()
        made = make(rules, **how)
        if sends and made.may_displace_originals:
            output.note(_SAME_UIDS)
        # The map is opened last, so that a wrong option leaves none behind.
        return made if self.uid_map is None or not writes else make(rules, **how, uid_map=UidMap(self.uid_map))

    def _maker(self) -> Callable[..., Anonymization]:
        if self.anonymize_profile is None:
            return Anonymization
        return (
            Anonymization.basic_profile
            if self.anonymize_profile is AnonymizeProfile.BASIC
            else Anonymization.vendor_tags
        )

    @property
    def _is_by_patient(self) -> bool:
        return self.anonymize_patient_ids is not None or self.anonymize_patients is not None

    @property
    def _changes_uids(self) -> bool:
        return self.anonymize_uids or self.anonymize_profile is AnonymizeProfile.BASIC

    def again(self, *, skips_existing: bool, knows_copies: bool = False) -> str:
        """Return what repeating the command would do after an upload that ended early.

        ``knows_copies``: it can tell an anonymised copy from the original with the same UID.
        """
        if self._changes_uids and self._secret() is None:
            return f"sends everything once more under other UIDs, for want of {_SECRET}"
        changes = bool(self.anonymize or self.anonymize_profile or self._is_by_patient)
        fails = changes and not self._changes_uids and not knows_copies
        if not skips_existing:
            return "sends everything once more" + ("" if fails else ", with --existing skip only the rest")
        return "sends only the rest" + (" and fails for the others" if fails else "")

    def _secret(self) -> str | None:
        if self.anonymize_secret_file is not None:
            return profiles.read_secret(self.anonymize_secret_file, "--anonymize-secret-file")
        return os.environ.get(_SECRET) or None


def _rule(text: str) -> tuple[str, str | None]:
    tag, given, value = text.partition("=")
    if given:
        return tag, value
    if not tag.endswith("-"):
        raise UsageError("--anonymize: write TAG=VALUE, TAG= or TAG-")
    return tag[:-1], None
