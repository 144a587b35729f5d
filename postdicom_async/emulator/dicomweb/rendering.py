"""One frame as a picture: decoded by pydicom, windowed here, written by Pillow. Blocks.

NumPy and Pillow come with the extra ``server`` and are only imported when a picture is wanted.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.dicomweb.pixels import frame_parts
from postdicom_async.emulator.store.files import SizedFile
from postdicom_async.emulator.store.header import DEFLATED, quietly, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from pydicom.dataset import Dataset

    from postdicom_async.emulator.store.archive import StoredInstance

    Array: TypeAlias = NDArray[np.generic]
    Grey: TypeAlias = NDArray[np.float64]

JPEG, PNG = "image/jpeg", "image/png"

_MOST_SAMPLES = 40_000_000
"""Samples of a frame that is rendered: each costs some dozen bytes of memory, whatever the file is packed to."""

_TAGS = [
    0x00080016, *range(0x00280000, 0x00280200), 0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056,
    0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202, 0x00281203, 0x00281221, 0x00281222, 0x00281223,
    0x00283000, 0x00283010, 0x52009229, 0x52009230,
]  # fmt: skip
"""What is read of a file besides its pixel data."""

_GROUPS = {
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
"""Where enhanced objects keep what others have at the top (PS3.3 sections C.7.6.16.2.9 and C.7.6.16.2.10)."""


@dataclass(frozen=True)
class PictureWindow:
    """A window as PS3.18 section 8.3.5.1.4 has it; ``function`` is LINEAR, LINEAR_EXACT or SIGMOID."""

    center: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True)
class PictureLook:
    """How a picture should look.

    Attributes:
        media_type: `JPEG` or `PNG`.
        quality: of a JPEG, from 1 to 100.
        viewport: width and height that the picture is fitted into, as large as possible; None for its own.
        region: the part that is shown: left, upper, width, height in pixels; 0 for all that is left.
        window: in place of the file's own.
    """

    media_type: str = JPEG
    quality: int = 90
    viewport: tuple[int, int] | None = None
    region: Sequence[float] | None = None
    window: PictureWindow | None = None


def frame_count(instance: StoredInstance) -> int:
    """Return how many frames an instance has, 0 when it is not an image."""
    header = read_header(instance.path)
    if header.pixels is None and 0x7FE00010 not in header.dataset:
        return 0
    return max(header.number(0x00280008, 1), 1)


def render(instance: StoredInstance, number: int, look: PictureLook) -> bytes:
    """Return one frame (the first is 1) as a picture.

    Raises:
        Refusal: 404 when there is no such frame, 406 when it cannot be decoded here, 500 when the file is damaged, 501
            without NumPy or Pillow.
    """
    try:
        import numpy  # noqa: F401, ICN001
        import PIL.Image
    except ImportError:
        pil = None
    else:
        pil = PIL.Image
    if pil is None:
        raise Refusal(501, "rendering needs Pillow and NumPy, which come with the extra 'server' of postdicom-async")
    try:
        frame_parts(instance, [number])  # refuses what is not there or not whole
    except Refusal as refused:
        if refused.status_code != 501:  # frames that do not begin at whole bytes can be decoded all the same
            raise
    try:
        picture = quietly(lambda: pil.fromarray(_colours(instance, number, look.window)))
    except Refusal:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise almost anything
        reason = f"the pixel data cannot be decoded here ({instance.transfer_syntax}): {type(error).__name__}"
    else:
        return _written(picture, look)
    raise Refusal(406, reason)


def _colours(instance: StoredInstance, number: int, window: PictureWindow | None) -> NDArray[np.uint8]:
    """Return the pixels as bytes, with one sample or three."""
    import numpy as np
    from pydicom.pixels.processing import apply_color_lut

    pixels, dataset = _decoded(instance, number)
    kind = str(dataset.PhotometricInterpretation)
    bits = int(dataset.BitsStored)
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)[..., :3]
        bits = 8 * pixels.dtype.itemsize
    if pixels.ndim == 3:
        return (pixels.astype(np.uint32) >> max(bits - 8, 0)).astype(np.uint8)  # type: ignore[no-any-return]  # pydicom gives Any
    grey = _grey(pixels, dataset, window)
    if kind == "MONOCHROME1":
        grey = 1 - grey
    return np.rint(grey * 255).astype(np.uint8)


def _decoded(instance: StoredInstance, number: int) -> tuple[Any, Dataset]:
    """Return one frame and the elements that say how it is shown."""
    from pydicom.pixels.utils import pixel_array

    if instance.transfer_syntax == DEFLATED:
        dataset: Dataset = read_header(instance.path).dataset  # all of it, within bounds
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(DEFLATED)
    else:
        with SizedFile(io.FileIO(instance.path)) as file:
            dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
    samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
    if samples > _MOST_SAMPLES:
        raise Refusal(406, f"a frame of more than {_MOST_SAMPLES} samples is not rendered")
    source = dataset if instance.transfer_syntax == DEFLATED else instance.path
    pixels = pixel_array(source, index=number - 1)
    _take_functional_groups(dataset, number)
    return pixels, dataset


def _take_functional_groups(dataset: Dataset, number: int) -> None:
    """Put at the top level what an enhanced object says about this frame, or about all."""
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[number - 1 : number]
    for group in (*shared, *own):
        for sequence, names in _GROUPS.items():
            for item in list(group.get(sequence) or [])[:1]:
                for name in names:
                    if name in item:
                        setattr(dataset, name, item[name].value)


def _grey(pixels: Any, dataset: Dataset, window: PictureWindow | None) -> Grey:
    """Return shades from 0 (as the smallest value is shown) to 1 (PS3.3 sections C.11.1 and C.11.2)."""
    import numpy as np
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float64)
    window = window or _window_of(dataset)
    table = next(iter(dataset.get("VOILUTSequence") or []), None)
    if window:
        return _windowed(values, window)
    if table is not None and "LUTData" in table:
        shades = apply_voi(np.rint(values).astype(np.int64), dataset)
        return np.clip(shades / (2.0 ** int(table.LUTDescriptor[2]) - 1), 0, 1)
    values = np.nan_to_num(values)
    low, high = float(values.min()), float(values.max())
    return (values - low) / ((high - low) or 1)


def _window_of(dataset: Dataset) -> PictureWindow | None:
    """Return the first window of a data set, None when it has no usable one."""
    found: list[float] = []
    for name in ("WindowCenter", "WindowWidth"):
        value = dataset.get(name)
        values = [value] if isinstance(value, int | float | str) else list(value or ())[:1]
        found += [float(one) for one in values if one is not None]
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if len(found) != 2 or found[1] < (1 if function == "LINEAR" else 1e-9):
        return None
    return PictureWindow(found[0], found[1], function)


def _windowed(values: Grey, window: PictureWindow) -> Grey:
    """Return shades by a window's function (PS3.3 section C.11.2.1.2 and C.11.2.1.3)."""
    import numpy as np

    center, width = window.center, window.width
    if window.function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - center) / width))
    if window.function == "LINEAR":
        center, width = center - 0.5, max(width - 1, 1e-9)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _written(picture: Image, look: PictureLook) -> bytes:
    if look.region:
        left, upper, width, height = look.region
        right = min(left + width, picture.width) if width else picture.width
        lower = min(upper + height, picture.height) if height else picture.height
        if right - left < 1 or lower - upper < 1:
            raise Refusal(400, "viewport: nothing of the picture is in this region")
        picture = picture.crop((int(left), int(upper), int(right), int(lower)))
    if look.viewport:
        scale = min(look.viewport[0] / picture.width, look.viewport[1] / picture.height)
        picture = picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)))
    written = io.BytesIO()
    if look.media_type == PNG:
        picture.save(written, "PNG")
    else:
        picture.save(written, "JPEG", quality=look.quality)
    return written.getvalue()
