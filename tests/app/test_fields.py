"""Every field of numbers: a wrong value is a sentence where the field is, and nothing is stale."""

from __future__ import annotations

import math

import pytest
from steps import ask, expect, toast, type_and_send, upload
from test_controller import uploaded

from vl3.values import Grid, Plan
from vl3.webapp import form, text_format
from vl3.webapp.errors import UserError

pytest_plugins = ["page_fixtures"]

GOOD = {
    "start": "",
    "end": "",
    "fps": 1,
    "max_frames": 64,
    "budget_tokens": 8192,
    "temperature": 0,
    "top_p": 1,
    "max_new_tokens": 128,
    "repetition_penalty": 1,
    "seed": 0,
    "prune": True,
    "threshold": 0.1,
    "mode": "official",
    "keep": "earlier",
    "system": "",
    "sound": True,
}
LABELS = {
    "fps": "Frames per s",
    "max_frames": "Max frames",
    "budget_tokens": "Token budget",
    "temperature": "Temperature",
    "top_p": "Top-p",
    "max_new_tokens": "Max new tokens",
    "repetition_penalty": "Repetition penalty",
    "seed": "Seed",
    "threshold": "Threshold",
    "start": "From",
    "end": "To",
}
WHOLE = ("max_frames", "budget_tokens", "max_new_tokens", "seed")
NUMBERS = [name for name in LABELS if name not in ("start", "end")]


def test_the_fields_stand_in_the_order_in_which_they_are_read(controller):
    from vl3.webapp.page import Page

    page = Page(controller, True, lambda model, quantize: "")
    others = {
        "prune": "Remove repeated patches",
        "mode": "Compare with",
        "keep": "Of two alike",
        "system": "System prompt",
        "sound": "Sound",
    }
    shown = [field.label for field in (*page.reading, *page.answer)]
    assert shown == [{**LABELS, **others}[name] for name in form.FIELDS]
    assert list(GOOD) == list(form.FIELDS)


def values(**changes) -> list:
    return list({**GOOD, **changes}.values())


@pytest.mark.parametrize("typed", [False, True])
def test_a_tab_drawn_late_does_not_bring_back_what_the_fields_said_before(controller, clip, typed):
    from gradio import skip

    from vl3.webapp.page import Page

    page, visitor = Page(controller, True, lambda *_: ""), controller.visitors.get("one")
    uploaded(controller, visitor, clip)
    before = values()
    page.on_plan(visitor, {}, *before)
    drawing = page.on_tab(visitor, {"tab": "pruning"}, *before)
    next(drawing)
    if typed:
        page.on_plan(visitor, {}, *values(start="0:03", end="0:03"))
    budgets = [shown[-1] for shown in drawing]
    assert len(budgets) > 0
    assert [budget == skip() for budget in budgets] == [typed] * len(budgets)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("wrong", [-3, 1e10, math.nan, math.inf, "text", True, [1]])
def test_a_wrong_value_is_one_sentence_with_the_label(name, wrong):
    found = form.faults(values(**{name: wrong}), 16_384)
    assert list(found) == [name]
    assert found[name].startswith(f"{LABELS[name]} is a ")
    assert "got" in found[name]
    with pytest.raises(UserError, match=LABELS[name]):
        form.value(name, wrong)


@pytest.mark.parametrize("name", NUMBERS)
def test_an_empty_field_has_its_default_and_a_fraction_is_no_count(name):
    for empty in (None, ""):
        assert form.faults(values(**{name: empty}), 16_384) == {}
        form.split(values(**{name: empty}))
    assert (name in form.faults(values(**{name: 0.5}), 16_384)) == (name in WHOLE)


@pytest.mark.parametrize(
    ("name", "wrong"), [("start", "soon"), ("end", "-3"), ("start", "1:99"), ("end", "1e9")]
)
def test_a_wrong_time_is_one_sentence(name, wrong):
    found = form.faults(values(**{name: wrong}), 16_384)
    assert list(found.values()) == [
        f"{LABELS[name]} is not a time. Write minutes and seconds (0:12) or 12.5."
    ]
    (sentence,) = form.faults(values(start="0:05", end="0:02"), 16_384).values()
    assert "From 0:05 is not before To 0:02" in sentence


def test_an_answer_as_long_as_the_context_is_refused():
    assert form.faults(values(max_new_tokens=16_383), 16_384) == {}
    (sentence,) = form.faults(values(max_new_tokens=16_384), 16_384).values()
    assert "16384 tokens in all" in sentence


def plan(frames, rows, cols, **known) -> Plan:
    return Plan(
        source="a.mp4",
        times_s=tuple(map(float, range(frames))) if frames else None,
        height_px=rows * 14,
        width_px=cols * 14,
        grid=Grid(frames=frames or 1, rows=rows, cols=cols, merge=2),
        duration_s=float(frames),
        **known,
    )


def line(plan, **limits) -> tuple[str, str, str]:
    shown = text_format.budget(plan, text_format.Limits(**{"room": 7680, "least": 16, **limits}))
    return (
        shown.state,
        shown.text.replace("\u00a0", " "),
        " ".join(shown.notes).replace("\u00a0", " "),
    )


def test_a_budget_below_the_least_of_a_frame_says_so_and_what_fits():
    state, text, note = line(plan(180, 6, 12), budget=500)
    assert state == "above"
    assert text == "180 frames of 6 × 12 patches · 3 240 tokens · one frame every 1.0 s"
    assert note == (
        "Above the budget of 500, because a frame has at least 16 tokens (18 in this shape). "
        "27 frames would fit: lower Max frames to 27, or raise Token budget."
    )
    assert "Raise Token budget to 18." in line(plan(0, 6, 12), budget=10)[2]
    assert "of 500" in line(plan(27, 6, 12), budget=500)[1]


def test_a_budget_that_the_models_own_bound_makes_idle_is_said_to_be_idle():
    idle = "This model gives a frame about 16 tokens, whatever the budget."
    assert line(plan(10, 8, 8), budget=5000, most=16)[2] == idle
    assert line(plan(10, 8, 8), budget=5000)[2] == ""


def test_the_most_frames_that_are_named_do_fit():
    from vl3.vision import fit_grid

    for height, width in ((336, 336), (720, 1280), (1280, 720), (500, 2000)):
        for budget in (50, 300, 500, 3000):
            (grid,) = fit_grid([(180, height, width)], 2, min(budget, 16 * 180))
            if grid.num_tokens <= budget:
                continue
            most = budget // grid.tokens_per_frame
            (fits,) = fit_grid([(most, height, width)], 2, min(budget, 16 * most))
            assert fits.num_tokens <= budget
            (above,) = fit_grid([(most + 1, height, width)], 2, min(budget, 16 * (most + 1)))
            assert above.num_tokens > budget


def test_notes_of_the_plan_come_with_every_state():
    known = plan(10, 8, 8, notes=("Times are estimated at 25 fps.",))
    for limits in ({"room": 10}, {"budget": 50}, {"budget": 5000}):
        assert "estimated" in line(known, **limits)[2]


# In the browser.


@pytest.mark.slow
def test_wrong_settings_are_said_at_once_and_nothing_fails_behind_the_page(page, clip):
    failed = []
    page.on("response", lambda reply: reply.status >= 400 and failed.append(reply.url))
    upload(page, clip)
    page.locator(".sidebar .toggle-button").click()
    budget, faults = page.locator("#budget p").first, page.locator("#faults p")
    for name in ("temperature", "top_p", "seed", "max_new_tokens", "fps", "max_frames", "start"):
        field = page.locator("#reading, #settings").get_by_label(LABELS[name], exact=True).first
        before = field.input_value()
        field.fill("-3")
        expect(budget).to_contain_text(f"{LABELS[name]} is ")
        expect(faults).to_contain_text(f"{LABELS[name]} is ")
        expect(field).to_have_attribute("aria-invalid", "true")
        if name == "temperature":
            type_and_send(page, "What?")
            assert "Temperature is a number from 0 to 100 - got -3." in toast(page)
            expect(page.locator("#ask textarea")).to_have_value("What?")
        field.fill(before)
        expect(budget).to_contain_text("4 frames of")
        expect(faults).to_have_count(0)
        expect(field).not_to_have_attribute("aria-invalid", "true")
    ask(page, "What?")
    assert [url for url in failed if "upload_progress" not in url] == []


def test_notes_of_reading_are_shown_before_the_run_and_under_the_answer(page, clip, script):
    note = "32 of 200 frames could not be read."
    script.notes = (note,)
    upload(page, clip)
    expect(page.locator("#budget .remark")).to_have_text(note)
    assert note in ask(page, "What?")
    for kind in ("Markdown", "JSON"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind, exact=True).click()
        with open(download.value.path(), encoding="utf-8") as file:
            assert note in file.read()
