"""That a running job is to try again what failed: asked for at any time, done when a phase has come to its end.

Nothing that is under way is touched. What failed is made pending between two phases, and the job goes back to moving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postdicom_async.errors import UsageError
from postdicom_async.jobs.states import State

if TYPE_CHECKING:
    from postdicom_async.jobs.ledger.ledger import Ledger

__all__ = ["Retries"]


class Retries:
    """What has been asked for and not been done."""

    def __init__(self) -> None:
        self._reasons: set[int] = set()
        self._all = False

    async def ask(self, message: dict[str, Any]) -> None:
        """Take an order: of the control socket; ``reasons`` are those of `states.Reason`, all without them.

        Raises:
            UsageError: they are no numbers.
        """
        reasons = message.get("reasons")
        if reasons is None:
            self._all = True
        elif isinstance(reasons, list) and all(type(one) is int for one in reasons):
            self._reasons |= set(reasons)
        else:
            raise UsageError("give reasons as a list of numbers", operation="retry")

    async def begin(self, ledger: Ledger) -> bool:
        """Make pending what was asked for, and the phase that of moving; return whether there is such a thing."""
        reasons = None if self._all else sorted(self._reasons)
        self._all, self._reasons = False, set()
        if reasons == []:
            return False
        ledger.put("phase", "moving")  # before anything is pending: whoever comes after a kill would pass it over
        return await ledger.reset([State.FAILED, State.UNCONFIRMED], reasons=reasons) > 0
