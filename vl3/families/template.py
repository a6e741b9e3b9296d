"""How a family writes a conversation: one object, read by vl3.prompt and by the Jinja templates."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from vl3.arguments import did_you_mean, shown

SYSTEM_PROMPT = (
    "You are VideoLLaMA3 created by Alibaba DAMO Academy, "
    "a helpful assistant to help people understand images and videos."
)
IMAGE_TOKEN = "<image>"
AUDIO_TOKEN = "<audio>"
VIDEO_TOKEN = "<video>"  # stands for all frames of a video that was not read yet
NATIVE_IMAGE, NATIVE_VIDEO = "<|image_pad|>", "<|video_pad|>"
STREAM_TOKENS = ("<|stream_start|>", "<|stream_end|>")


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """The words around what is said. The default is that of VideoLLaMA 3, which is ChatML.

    special: the texts below that are tokens of their own, placed by id
    begin: before the first turn; start: before what a {role} says; end: a token after it, which
    ends an answer; after: what follows that token
    image_stamp, frame_stamp: before a picture and before a frame of a video, {} for the seconds;
    without a frame_stamp the frames of a video follow one another with nothing between them
    user: around what anybody but the assistant says, {} for it, where that is not start, end and
    after; start and after are then the assistant's, and may be empty
    system: around what the system says, {} for it, within the user's words that follow it; empty
    for a turn of its own
    A turn of the role stream stands between the two STREAM_TOKENS instead.
    Raises: ValueError in one sentence for a template that cannot be followed.
    """

    special: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
    begin: str = ""
    start: str = "<|im_start|>{role}\n"
    end: str = "<|im_end|>"
    after: str = "\n"
    image_stamp: str = "Time {}s: "
    frame_stamp: str = "Time {}s:"
    system_prompt: str = SYSTEM_PROMPT
    user: str = ""
    system: str = ""

    def __post_init__(self) -> None:
        special = self.special
        is_list = isinstance(special, tuple | list)
        if not is_list or not all(isinstance(token, str) and token for token in special):
            raise ValueError(f"special is a list of tokens of a template - got {shown(special)}")
        object.__setattr__(self, "special", tuple(special))
        for name in (field.name for field in fields(self)[1:]):
            if not isinstance(value := getattr(self, name), str):
                raise ValueError(f"{name} of a template is a text - got {shown(value)}")
        if not self.user:
            self._check_start()
        for name in ("image_stamp", "frame_stamp", "user", "system"):
            text = getattr(self, name)
            if text.count("{}") != 1 and (text or name == "image_stamp"):
                what = "the seconds" if name.endswith("stamp") else "what is said"
                raise ValueError(
                    f"{name} of a template has one {{}} for {what} - got {shown(text)}"
                )
        if self.end not in self.special:
            raise ValueError(
                f"end of a template is one of its special tokens ({', '.join(self.special)}) - got "
                f"{shown(self.end)}"
            )

    def _check_start(self) -> None:
        if "{role}" not in self.start:
            raise ValueError(f"start of a template names the {{role}} - got {shown(self.start)}")
        if not self.start.startswith(self.special):
            raise ValueError(
                f"start of a template begins with one of its special tokens "
                f"({', '.join(self.special)}) - got {shown(self.start)}"
            )

    def turn(self, role: str) -> tuple[str, str]:
        """What stands before and after what a role says, its end token included."""
        if role == "stream":
            opening, closing = STREAM_TOKENS
            return f"{opening}{role}\n", closing
        if self.user and role != "assistant":
            opening, closing = self.user.split("{}")
            return opening, closing
        return self.start.replace("{role}", role), self.end

    def after_turn(self, role: str) -> str:
        """What follows a turn."""
        return "" if role == "stream" or (self.user and role != "assistant") else self.after

    def pieces(self, text: str) -> list[str]:
        """The text cut so that its special tokens stand alone; nothing empty."""
        tokens = (*self.special, *STREAM_TOKENS)
        found = re.split("(" + "|".join(map(re.escape, tokens)) + ")", text)
        return [piece for piece in found if piece]


CHATML = Template()


def read_template(raw: object) -> Template:
    """The template that a JSON object spells out; the usual one for None.

    Raises: ValueError in one sentence.
    """
    if raw is None:
        return CHATML
    if not isinstance(raw, dict):
        raise ValueError(f"template is an object of texts - got {shown(raw)}")
    known = [field.name for field in fields(Template)]
    for name in raw:
        if name not in known:
            raise ValueError(f"a template has no {name}{did_you_mean(name, known)}")
    return Template(**raw)
