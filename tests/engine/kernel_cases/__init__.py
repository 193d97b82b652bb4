"""Arguments for every pure operation, right and wrong."""

from kernel_cases.algebra import algebra
from kernel_cases.arguments import Case
from kernel_cases.creation import creation
from kernel_cases.elementwise import elementwise, operators
from kernel_cases.indexing import indexing
from kernel_cases.layout import layout
from kernel_cases.reductions import reductions

__all__ = ["Case", "all_cases"]


def all_cases() -> dict[str, list[Case]]:
    """The arguments of each operation."""
    cases: dict[str, list[Case]] = {}
    for family in (operators(), elementwise(), reductions(), layout(), indexing(), algebra(), creation()):
        for name, more in family.items():
            cases.setdefault(name, []).extend(more)
    return cases
