"""The one error of reading video and pictures."""


class VideoError(ValueError):
    """A file, range or setting that cannot be read; str() is one sentence for the user.

    Sentences name the file, never its folder.
    """
