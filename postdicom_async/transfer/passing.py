"""A body that still comes from one archive while it goes to another: read once, and to its end only if all comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postdicom_async.errors import LocalFileError, ProtocolError
from postdicom_async.face import translated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from postdicom_async.transfer.sinks import Ended, Passing, Pieces

__all__ = ["PassingBody", "Through"]


class PassingBody:
    """The body of an instance that is still coming. It can be opened once, and raises where the rest does not come.

    Attributes:
        length: its bytes, as the part that brings it says.
        passing: what comes.
        is_opened: somebody reads it.
        passes: that it is one: nothing comes behind it before it is read, so it is read at once.
    """

    passes: Final = True

    def __init__(self, passing: Passing, length: int) -> None:
        self.length: int = length
        self.passing: Passing = passing
        self.is_opened: bool = False

    def __repr__(self) -> str:
        return f"<PassingBody of {self.length} bytes>"

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield it as it comes.

        Raises:
            LocalFileError: it was opened before, or the rest does not come.
        """
        if self.is_opened:
            raise LocalFileError("it passes from one archive to the other, and only once", temporary=True)
        self.is_opened = True
        size = 0
        with translated(ProtocolError, lambda error: LocalFileError(error.message, temporary=True)):
            async with self.passing:
                async for piece in self.passing:
                    size += len(piece)
                    yield piece
        if size != self.length:
            raise LocalFileError("the instance has another length than its part said", temporary=True)

    def close(self) -> None:
        """Throw away what comes."""
        self.passing.close()

    def __del__(self) -> None:
        """Let the archive that sends it go on when nobody will read it."""
        self.passing.close()


class Through:
    """The receiving end of a `PassingBody`."""

    where: str = ""

    def __init__(self, passing: Passing, ended: Ended) -> None:
        self._passing = passing
        self._ended = ended

    def write(self, pieces: Pieces, size: int, /) -> None:
        """Hand its next bytes on."""
        self._passing.take(pieces, size, whole=False)

    def end(self, pieces: Pieces, size: int, /) -> None:
        """Hand its last bytes on: it is whole."""
        self._passing.take(pieces, size, whole=True)
        self._ended(None)

    def drop(self) -> None:
        """Tell the reader that the rest does not come."""
        self._passing.break_off()
        self._ended(None)
