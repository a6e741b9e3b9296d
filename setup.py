"""Which folders of the repository a wheel holds, and under which names; the rest: pyproject.toml.

kernels/ and assets/ stand beside vl3/ here and inside it there, where vl3.bundled finds them.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["vl3*", "train_cli*"]),
        *(f"vl3.{package}" for package in find_packages(include=["kernels*"])),
        "vl3.assets",
    ],
    package_dir={"vl3.kernels": "kernels", "vl3.assets": "assets"},
)
