"""Questions about what is heard, and about what is heard and seen together.

Each family is one function (scene, rng) -> (question, answer), or None where the scene does not
settle the question. A clip without sound is a silent one. Which answers can be had without hearing,
or without seeing, vl3.toyworld.chance says.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from vl3.toyworld.events import Pair
from vl3.toyworld.phrases import NUMBERS, article, pick, refer, seconds, sentence
from vl3.toyworld.sounds import (
    KINDS,
    VOICE,
    Heard,
    Track,
    event_seconds,
    makers,
    on_and_off,
    only,
)
from vl3.toyworld.world import Scene

Ways = tuple[str, ...]

SILENCE = Track((), None, 0)
PLURALS = {kind: f"{kind}es" if kind in ("buzz", "hiss") else f"{kind}s" for kind in KINDS} | {
    VOICE: "voices"
}
NO_SHAPE, NO_SOUND, HUM = "No shape.", "No sound.", "Only a hum."
# How often a question is asked where one answer would else be much more frequent than the others:
ASKED_OF_SOUNDS = 0.35  # whether there is any, where there are some
ASKED_OF_NOTHING = 0.5  # which shape, where none is the answer
HEARD_SHARE = 0.57  # of questions for a kind, a fourth of the clips having no sounds


def track_of(scene: Scene) -> Track | None:
    """What is heard; nothing in a clip without sound, None of a picture."""
    if scene.kind == "image":
        return None
    return scene.track or SILENCE


def refer_sound(track: Track, heard: Heard, rng: random.Random, ways: Ways) -> str | None:
    """A phrase that means this sound and no other one of the track; None where there is none.

    ways: in which it may tell the sound from others; those that give an answer away are left out
    """
    phrases = []
    if "kind" in ways and only(track, kind=heard.kind):
        phrases += [f"the {heard.kind}"] * 2
    if "pitch" in ways and heard.pitch and only(track, kind=heard.kind, pitch=heard.pitch):
        phrases.append(f"the {heard.pitch} {heard.kind}")
    if "place" in ways and len(track.sounds) == 1:
        phrases.append("the sound")
    elif "place" in ways:
        ends = {"first": track.sounds[0], "last": track.sounds[-1]}
        phrases += [f"the {word} sound" for word, sound in ends.items() if sound is heard]
    if "second" in ways:
        phrases.append(f"the sound at {seconds(heard.second)}")
    return rng.choice(phrases) if phrases else None


def _pick_referred(
    heards: list[Heard], track: Track, rng: random.Random, ways: Ways
) -> tuple[Heard, str] | None:
    """One of the sounds, and a phrase for it."""
    for heard in rng.sample(heards, len(heards)):
        if (phrase := refer_sound(track, heard, rng, ways)) is not None:
            return heard, phrase
    return None


def _sound(scene: Scene, rng: random.Random) -> Pair:
    """Of which kind a sound is."""
    track = track_of(scene)
    if track is None or not track.sounds:
        return None
    heard = rng.choice(track.sounds)
    what = refer_sound(track, heard, rng, ("place", "second"))
    wordings = [f"What is {what}?", f"Of what kind is {what}?", f"Which kind is {what}?"]
    if len(track.sounds) == 1:
        wordings = ["Which sound do you hear?", "Which sound is it?", "What sound is there?"]
    if heard.kind != VOICE:
        wordings.append(f"What is {what}, a beep, a buzz, a chirp, a bell, a hiss or a click?")
    return rng.choice(wordings), sentence(article(heard.kind))


def _sounds(scene: Scene, rng: random.Random) -> Pair:
    """How many sounds there are, of one kind or of all."""
    track = track_of(scene)
    if track is None:
        return None
    noun, count = "sounds", len(track.sounds)
    if rng.random() < 0.3:
        present = [heard.kind for heard in track.sounds]
        kind = rng.choice(present) if present and rng.random() < 0.7 else rng.choice(KINDS)
        noun, count = PLURALS[kind], present.count(kind)
    if count >= len(NUMBERS):
        return None
    wordings = (
        f"How many {noun} are there?",
        f"How many {noun} do you hear?",
        f"How many {noun} can you hear?",
        f"How many {noun} are in the {{clip}}?",
        f"Count the {noun}.",
    )
    return rng.choice(wordings), f"{NUMBERS[count]}."


def _heard_when(scene: Scene, rng: random.Random) -> Pair:
    track = track_of(scene)
    if track is None:
        return None
    found = _pick_referred(list(track.sounds), track, rng, ("kind", "pitch", "place"))
    if found is None:
        return None
    heard, what = found
    wordings = (
        f"When do you hear {what}?",
        f"When is {what} heard?",
        f"At what time do you hear {what}?",
        f"When does {what} come?",
    )
    return rng.choice(wordings), f"At {seconds(heard.second)}."


def _loudness(scene: Scene, rng: random.Random) -> Pair:
    return _either(scene, rng, "loudness", "loud", "soft", ("kind", "pitch", "place", "second"))


def _pitch(scene: Scene, rng: random.Random) -> Pair:
    return _either(scene, rng, "pitch", "high", "low", ("kind", "place", "second"))


def _either(scene: Scene, rng: random.Random, key: str, one: str, other: str, ways: Ways) -> Pair:
    """Which of two a sound is."""
    track = track_of(scene)
    if track is None:
        return None
    found = _pick_referred([s for s in track.sounds if getattr(s, key)], track, rng, ways)
    if found is None:
        return None
    heard, what = found
    is_so, kind = getattr(heard, key), rng.random()
    if kind < 0.3:
        said = rng.choice((one, other))
        return f"Is {what} {said}?", "Yes." if said == is_so else "No."
    first, second = rng.sample((one, other), 2)
    wordings = (f"Is {what} {first} or {second}?", f"How is {what}, {first} or {second}?")
    return rng.choice(wordings), f"{is_so.capitalize()}."


def _sound_order(scene: Scene, rng: random.Random) -> Pair:
    """Which of two sounds comes first, or second."""
    track = track_of(scene)
    if track is None:
        return None
    named = [
        (heard, phrase)
        for heard in track.sounds
        if (phrase := refer_sound(track, heard, rng, ("kind", "pitch"))) is not None
    ]
    if len(named) < 2:
        return None
    earlier, later = sorted(rng.sample(named, 2), key=lambda pair: pair[0].start_s)
    late = rng.random() < 0.4
    word, answer = ("second", later[1]) if late else ("first", earlier[1])
    one, other = rng.sample((earlier[1], later[1]), 2)
    wordings = (
        f"Which comes {word}, {one} or {other}?",
        f"Which do you hear {word}, {one} or {other}?",
        f"What is heard {word}, {one} or {other}?",
        f"Which sound comes {word}: {one} or {other}?",
    )
    return rng.choice(wordings), sentence(answer)


def _source(scene: Scene, rng: random.Random) -> Pair:
    """Which sprite makes a sound, or which sound a sprite makes."""
    track = scene.track
    if track is None or not track.sounds or not event_seconds(scene):
        return None
    if rng.random() < 0.35:
        return _made(scene, track, rng)
    found = _pick_referred(list(track.sounds), track, rng, ("kind", "pitch", "place"))
    if found is None:
        return None
    heard, what = found
    sprite = makers(scene)[track.sounds.index(heard)]
    if sprite is None and rng.random() >= ASKED_OF_NOTHING:
        return None
    wordings = (
        f"Which shape makes {what}?",
        f"What makes {what}?",
        f"Where does {what} come from?",
        f"Which object makes {what}?",
    )
    return rng.choice(wordings), NO_SHAPE if sprite is None else f"The {sprite.name}."


def _made(scene: Scene, track: Track, rng: random.Random) -> Pair:
    pairs = list(zip(makers(scene), track.sounds, strict=True))
    sounding = [sprite for sprite, _ in pairs if sprite is not None]
    sprite = rng.choice(sounding) if sounding and rng.random() < 0.7 else pick(scene, rng)
    if sprite is None:
        return None
    made = [heard.kind for maker, heard in pairs if maker is sprite]
    if len(made) > 1:
        return None
    who = refer(scene, sprite, rng)
    wordings = (f"Which sound does {who} make?", f"What sound does {who} make?")
    return rng.choice(wordings), sentence(article(made[0])) if made else NO_SOUND


def matches(scene: Scene) -> bool | None:
    """Whether every sound comes with an event of a sprite; None where some do, or no other could.

    Where none does, its sounds are those of the clip at least a second earlier or later, or other
    ones.
    """
    on, off = on_and_off(scene)
    if scene.track is None or not scene.track.sounds or not on or not any(off):
        return None
    with_event = [sprite is not None for sprite in makers(scene)]
    return with_event[0] if len(set(with_event)) == 1 else None


def _match(scene: Scene, rng: random.Random) -> Pair:
    does = matches(scene)
    if does is None:
        return None
    wordings = (
        "Does the sound match the {clip}?",
        "Does the sound match what you see?",
        "Does the sound match the picture?",
        "Do the sound and the picture match?",
        "Is the sound right for the {clip}?",
    )
    return rng.choice(wordings), "Yes." if does else "No."


def _hear(scene: Scene, rng: random.Random) -> Pair:
    """Whether there is a sound of a kind."""
    track = track_of(scene)
    if track is None:
        return None
    heard = {sound.kind for sound in track.sounds}
    yes = rng.random() < HEARD_SHARE
    pool = [kind for kind in (*KINDS, VOICE) if (kind in heard) == yes]
    if not yes and VOICE in pool and rng.random() < 0.7:
        pool.remove(VOICE)
    if not pool:
        return None
    thing = article(rng.choice(pool))
    wordings = (
        f"Do you hear {thing}?",
        f"Can you hear {thing}?",
        f"Is there {thing}?",
        f"Is there {thing} in the sound?",
    )
    return rng.choice(wordings), "Yes." if yes else "No."


def _any_sound(scene: Scene, rng: random.Random) -> Pair:
    track = track_of(scene)
    if track is None or (track.sounds and rng.random() >= ASKED_OF_SOUNDS):
        return None
    wordings = (
        "Is there any sound?",
        "Is there a sound in the {clip}?",
        "Do you hear anything?",
        "Can you hear something?",
        "Does the {clip} have sound?",
    )
    hum = HUM if track.hum_db is not None else "No."
    return rng.choice(wordings), "Yes." if track.sounds else hum


HEARING_WORDINGS = (
    "What do you hear?",
    "What can you hear?",
    "What do you hear in the {clip}?",
    "Describe the sound.",
    "Describe the sounds.",
)


def _hearing(scene: Scene, rng: random.Random) -> Pair:
    track = track_of(scene)
    return None if track is None else (rng.choice(HEARING_WORDINGS), transcript(track))


def transcript(track: Track) -> str:
    """The only description of a track: its sounds in their order, each with its second."""
    if track.sounds:
        return " ".join(f"{_told(s)} at {seconds(s.second)}." for s in track.sounds)
    return "Nothing." if track.hum_db is None else HUM


def _told(heard: Heard) -> str:
    if heard.digit is not None:
        return f"A voice says {heard.digit}"
    return f"A {heard.pitch} {heard.kind}" if heard.pitch else f"A {heard.kind}"


def _spoken(scene: Scene, rng: random.Random) -> Pair:
    """Which digits are said: the only one, the one at a time, or all of them."""
    track = track_of(scene)
    said = [] if track is None else [heard for heard in track.sounds if heard.kind == VOICE]
    if not said:
        return None
    kind = rng.random()
    if len(said) > 1 and kind < 0.5:
        wordings: tuple[str, ...] = (
            "Which digits do you hear?",
            "Which digits are said?",
            "Which digits does the voice say?",
        )
        return rng.choice(wordings), f"{', '.join(str(heard.digit) for heard in said)}."
    heard = rng.choice(said)
    when_s = f" at {seconds(heard.second)}" if len(said) > 1 or kind > 0.8 else ""
    wordings = (
        f"Which digit do you hear{when_s}?",
        f"Which digit is said{when_s}?",
        f"What does the voice say{when_s}?",
        f"Which number does the voice say{when_s}?",
    )
    return rng.choice(wordings), f"{heard.digit}."


def _flash(scene: Scene, rng: random.Random) -> Pair:
    """Which sprite flashes, and when: what is seen of an event that only clips with sound have."""
    if scene.track is None or not scene.sprites:
        return None
    flashing = [sprite for sprite in scene.sprites if sprite.flash_s is not None]
    if flashing and rng.random() < 0.5:
        sprite = rng.choice(flashing)
        who = refer(scene, sprite, rng)
        asked = rng.choice((f"When does {who} flash?", f"At what time does {who} flash?"))
        return asked, f"At {seconds(sprite.flash_s or 0)}."
    if len(flashing) > 1 or (not flashing and rng.random() >= ASKED_OF_NOTHING):
        return None
    wordings = ("Which shape flashes?", "What flashes?", "Which object flashes?")
    return rng.choice(wordings), f"The {flashing[0].name}." if flashing else NO_SHAPE


# Answered from the sound alone ...
HEARD_FAMILIES: dict[str, Callable[[Scene, random.Random], Pair]] = {
    "sound": _sound,
    "sounds": _sounds,
    "heard_when": _heard_when,
    "loudness": _loudness,
    "pitch": _pitch,
    "sound_order": _sound_order,
    "hear": _hear,
    "any_sound": _any_sound,
    "hearing": _hearing,
    "spoken": _spoken,
}
SILENT_FAMILIES = ("sounds", "hear", "any_sound", "hearing")  # those of a clip without sound
# ... and from sound and picture together, but for flash, which is seen.
SEEN_FAMILIES: dict[str, Callable[[Scene, random.Random], Pair]] = {
    "source": _source,
    "match": _match,
    "flash": _flash,
}
SOUND_FAMILIES = HEARD_FAMILIES | SEEN_FAMILIES
