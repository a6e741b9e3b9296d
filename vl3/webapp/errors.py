"""The error for a wrong step of a user, and its text as a toast."""

import html


class UserError(ValueError):
    """A wrong step. title: what is the matter, in three words; str(): what to do about it."""

    def __init__(self, title: str, sentence: str) -> None:
        super().__init__(sentence)
        self.title = title


def toast(title: str, sentence: str) -> str:
    """The message of a toast: Gradio 6.31 shows each under the name of its kind, not its title."""
    return f"<strong>{html.escape(title)}</strong><br>{html.escape(sentence)}"
