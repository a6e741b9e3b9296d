"""Toy clips and sounds as files for people, pages and data sets, with questions about them.

    python -m vl3.toyworld.files FOLDER                 twelve clips with sound
    python -m vl3.toyworld.files FOLDER --silent        without
    python -m vl3.toyworld.files FOLDER --alone 1       sounds without picture

Clips are MP4 with AAC, sounds are WAV; train.jsonl beside them holds the questions with their
answers, and what is heard in words under "heard". Drawn three times as large and eight times as
often as in training, of which a reader at one frame a second takes the frames that training has.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from vl3.sound import RATE_HZ, Sound
from vl3.toyworld.draw import render
from vl3.toyworld.hearing import SOUND_FAMILIES, track_of, transcript
from vl3.toyworld.questions import FAMILIES, ask_many
from vl3.toyworld.synthesis import listen
from vl3.toyworld.world import Level, Scene, sample_scene
from vl3.video.encode import encode

FRAMES_PER_S, SCALE = 8, 3
CLIPS = Level(seconds=(4, 9), sprites=(1, 3), digits=0.2, sound=1.0, hum=0.3, voices=0.15)
QUESTIONS = 6


def save(scene: Scene, stem: Path) -> Path:
    """Writes a scene beside others: an image as PNG, a clip with its sound as MP4, sound as WAV.

    stem: path without ending; returns it with the one that the scene has
    """
    if scene.kind == "audio":
        file = Path(f"{stem}.wav")
        write_wav(file, listen(scene))
        return file
    if scene.kind == "image":
        file = Path(f"{stem}.png")
        Image.fromarray(render(scene, scale=SCALE)[0]).save(file)
        return file
    times_s = tuple(index / FRAMES_PER_S for index in range(scene.seconds * FRAMES_PER_S))
    sound = None if scene.track is None else listen(scene)
    file = Path(f"{stem}.mp4")
    file.write_bytes(encode(render(scene, times_s, SCALE), times_s, sound))
    return file


def write_wav(file: Path, sound: Sound) -> None:
    """The samples as 16-bit PCM; where the sound starts is not in the file."""
    samples_S = np.round(32767 * sound.samples_S.clip(-1, 1)).astype("<i2")
    with wave.open(str(file), "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE_HZ)
        written.writeframes(samples_S.tobytes())


def write_set(folder: Path, level: Level, count: int, seed: int) -> Path:
    """So many scenes as files, and train.jsonl with a row for each, ready for training."""
    folder.mkdir(parents=True, exist_ok=True)
    families = dict.fromkeys(FAMILIES, 1.0)
    if level.sound:
        families |= dict.fromkeys(SOUND_FAMILIES, 2.0)
    rows = []
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        scene = sample_scene(rng, level)
        qas = ask_many(scene, rng, families, QUESTIONS)
        file = save(scene, folder / f"{number:04}")
        track = track_of(scene)
        rows.append(
            {
                f"{scene.kind}s": [file.name],
                "message_lists": [
                    [
                        {"role": "user", "content": qa.question},
                        {"role": "assistant", "content": qa.answer},
                    ]
                    for qa in qas
                ],
                "heard": None if track is None else transcript(track),
            }
        )
    listed = folder / "train.jsonl"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return listed


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vl3.toyworld.files", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="made where it is missing")
    parser.add_argument("--count", type=int, default=12, help="files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides them (default: %(default)s)")
    parser.add_argument("--silent", action="store_true", help="clips without sound")
    parser.add_argument(
        "--alone", type=float, default=0.0, help="share of sounds without picture (default: 0)"
    )
    chosen = parser.parse_args(arguments)
    if not 0 <= chosen.alone <= 1 or chosen.count < 1:
        parser.error(
            f"--alone is from 0 to 1 and --count at least 1 - got {chosen.alone:g} and "
            f"{chosen.count}"
        )
    level = replace(CLIPS, sound=0.0 if chosen.silent else 1.0, alone=chosen.alone)
    sys.stdout.write(f"{write_set(chosen.folder, level, chosen.count, chosen.seed)}\n")


if __name__ == "__main__":
    main()
