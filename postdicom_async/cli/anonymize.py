"""Anonymisation from options, for every command that uploads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from postdicom_async import Anonymization, UsageError

__all__ = ["Anonymizing", "Profile"]


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
            "GGGGEEEE, once for each.",
        ),
    ] = None
    anonymize_profile: Annotated[
        Profile | None,
        typer.Option(help="Begin with the nine tags of PostDICOM's own uploader, or with the Basic Profile of PS3.15."),
    ] = None

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
            return Anonymization.vendor_tags(rules)
        if self.anonymize_profile is Profile.BASIC:
            return Anonymization.basic_profile(rules)
        return Anonymization(rules) if rules else None


def _rule(text: str) -> tuple[str, str | None]:
    tag, given, value = text.partition("=")
    if given:
        return tag, value
    if not tag.endswith("-"):
        raise UsageError("--anonymize: write TAG=VALUE, TAG= or TAG-")
    return tag[:-1], None
