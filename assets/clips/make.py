"""Draws the demonstration clips beside this file: python assets/clips/make.py [NAME.mp4 ...]

Scenes of the toy world nano was trained on, drawn three times as large and at 8 frames per second
so that they are pleasant to look at. Two of them have sound, for a nano that hears.
"""

import sys
from dataclasses import replace
from pathlib import Path

import av

from vl3.sound import RATE_HZ
from vl3.toyworld.draw import render
from vl3.toyworld.sounds import Heard, Track
from vl3.toyworld.synthesis import listen
from vl3.toyworld.world import COLOURS, Scene, Sprite

FRAMES_PER_S = 8
SCALE = 3


def sprite(colour, shape, size_px, span_s, motion, speed_px, x_px, y_px, flash_s=None) -> Sprite:
    """A sprite in the plain colour; positions and speeds in pixels of the 112 x 112 world."""
    start_s, stop_s = span_s
    place = {"size_px": size_px, "x_px": x_px, "y_px": y_px}
    moves = {"motion": motion, "speed_px": speed_px, "flash_s": flash_s}
    spans = {"start_s": start_s, "stop_s": stop_s}
    return Sprite(shape=shape, colour=colour, rgb=COLOURS[colour], **place, **moves, **spans)


def scene(seconds, background, *sprites, sounds=()) -> Scene:
    drawn = Scene(112, 112, seconds, background, 0, 0, sprites)
    return replace(drawn, track=Track(tuple(sounds), None, 0)) if sounds else drawn


def sound(kind, pitch, start_s) -> Heard:
    """A loud sound of half a second, in the middle of its pitch."""
    return Heard(kind, pitch, True, start_s, 0.5, -12.0, 0.5)


SCENES = {
    "circle_then_star.mp4": scene(
        10,
        (226, 228, 232),
        sprite("red", "circle", 32, (0, 10), "right", 7.0, 19, 34),
        sprite("blue", "star", 36, (4, 10), "still", 0.0, 66, 82),
    ),
    "three_shapes.mp4": scene(
        12,
        (52, 56, 62),
        sprite("yellow", "triangle", 34, (0, 12), "still", 0.0, 24, 26),
        sprite("green", "square", 30, (2, 9), "up", 8.0, 88, 90),
        sprite("pink", "cross", 32, (6, 12), "right", 6.0, 22, 88),
    ),
    "square_leaves.mp4": scene(
        8,
        (150, 152, 158),
        sprite("orange", "square", 32, (0, 4), "left", 10.0, 90, 30),
        sprite("purple", "circle", 34, (3, 8), "down", 9.0, 92, 42),
    ),
    "bell_and_beep.mp4": scene(
        9,
        (206, 210, 216),
        sprite("red", "circle", 34, (0, 9), "still", 0.0, 28, 32, flash_s=6),
        sprite("blue", "star", 36, (3, 9), "still", 0.0, 80, 76),
        sounds=(sound("bell", "low", 3.1), sound("beep", "high", 6.1)),
    ),
    "wrong_sound.mp4": scene(
        8,
        (70, 76, 84),
        sprite("yellow", "square", 34, (0, 8), "still", 0.0, 80, 30),
        sprite("green", "triangle", 34, (5, 8), "still", 0.0, 32, 78),
        sounds=(sound("chirp", "high", 2.1),),
    ),
}


def write(path: Path, scene: Scene) -> None:
    """Films the scene as H.264 in good quality, with its sound as AAC."""
    times_s = tuple(index / FRAMES_PER_S for index in range(scene.seconds * FRAMES_PER_S))
    frames_TYX3 = render(scene, times_s, SCALE)
    with av.open(path, "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=FRAMES_PER_S, options={"crf": "12"})
        stream.height, stream.width = frames_TYX3.shape[1:3]
        stream.pix_fmt = "yuv420p"
        track = file.add_stream("aac", rate=RATE_HZ, layout="mono") if scene.track else None
        for frame_YX3 in frames_TYX3:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame_YX3, format="rgb24")))
        file.mux(stream.encode(None))
        if track is not None:
            samples_CS = listen(scene).samples_S[None]
            frame = av.AudioFrame.from_ndarray(samples_CS, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, 0
            file.mux(track.encode(frame))
            file.mux(track.encode(None))


if __name__ == "__main__":
    for name in sys.argv[1:] or SCENES:
        write(Path(__file__).parent / name, SCENES[name])
