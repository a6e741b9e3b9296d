"""Sound in: probe, measure, read and blocks; ears are in vl3.audio.ear. PyAV decodes.

This file imports no torch: the process that decodes imports it.
"""

from vl3.audio.notes import described
from vl3.audio.reader import SoundLength, blocks, from_array, is_sound, measure, probe, read
from vl3.audio.waveform import SoundHeader

__all__ = [
    "SoundHeader",
    "SoundLength",
    "blocks",
    "described",
    "from_array",
    "is_sound",
    "measure",
    "probe",
    "read",
]
