"""Anonymisation from options, for every command that uploads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from postdicom_async import Anonymization, UsageError

__all__ = ["Anonymizing", "Profile"]

_SECRET = "POSTDICOM_ANONYMIZE_SECRET"  # noqa: S105 - its name


class Profile(StrEnum):
    """Rules that are there already."""

    VENDOR = "vendor"
    BASIC = "basic"


@dataclass(frozen=True)
class Anonymizing:
    """What is changed in every file before it is sent."""

    anonymize: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG=VALUE",
            help="Replace an element's value in every file sent; TAG= empties it, TAG- removes it. A keyword or "
            "GGGG,EEEE, once for each.",
        ),
    ] = None
    anonymize_profile: Annotated[
        Profile | None,
        typer.Option(help="Begin with the nine tags of PostDICOM's own uploader, or with the Basic Profile of PS3.15."),
    ] = None

    anonymize_uids: Annotated[
        bool,
        typer.Option(
            "--anonymize-uids",
            help="Give every study, series and instance another UID; the same again under the same "
            f"{_SECRET}, else new ones each time.",
        ),
    ] = False

    def rules(self) -> Anonymization | None:
        """Return what was asked for, None for nothing.

        Raises:
            UsageError: a tag or a value is wrong.
        """
        given = [_rule(text) for text in self.anonymize or ()]
        rules = dict(given)
        if len(rules) < len(given):
            raise UsageError("--anonymize: a tag is given twice")
        if self.anonymize_profile is Profile.VENDOR:
            return Anonymization.vendor_tags(rules, remap_uids=self.anonymize_uids, secret=_secret())
        if self.anonymize_profile is Profile.BASIC:
            return Anonymization.basic_profile(rules, secret=_secret())
        if rules or self.anonymize_uids:
            return Anonymization(rules, remap_uids=self.anonymize_uids, secret=_secret())
        return None

    def again(self, *, skips_existing: bool, knows_copies: bool = False) -> str:
        """Return what the same command would do after an upload that ended early.

        ``knows_copies`` says that it tells a copy that was sent from the original under the same UID.
        """
        changes_uids = self.anonymize_uids or self.anonymize_profile is Profile.BASIC
        if changes_uids and _secret() is None:
            return f"sends everything once more under other UIDs, for want of {_SECRET}"
        if not skips_existing:
            return "sends everything once more"
        keeps_uids = not changes_uids and bool(self.anonymize or self.anonymize_profile)
        return "sends only the rest" + (" and fails for the others" if keeps_uids and not knows_copies else "")


def _secret() -> str | None:
    return os.environ.get(_SECRET) or None


def _rule(text: str) -> tuple[str, str | None]:
    tag, given, value = text.partition("=")
    if given:
        return tag, value
    if not tag.endswith("-"):
        raise UsageError("--anonymize: write TAG=VALUE, TAG= or TAG-")
    return tag[:-1], None
