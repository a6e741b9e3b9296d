"""What a person must know of how a sound was read, in sentences."""

from __future__ import annotations

from vl3.sound import SoundTrack

_APART_S = 0.2  # sound and picture of a camera begin and end that near to one another
_SILENT = 1e-4  # -80 dB of full scale


def track_notes(track: SoundTrack) -> tuple[str, ...]:
    """One sentence for each thing that is unusual; how it is stored says described."""
    found = []
    if track.tracks > 1:
        found.append(f"The file holds {track.tracks} sounds; only its main one is heard.")
    if track.cancelled:
        found.append(
            f"The {track.heard} channels of the sound cancel one another, so the first alone is "
            "heard."
        )
    if track.picture_s:
        found += _beside_picture(track, *track.picture_s)
    if track.gaps_s:
        length_s = sum(length_s for _, length_s in track.gaps_s)
        gaps = "a gap" if len(track.gaps_s) == 1 else f"{len(track.gaps_s)} gaps"
        found.append(f"The sound has {gaps} of {length_s:.2f} s in all, which are silence.")
    if track.lost_packets:
        found.append(
            f"{track.lost_packets} of {track.packets} pieces of the sound could not be read."
        )
    if track.peak < _SILENT:
        found.append("The sound is silent throughout.")
    return tuple(found)


def described(track: SoundTrack) -> str:
    """How it is stored: "aac, 44.1 kHz, stereo" or "flac, 96 kHz, 24 bits, 5.1 (5 channels heard)".

    For run details.
    """
    parts = [track.codec, f"{track.rate_hz / 1000:g} kHz"]
    if track.bits:
        parts.append(f"{track.bits} bits")
    parts.append(track.layout or f"{track.channels} channels")
    if track.heard > 1 and track.heard < track.channels:
        parts[-1] += f" ({track.heard} channels heard)"
    return ", ".join(parts)


def _beside_picture(track: SoundTrack, first_s: float, end_s: float) -> list[str]:
    found = []
    late_s, short_s = track.start_s - first_s, end_s - track.end_s
    if abs(late_s) > _APART_S:
        when = "after" if late_s > 0 else "before"
        found.append(f"The sound begins {abs(late_s):.2f} s {when} the picture.")
    if abs(short_s) > _APART_S:
        when = "before" if short_s > 0 else "after"
        found.append(f"The sound ends {abs(short_s):.2f} s {when} the picture.")
    return found
