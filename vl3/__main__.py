"""The browser page as a command: `vl3`, `python -m vl3`, and in a checkout `python app.py`."""

from vl3.webapp import cli
from vl3.weights import places


def main() -> None:
    """Serves the page that the command line asks for; --help and mistakes answer at once."""
    options, folder = cli.ready(check=places.check)
    from vl3.webapp.launch import serve  # takes seconds

    serve(options, folder)


if __name__ == "__main__":
    main()
