"""Video and pictures in: probe, schedule, read. PyAV decodes, PIL resizes; nothing else is used."""

from vl3.video.encode import encode
from vl3.video.errors import VideoError
from vl3.video.images import is_image, read_image
from vl3.video.probe import Probe, probe
from vl3.video.reader import Schedule, read, schedule
from vl3.video.square import Square
from vl3.video.thumbnails import thumbnails

__all__ = [
    "Probe",
    "Schedule",
    "Square",
    "VideoError",
    "encode",
    "is_image",
    "probe",
    "read",
    "read_image",
    "schedule",
    "thumbnails",
]
