"""The error of a wrong step."""


class Refused(ValueError):
    """A wrong step. title: what is the matter, in three words; str(): what to do about it."""

    def __init__(self, title: str, sentence: str) -> None:
        super().__init__(sentence)
        self.title = title
