"""The browser page: run `python app.py` and open the address it prints.

All of it is in vl3/webapp: what stands where in layout.py, which handler listens to it in page.py,
what each does in handlers.py, how it is started in launch.py; how it looks is in assets/web.
"""

from vl3.__main__ import main

if __name__ == "__main__":
    main()
