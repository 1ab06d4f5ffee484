"""One decorator for every frozen type: a keyword-only dataclass that is a JAX pytree."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax

T = TypeVar("T")


def static(**options):
    """A dataclass field that is part of the pytree's structure (hashable, compared by ``==``), not a leaf."""
    return dataclasses.field(metadata={"static": True}, **options)


def frozen(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen keyword-only dataclass and register it as a pytree; fields made with `static` are not leaves."""
    cls = dataclasses.dataclass(frozen=True, eq=False, kw_only=True)(cls)
    fields = dataclasses.fields(cls)
    jax.tree_util.register_dataclass(
        cls,
        data_fields=[f.name for f in fields if not f.metadata.get("static")],
        meta_fields=[f.name for f in fields if f.metadata.get("static")],
    )
    return cls


def replace(instance: T, **changes) -> T:
    """``dataclasses.replace`` under one name for every frozen type."""
    return dataclasses.replace(instance, **changes)
