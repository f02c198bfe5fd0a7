"""The packages of the wheel. Everything else stands in pyproject.toml.

The folders lie side by side at the top of the repository, and on a user's machine they are `preceptor.judge` and so on
(docs/adr/0001-one-name.md). They are found here, so that a new folder cannot be forgotten.
"""

from setuptools import find_namespace_packages, setup

FOLDERS = ("constitution", "prompts", "judge", "train")

packages = [
    name
    for name in find_namespace_packages(include=["preceptor", "preceptor.*"])
    # preceptor/judge is a link to judge/, for tools that read the tree; the wheel takes the folder itself
    if not name.startswith(tuple(f"preceptor.{folder}" for folder in FOLDERS))
]
for folder in FOLDERS:
    packages += [f"preceptor.{name}" for name in find_namespace_packages(include=[folder, f"{folder}.*"])]

setup(
    packages=packages,
    package_dir={"preceptor": "preceptor"} | {f"preceptor.{folder}": folder for folder in FOLDERS},
)
