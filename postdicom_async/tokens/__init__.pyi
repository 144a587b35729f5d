from postdicom_async.http.credentials import Token as Token
from postdicom_async.tokens.client_credentials import ClientCredentials as ClientCredentials

__all__: list[str]  # noqa: PYI035 - made of the lines above when it runs
