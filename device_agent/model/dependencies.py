"""The order of things that stand on each other."""

from collections.abc import Iterable, Mapping


def in_dependency_order(dependencies: Mapping[str, Iterable[str]]) -> list[str]:
    """Every name after those it depends on, as far as they do not depend on each other; unknown ones are left out.

    Without recursion: a target may chain as many services as fit into it.
    """
    order: dict[str, None] = {}
    for first in sorted(dependencies):
        way: dict[str, None] = {first: None}
        while way:
            name = next(reversed(way))
            before = (other for other in sorted(dependencies[name]) if other in dependencies)
            missing = next((other for other in before if other not in order and other not in way), None)
            if missing is None:
                order[name] = None
                del way[name]
            else:
                way[missing] = None
    return list(order)
