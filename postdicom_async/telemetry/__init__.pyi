from postdicom_async.telemetry.switch import instrument as instrument
from postdicom_async.telemetry.switch import uninstrument as uninstrument
