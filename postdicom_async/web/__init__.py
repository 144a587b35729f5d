"""Pieces of web backends: a study as a ZIP archive, progress as events, errors as statuses (extra ``web``).

::

    app = FastAPI(lifespan=archive_lifespan(lambda: DicomWeb(url, auth=("user", "password"))))
    answer_errors(app)


    @app.get("/studies/{study}.zip")
    async def study(study: str, request: Request) -> Response:
        return await zip_response(request, study_as_zip(the_archive(request), study), f"{study}.zip")

They work with Starlette and what is built on it, such as FastAPI. `as_zip`, `sse` and `status_of` need neither.
"""

from postdicom_async.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
