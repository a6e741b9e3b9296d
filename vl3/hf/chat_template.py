"""The prompt format of vl3.prompt as Jinja templates, for programs that want one.

They say nothing that vl3.prompt does not: what is tokenized here goes through vl3.prompt, so that a
user who types a special token writes letters.
"""

from __future__ import annotations

from vl3.prompt import IMAGE_TOKEN, SYSTEM_PROMPT

VIDEO_TOKEN = "<video>"  # stands for all frames of a video that was not read yet
NATIVE_IMAGE, NATIVE_VIDEO = "<|image_pad|>", "<|video_pad|>"

# One placeholder per frame, with its time, where the parts of a message say so.
_FRAMES = """
{%- for i in range(part['num_frames']) -%}
  {%- if part['timestamps'] is defined and part['timestamps'] is not none -%}
    {{- 'Time ' + part['timestamps'][i] | float | round(1) | string + 's:' -}}
  {%- endif -%}
  {{- 'IMAGE' + ('\\n' if loop.last else ',') -}}
{%- endfor -%}
"""
_VIDEO = "{{- 'VIDEO' -}}{{- '\\n' -}}"
_FRAMES_OR_VIDEO = f"""
{{%- if part['num_frames'] is defined -%}}{_FRAMES}
{{%- else -%}}{_VIDEO}
{{%- endif -%}}
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
          {{- 'Time ' + part['timestamp'] | float | round(1) | string + 's: ' -}}
        {%- endif -%}
        {{- 'IMAGE' -}}{{- '\\n' -}}
      {%- elif part['type'] == 'video' or (part['type'] is not defined and 'video' in part) -%}
        ON_VIDEO
      {%- elif part['text'] is defined and part['text'] is not none -%}{{- part['text'] -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- if add_system_prompt is not defined -%}{%- set add_system_prompt = DEFAULT -%}{%- endif -%}
{%- for turn in messages -%}
  {%- if loop.first and add_system_prompt and turn['role'] != 'system' -%}
    {{- '<|im_start|>system\\nSYSTEM<|im_end|>\\n' -}}
  {%- endif -%}
  {%- set kind = 'stream' if turn['role'] == 'stream' else 'im' -%}
  {{- '<|' + kind + '_start|>' + turn['role'] + '\\n' -}}
  {%- if turn['role'] == 'assistant' -%}
    BEGIN{{- said(turn['content']) + '<|im_end|>' -}}END
  {%- else -%}
    {{- said(turn['content']) + '<|' + kind + '_end|>' -}}
  {%- endif -%}
  {%- if kind == 'im' or turn['content'] is string -%}{{- '\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def chat_template(kind: str = "own", *, system_prompt: bool = False) -> str:
    """The template of a layout: own, official or native.

    system_prompt: whether chats start with it where the caller does not say add_system_prompt

    The official processor expands one placeholder per frame and knows the times; transformers'
    processor writes the times itself, so there a video is one placeholder. Ours takes both, and
    marks what an assistant says as generated, for training on answers alone.
    """
    on_video = {"own": _FRAMES_OR_VIDEO, "official": _FRAMES, "native": _VIDEO}[kind]
    image, video = (NATIVE_IMAGE, NATIVE_VIDEO) if kind == "native" else (IMAGE_TOKEN, VIDEO_TOKEN)
    marks = ("{%- generation -%}", "{%- endgeneration -%}") if kind == "own" else ("", "")
    text = _TEMPLATE.replace("ON_VIDEO", on_video).replace("SYSTEM", SYSTEM_PROMPT)
    text = text.replace("DEFAULT", str(system_prompt).lower())
    for word, value in zip(("IMAGE", "VIDEO", "BEGIN", "END"), (image, video, *marks)):
        text = text.replace(word, value)
    return "".join(line.strip() for line in text.splitlines())
