from postdicom_async.web.events import ProgressTold as ProgressTold
from postdicom_async.web.events import progress_events as progress_events
from postdicom_async.web.events import sse as sse
from postdicom_async.web.responses import answer_errors as answer_errors
from postdicom_async.web.responses import archive_lifespan as archive_lifespan
from postdicom_async.web.responses import events_response as events_response
from postdicom_async.web.responses import the_archive as the_archive
from postdicom_async.web.responses import while_connected as while_connected
from postdicom_async.web.responses import zip_response as zip_response
from postdicom_async.web.statuses import STATUSES as STATUSES
from postdicom_async.web.statuses import ErrorAnswer as ErrorAnswer
from postdicom_async.web.statuses import answer_to as answer_to
from postdicom_async.web.statuses import status_of as status_of
from postdicom_async.web.zipped import as_zip as as_zip
from postdicom_async.web.zipped import series_as_zip as series_as_zip
from postdicom_async.web.zipped import study_as_zip as study_as_zip

__all__: list[str]  # noqa: PYI035 - made of the lines above when it runs
