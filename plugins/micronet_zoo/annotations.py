"""Reads COCO's annotation files, and says what is wrong with one."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from micronet.errors import DataError, describe_error
from micronet.plain import structured

T = TypeVar("T")


@attrs.frozen
class _Category:
    id: int
    name: str


@attrs.frozen
class _Image:
    id: int
    file_name: str


@attrs.frozen
class _Annotation:
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, ...]
    iscrowd: int = 0


@attrs.frozen
class Object:
    """What is in an image.

    Args:
        id: Of its annotation.
        label: From 1.
        box: x1, y1, x2, y2 in pixels.
        crowd: Whether the box is around several that nobody told apart.
    """

    id: int
    label: int
    box: tuple[float, float, float, float]
    crowd: bool


@attrs.frozen
class Annotations:
    """A file's content.

    Args:
        file: Where it was read.
        categories: Their names, of label 1 first.
        images: The path that each image has in its folder, and its objects.
    """

    file: Path
    categories: tuple[str, ...]
    images: tuple[tuple[Path, tuple[Object, ...]], ...]

    @classmethod
    def read(cls, file: Path) -> Annotations:
        """Reads a file; boxes without an area are left out with a warning.

        Raises:
            DataError: The file is no JSON, something is missing or of another type, an annotation
                is of no image or category, or a box is none.
        """
        content = _read(file)
        categories = _categories(file, content)
        labels = {category.id: label for label, category in enumerate(categories, 1)}
        images = _unique(file, "images", _list(file, content, "images", _Image))
        objects: dict[int, list[Object]] = {image.id: [] for image in images}
        flat: list[_Annotation] = []
        for annotation in _list(file, content, "annotations", _Annotation):
            who = f"{file}: the annotation {annotation.id}"
            if annotation.image_id not in objects:
                raise DataError(f"{who} is of the image {annotation.image_id}, which is not there.")
            if annotation.category_id not in labels:
                raise DataError(
                    f"{who} is of the category {annotation.category_id}, which is not there."
                )
            if len(annotation.bbox) != 4 or not all(map(math.isfinite, annotation.bbox)):  # noqa: PLR2004
                raise DataError(
                    f"{who} must have a bbox of four finite numbers (x, y, width, height), got "
                    f"{list(annotation.bbox)}."
                )
            x, y, width, height = annotation.bbox
            if width < 0 or height < 0:
                raise DataError(f"{who} has a bbox of negative size, {list(annotation.bbox)}.")
            if not (width and height):
                flat.append(annotation)
                continue
            objects[annotation.image_id].append(
                Object(
                    annotation.id,
                    labels[annotation.category_id],
                    (x, y, x + width, y + height),
                    crowd=bool(annotation.iscrowd),
                )
            )
        if flat:
            warnings.warn(
                f"{file}: {len(flat)} boxes have no area and are left out, the first is that of "
                f"the annotation {flat[0].id}, {list(flat[0].bbox)}.",
                stacklevel=2,
            )
        return cls(
            file,
            tuple(category.name for category in categories),
            tuple((Path(image.file_name), tuple(objects[image.id])) for image in images),
        )

    def without_crowds(self) -> Annotations:
        images = tuple(
            (name, tuple(each for each in objects if not each.crowd))
            for name, objects in self.images
        )
        return attrs.evolve(self, images=images)

    def located(self, folder: Path) -> list[tuple[Path, tuple[Object, ...]]]:
        """Each image's file, and its objects.

        Raises:
            DataError: A file is not in the folder.
        """
        located = [(folder / name, objects) for name, objects in self.images]
        missing = [path for path, _ in located if not os.path.isfile(path)]  # noqa: PTH113 (of any name)
        if missing:
            others = f", nor are {len(missing) - 1} others" if len(missing) > 1 else ""
            raise DataError(f"The image {missing[0]} of {self.file} is not there{others}.")
        return located


def read_categories(file: Path) -> tuple[str, ...]:
    """The names of a file's categories, of label 1 first; raises DataError as `Annotations`."""
    return tuple(category.name for category in _categories(file, _read(file)))


def _categories(file: Path, content: dict[str, Any]) -> list[_Category]:
    categories = _unique(file, "categories", _list(file, content, "categories", _Category))
    return sorted(categories, key=lambda category: category.id)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is no readable JSON file: {describe_error(error)}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} must hold a mapping with images, annotations and categories.")
    return content


def _list(file: Path, content: dict[str, Any], name: str, kind: type[T]) -> list[T]:
    """The entries of a list in the file; what else COCO says of each is left alone."""
    if not isinstance(content.get(name), list):
        raise DataError(f"{file} lacks the list {name!r}.")
    fields = {field.name for field in attrs.fields(kind)}  # type: ignore[arg-type]
    known = [
        {key: value for key, value in entry.items() if key in fields}
        if isinstance(entry, dict)
        else entry
        for entry in content[name]
    ]
    try:
        return structured(known, list[kind])  # type: ignore[valid-type]
    except DataError as error:
        raise DataError(f"{file}: {name}{error}.") from error


def _unique(file: Path, name: str, entries: Sequence[T]) -> Sequence[T]:
    ids: set[int] = set()
    for entry in entries:
        number = entry.id  # type: ignore[attr-defined]
        if number in ids:
            raise DataError(f"{file}: two of the {name} have the id {number}.")
        ids.add(number)
    if not entries:
        raise DataError(f"{file} holds no {name}.")
    return entries
