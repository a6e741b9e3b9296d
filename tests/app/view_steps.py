"""What a test does with the views on the one-file page, one function a step."""

from __future__ import annotations

from vl3.viz import export

HOSTILE = (
    "${Object.assign(window,{pwnd:7})}",
    "`+(window.p=1)+`",
    '<img src=x onerror="window.p=1">',
    "[x](javascript:window.p=1)",
    "{{constructor}}",
    "</script><script>window.p=1</script>",
)


def with_module(page) -> None:
    """mount, and what computes in the views, as window.look, for a test to call."""
    files = ("views/mount.js", "views/pruning_rule.js", "views/rope.js")
    every = ", ".join(f"...{export.constant(file)}" for file in files)
    script = f"{export.joined(*files)}\nwindow.look = {{ {every} }};"
    page.add_script_tag(type="module", content=script)
    while not page.evaluate("Boolean(window.look)"):  # waiting in the page is against its policy
        page.wait_for_timeout(20)


def texts_of(row) -> list[str]:
    """The cells of a row of a table that was just opened."""
    row.wait_for()
    return row.locator("td").all_inner_texts()


def drag(page, label: str, value: int) -> None:
    """Moves a slider as a hand does: input while moving, change when let go."""
    page.get_by_label(label, exact=True).first.evaluate(
        "(slider, value) => { slider.value = value;"
        "for (const type of ['input', 'change']) slider.dispatchEvent(new Event(type)); }",
        value,
    )


def pixel(page, x: float, y: float) -> list[int]:
    """Red, green, blue of the frame's canvas at shares of its width and height."""
    return page.locator("canvas.frame").evaluate(
        "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData("
        "Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data].slice(0, 3)",
        [x, y],
    )
