"""AWS Signature Version 4, as its specification says ("Create a signed AWS API request"). Pure.

It is written out here because the signer of botocore writes the request with its query, which may name a patient, to
the log at DEBUG.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

UNSIGNED: Final = "UNSIGNED-PAYLOAD"
"""Stands for the hash of a body that is not a part of the signature."""

_ALGORITHM = "AWS4-HMAC-SHA256"
_PLAIN = "-_.~"  # besides letters and digits, what stays as it is


class AwsKeys(NamedTuple):
    """An access key, its secret, and the session's token if it is a temporary one."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        """Return nothing of the keys."""
        return "<AwsKeys>"


def strict_target(target: str) -> str:
    """Return a path and query with everything percent-encoded that is neither letter, digit nor one of ``-_.~``.

    Both sides then read the same from it: what a server decodes and encodes again gives the same text.
    """
    path, question, query = target.partition("?")
    path = "/".join(_encoded(unquote(part)) for part in path.split("/"))
    pairs = [part.partition("=") for part in query.split("&")]
    return path + question + "&".join(f"{_encoded(unquote(k))}{eq}{_encoded(unquote(v))}" for k, eq, v in pairs)


def signature_headers(
    method: str,
    target: str,
    headers: Mapping[str, str],
    payload_hash: str,
    keys: AwsKeys,
    *,
    region: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """Return the headers that make a request a signed one.

    Args:
        method: such as ``GET``.
        target: what `strict_target` returned.
        headers: those to be signed; ``host`` must be one of them.
        payload_hash: SHA-256 of the body in hex, or `UNSIGNED`.
        keys: of whom.
        region: such as ``eu-west-1``.
        service: its name in signatures.
        now: the time, in UTC.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-content-sha256": payload_hash, "x-amz-date": stamp}
    added |= {} if keys.token is None else {"x-amz-security-token": keys.token}
    signed = {name.lower(): " ".join(value.split()) for name, value in {**headers, **added}.items()}
    return {**added, "authorization": authorization(method, target, signed, payload_hash, keys, region, service)}


def authorization(
    method: str, target: str, signed: Mapping[str, str], payload_hash: str, keys: AwsKeys, region: str, service: str
) -> str:
    """Return the value of the header, from all that is signed; ``x-amz-date`` is one of the headers."""
    path, _, query = target.partition("?")
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            method,
            quote(path or "/", safe=f"/{_PLAIN}"),  # a second time, as for all services but S3
            "&".join("=".join(pair) for pair in sorted(_pair(part) for part in query.split("&") if part)),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            payload_hash,
        ]
    )
    stamp = signed["x-amz-date"]
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{keys.secret_key}".encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"{_ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name, value


def _encoded(text: str) -> str:
    return quote(text, safe=_PLAIN)
