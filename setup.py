"""The configs lie at the top of a checkout and travel in the wheel as fgjax.configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fgjax", "fgjax.*"]), "fgjax.configs"],
    package_dir={"fgjax.configs": "configs"},
)
