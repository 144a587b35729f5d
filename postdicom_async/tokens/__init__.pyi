from postdicom_async.http.credentials import TokenIssuer as TokenIssuer
from postdicom_async.tokens.aws_signing import aws as aws
from postdicom_async.tokens.azure_cloud import azure as azure
from postdicom_async.tokens.google_cloud import google as google

__all__: list[str]  # noqa: PYI035 - made of the lines above when it runs
