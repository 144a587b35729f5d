"""Signatures against a vector that AWS published, and against botocore's own signer."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.tokens.sigv4 import UNSIGNED, AwsKeys, authorization, signature_headers, strict_target

KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
EMPTY = hashlib.sha256().hexdigest()


def test_the_published_vector() -> None:
    """``get-vanilla`` of AWS's test suite."""
    signed = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
    assert authorization("GET", "/", signed, EMPTY, KEYS, "us-east-1", "service") == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    )


def by_botocore(
    method: str, target: str, headers: dict[str, str], body_hash: str, keys: AwsKeys, patch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Return the headers that botocore's signer gives a request."""
    patch.setattr(botocore.auth, "get_current_datetime", lambda: NOW)
    request = AWSRequest(method=method, url=f"https://{headers['host']}{target}", headers=dict(headers))
    request.headers["X-Amz-Content-SHA256"] = body_hash
    signer = botocore.auth.SigV4Auth(Credentials(*keys), "medical-imaging", "eu-west-1")
    signer.add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


TARGETS = [
    "/",
    "/datastore/1/studies",
    "/datastore/1/studies?PatientName=DOE*&StudyDate=20240101-20241231&includefield=a,b&limit=10",
    "/datastore/1/studies?PatientName=D%C3%96E^J%20K&00100020=1%2F2&00100020=1%2B2&empty=&flag",
    "/studies/1.2/series/3.4/instances/5.6/frames/1,2,3",
    "/a%2Fb/%C3%A4?%41=%7e~",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("token", [None, "session/token=="])
@pytest.mark.parametrize("body_hash", [EMPTY, UNSIGNED])
def test_the_same_as_botocore(target: str, token: str | None, body_hash: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, strict = KEYS._replace(token=token), strict_target(target)
    headers = {"host": "dicom-medical-imaging.eu-west-1.amazonaws.com", "content-type": "a/b;  c=d"}
    ours = signature_headers(
        "POST", strict, headers, body_hash, keys, region="eu-west-1", service="medical-imaging", now=NOW
    )
    theirs = by_botocore("POST", strict, headers, body_hash, keys, monkeypatch)
    assert ours == {name: theirs[name] for name in ours}
    assert ("x-amz-security-token" in ours) == (token is not None)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=8), st.text(max_size=8)), max_size=4))
def test_any_query_as_botocore_signs_it(pairs: list[tuple[str, str]]) -> None:
    from urllib.parse import quote

    query = "&".join(f"{quote(name, safe='*,^')}={quote(value, safe=':')}" for name, value in pairs)
    target = strict_target(f"/x?{query}" if query else "/x")
    with pytest.MonkeyPatch.context() as patch:
        theirs = by_botocore("GET", target, {"host": "h"}, EMPTY, KEYS, patch)
    ours: dict[str, Any] = signature_headers(
        "GET", target, {"host": "h"}, EMPTY, KEYS, region="eu-west-1", service="medical-imaging", now=NOW
    )
    assert ours["authorization"] == theirs["authorization"]


@pytest.mark.parametrize(
    ("target", "strict"),
    [
        ("/a?b=DOE*", "/a?b=DOE%2A"),
        ("/a,b/%2C?x=1,2&y=%2c&z", "/a%2Cb/%2C?x=1%2C2&y=%2C&z"),
        ("/a%2Fb?c=d=e", "/a%2Fb?c=d%3De"),
        ("/%7Ea-b_c.d", "/~a-b_c.d"),
        ("/a?", "/a?"),
    ],
)
def test_what_is_sent_can_be_read_in_one_way_only(target: str, strict: str) -> None:
    assert strict_target(target) == strict
    assert strict_target(strict) == strict


def test_keys_show_nothing() -> None:
    assert "EXAMPLE" not in repr(KEYS)
