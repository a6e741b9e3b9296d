"""Draws the three demonstration clips beside this file: python assets/clips/make.py

Scenes of the toy world nano was trained on, drawn three times as large and at 8 frames per second
so that they are pleasant to look at.
"""

from pathlib import Path

import av

from vl3.toyworld.draw import render
from vl3.toyworld.world import COLOURS, Scene, Sprite

FRAMES_PER_S = 8
SCALE = 3


def sprite(colour, shape, size_px, span_s, motion, speed_px, x_px, y_px) -> Sprite:
    """A sprite in the plain colour; positions and speeds in pixels of the 112 x 112 world."""
    start_s, stop_s = span_s
    rgb = COLOURS[colour]
    return Sprite(shape, colour, rgb, size_px, start_s, stop_s, motion, speed_px, x_px, y_px)


def scene(seconds, background, *sprites) -> Scene:
    return Scene(112, 112, seconds, background, 0, 0, sprites)


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
}


def write(path: Path, scene: Scene) -> None:
    """Films the scene as H.264 in good quality."""
    times_s = tuple(index / FRAMES_PER_S for index in range(scene.seconds * FRAMES_PER_S))
    frames_TYX3 = render(scene, times_s, SCALE)
    with av.open(path, "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=FRAMES_PER_S, options={"crf": "12"})
        stream.height, stream.width = frames_TYX3.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame_YX3 in frames_TYX3:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame_YX3, format="rgb24")))
        file.mux(stream.encode(None))


if __name__ == "__main__":
    for name, drawn in SCENES.items():
        write(Path(__file__).parent / name, drawn)
