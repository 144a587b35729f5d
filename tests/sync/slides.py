"""A small slide: whole slide microscopy images of two levels, in tiles, as an archive would hold them."""

from __future__ import annotations

from io import BytesIO

import pydicom
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

from tests.support.dicom_files import uid

__all__ = ["LEVELS", "SERIES", "STUDY", "TILE", "picture", "slide_files"]

STUDY, SERIES = uid(77), uid(77, 1)
TILE = 64
LEVELS = (256, 128)
"""Sides of the levels, in pixels."""


def picture(side: int) -> Image.Image:
    """Draw a level: a grid of colours, so that each tile differs."""
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for row in range(8):
        for column in range(8):
            step = side // 8
            box = (column * step, row * step, (column + 1) * step - 1, (row + 1) * step - 1)
            draw.rectangle(box, fill=(30 * column, 30 * row, 255 - 15 * (row + column)))
    return image


def slide_files(syntax: UID) -> list[bytes]:
    """Return a file for each level, its tiles encoded in a transfer syntax."""
    return [_level(number, side, syntax) for number, side in enumerate(LEVELS)]


def _tiles(side: int) -> list[Image.Image]:
    whole = picture(side)
    starts = range(0, side, TILE)
    return [whole.crop((x, y, x + TILE, y + TILE)) for y in starts for x in starts]


def _encoded(tile: Image.Image) -> bytes:
    buffer = BytesIO()
    tile.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _level(number: int, side: int, syntax: UID) -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, uid(77, 1, number + 1)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.FrameOfReferenceUID, dataset.DimensionOrganizationType = uid(77, 9), "TILED_FULL"
    dataset.PatientName, dataset.PatientID, dataset.Modality = "SLIDE^TEST", "SLIDE-1", "SM"
    dataset.StudyDate, dataset.StudyTime = "20240102", "030405"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number + 1
    dataset.ImageType = [
        "ORIGINAL" if number == 0 else "DERIVED",
        "PRIMARY",
        "VOLUME",
        "NONE" if number == 0 else "RESAMPLED",
    ]
    dataset.ContainerIdentifier, dataset.PositionReferenceIndicator = "C-1", "SLIDE_CORNER"
    dataset.SpecimenLabelInImage, dataset.FocusMethod, dataset.ExtendedDepthOfField = "NO", "AUTO", "NO"
    dataset.TotalPixelMatrixColumns = dataset.TotalPixelMatrixRows = side
    dataset.TotalPixelMatrixFocalPlanes = 1
    dataset.ImagedVolumeWidth = dataset.ImagedVolumeHeight = 10.0
    dataset.ImagedVolumeDepth = 1.0
    dataset.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0.0
    dataset.TotalPixelMatrixOriginSequence = Sequence([origin])
    optical = Dataset()
    optical.OpticalPathIdentifier = "1"
    optical.IlluminationTypeCodeSequence = Sequence([_code("111744", "Brightfield illumination")])
    optical.IlluminationColorCodeSequence = Sequence([_code("371251000", "White color", "SCT")])
    dataset.OpticalPathSequence, dataset.NumberOfOpticalPaths = Sequence([optical]), 1
    measures, shared, kind = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [10.0 / side, 10.0 / side]
    measures.SliceThickness = 1.0
    kind.FrameType = dataset.ImageType
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.WholeSlideMicroscopyImageFrameTypeSequence = Sequence([kind])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    _add_tiles(dataset, side, syntax)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = meta
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _add_tiles(dataset: Dataset, side: int, syntax: UID) -> None:
    tiles = _tiles(side)
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = len(tiles), TILE, TILE
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.BurnedInAnnotation, dataset.VolumetricProperties = "NO", "VOLUME"
    if syntax == JPEGBaseline8Bit:
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod, dataset.LossyImageCompressionRatio = "ISO_10918_1", "10"
        dataset.PixelData = encapsulate([_encoded(tile) for tile in tiles])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    else:
        assert syntax == ExplicitVRLittleEndian
        dataset.PhotometricInterpretation, dataset.LossyImageCompression = "RGB", "00"
        dataset.PixelData = b"".join(tile.tobytes() for tile in tiles)
        dataset["PixelData"].VR = "OB"
