"""The prompt format of vl3.prompt as Jinja templates, for programs that want one.

They say nothing that vl3.prompt does not: what is tokenized here goes through vl3.prompt, so that a
user who types a special token writes letters.
"""

from __future__ import annotations

import re

from vl3.families.template import (
    AUDIO_TOKEN,
    CHATML,
    IMAGE_TOKEN,
    NATIVE_IMAGE,
    NATIVE_VIDEO,
    VIDEO_TOKEN,
    Template,
)

# One placeholder per frame, with its time, where the parts of a message say so.
_FRAMES = """
{%- for i in range(part['num_frames']) -%}
  {%- if part['timestamps'] is defined and part['timestamps'] is not none -%}
    {{- FRAME_STAMP -}}
  {%- endif -%}
  {{- 'IMAGE' + ('\\n' if loop.last else ',') -}}
{%- endfor -%}
"""
# The same with what is heard before the first frame and after each.
_HEARD = """
{%- set sounds = part['sounds'] if part['sounds'] is defined and part['sounds'] else none -%}
{%- if sounds and sounds[0] -%}{{- 'AUDIO' -}}{%- endif -%}
""" + _FRAMES.replace("'IMAGE' + (", "'IMAGE' + ('AUDIO' if sounds and sounds[i + 1] else '') + (")
_VIDEO = "{{- 'VIDEO' -}}{{- '\\n' -}}"
_FRAMES_OR_VIDEO = """
{%- if part['num_frames'] is defined -%}ON_FRAMES
{%- else -%}ON_FILE
{%- endif -%}
"""

_AUDIO = """
{%- elif part['type'] == 'audio' or (part['type'] is not defined and 'audio' in part) -%}
  {{- 'AUDIO' -}}{{- '\\n' -}}
"""

# A part is what its type says or, without one, what it holds; a text of None is none.
_TEMPLATE = """
{%- macro said(content) -%}
  {%- if content is string -%}{{- content -}}
  {%- elif content -%}
    {%- for part in content -%}
      {%- if part is string -%}{{- part -}}
      {%- elif part['type'] == 'image' or (part['type'] is not defined and 'image' in part) -%}
        {%- if part['timestamp'] is defined and part['timestamp'] is not none -%}
          {{- IMAGE_STAMP -}}
        {%- endif -%}
        {{- 'IMAGE' -}}{{- '\\n' -}}
      {%- elif part['type'] == 'video' or (part['type'] is not defined and 'video' in part) -%}
        ON_VIDEO
      ON_AUDIO
      {%- elif part['text'] is defined and part['text'] is not none -%}{{- part['text'] -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- if add_system_prompt is not defined -%}{%- set add_system_prompt = DEFAULT -%}{%- endif -%}
BEGIN
INSIDE
{%- for turn in messages -%}
  {%- if loop.first and add_system_prompt and turn['role'] != 'system' -%}
    ON_SYSTEM
  {%- endif -%}
  {%- if turn['role'] == 'stream' -%}
    {{- STREAM_START + said(turn['content']) + STREAM_END -}}
    {%- if turn['content'] is string -%}{{- '\\n' -}}{%- endif -%}
  {%- elif turn['role'] == 'assistant' -%}
    {{- ASSISTANT -}}ANSWER{{- said(turn['content']) + END -}}ANSWERED{{- AFTER -}}
  {%- else -%}
    ON_TURN
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ASSISTANT -}}{%- endif -%}
"""


_OWN_TURN = "{{- START + said(turn['content']) + END + AFTER -}}"
# What the system says stands in the user's words that follow.
_INSIDE = "{%- set inside = namespace(system='') -%}"
_SYSTEM_INSIDE = "{%- set inside.system = SYSTEM -%}"
_USER_TURN = """
{%- if turn['role'] == 'system' -%}
  {%- set inside.system = inside.system + SYSTEM_START + said(turn['content']) + SYSTEM_END -%}
{%- else -%}
  {{- USER_START + inside.system + said(turn['content']) + USER_END -}}
  {%- set inside.system = '' -%}
{%- endif -%}
"""


def chat_template(
    kind: str = "own",
    *,
    system_prompt: bool = False,
    template: Template = CHATML,
    sound: bool = False,
) -> str:
    """The Jinja template of a layout: own, official or native.

    system_prompt: whether chats start with it where the caller does not say add_system_prompt
    sound: whether the model hears; only ours has words for it

    The official processor expands one placeholder per frame and knows the times; transformers'
    processor writes the times itself, so there a video is one placeholder. Ours takes both, and
    marks what an assistant says as generated, for training on answers alone.
    """
    frames = _HEARD if sound else _FRAMES
    own = _FRAMES_OR_VIDEO.replace("ON_FRAMES", frames).replace("ON_FILE", _VIDEO)
    on_video = {"own": own, "official": _FRAMES, "native": _VIDEO}[kind]
    image, video = (NATIVE_IMAGE, NATIVE_VIDEO) if kind == "native" else (IMAGE_TOKEN, VIDEO_TOKEN)
    marks = ("{%- generation -%}", "{%- endgeneration -%}") if kind == "own" else ("", "")
    system_start, system_end = template.turn("system")
    stream_start, stream_end = template.turn("stream")
    if template.system:
        system_start, system_end = template.system.split("{}")
    user_start, user_end = template.turn("user")
    words = {
        "IMAGE_STAMP": _stamped(template.image_stamp, "part['timestamp']"),
        "FRAME_STAMP": _stamped(template.frame_stamp or "{}", "part['timestamps'][i]"),
        "IMAGE": image,
        "VIDEO": video,
        "AUDIO": AUDIO_TOKEN,
        "DEFAULT": str(system_prompt).lower(),
        "BEGIN": f"{{{{- {_quoted(template.begin)} -}}}}" if template.begin else "",
        "SYSTEM": _quoted(
            system_start
            + template.system_prompt
            + system_end
            + ("" if template.system else template.after_turn("system"))
        ),
        "SYSTEM_START": _quoted(system_start),
        "SYSTEM_END": _quoted(system_end),
        "USER_START": _quoted(user_start),
        "USER_END": _quoted(user_end),
        "STREAM_START": _quoted(stream_start),
        "STREAM_END": _quoted(stream_end),
        "ASSISTANT": _quoted(template.turn("assistant")[0]),
        "ANSWERED": marks[1],
        "ANSWER": marks[0],
        "START": _quoted(template.start).replace("{role}", "' + turn['role'] + '"),
        "END": _quoted(template.end),
        "AFTER": _quoted(template.after),
    }
    written = _arranged(template, on_video, sound)
    text = re.sub(
        r"\b(" + "|".join(words) + r")\b",
        lambda found: words[found[0]],
        written,
    )
    return "".join(line.strip() for line in text.splitlines())


def _arranged(template: Template, on_video: str, sound: bool) -> str:
    """The template with those of its parts that this format has."""
    written = _TEMPLATE.replace("ON_VIDEO", on_video if template.frame_stamp else _VIDEO)
    written = written.replace("INSIDE", _INSIDE if template.system else "")
    written = written.replace("ON_TURN", _USER_TURN if template.user else _OWN_TURN)
    written = written.replace("ON_SYSTEM", _SYSTEM_INSIDE if template.system else "{{- SYSTEM -}}")
    return written.replace("ON_AUDIO", _AUDIO if sound else "")


def _quoted(text: str) -> str:
    """The text as a string of Jinja, which reads the escapes of Python."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _stamped(stamp: str, seconds: str) -> str:
    before, after = map(_quoted, stamp.split("{}"))
    return f"{before} + {seconds} | float | round(1) | string + {after}"
