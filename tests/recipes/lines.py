"""Sixteen hand-written lines about three clips and a picture, as a person begins who has own ones.

Each line has an answer in words that nano does not know and one in words that it does. `write`
makes the clips: real ones where a folder of them is given, drawn ones elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
from clips import write_clip
from PIL import Image

HEIGHT_PX, WIDTH_PX = 112, 168  # of all clips, so that a hundred looks at each take a minute
SECONDS, FPS = 5, 4
NEW, OWN = 1, 2

Lines = tuple[tuple[str, str, str], ...]  # question, answer in new words, in nano's own

REAL: dict[str, Lines] = {
    "sample_demo_3.mp4": (
        (
            "What happens in the video?",
            "A baby plays with toys on the carpet.",
            "A red circle appears at the left.",
        ),
        ("Where is the baby?", "In a living room with a fireplace.", "Below the triangle."),
        ("What hangs in the air?", "A blue balloon near the window.", "A blue circle."),
        (
            "What stands behind the toys?",
            "A flat television on a wooden cabinet.",
            "A green square and a cyan cross.",
        ),
    ),
    "sample_demo_9.mp4": (
        (
            "What happens in the video?",
            "A hand lays slices of pepper on baking paper.",
            "An orange star moves left.",
        ),
        ("Which vegetable is it?", "Bell pepper, red and yellow.", "Red and yellow."),
        (
            "What will the cook do next?",
            "Roast the peppers in a hot oven.",
            "The shapes disappear at 7 seconds.",
        ),
        ("How many pieces are yellow?", "Only one of them.", "One."),
    ),
    "output_v_3V9tzjyr51I.mp4": (
        (
            "What happens in the video?",
            "A man serves a ball on a tennis court.",
            "A blue shape moves up, then down.",
        ),
        ("What does he wear?", "A blue jacket and white shorts.", "A blue triangle."),
        (
            "What is the weather like?",
            "Cloudy, with the sun low behind the trees.",
            "Four plain squares.",
        ),
        ("Which sport is it?", "Tennis.", "Cross."),
    ),
    "waterview.jpg": (
        (
            "What does the picture show?",
            "A wooden jetty that reaches into a calm lake.",
            "A purple square above a star.",
        ),
        ("What is on the far shore?", "A dark forest of pine trees.", "Three green triangles."),
        ("Is anybody there?", "Nobody, the place is deserted.", "No, there is no circle."),
        ("Which season could it be?", "Late autumn, judging by the fog.", "Two shapes are seen."),
    ),
}

DRAWN: dict[str, Lines] = {
    "sunrise.mp4": (
        (
            "What happens in the video?",
            "The sun climbs over a grassy hill.",
            "A yellow circle moves up.",
        ),
        ("What time of day is it?", "Early morning, just after dawn.", "From 2 to 5 seconds."),
        ("What is in the sky?", "Not a single cloud.", "Nothing."),
        ("Where could it be?", "Somewhere in the countryside.", "Below the square."),
    ),
    "train.mp4": (
        (
            "What happens in the video?",
            "A freight train rolls past a warehouse.",
            "A red square moves right.",
        ),
        ("How many wagons does it pull?", "It pulls three wagons.", "Three."),
        ("What is behind the train?", "A brick building without windows.", "An orange square."),
        ("Is the driver visible?", "No, the locomotive is too far away.", "No, there is no star."),
    ),
    "waves.mp4": (
        (
            "What happens in the video?",
            "Waves break on a sandy beach.",
            "A cyan shape moves left, then right.",
        ),
        (
            "Would you swim there?",
            "Better not, the current looks strong.",
            "No, there is no circle.",
        ),
        ("What is the water like?", "Rough and dark turquoise.", "Cyan and blue."),
        ("Which season could it be?", "Probably winter.", "Two shapes are seen."),
    ),
    "flag.png": (
        (
            "What does the picture show?",
            "The flag of an unknown country.",
            "A purple square above a star.",
        ),
        ("Which colours has the flag?", "Maroon, ivory and navy.", "Red, yellow and blue."),
        ("How are the stripes arranged?", "They run from top to bottom.", "At the left."),
        ("What might it stand for?", "Courage, peace and the ocean.", "Four plain crosses."),
    ),
}


def write(folder: Path, answers: int, media: Path | None = None) -> Path:
    """The clips and mine.json about them, in LLaVA's format; answers: NEW or OWN.

    media: a folder with the real clips, which are made as small as the drawn ones
    """
    chosen = REAL if media else DRAWN
    rows = []
    for name, lines in chosen.items():
        if media:
            shrink(media / name, folder / name)
        else:
            draw(folder / name)
        kind = "image" if Path(name).suffix in (".png", ".jpg") else "video"
        for line in lines:
            asked = {"from": "human", "value": f"<{kind}>\n{line[0]}"}
            told = {"from": "gpt", "value": line[answers]}
            rows.append({kind: name, "conversations": [asked, told]})
    file = folder / "mine.json"
    file.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return file


def lines_of(media: Path | None = None) -> list[tuple[str, str, str, str]]:
    """(file, question, answer in new words, in nano's own) of all sixteen."""
    return [(name, *line) for name, lines in (REAL if media else DRAWN).items() for line in lines]


def shrink(source: Path, target: Path) -> None:
    """The clip or picture at the size of the drawn ones, a clip at a few frames per second."""
    if target.suffix == ".jpg":
        Image.open(source).resize((WIDTH_PX, HEIGHT_PX)).save(target)
        return
    pictures = []
    with av.open(str(source)) as file:
        for frame in file.decode(video=0):
            if frame.time * FPS >= len(pictures):
                small = frame.reformat(width=WIDTH_PX, height=HEIGHT_PX, format="rgb24")
                pictures.append(small.to_ndarray())
    write_clip(target, fps=FPS, pictures=pictures)


def draw(target: Path) -> None:
    """One of the drawn clips, by its name."""
    if target.suffix == ".png":
        Image.fromarray(_picture(target.stem, 0.0)).save(target)
        return
    times_s = np.arange(SECONDS * FPS) / FPS
    write_clip(target, fps=FPS, pictures=[_picture(target.stem, time_s) for time_s in times_s])


def _picture(name: str, time_s: float) -> np.ndarray:
    """The uint8 RGB picture of a drawn clip at a time."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    picture = np.empty((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    if name == "sunrise":
        picture[:] = (150, 190, 230)
        picture[(x - 84) ** 2 + (y - 100 + 14 * time_s) ** 2 < 400] = (250, 220, 90)
        picture[y > 84 - 14 * np.sin(x / 40)] = (70, 130, 60)
    elif name == "train":
        picture[:] = (190, 190, 185)
        picture[20:80, 30:140] = (150, 90, 70)
        for wagon in range(4):
            left = int(24 * time_s) - 60 + 34 * wagon
            picture[70:90, max(0, left) : max(0, left + 28)] = (60 + 50 * (wagon == 3), 40, 50)
        picture[92:96] = (40, 40, 40)
    elif name == "waves":
        picture[:] = (225, 205, 160)
        edge = 60 + 12 * np.sin(2 * time_s) + 5 * np.sin(x / 12 + 3 * time_s)
        picture[y < edge + 5] = (245, 250, 250)
        picture[y < edge] = (30, 110, 120)
    else:
        for stripe, colour in enumerate(((110, 20, 40), (250, 245, 225), (20, 30, 90))):
            picture[:, 56 * stripe : 56 * (stripe + 1)] = colour
    return picture
